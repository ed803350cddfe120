"""Reads every log record of the whole test run, and the output of every program it starts, for secrets.

Owns: what a secret looks like, which ones are in use, and where one was seen. ``tests/conftest.py`` fails the test (or
the run) in which it happened. Records are read before any handler or redacting filter sees them: the promise is that
no message is built from a secret, not that one is masked afterwards.
"""

from __future__ import annotations

import logging
import re
import threading
import traceback

SHAPES = {
    "a token": re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}"),
    "a password hash": re.compile(r"\$argon2(?:id|i|d)\$(?:v|m)=\d"),
    "a password hash in base64": re.compile(r"\bJGFyZ29uMm[A-Za-z0-9+/]{8,}"),
    "an Authorization header": re.compile(r"(?i)\bbearer\s+(?!\*{3})[A-Za-z0-9._~+/=-]{8,}"),
    "a code in a query": re.compile(r"(?i)[?&](?:code|token|password)=(?!\*{3})[^\s&'\"]+"),
    "a password in a URL": re.compile(r"://[^/\s:@'\"]*:(?!\*{3}|password@)[^/\s:@'\"]+@"),
}
LOGGERS = ("tornado_backups", "tornado")
SHORTEST_SECRET = 8


class SecretsWatch:
    """Remembers the secrets in use and the places where one was seen; used from every thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._secrets: set[str] = set()
        self._leaks: list[str] = []
        self._handle = logging.Logger.handle

    def know(self, *secrets: str) -> None:
        """Look for these from now on, too; short ones are left out, they stand in any text."""
        with self._lock:
            self._secrets.update(secret for secret in secrets if len(secret) >= SHORTEST_SECRET)

    def read(self, text: str, where: str) -> None:
        """Look for secrets in a text."""
        found = [what for what, shape in SHAPES.items() if shape.search(text)]
        with self._lock:
            found += ["a secret in use"] * any(secret in text for secret in self._secrets)
            if found:
                self._leaks.append(f"{' and '.join(found)} in {where}: {text[:500]}")

    def take(self) -> list[str]:
        """Return the places found since the last call."""
        with self._lock:
            leaks, self._leaks = self._leaks, []
        return leaks

    def install(self) -> None:
        """Read every record of this process from now on, down to the finest level of our own and Tornado's."""
        for name in LOGGERS:
            logging.getLogger(name).setLevel(logging.DEBUG)
        handle, watch = self._handle, self

        def read_and_handle(logger: logging.Logger, record: logging.LogRecord) -> None:
            watch.read(text_of(record), f"a record of {record.name}")
            handle(logger, record)

        logging.Logger.handle = read_and_handle  # type: ignore[method-assign]

    def remove(self) -> None:
        """Leave logging as it was."""
        logging.Logger.handle = self._handle  # type: ignore[method-assign]


def text_of(record: logging.LogRecord) -> str:
    """Return all that a handler could write of a record."""
    try:
        message = record.getMessage()
    except (TypeError, ValueError, KeyError):
        message = f"{record.msg!r} {record.args!r}"
    if record.exc_info and record.exc_info[0] is not None:
        message += "\n" + "".join(traceback.format_exception(*record.exc_info))
    return message


watch = SecretsWatch()
"""The one of this run."""
