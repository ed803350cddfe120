"""The audit trail: one JSON line for each thing that matters, to the journal and to a chained file.

Owns: the form of an event, its bounds, what happens when it cannot be written.
Does not own: the chain (``services/audit_file``), which events there are (the services that record them).
Explained in docs/audit.md.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TextIO

from tornado_backups.ports import Clock
from tornado_backups.services.audit_file import AuditFile
from tornado_backups.services.redaction import redact

AUDIT_LOGGER = "tornado_backups.audit"
MAX_VALUE_CHARACTERS = 512
MAX_DETAILS = 16
_MAX_KEY_CHARACTERS = 64
_MAX_JSON_BYTES = 48 * 1024

_log = logging.getLogger(__name__)
_journal = logging.getLogger(AUDIT_LOGGER)


def send_journal_to(stream: TextIO) -> None:
    """Write the trail's lines to ``stream`` as they are, pure JSON, apart from the ordinary log and its level.

    Call it again to change the stream. Until it is called the lines go through the ordinary log.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(message)s"))
    _journal.handlers[:] = [handler]
    _journal.propagate = False


class AuditTrail:
    """Writes every event as one line to the logger ``tornado_backups.audit``, and with a ``path`` to a chained file."""

    def __init__(self, clock: Clock, path: Path | None = None) -> None:
        _journal.setLevel(logging.INFO)  # an audit trail is not thinned out by --log-level
        self._clock = clock
        self._path = path
        self._file = AuditFile(path) if path is not None else None
        self._lost = 0

    def record(
        self,
        event: str,
        result: str,
        *,
        user: str = "",
        session_id: str = "",
        address: str = "",
        collection: str = "",
        **details: str | int | float | bool | None,
    ) -> None:
        """Write one event; never raises, never waits for more than a tenth of a second.

        Texts are cut to ``MAX_VALUE_CHARACTERS`` and masked where they look like a secret; control characters and
        everything beyond ASCII are escaped, so that no value can begin a line of its own.
        """
        now = self._clock.now()
        line: dict[str, object] = {
            "time": now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "event": _bounded(event),
            "result": _bounded(result),
            "user": _bounded(user),
            "session": _bounded(session_id),
            "address": _bounded(address),
            "collection": _bounded(collection),
            "details": {name[:_MAX_KEY_CHARACTERS]: _bounded(details[name]) for name in list(details)[:MAX_DETAILS]},
        }
        text = json.dumps(line, separators=(",", ":"))
        if len(text) > _MAX_JSON_BYTES:  # escapes can make six bytes of one; the chain needs lines of bounded length
            line["details"] = {"omitted": True}
            text = json.dumps(line, separators=(",", ":"))
        _journal.info("%s", text)
        self._append(line)

    def _append(self, line: dict[str, object]) -> None:
        if self._file is None:
            return
        try:
            self._file.append({**line, "lost": self._lost} if self._lost else line)
        except OSError as error:
            if not self._lost:
                _log.error("the audit file %s cannot be written, events go to the journal alone: %s", self._path, error)
            self._lost += 1
            return
        if self._lost:
            _log.warning("the audit file %s is written again, %d events are missing in it", self._path, self._lost)
            self._lost = 0


def _bounded(value: object) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    text = str(value)
    return redact(text if len(text) <= MAX_VALUE_CHARACTERS else text[:MAX_VALUE_CHARACTERS] + "…")
