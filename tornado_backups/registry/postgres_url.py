"""The database URL: what libpq makes of it, how messages name it, and its host names as addresses.

Owns: parameters, and keeping the password out of every sentence.
Does not own: connecting (``postgres_driver``).
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Mapping

import psycopg2
from psycopg2.extensions import parse_dsn

from tornado_backups.domain.errors import UsageError

_DEFAULTS = {
    "application_name": "tornado-backups",
    "client_encoding": "UTF8",
    # a connection that died silently behind a firewall is noticed while idle, not by the next upload
    "keepalives_idle": "60",
    "keepalives_interval": "10",
    "keepalives_count": "3",
}


class DatabaseUrl:
    """A parsed libpq URL; raises ``UsageError`` (which never repeats the URL: it may hold a password)."""

    def __init__(self, url: str) -> None:
        try:
            if not url.startswith(("postgresql://", "postgres://")):
                raise psycopg2.ProgrammingError("it does not begin with postgresql://")
            self._parameters: dict[str, str] = {**_DEFAULTS, **parse_dsn(url)}
        except (psycopg2.ProgrammingError, ValueError) as error:
            raise UsageError(
                f"the database URL is not one that PostgreSQL understands{_parameter_named(str(error))}; "
                "it should look like postgresql://user:password@host:port/name?sslmode=require"
            ) from None

    def __str__(self) -> str:
        """Name the database without its password."""
        user, name = self._parameters.get("user", ""), self._parameters.get("dbname", "")
        hosts, ports = self._parameters.get("host", "localhost").split(","), self._ports()
        where = ", ".join(host if host.startswith("/") else f"{host}:{port}" for host, port in zip(hosts, ports))  # noqa: B905 (libpq judges the lengths)
        return f'PostgreSQL database "{name or user}" at {where}' + (f' as user "{user}"' if user else "")

    def without_secrets(self, message: str) -> str:
        """Return a message of PostgreSQL as one line that holds no password."""
        for secret in (self._parameters.get("password"), self._parameters.get("sslpassword")):
            if secret:
                message = message.replace(secret, "***")
        return " ".join(message.split())

    async def addresses(self) -> Mapping[str, str]:
        """Return connection parameters with host names looked up in a thread, for libpq would block the event loop.

        Every address of a host is tried in turn; the name stays for the check of the certificate. Raises ``OSError``.
        """
        hosts = self._parameters.get("host", "")
        if not hosts or "hostaddr" in self._parameters:
            return self._parameters
        places: list[tuple[str, str, str]] = []
        for host, port in zip(hosts.split(","), self._ports()):  # noqa: B905 (libpq judges the lengths)
            for address in await _look_up(host):
                places.append((host, address, port))
        names, found, ports = zip(*places, strict=True)
        return {**self._parameters, "host": ",".join(names), "hostaddr": ",".join(found), "port": ",".join(ports)}

    def _ports(self) -> list[str]:
        hosts = self._parameters.get("host", "localhost").split(",")
        ports = [port or "5432" for port in self._parameters.get("port", "").split(",")]
        return ports * len(hosts) if len(ports) == 1 else ports


async def _look_up(host: str) -> list[str]:
    if _is_address(host):
        return [host]
    if not host or host.startswith(("/", "@")):
        return [""]  # a Unix socket
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _parameter_named(message: str) -> str:
    match = re.search(r'invalid URI query parameter: "(\w+)"', message)
    return f": it has no parameter {match.group(1)}" if match else ""
