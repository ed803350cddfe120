"""Client addresses behind proxies, and restrictions by address."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tornado_backups.domain.addresses import (
    MAX_HOPS,
    address_allowed,
    address_group,
    client_address,
    parse_networks,
    parse_trusted_proxies,
)

PROXIES = parse_networks(["10.0.0.0/8", "fd00::/8"])


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "expected"),
    [
        ("203.0.113.9", "", "203.0.113.9"),
        ("203.0.113.9", "198.51.100.1", "203.0.113.9"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "192.0.2.66, 198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "192.0.2.66, 198.51.100.1, 10.0.0.2", "198.51.100.1"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("10.0.0.1", "198.51.100.1:5123", "198.51.100.1"),
        ("10.0.0.1", "[2001:db8::7]:5123", "2001:db8::7"),
        ("10.0.0.1", "[2001:db8::7]", "2001:db8::7"),
        ("10.0.0.1", "2001:DB8:0::7", "2001:db8::7"),
        ("10.0.0.1", '"[2001:db8::7]:5"', "2001:db8::7"),
        ("10.0.0.1", "::ffff:198.51.100.1", "198.51.100.1"),
        ("::ffff:10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("fd00::1", "198.51.100.1, , ", "198.51.100.1"),
        ("fe80::1%eth0", "198.51.100.1", "fe80::1"),
        ("10.0.0.1", "198.51.100.1, unknown", "unknown"),
        ("10.0.0.1", "198.51.100.1, _hidden", "unknown"),
        ("10.0.0.1", "198.51.100.1, " + "1" * 100, "unknown"),
        ("no address", "198.51.100.1", "unknown"),
    ],
)
def test_the_client_is_the_first_hop_from_the_right_that_is_no_trusted_proxy(
    peer: str, forwarded_for: str, expected: str
) -> None:
    assert client_address(peer, forwarded_for, PROXIES, unix_trusted=False) == expected


def test_a_unix_socket_counts_as_a_proxy_only_when_it_is_listed() -> None:
    assert client_address(None, "198.51.100.1", PROXIES, unix_trusted=False) == "unix"
    assert client_address(None, "198.51.100.1", PROXIES, unix_trusted=True) == "198.51.100.1"
    assert client_address(None, "198.51.100.1, 10.0.0.1", PROXIES, unix_trusted=True) == "198.51.100.1"
    assert client_address(None, "", PROXIES, unix_trusted=True) == "unix"


def test_only_a_bounded_number_of_hops_is_looked_at() -> None:
    everyone = parse_networks(["0.0.0.0/0"])
    hops = [f"10.0.{number // 256}.{number % 256}" for number in range(10_000)]
    assert client_address("10.9.9.9", ",".join(hops), everyone, unix_trusted=False) == hops[-MAX_HOPS]


def test_nobody_can_pretend_an_address_without_a_trusted_proxy() -> None:
    assert client_address("203.0.113.9", "10.0.0.1, 10.0.0.2", (), unix_trusted=False) == "203.0.113.9"


@pytest.mark.parametrize(
    ("restriction", "address", "expected"),
    [
        ("192.0.2.7", "192.0.2.7", True),
        ("192.0.2.7", "192.0.2.8", False),
        ("192.0.2.0/24", "192.0.2.255", True),
        ("192.0.2.0/24", "::ffff:192.0.2.9", True),
        ("::ffff:192.0.2.0/120", "192.0.2.9", True),
        ("::ffff:192.0.2.0/120", "192.0.3.9", False),
        ("2001:db8::/32", "2001:db8:ffff::1", True),
        ("2001:db8::/32", "2001:db9::1", False),
        ("::/0", "192.0.2.9", False),
        ("0.0.0.0/0", "2001:db8::1", False),
        ("0.0.0.0/0", "unix", False),
        ("0.0.0.0/0", "unknown", False),
        ("0.0.0.0/0", "", False),
    ],
)
def test_a_restriction_lets_in_its_own_addresses_and_nothing_unreadable(
    restriction: str, address: str, expected: bool
) -> None:
    assert address_allowed(parse_networks([restriction]), address) is expected


@pytest.mark.parametrize("address", ["192.0.2.9", "unix", "unknown", ""])
def test_no_restriction_lets_in_every_address(address: str) -> None:
    assert address_allowed((), address)


def test_one_of_several_restrictions_is_enough() -> None:
    networks = parse_networks(["192.0.2.0/24", " 2001:db8::1 "])
    assert address_allowed(networks, "2001:db8::1")
    assert not address_allowed(networks, "2001:db8::2")


def test_a_mapped_network_given_by_others_than_our_parser_is_folded_too() -> None:
    assert address_allowed([ipaddress.ip_network("::ffff:192.0.2.0/120")], "192.0.2.1")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("example.org", "'example.org' is no address or network; write one such as 192.0.2.7"),
        ("", "'' is no address or network"),
        ("192.0.2.0/33", "'192.0.2.0/33' is no address or network"),
        ("192.0.2.9/24", "'192.0.2.9/24' has bits set behind its prefix; write 192.0.2.0/24 or 192.0.2.9"),
        ("x" * 1000, "'" + "x" * 64 + "' is no address"),
        (1, "1 is no text; write an address or a network in quotes"),
    ],
)
def test_a_wrong_network_is_refused_with_what_would_be_right(text: str, sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_networks(["192.0.2.1", text])
    assert str(caught.value).startswith(sentence)


def test_unix_among_the_trusted_proxies_is_told_apart_from_networks() -> None:
    assert parse_trusted_proxies(["127.0.0.1", " unix: "]) == (parse_networks(["127.0.0.1"]), True)
    assert parse_trusted_proxies(["::1"]) == (parse_networks(["::1"]), False)
    with pytest.raises(ValueError, match="'unix' is no address"):
        parse_trusted_proxies(["unix"])


def test_addresses_are_grouped_by_ipv4_address_and_by_ipv6_64() -> None:
    assert address_group("::ffff:192.0.2.1") == address_group("192.0.2.1") == "192.0.2.1"
    assert address_group("2001:db8::1") == address_group("2001:db8::ffff:2") == "2001:db8::/64"
    assert address_group("2001:db8:0:1::1") == "2001:db8:0:1::/64"
    assert address_group("unix") == "unix"
    assert len(address_group("x" * 10_000)) == 64


@settings(max_examples=200, deadline=None)
@given(header=st.text(max_size=300), peer=st.none() | st.ip_addresses().map(str), unix_trusted=st.booleans())
def test_whatever_the_header_says_the_result_is_an_address_or_one_of_two_words(
    header: str, peer: str | None, unix_trusted: bool
) -> None:
    everyone = parse_networks(["0.0.0.0/0", "::/0"])
    found = client_address(peer, header, everyone, unix_trusted)
    assert found in {"unix", "unknown"} or str(ipaddress.ip_address(found)) == found


@settings(max_examples=100, deadline=None)
@given(address=st.ip_addresses(), prefix=st.integers(0, 128))
def test_an_address_lies_in_every_network_around_it(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, prefix: int
) -> None:
    address = getattr(address, "ipv4_mapped", None) or address  # to us those are IPv4, and ::/0 does not hold them
    network = ipaddress.ip_network(f"{address}/{prefix % (address.max_prefixlen + 1)}", strict=False)
    assert address_allowed(parse_networks([str(network)]), str(address))
