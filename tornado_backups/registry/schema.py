"""The tables, as numbered migrations that both databases run.

Owns: every table and index, the order in which they came, and the refusal of a database that a newer program wrote.
Does not own: what is read and written (``transactions_*``), or the spelling (``dialect``).
Explained in docs/database.md. A migration that was released is never changed: append a new one.
"""

from __future__ import annotations

from tornado_backups.domain.errors import StartupError
from tornado_backups.registry.script import Script, Statement, writes

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE collections (
            name {text} PRIMARY KEY,
            last_number BIGINT NOT NULL
        ) {clustered}""",
        """CREATE TABLE versions (
            collection {text} NOT NULL,
            number BIGINT NOT NULL CHECK (number > 0),
            id {text} NOT NULL UNIQUE,
            filename {text} NOT NULL,
            object_key {text} NOT NULL UNIQUE,
            size_bytes BIGINT NOT NULL CHECK (size_bytes >= 0),
            sha256 {text} NOT NULL,
            session_id {text} NOT NULL,
            uploader {text} NOT NULL,
            created_at BIGINT NOT NULL,
            updated_at BIGINT NOT NULL,
            checked_at BIGINT NOT NULL,
            damage {text} NOT NULL,
            expired_at BIGINT,
            expired_reason {text} NOT NULL DEFAULT '',
            PRIMARY KEY (collection, number)
        ) {clustered}""",
        # expired_at is always null in it, but only so can SQLite answer sums from the index alone
        """CREATE INDEX versions_live ON versions (collection, number, size_bytes, expired_at)
            WHERE expired_at IS NULL""",
        """CREATE INDEX versions_to_check ON versions (checked_at, collection, number) WHERE expired_at IS NULL""",
        """CREATE INDEX versions_expired ON versions (expired_at) WHERE expired_at IS NOT NULL""",
        """CREATE INDEX versions_damaged ON versions (collection, number) WHERE damage <> ''""",
        """CREATE TABLE leases (
            name {text} PRIMARY KEY,
            owner {text} NOT NULL,
            fencing BIGINT NOT NULL,
            expires_at BIGINT NOT NULL,
            ttl_us BIGINT NOT NULL
        ) {clustered}""",
        """CREATE TABLE intents (
            id {text} PRIMARY KEY,
            collection {text} NOT NULL,
            number BIGINT NOT NULL,
            filename {text} NOT NULL,
            object_key {text} NOT NULL,
            lease_name {text} NOT NULL,
            lease_owner {text} NOT NULL,
            lease_fencing BIGINT NOT NULL,
            created_at BIGINT NOT NULL,
            abandoned SMALLINT NOT NULL DEFAULT 0
        ) {clustered}""",
        """CREATE INDEX intents_by_key ON intents (object_key)""",
        """CREATE TABLE sessions (
            id {text} PRIMARY KEY,
            user_name {text} NOT NULL,
            access_key_name {text} NOT NULL,
            description {text} NOT NULL,
            requester_ip {text} NOT NULL,
            created_at BIGINT NOT NULL,
            updated_at BIGINT NOT NULL,
            expires_at BIGINT NOT NULL,
            deactivated SMALLINT NOT NULL,
            restrict_by_ip {text} NOT NULL,
            single_use SMALLINT NOT NULL,
            narrowed_lifetime SMALLINT NOT NULL
        ) {clustered}""",
        """CREATE INDEX sessions_by_user ON sessions (user_name, created_at)""",
        """CREATE INDEX sessions_by_expiry ON sessions (expires_at)""",
        """CREATE TABLE health_states (
            collection {text} PRIMARY KEY,
            healthy SMALLINT NOT NULL,
            since BIGINT NOT NULL,
            failed {text} NOT NULL
        ) {clustered}""",
        """CREATE TABLE alerts (
            id {serial},
            body {text} NOT NULL,
            attempts BIGINT NOT NULL DEFAULT 0,
            next_attempt_at BIGINT NOT NULL
        )""",
    ),
)


@writes
def migrate(database: str) -> Script[int]:
    """Bring the schema up to date and return its number; servers that start at once wait for each other here.

    ``database`` is how messages name it. Raises ``StartupError`` when a newer program has been there.
    """
    yield Statement("{migration_lock}")
    yield Statement(
        "CREATE TABLE IF NOT EXISTS schema_migrations (number BIGINT PRIMARY KEY, applied_at BIGINT NOT NULL)"
    )
    done: int = (yield Statement("SELECT COALESCE(MAX(number), 0) FROM schema_migrations")).rows[0][0]
    if done > len(MIGRATIONS):
        raise StartupError(
            f"{database} was written by a newer version of this program (schema {done}, this one knows up to "
            f"{len(MIGRATIONS)}); install that version or a later one"
        )
    for number, statements in enumerate(MIGRATIONS[done:], done + 1):
        for sql in statements:
            yield Statement(sql)
        yield Statement("INSERT INTO schema_migrations (number, applied_at) VALUES (?, {now})", (number,))
    return len(MIGRATIONS)
