"""Binary OpenPGP messages (RFC 9580, section 4): packet headers, and the order in which packets may stand.

Owns: reading packet headers of both formats and every length form, and walking over the bodies without looking inside.
Does not own: armour (``openpgp_armour``), the choice between the two (``openpgp``), any cryptography.
Explained in docs/openpgp.md; why nothing is decrypted: docs/adr/0003-openpgp-check-without-decryption.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from tornado_backups.domain.errors import NotEncrypted, Truncated

_PKESK: Final = 1
_SKESK: Final = 3
_OLD_ENCRYPTED_DATA: Final = 9
_MARKER: Final = 10
_PADDING: Final = 21
_DATA_TAGS: Final = frozenset({_OLD_ENCRYPTED_DATA, 18, 20})
_FIRST_PARTIAL_BYTES: Final = 512  # RFC 9580, 4.2.1.4
_PACKETS: Final = 10_000  # each costs interpreter steps: a flood of tiny ones must not hold up the event loop


@dataclass(frozen=True, slots=True)
class _Rule:
    """What a packet must look like from outside: its name, the shortest body, the version octets in use (none: any)."""

    name: str
    shortest_bytes: int
    versions: frozenset[int] = frozenset()


# The shortest bodies are those that GnuPG takes: below them no algorithm leaves room for a key or a prefix.
_RULES: Final = {
    _PKESK: _Rule("public-key encrypted session key", 12, frozenset({2, 3, 6})),
    _SKESK: _Rule("symmetric-key encrypted session key", 4, frozenset({4, 5, 6})),
    _OLD_ENCRYPTED_DATA: _Rule("encrypted data", 10),
    _MARKER: _Rule("marker", 3),
    18: _Rule("encrypted and integrity protected data", 11, frozenset({1, 2})),
    20: _Rule("AEAD encrypted data", 19, frozenset({1})),
    _PADDING: _Rule("padding", 0),
}

_OTHER_PACKETS: Final = {
    2: "a signature",
    4: "a one-pass signature",
    5: "a secret key",
    6: "a public key",
    7: "a secret subkey",
    8: "compressed data that is not encrypted",
    11: "literal data that is not encrypted",
    12: "a trust packet",
    13: "a user ID",
    14: "a public subkey",
    17: "a user attribute",
    19: "a modification detection code",
}

_LARGE_PARTIAL: Final = 0xE7  # the length octet of a part of 128 bytes
_LONG_PARTIAL: Final = 0xEC  # of 4 KiB; GnuPG writes parts of 8

# Chunks this small would cost an interpreter step each: one expression walks over any run of them.
# Possessive, or the engine would remember every round. A round that fails has read nothing, which matters on Python
# 3.11.2: that one keeps what the last, failed round of a possessive group has read.
_SMALL_PARTIALS: Final = re.compile(
    b"(?:" + b"|".join(b"\\x%02x.{%d}" % (0xE0 + power, 1 << power) for power in range(7)) + b")*+", re.DOTALL
)


class _Then(Enum):
    """What follows when the current run of body bytes has passed."""

    PACKET = auto()
    LENGTH = auto()
    NOTHING = auto()


@dataclass(frozen=True, slots=True)
class _Length:
    """A length as read: octets it took, body bytes it announces, and what follows them."""

    octets: int
    body_bytes: int
    then: _Then


class PacketWalk:
    """Follow one binary message from packet to packet, in constant memory and in steps per packet, not per byte.

    With ``until_recognised`` it looks no further than the first packet that only an encrypted message holds.
    After an error an instance is of no further use.
    """

    def __init__(self, until_recognised: bool = False) -> None:
        self.recognised = False
        """True once a session key packet or an encrypted data packet has begun."""
        self._until_recognised = until_recognised
        self._body_bytes = 0
        self._then = _Then.PACKET
        self._held = b""
        self._offset = 0
        self._data_begun = False
        self._packets = 0

    def feed(self, data: bytes | memoryview) -> None:
        """Take the next bytes; raises ``NotEncrypted`` at the first octet that no encrypted message has there."""
        if self._held:
            data = b"".join((self._held, data))
            self._held = b""
        at, end = 0, len(data)
        while at < end and not (self._until_recognised and self.recognised):
            if self._body_bytes:
                step = min(self._body_bytes, end - at)
                self._body_bytes -= step
                at += step
                continue
            if self._then is _Then.NOTHING:
                at = end
                break
            if self._then is _Then.LENGTH:
                at = self._pass_partials(data, at, end)
                if at == end:
                    break
                taken = self._read_length(data, at)
            else:
                taken = self._read_packet(data, at)
            if not taken:
                self._held = bytes(data[at:])
                break
            at += taken
        self._offset += at

    def finish(self) -> None:
        """Take the end of the message; raises ``Truncated`` when it is not whole."""
        if not self._data_begun:
            raise Truncated(
                f"the OpenPGP message stops after {self._offset + len(self._held)} bytes, "
                "before its encrypted data packet begins; send the whole message"
            )
        if self._held or self._body_bytes or self._then is _Then.LENGTH:
            raise Truncated(
                f"the OpenPGP message stops after {self._offset + len(self._held)} bytes, "
                "in the middle of a packet; send the whole message"
            )

    def _pass_partials(self, data: bytes | memoryview, at: int, end: int) -> int:
        """Walk over partial lengths with their bytes, as GnuPG writes one for every 8 KiB; return where they end."""
        while at < end and _LARGE_PARTIAL <= (octet := data[at]) < 0xFF:
            step, like_it = 1 + (1 << (octet & 0x1F)), 1
            if octet >= _LONG_PARTIAL:  # look at all the places at once where octets are if all are like this one
                octets = bytes(data[at:end:step])
                like_it = len(octets) - len(octets.lstrip(octets[:1]))
            at += step * like_it
        if at > end:
            self._body_bytes, at = at - end, end
        return at

    def _read_length(self, data: bytes | memoryview, at: int) -> int:
        """Read the length that follows a partial one; return the octets taken, 0 when more are needed."""
        run = _SMALL_PARTIALS.match(data, at)
        if run is not None and run.end() > at:
            return run.end() - at
        length = _new_length(bytes(data[at : at + 5]))
        if length is None:
            return 0
        self._body_bytes, self._then = length.body_bytes, length.then
        return length.octets

    def _read_packet(self, data: bytes | memoryview, at: int) -> int:
        """Read a packet's header and judge it; return the octets taken, 0 when more are needed."""
        where = self._offset + at
        head = bytes(data[at : at + 9])  # header octet, five of length, the three of a marker
        tag = _tag(head[0], where)
        rule = self._rule(tag, where)
        new_format = bool(head[0] & 0x40)
        length = _new_length(head[1:]) if new_format else _old_length(head[0] & 3, head[1:])
        if length is None:
            return 0
        self._check_length(tag, length, new_format, where)
        start = 1 + length.octets
        if rule.versions:
            if start == len(head):
                return 0
            if head[start] not in rule.versions:
                raise NotEncrypted(
                    f"the {rule.name} packet at byte {where} has version {head[start]}, "
                    f"where {' or '.join(map(str, sorted(rule.versions)))} is in use (RFC 9580)"
                )
        if tag == _MARKER:
            if not b"PGP".startswith(head[start : start + 3]):
                raise NotEncrypted(f"the marker packet at byte {where} does not hold 'PGP' (RFC 9580, 5.8)")
            if len(head) < start + 3:
                return 0
        self._packets += 1
        if self._packets > _PACKETS:
            raise NotEncrypted(f"more than {_PACKETS} packets by byte {where}; no message needs that many recipients")
        self._data_begun |= tag in _DATA_TAGS
        self.recognised |= tag not in (_MARKER, _PADDING)
        self._body_bytes, self._then = length.body_bytes, length.then
        return start

    def _rule(self, tag: int, where: int) -> _Rule:
        rule = _RULES.get(tag)
        if rule is None:
            found = _OTHER_PACKETS.get(tag, f"a packet of type {tag}")
            raise NotEncrypted(
                f"byte {where} begins {found}, where an OpenPGP encrypted message has session keys "
                "or encrypted data; encrypt the backup, for example with gpg --encrypt"
            )
        if self._data_begun and tag not in (_MARKER, _PADDING):
            raise NotEncrypted(f"the OpenPGP message ends before byte {where}, but more follows; send one message only")
        return rule

    def _check_length(self, tag: int, length: _Length, new_format: bool, where: int) -> None:
        name = _RULES[tag].name
        if length.then is _Then.LENGTH:
            if tag not in _DATA_TAGS or length.body_bytes < _FIRST_PARTIAL_BYTES:
                raise NotEncrypted(
                    f"the {name} packet at byte {where} has a partial length of {length.body_bytes} bytes; only "
                    f"encrypted data may, and its first part has at least {_FIRST_PARTIAL_BYTES} (RFC 9580, 4.2.1.4)"
                )
        elif length.then is _Then.NOTHING:
            # Without a session key before it a single octet, 0xa7, would make any file pass for a message.
            if tag != _OLD_ENCRYPTED_DATA or not self.recognised:
                raise NotEncrypted(
                    f"the {name} packet at byte {where} has no length; only encrypted data of type 9 "
                    "that follows a session key may (RFC 9580, 4.2.2)"
                )
        elif length.body_bytes < _RULES[tag].shortest_bytes or (tag == _MARKER and length.body_bytes != 3):
            raise NotEncrypted(
                f"the {name} packet at byte {where} has {length.body_bytes} bytes, "
                f"where {_RULES[tag].shortest_bytes} {'are needed' if tag == _MARKER else 'are the least'}"
            )


def _tag(octet: int, where: int) -> int:
    if not octet & 0x80:
        raise NotEncrypted(
            f"byte {where} is 0x{octet:02x}, where an OpenPGP packet has to begin (0x80 to 0xff); "
            "send one encrypted message and nothing else"
        )
    return octet & 0x3F if octet & 0x40 else octet >> 2 & 0x0F


def _new_length(octets: bytes) -> _Length | None:
    """Read a length of the current format (RFC 9580, 4.2.1); None when octets are missing."""
    if not octets:
        return None
    first = octets[0]
    if first < 192:
        return _Length(1, first, _Then.PACKET)
    if first < 224:
        return None if len(octets) < 2 else _Length(2, (first - 192 << 8) + octets[1] + 192, _Then.PACKET)
    if first < 255:
        return _Length(1, 1 << (first & 0x1F), _Then.LENGTH)
    return None if len(octets) < 5 else _Length(5, int.from_bytes(octets[1:5]), _Then.PACKET)


def _old_length(kind: int, octets: bytes) -> _Length | None:
    """Read a length of the legacy format (RFC 9580, 4.2.2); None when octets are missing."""
    if kind == 3:
        return _Length(0, _RULES[_OLD_ENCRYPTED_DATA].shortest_bytes, _Then.NOTHING)
    size = 1 << kind
    return None if len(octets) < size else _Length(size, int.from_bytes(octets[:size]), _Then.PACKET)
