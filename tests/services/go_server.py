"""A Go server's database, as its GORM models make it, with rows as it writes them."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

from tests.servers.postgres import PostgresServer

DAY = datetime(2022, 3, 1, 2, 30, tzinfo=UTC)

SCHEMA = """
CREATE TABLE uploaded_versions (
    id text PRIMARY KEY,
    collection_id text,
    version_number bigint,
    filename text,
    filesize bigint,
    uploaded_by_session_id text,
    uploader text,
    created_at timestamptz,
    updated_at timestamptz,
    deleted_at timestamptz
);
CREATE INDEX idx_uploaded_versions_deleted_at ON uploaded_versions (deleted_at);
CREATE TABLE granted_accesses (
    created_at timestamptz,
    updated_at timestamptz,
    deleted_at timestamptz,
    id text PRIMARY KEY,
    expires_at timestamptz,
    deactivated boolean,
    description text,
    requester_ip text,
    "user" text,
    access_key_name text
);
CREATE INDEX idx_granted_accesses_deleted_at ON granted_accesses (deleted_at);
"""


class GoDatabaseMaker:
    """An empty database of the Go server, and what is put into it."""

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        self.url = server.create_database()
        self.execute(SCHEMA)

    def execute(self, sql: str) -> list[tuple[object, ...]]:
        return self.server.execute(self.url.rpartition("/")[2], sql)

    def version(
        self, collection: str, number: int, size: int, filename: str = "", days: int = 0, deleted: bool = False
    ) -> str:
        """Add a version's row; return its id."""
        id_ = str(uuid.uuid4())
        made = (DAY + timedelta(days=days)).isoformat()
        filename = filename or f"{collection}-v{number}.tar.gpg"
        gone = f"'{made}'" if deleted else "NULL"
        self.execute(
            f"INSERT INTO uploaded_versions VALUES ('{id_}', '{collection}', {number}, '{filename}', {size},"
            f" '{'5' * 64}', 'alice', '{made}', '{made}', {gone})"
        )
        return id_

    def session(self, id_: str, expires: datetime, deactivated: bool = False, deleted: bool = False) -> None:
        """Add a session's row."""
        gone = f"'{DAY.isoformat()}'" if deleted else "NULL"
        self.execute(
            f"INSERT INTO granted_accesses VALUES ('{DAY.isoformat()}', '{DAY.isoformat()}', {gone}, '{id_}',"
            f" '{expires.isoformat()}', {deactivated}, 'Login', '10.0.0.1', 'alice', 'ci')"
        )
