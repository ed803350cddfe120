"""What was last known of each collection's health, and the alerts that wait to be delivered.

Owns: both tables, changed together so that a change of health never loses its alert.
Does not own: the judgement (``services/health``) or the delivery.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime

from tornado_backups.domain.model import Alert, HealthState
from tornado_backups.registry import rows
from tornado_backups.registry.script import Script, Statement, Value, cleaned, reads, writes

_STATES_PER_STATEMENT = 100


@reads
def health_states() -> Script[dict[str, HealthState]]:
    """Return the last recorded state of every collection."""
    found = yield Statement("SELECT collection, healthy, since, failed FROM health_states")
    return {
        name: HealthState(name, bool(healthy), rows.moment(since), tuple(json.loads(failed)))
        for name, healthy, since, failed in found.rows
    }


@writes
def record_health(states: Sequence[HealthState], alert_bodies: Sequence[str], now: datetime) -> Script[None]:
    """Store states and queue alerts; the last of several states of one collection counts."""
    # sorted: servers that write the same rows lock them in the same order
    latest = sorted({state.collection: state for state in states}.values(), key=lambda state: state.collection)
    for start in range(0, len(latest), _STATES_PER_STATEMENT):
        yield _upsert(latest[start : start + _STATES_PER_STATEMENT])
    for body in alert_bodies:
        yield Statement(
            "INSERT INTO alerts (body, attempts, next_attempt_at) VALUES (?, 0, ?)",
            (cleaned(body), rows.microseconds(now)),
        )


def _upsert(states: Sequence[HealthState]) -> Statement:
    values: list[Value] = []
    for state in states:
        values += [state.collection, int(state.healthy), rows.microseconds(state.since), json.dumps(state.failed)]
    return Statement(
        "INSERT INTO health_states (collection, healthy, since, failed) VALUES "
        + ", ".join([rows.placeholders(4)] * len(states))
        + " ON CONFLICT (collection) DO UPDATE SET healthy = excluded.healthy, since = excluded.since,"
        " failed = excluded.failed",
        tuple(values),
    )


@reads
def due_alerts(now: datetime, limit: int) -> Script[list[Alert]]:
    """Return alerts whose time has come, oldest first."""
    found = yield Statement(
        "SELECT id, body, attempts, next_attempt_at FROM alerts WHERE next_attempt_at <= ? ORDER BY id LIMIT ?",
        (rows.microseconds(now), max(limit, 0)),
    )
    return [Alert(number, body, attempts, rows.moment(at)) for number, body, attempts, at in found.rows]


@writes
def postpone_alert(alert_id: int, next_attempt_at: datetime) -> Script[None]:
    """Count a failed attempt."""
    yield Statement(
        "UPDATE alerts SET attempts = attempts + 1, next_attempt_at = ? WHERE id = ?",
        (rows.microseconds(next_attempt_at), alert_id),
    )


@writes
def forget_alert(alert_id: int) -> Script[None]:
    """Drop an alert."""
    yield Statement("DELETE FROM alerts WHERE id = ?", (alert_id,))


@reads
def ping() -> Script[None]:
    """Prove that the database answers, and that our tables are in it."""
    yield Statement("SELECT MAX(number) FROM schema_migrations")
