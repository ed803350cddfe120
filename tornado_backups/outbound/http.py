"""An HTTP client that cannot be talked into calling the inside of the network.

Owns: which addresses may be connected to, and what counts as delivered.
Does not own: when to call, and trying again (``services/alerts``, ``services/pings``).

The check sits in the resolver, on the very addresses that are then connected to: a name that resolves differently the
second time (DNS rebinding) gains nothing. Redirects are not followed.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING, Any

from tornado.iostream import StreamClosedError
from tornado.netutil import Resolver

from tornado_backups.domain.errors import CallbackFailed

if TYPE_CHECKING:
    from tornado.simple_httpclient import SimpleAsyncHTTPClient

CALL_SECONDS = 20.0
ANSWER_BYTES = 64 * 1024
NAT64 = IPv6Network("64:ff9b::/96")
"""RFC 6052: the last 32 bits are an IPv4 address."""
GLOBAL_UNICAST = IPv6Network("2000::/3")
"""RFC 4291, 2.4: all that is assigned of it; what lies outside leads, if anywhere, to the inside of a network."""


class GuardedResolver(Resolver):
    """Resolves names to public addresses only."""

    def initialize(self, allow_private: bool = False) -> None:
        """Take the rule; Tornado calls this."""
        self._allow_private = allow_private

    async def resolve(
        self, host: str, port: int, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[tuple[int, Any]]:
        """Return the addresses that may be connected to; raises ``CallbackFailed`` when none may."""
        found = await asyncio.get_running_loop().getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
        allowed: list[tuple[int, Any]] = [
            (entry[0], entry[4]) for entry in found if self._allow_private or is_public(str(entry[4][0]))
        ]
        if not allowed:
            raise CallbackFailed(
                f"{host} is a loopback, link-local or private address; --allow-private-callbacks would allow it"
            )
        return allowed


def is_public(address: str) -> bool:
    """Tell whether an address is globally reachable (IANA special-purpose registries), embedded IPv4 included."""
    parsed = ip_address(address.partition("%")[0])
    if isinstance(parsed, IPv6Address):
        inner = parsed.ipv4_mapped or parsed.sixtofour or (parsed.teredo[1] if parsed.teredo else None)
        if inner is not None:
            return is_public(str(inner))
        if parsed in NAT64:
            return is_public(str(ip_address(int(parsed) & 0xFFFFFFFF)))
        if parsed not in GLOBAL_UNICAST:
            return False
    return parsed.is_global and not parsed.is_multicast


class HttpCallbackClient:
    """The :class:`~tornado_backups.ports.CallbackClient`; its client is made at the first call."""

    def __init__(self, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._client: SimpleAsyncHTTPClient | None = None

    async def call(self, url: str, body: str | None = None, headers: Mapping[str, str] | None = None) -> None:
        """Fulfil the port."""
        # Imported at the first call: most servers never make one, and it costs them memory.
        from tornado.httpclient import HTTPClientError
        from tornado.simple_httpclient import SimpleAsyncHTTPClient

        if self._client is None:
            self._client = SimpleAsyncHTTPClient(
                force_instance=True,
                max_clients=8,
                max_body_size=ANSWER_BYTES,
                resolver=GuardedResolver(allow_private=self._allow_private),
            )
        try:
            await self._client.fetch(
                url,
                method="GET" if body is None else "POST",
                body=body,
                headers={"User-Agent": "tornado-backups", **(headers or {})},
                request_timeout=CALL_SECONDS,
                connect_timeout=CALL_SECONDS,
                follow_redirects=False,
            )
        except HTTPClientError as error:
            raise CallbackFailed(f"it answered {error.code} {error.message or ''}".strip()) from None
        except (OSError, StreamClosedError, ValueError) as error:
            raise CallbackFailed(f"it cannot be reached: {error}") from None

    async def close(self) -> None:
        """Fulfil the port."""
        if self._client is not None:
            self._client.close()
            self._client = None
