"""The whole ``Registry`` port, once, over whichever driver runs the transactions.

Owns: the match between the port's methods and the scripts.
Does not own: the scripts (``transactions_*``), nor how they are run (``sqlite_driver``, ``postgres_driver``).
The guarantees of every method stand in ``ports.Registry``.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from tornado_backups.domain.model import Alert, Beginning, HealthState, Intent, Lease, Removal, Session, Usage, Version
from tornado_backups.registry import transactions_health as health
from tornado_backups.registry import transactions_sessions as accounts
from tornado_backups.registry import transactions_uploads as uploads
from tornado_backups.registry import transactions_versions as stored
from tornado_backups.registry.script import Driver


class ScriptedRegistry:
    """A ``Registry`` on ``driver``; ``owner`` names this process in leases and is never used by another one."""

    def __init__(self, driver: Driver, owner: str) -> None:
        self._driver = driver
        self._owner = owner

    async def open(self) -> None:
        """See ``Registry``; may be called again after it failed."""
        await self._driver.open()

    async def close(self) -> None:
        """See ``Registry``."""
        await self._driver.close()

    async def ping(self) -> None:
        """See ``Registry``."""
        await self._driver.run(health.ping())

    # -- leases ------------------------------------------------------------------------------------------------------

    async def acquire_lease(self, name: str, ttl_seconds: float) -> Lease | None:
        """See ``Registry``."""
        return await self._driver.run(uploads.acquire_lease(name, self._owner, ttl_seconds))

    async def renew_lease(self, lease: Lease, ttl_seconds: float) -> bool:
        """See ``Registry``; a lease whose time is over is renewed as long as nobody took it."""
        return await self._driver.run(uploads.renew_lease(lease, ttl_seconds))

    async def release_lease(self, lease: Lease) -> None:
        """See ``Registry``."""
        await self._driver.run(uploads.release_lease(lease))

    # -- an upload ---------------------------------------------------------------------------------------------------

    async def begin_upload(self, collection: str, lease_name: str, ttl_seconds: float) -> Beginning | None:
        """See ``Registry``."""
        return await self._driver.run(uploads.begin_upload(collection, lease_name, self._owner, ttl_seconds))

    async def next_number(self, collection: str) -> int:
        """See ``Registry``."""
        return await self._driver.run(uploads.next_number(collection))

    async def add_intent(self, intent: Intent) -> None:
        """See ``Registry``."""
        await self._driver.run(uploads.add_intent(intent))

    async def commit_upload(
        self, intent: Intent, version: Version, removals: Sequence[Removal], end_session_id: str | None = None
    ) -> None:
        """See ``Registry``; removals are marked with the version's ``created_at``."""
        await self._driver.run(uploads.commit_upload(intent, version, removals, end_session_id))

    async def drop_intent(self, intent: Intent) -> None:
        """See ``Registry``."""
        await self._driver.run(uploads.drop_intent(intent))

    async def abandoned_intents(self, limit: int) -> list[Intent]:
        """See ``Registry``; oldest first."""
        return await self._driver.run(uploads.abandoned_intents(limit))

    # -- versions ----------------------------------------------------------------------------------------------------

    async def versions(self, collection: str) -> list[Version]:
        """See ``Registry``."""
        return await self._driver.run(stored.versions(collection))

    async def version(self, collection: str, number: int) -> Version | None:
        """See ``Registry``."""
        return await self._driver.run(stored.version(collection, number))

    async def latest_version(self, collection: str) -> Version | None:
        """See ``Registry``."""
        return await self._driver.run(stored.latest_version(collection))

    async def expire_version(self, version: Version, reason: str, now: datetime) -> bool:
        """See ``Registry``."""
        return await self._driver.run(stored.expire_version(version, reason, now))

    async def expire_versions(self, collection: str, removals: Sequence[Removal], lease: Lease, now: datetime) -> None:
        """See ``Registry``."""
        await self._driver.run(stored.expire_versions(collection, removals, lease, now))

    async def expired_versions(self, limit: int) -> list[tuple[Version, str]]:
        """See ``Registry``."""
        return await self._driver.run(stored.expired_versions(limit))

    async def forget_versions(self, version_ids: Sequence[str]) -> None:
        """See ``Registry``."""
        await self._driver.run(stored.forget_versions(version_ids))

    async def usages(self) -> dict[str, Usage]:
        """See ``Registry``."""
        return await self._driver.run(stored.usages())

    async def recent_sizes(self, limit: int) -> dict[str, list[int]]:
        """See ``Registry``."""
        return await self._driver.run(stored.recent_sizes(limit))

    async def largest_sizes(self) -> dict[str, int]:
        """See ``Registry``."""
        return await self._driver.run(stored.largest_sizes())

    async def damaged_versions(self) -> dict[str, list[Version]]:
        """See ``Registry``."""
        return await self._driver.run(stored.damaged_versions())

    async def known_keys(self, keys: Sequence[str]) -> set[str]:
        """See ``Registry``."""
        return await self._driver.run(stored.known_keys(keys))

    async def next_to_check(self, checked_before: datetime, limit: int) -> list[Version]:
        """See ``Registry``."""
        return await self._driver.run(stored.next_to_check(checked_before, limit))

    async def record_check(self, version_id: str, now: datetime, sha256: str, damage: str) -> None:
        """See ``Registry``."""
        await self._driver.run(stored.record_check(version_id, now, sha256, damage))

    async def adopt_version(self, version: Version, lease: Lease) -> None:
        """See ``Registry``; repeating it with the same id, key and number succeeds and changes nothing."""
        await self._driver.run(uploads.adopt_version(version, lease))

    async def raise_counter(self, collection: str, number: int) -> None:
        """See ``Registry``."""
        await self._driver.run(uploads.raise_counter(collection, number))

    # -- sessions ----------------------------------------------------------------------------------------------------

    async def add_session(self, session: Session) -> None:
        """See ``Registry``."""
        await self._driver.run(accounts.add_session(session))

    async def session(self, session_id: str) -> Session | None:
        """See ``Registry``."""
        return await self._driver.run(accounts.session(session_id))

    async def sessions(self, user: str, limit: int) -> list[Session]:
        """See ``Registry``."""
        return await self._driver.run(accounts.sessions(user, limit))

    async def revoke_session(self, session_id: str, now: datetime) -> bool:
        """See ``Registry``."""
        return await self._driver.run(accounts.revoke_session(session_id, now))

    async def purge_sessions(self, expired_before: datetime) -> int:
        """See ``Registry``."""
        return await self._driver.run(accounts.purge_sessions(expired_before))

    # -- health and alerts -------------------------------------------------------------------------------------------

    async def health_states(self) -> dict[str, HealthState]:
        """See ``Registry``."""
        return await self._driver.run(health.health_states())

    async def record_health(self, states: Sequence[HealthState], alert_bodies: Sequence[str], now: datetime) -> None:
        """See ``Registry``; repeated after a lost answer it may queue the same alert twice, never lose one."""
        await self._driver.run(health.record_health(states, alert_bodies, now))

    async def due_alerts(self, now: datetime, limit: int) -> list[Alert]:
        """See ``Registry``."""
        return await self._driver.run(health.due_alerts(now, limit))

    async def postpone_alert(self, alert_id: int, next_attempt_at: datetime) -> None:
        """See ``Registry``."""
        await self._driver.run(health.postpone_alert(alert_id, next_attempt_at))

    async def forget_alert(self, alert_id: int) -> None:
        """See ``Registry``."""
        await self._driver.run(health.forget_alert(alert_id))
