"""Bodies to upload: OpenPGP messages as gpg writes them, of any size.

Owns: their form. Does not own: where they are sent.
"""

from __future__ import annotations

import os
from pathlib import Path

_PARTIAL_BYTES = 8192
"""gpg writes the data of a message of unknown length in parts of 8 KiB (RFC 9580, 4.2.1.4)."""

_SESSION_KEY = bytes([0xC3, 13, 4, 9, 3, 8]) + b"saltsalt" + bytes([96])
_BLOCK_BYTES = 16 * 1024 * 1024


def message(size_bytes: int) -> bytes:
    """Return a message of exactly ``size_bytes`` (at most some hundred MiB; larger ones go into a file)."""
    left = size_bytes - len(_SESSION_KEY) - 1
    pieces = [_SESSION_KEY, b"\xd2"]
    while left > _PARTIAL_BYTES + 6:
        pieces += [b"\xed", b"\x01", os.urandom(_PARTIAL_BYTES - 1)]
        left -= _PARTIAL_BYTES + 1
    last = left - 5
    pieces += [b"\xff", last.to_bytes(4, "big"), b"\x01", os.urandom(last - 1)]
    return b"".join(pieces)


def write_message(path: Path, size_bytes: int) -> Path:
    """Write a message of exactly ``size_bytes`` to a file, whose parts repeat every 16 MiB."""
    parts = _BLOCK_BYTES // (_PARTIAL_BYTES + 1)
    block = b"".join(b"\xed" + os.urandom(_PARTIAL_BYTES) for _ in range(parts))
    with path.open("wb") as file:
        file.write(_SESSION_KEY + b"\xd2")
        left = size_bytes - len(_SESSION_KEY) - 1
        while left > len(block) + 64:
            # The first octet of the first part is the version of the packet.
            file.write(b"\xed\x01" + block[2:] if file.tell() < _PARTIAL_BYTES else block)
            left -= len(block)
        file.write(message(left + len(_SESSION_KEY) + 1)[len(_SESSION_KEY) + 1 :])
    return path
