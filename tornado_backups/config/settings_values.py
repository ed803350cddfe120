"""Turn the text of a setting into its value.

Owns: one parser per form of value. Each raises ``ValueError``, whose text, if any, says more than "is not allowed".
Does not own: which option takes which form (``settings_table``), where texts come from (``settings``).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from ipaddress import IPv6Address
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from tornado_backups.config.fields import is_name
from tornado_backups.domain.addresses import UNIX_PROXY, parse_trusted_proxies
from tornado_backups.domain.model import Network
from tornado_backups.domain.units import parse_duration

T = TypeVar("T")

_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9])?")
_WHOLE = re.compile(r"[0-9]{1,9}")
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def text(value: str) -> str:
    """Return ``value``; refuses an empty one and one with line breaks or other control characters."""
    if not value or any(ord(character) < 32 or ord(character) == 127 for character in value):
        raise ValueError
    return value


def boolean(value: str) -> bool:
    """Read a truth value."""
    if value.lower() in _TRUE:
        return True
    if value.lower() in _FALSE:
        return False
    raise ValueError


def whole(at_least: int, at_most: int = 10**9 - 1) -> Callable[[str], int]:
    """Return a parser of whole numbers within bounds."""

    def parse(value: str) -> int:
        if not _WHOLE.fullmatch(value) or not at_least <= int(value) <= at_most:
            raise ValueError
        return int(value)

    return parse


def seconds(at_least: float) -> Callable[[str], float]:
    """Return a parser of durations, which gives seconds of at least ``at_least``."""

    def parse(value: str) -> float:
        duration = parse_duration(value).total_seconds()
        if duration < at_least:
            raise ValueError
        return duration

    return parse


def one_of(*words: str, **spellings: str) -> Callable[[str], str]:
    """Return a parser of one of ``words``; other ``spellings`` stand for the word that they name."""

    def parse(value: str) -> str:
        word = spellings.get(value.lower(), value.lower())
        if word not in words:
            raise ValueError
        return word

    return parse


def path(value: str) -> Path:
    """Return an absolute path, a leading ``~`` replaced by the home folder (``/`` where there is none)."""
    if not value or "\0" in value:
        raise ValueError
    try:
        return Path(value).expanduser().absolute()
    except RuntimeError:  # a container's user without an entry in /etc/passwd: docker sets HOME=/ for those, too
        return Path("/", value.partition("/")[2])


def name(value: str) -> str:
    """Return the name of a namespace."""
    if not is_name(value):
        raise ValueError
    return value


def listen(value: str) -> str:
    """Return an address to listen on."""
    if value.startswith("unix:"):
        if not os.path.isabs(value.removeprefix("unix:")) or "\0" in value:
            raise ValueError
        return value
    host, colon, port = value.rpartition(":")
    whole(0, 65535)(port)
    if host.startswith("[") and host.endswith("]"):
        IPv6Address(host[1:-1])
    elif not colon or (host and not _HOST.fullmatch(host)):
        raise ValueError
    return value


def trusted_proxies(value: str) -> tuple[tuple[Network, ...], bool]:
    """Return the networks, and whether ``unix:`` (``unix`` is understood too) stands among them."""
    words = [word.strip() for word in value.split(",") if word.strip()]
    return parse_trusted_proxies([UNIX_PROXY if word == "unix" else word for word in words])


def http_url(value: str) -> str:
    """Return a URL that can be called."""
    parts = urlsplit(text(value))
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0 or " " in value:
        raise ValueError
    return value


def database_url(value: str) -> str:
    """Return a database's URL; that of SQLite with its path decoded, so that what follows ``sqlite://`` is the path."""
    if value.startswith(("postgresql://", "postgres://")):
        return text(value)
    if value.startswith("sqlite:///"):
        return f"sqlite://{_decoded_path(value)}"
    raise ValueError


def storage_url(value: str) -> str:
    """Return a storage's URL; a ``file`` one with its path decoded, so that what follows ``file://`` is the path.

    Queries of ``file`` URLs, which tell the Go server's library how to write, are dropped. A bare word is left for
    ``--use-google-cloud``.
    """
    if value.startswith("file:///"):
        return f"file://{_decoded_path(value.partition('?')[0])}"
    if value.startswith(("s3://", "gs://")):
        if not urlsplit(text(value)).netloc:
            raise ValueError
        return value
    if ":" in value or "/" in value:
        raise ValueError
    return text(value)


def _decoded_path(url: str) -> str:
    decoded = os.path.normpath(unquote(url.partition("://")[2]))
    if decoded in ("/", "//") or "\0" in decoded or "?" in url:
        raise ValueError
    return "/" + decoded.lstrip("/")
