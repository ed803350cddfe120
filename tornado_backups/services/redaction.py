"""Belt and braces: no secret in a log line, even where a message was put together carelessly.

Owns: what a secret looks like in a text, and a logging filter that masks it.
Does not own: the first line of defence, which is never to put a secret into a message.
Explained in docs/security.md, "Logs".
"""

from __future__ import annotations

import logging
import re
import traceback

MASK = "***"

_SECRETS = (
    # a header in any spelling, up to the end of its value
    (re.compile(r"(?i)(authorization\W{1,5}(?:(?:bearer|basic|token)\s+)?)[^\s'\",;)]+"), rf"\1{MASK}"),
    (re.compile(r"(?i)\b(bearer\s+)[^\s'\",;)]+"), rf"\1{MASK}"),
    # a query, form or JSON field that holds one
    (re.compile(r"(?i)\b((?:code|token|access_token|password|passwd|secret)=)[^\s&'\",;)]+"), rf"\1{MASK}"),
    (re.compile(r"(?i)(['\"](?:code|token|password|secret)['\"]\s*:\s*['\"])(?:[^'\"\\]|\\.)+"), rf"\1{MASK}"),
    # a password inside a URL
    (re.compile(r"(://[^/\s:@]*:)[^/\s@]+(?=@)"), rf"\1{MASK}"),
    # a JWT, also when it is cut short
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_=-]*){1,2}"), MASK),
    # an Argon2 hash, as it stands and in base64
    (re.compile(r"\$argon2(?:id|i|d)\$[A-Za-z0-9+/=,$]+"), MASK),
    (re.compile(r"\bJGFyZ29uMm[A-Za-z0-9+/]+=*"), MASK),
)

_MARKS = ("authorization", "bearer", "code", "token", "passw", "secret", "://", "eyj", "$argon2", "jgfyz29umm")
"""Whatever a pattern of ``_SECRETS`` matches holds one of these, in either case; most texts hold none and are done."""


def redact(text: str) -> str:
    """Return ``text`` with everything that looks like a token, password, hash or code replaced by ``***``."""
    folded = text.casefold()
    if not any(mark in folded for mark in _MARKS):
        return text
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


class RedactingFilter(logging.Filter):
    """Masks secrets in the message and the traceback of every record; add it to each handler. Drops nothing."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Replace message and traceback by their masked text; safe to apply to one record several times."""
        try:
            message = record.getMessage()
        except (TypeError, ValueError, KeyError):
            return True  # arguments that do not fit the message: logging itself reports that, with the place
        record.msg, record.args = redact(message), None
        if record.exc_info and record.exc_info[0] is not None:
            if not record.exc_text:
                record.exc_text = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
            record.exc_text = redact(record.exc_text)
        return True
