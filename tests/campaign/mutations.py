"""Mutations without any help from coverage: what every test run and every Python can do."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

_TOKENS = (
    b"\r\n", b"\n", b"\r", b"--", b"\r\n--b", b"\r\n--b--", b"\r\n\r\n", b"\x00", b"\xff", b"name=", b'"', b"\\", b";",
    b"=", b":", b",", b"-----BEGIN PGP MESSAGE-----", b"-----END PGP MESSAGE-----", b"\xc1", b"\xd2", b"\xca\x03PGP",
    b"\xe9", b"\xff\xff\xff\xff\xff", b"\xa7", b"bytes=", b"sha-256=:", b"unix:", b"::ffff:", b"[", b"{", b'"elements"',
)  # fmt: skip


def mutants(inputs: Sequence[bytes], seed: int) -> Iterator[bytes]:
    """Yield changed inputs for ever; the same ones for the same seed."""
    chance = random.Random(seed)
    while True:
        data = bytearray(chance.choice(inputs))
        for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
            _change(data, inputs, chance)
        yield bytes(data[:8192])


def _change(data: bytearray, inputs: Sequence[bytes], chance: random.Random) -> None:
    at = chance.randrange(len(data) + 1)
    end = min(len(data), at + chance.choice((1, 1, 2, 4, 16, 200)))
    match chance.randrange(7):
        case 0:
            data[at:at] = chance.choice(_TOKENS)
        case 1:
            data[at:end] = chance.choice(_TOKENS)
        case 2:
            del data[at:end]
        case 3:
            data[at:at] = data[at:end] * chance.choice((1, 2, 50))
        case 4 if data:
            data[at % len(data)] ^= 1 << chance.randrange(8)
        case 5 if data:
            data[at % len(data)] = chance.randrange(256)
        case _:
            other = chance.choice(inputs)
            data[at:end] = other[chance.randrange(len(other) + 1) :]
