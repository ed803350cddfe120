"""Where log lines go and what they look like.

Owns: the one handler (stderr, which is the journal under systemd), ``text`` and ``json`` forms, the redacting filter.
Does not own: what is logged; the audit trail's own file (``services/audit``). See docs/operations.md.
"""

from __future__ import annotations

import json
import logging
import sys

from tornado_backups.services.audit import send_journal_to
from tornado_backups.services.redaction import RedactingFilter


class JsonFormatter(logging.Formatter):
    """One JSON object per line: ``time``, ``level``, ``logger``, ``message`` and, where there is one, ``error``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_text or record.exc_info:
            line["error"] = record.exc_text or self.formatException(record.exc_info)  # type: ignore[arg-type]
        return json.dumps(line, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """``time level message``, one line per event; control characters from outside are escaped."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S%z")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        """Return the line with everything unprintable in the message escaped, so that nobody can forge a line."""
        record.message = "".join(each if each.isprintable() else repr(each)[1:-1] for each in record.message)
        return super().formatMessage(record)


def set_up_logging(level: str, form: str) -> None:
    """Send every record of ``level`` (``debug`` … ``error``) and above to stderr, the audit trail to stdout."""
    send_journal_to(sys.stdout)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    handler.addFilter(RedactingFilter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    if level != "debug":
        # These tell each connection and retry of their own; what matters of it our adapters say in their words.
        for name in ("botocore", "aiobotocore", "asyncio", "tornado.general"):
            logging.getLogger(name).setLevel(logging.WARNING)
