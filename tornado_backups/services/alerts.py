"""Post a collection's change of health to a webhook, and keep trying.

Owns: what counts as a change, the body and signature of an alert, when it is tried again and when given up.
Does not own: the checks (``domain/health``), the queue's storage (``registry``), the call (``outbound``).

State and queue are rows written in one transaction, so that a restart neither forgets an alert nor repeats a change.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import socket
from collections.abc import Mapping
from datetime import datetime, timedelta

from tornado_backups.domain.errors import CallbackFailed, DatabaseUnavailable
from tornado_backups.domain.model import HealthState
from tornado_backups.ports import CallbackClient, Clock, Registry
from tornado_backups.services.health import Overview
from tornado_backups.services.present import check_json, timestamp, version_json

log = logging.getLogger(__name__)

FIRST_WAIT = timedelta(seconds=15)
LONGEST_WAIT = timedelta(hours=1)
MOST_ATTEMPTS = 80
"""About three days of trying before an alert is given up."""
BATCH = 20


class Alerts:
    """Notices changes of health and delivers what they queue."""

    def __init__(self, registry: Registry, client: CallbackClient, clock: Clock, url: str, secret: str) -> None:
        self._registry = registry
        self._client = client
        self._clock = clock
        self._url = url
        self._secret = secret
        self._delivering: asyncio.Task[None] | None = None

    async def notice(self, overviews: Mapping[str, Overview]) -> None:
        """Compare with what was last known; log, store and queue every change, once."""
        known = await self._registry.health_states()
        now = self._clock.now()
        changed = [
            state_of(name, overview, now)
            for name, overview in overviews.items()
            if is_change(known.get(name), overview)
        ]
        for state in changed:
            if state.healthy:
                log.info("collection %s is healthy", state.collection)
            else:
                log.warning("collection %s is unhealthy: %s", state.collection, ", ".join(state.failed))
        told = [state for state in changed if not (state.healthy and state.collection not in known)]
        bodies = [alert_body(overviews[state.collection], state, now) for state in told] if self._url else []
        if changed:
            await self._registry.record_health(changed, bodies, now)

    def deliver(self) -> None:
        """Start delivering what is due, in the background; one delivery at a time."""
        if self._url and (self._delivering is None or self._delivering.done()):
            self._delivering = asyncio.create_task(self._deliver())

    async def _deliver(self) -> None:
        try:
            for alert in await self._registry.due_alerts(self._clock.now(), BATCH):
                try:
                    await self._client.call(self._url, alert.body, self._headers(alert.body))
                except CallbackFailed as error:
                    await self._postpone(alert.id, alert.attempts, error)
                    continue
                await self._registry.forget_alert(alert.id)
        except DatabaseUnavailable as error:
            log.warning("alerts wait for the next pass: %s", error.sentence)

    def _headers(self, body: str) -> dict[str, str]:
        headers = {"Content-Type": "application/json"}
        if self._secret:
            headers["X-Signature-256"] = "sha256=" + signature(self._secret, body)
        return headers

    async def _postpone(self, alert_id: int, attempts: int, error: CallbackFailed) -> None:
        if attempts + 1 >= MOST_ATTEMPTS:
            log.error("an alert is given up after %d attempts: %s", attempts + 1, error.sentence)
            await self._registry.forget_alert(alert_id)
            return
        wait = min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(attempts, 10))
        log.warning("an alert was not delivered, the next attempt is in %s: %s", wait, error.sentence)
        await self._registry.postpone_alert(alert_id, self._clock.now() + wait)

    async def close(self) -> None:
        """Stop delivering; what is queued stays queued."""
        if self._delivering is not None:
            self._delivering.cancel()
            await asyncio.wait([self._delivering])


def is_change(known: HealthState | None, overview: Overview) -> bool:
    """Tell whether health changed, or is known for the first time."""
    return known is None or known.healthy != overview.healthy


def state_of(name: str, overview: Overview, now: datetime) -> HealthState:
    """Return the state to remember."""
    return HealthState(name, overview.healthy, now, tuple(check.name for check in overview.checks if not check.ok))


def alert_body(overview: Overview, state: HealthState, now: datetime) -> str:
    """Return the JSON text of an alert, exactly as it is signed and sent."""
    newest = overview.usage.newest
    return json.dumps(
        {
            "time": timestamp(now),
            "server": socket.gethostname(),
            "collection": state.collection,
            "healthy": state.healthy,
            "failed": list(state.failed),
            "health": [check_json(check) for check in overview.checks],
            "latestVersion": version_json(newest) if newest else None,
        },
        ensure_ascii=False,
    )


def signature(secret: str, body: str) -> str:
    """Return the hex HMAC-SHA-256 of the body."""
    return hmac.new(secret.encode(), body.encode(), hashlib.sha256).hexdigest()
