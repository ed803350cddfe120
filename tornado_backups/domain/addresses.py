"""Who a request comes from, and whether that address may use an account.

Owns: reading ``X-Forwarded-For`` behind trusted proxies, address restrictions, the grouping of addresses for limits.
Does not own: where the header, the peer or the list of proxies come from (``web``, ``config/settings``).
Explained in docs/security.md, "Addresses".
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from tornado_backups.domain.model import Network

UNIX_ADDRESS = "unix"
"""The address of a client on a unix socket that no proxy speaks for."""

UNKNOWN_ADDRESS = "unknown"
"""The address of a client whose trusted proxy named none that can be read: refused wherever a restriction stands."""

UNIX_PROXY = "unix:"
"""How ``--trusted-proxies`` names the peers on our unix socket."""

MAX_HOPS = 32
_MAPPED = IPv6Network("::ffff:0:0/96")
_LONGEST_ADDRESS = 64

Address = IPv4Address | IPv6Address


def client_address(peer: str | None, forwarded_for: str, trusted: Sequence[Network], unix_trusted: bool) -> str:
    """Return the client's address in canonical form, or one of ``unix`` and ``unknown``.

    ``peer`` is who is connected to us (None: a unix socket), ``forwarded_for`` all ``X-Forwarded-For`` lines joined
    by commas. The header is read from the right, for a proxy appends: as long as the hop at hand is a trusted proxy,
    the next one to the left is believed, and the first that is not trusted is the client. When all of them are
    trusted, the leftmost is. Ports and brackets are tolerated. A hop that cannot be read, named by a trusted proxy,
    gives ``unknown`` and not the proxy's own address, which might be allowed more. Never raises.
    """
    current = None if peer is None else _parse(peer)
    if peer is not None and current is None:
        return UNKNOWN_ADDRESS
    hops = [hop for hop in forwarded_for.rsplit(",", MAX_HOPS)[-MAX_HOPS:] if hop.strip()]
    while hops and (unix_trusted if current is None else address_in(current, trusted)):
        current = _parse(hops.pop())
        if current is None:
            return UNKNOWN_ADDRESS
    return UNIX_ADDRESS if current is None else str(current)


def address_allowed(restrictions: Sequence[Network], address: str) -> bool:
    """Return whether ``address`` lies in one of ``restrictions``; none at all allow every address.

    An IPv4 address and its IPv4-mapped IPv6 form (RFC 4291, 2.5.5.2) are the same. An address that cannot be read,
    ``unix`` and ``unknown`` among them, is refused wherever a restriction stands.
    """
    if not restrictions:
        return True
    parsed = _parse(address)
    return parsed is not None and address_in(parsed, restrictions)


def address_in(address: Address, networks: Sequence[Network]) -> bool:
    """Return whether one of ``networks`` holds ``address``, IPv4-mapped forms of either folded to IPv4."""
    folded = _fold(address)
    return any(folded in network for network in map(_fold_network, networks) if network.version == folded.version)


def address_group(address: str) -> str:
    """Return the name under which ``address`` is counted: IPv4 by address, IPv6 by /64, anything unreadable as it is.

    A single customer commonly has a whole /64 (RFC 6177), so that limits by IPv6 address would limit nobody.
    """
    parsed = _parse(address)
    if parsed is None:
        return address[:_LONGEST_ADDRESS]
    if isinstance(parsed, IPv4Address):
        return str(parsed)
    return str(IPv6Network((int(parsed), 64), strict=False))


def parse_networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Read addresses and CIDR networks, IPv4 and IPv6; IPv4-mapped ones become IPv4.

    Raises ``ValueError`` with a sentence that names the text and what would be right.
    """
    return tuple(_parse_network(text) for text in texts)


def parse_trusted_proxies(texts: Sequence[str]) -> tuple[tuple[Network, ...], bool]:
    """Read ``--trusted-proxies``: the networks, and whether ``unix:`` stands among them; raises ``ValueError``."""
    networks = [text for text in texts if text.strip() != UNIX_PROXY]
    return parse_networks(networks), len(networks) < len(texts)


def _parse_network(text: str) -> Network:
    if not isinstance(text, str):  # YAML and JSON bring numbers, and ip_network() would read 1 as 0.0.0.1
        raise ValueError(f'{text!r} is no text; write an address or a network in quotes, such as "192.0.2.0/24"')
    try:
        return _fold_network(ip_network(text.strip()))
    except ValueError:
        pass  # the reason is found below, in words that say what would be right
    shown = text.strip()[:_LONGEST_ADDRESS]
    try:
        wider = ip_network(text.strip(), strict=False)
    except ValueError:
        raise ValueError(
            f"{shown!r} is no address or network; write one such as 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32"
        ) from None
    raise ValueError(f"{shown!r} has bits set behind its prefix; write {wider} or {shown.split('/')[0]}")


def _parse(text: str) -> Address | None:
    host = text.strip().strip('"')
    if len(host) > _LONGEST_ADDRESS:
        return None
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        return _fold(ip_address(host.partition("%")[0]))
    except ValueError:
        return None


def _fold(address: Address) -> Address:
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _fold_network(network: Network) -> Network:
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        return IPv4Network((int(network.network_address) & 0xFFFFFFFF, network.prefixlen - 96))
    return network
