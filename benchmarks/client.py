"""A client that costs as little as a client can: sockets, ``sendfile`` and one buffer.

Owns: sending files, throwing away what is received, waiting for answers. The same code speaks to every HTTP server.
Does not own: what a server wants to hear (``ours``, ``peers``).
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TIMEOUT_SECONDS = 300.0
_BUFFER_BYTES = 1024 * 1024


class Refused(Exception):
    """A server answered something that ends the measurement."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers (lower case) and body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def data(self) -> dict[str, Any]:
        """Return the ``data`` of a JSON answer with status 200."""
        if self.status != 200:
            raise Refused(f"status {self.status}: {self.body[:300]!r}")
        found: dict[str, Any] = json.loads(self.body)["data"]
        return found


class Connection:
    """One keep-alive connection."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray(_BUFFER_BYTES)

    @classmethod
    @contextlib.contextmanager
    def to(cls, port: int) -> Iterator[Connection]:
        """Connect for a block."""
        connection = cls(port)
        try:
            yield connection
        finally:
            connection.close()

    def close(self) -> None:
        """Close."""
        self._socket.close()

    def request(self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b"") -> Answer:
        """Send one small request and read its answer whole."""
        self._socket.sendall(_head(method, path, len(body), headers) + body)
        return self._answer()

    def send_file(self, method: str, path: str, file: Path, headers: Mapping[str, str] | None = None) -> Answer:
        """Send a file as body and read the answer."""
        size_bytes = file.stat().st_size
        self._socket.sendall(_head(method, path, size_bytes, headers))
        with file.open("rb") as opened:
            self._socket.sendfile(opened)
        return self._answer()

    def send_slowly(self, method: str, path: str, body: bytes, seconds: float, headers: Mapping[str, str]) -> Answer:
        """Send ``body`` evenly over ``seconds`` and read the answer."""
        self._socket.sendall(_head(method, path, len(body), headers))
        steps = max(1, int(seconds / 0.05))
        begin = time.monotonic()
        for step in range(steps):
            self._socket.sendall(body[len(body) * step // steps : len(body) * (step + 1) // steps])
            time.sleep(max(0.0, begin + seconds * (step + 1) / steps - time.monotonic()))
        return self._answer()

    def receive_file(self, path: str, headers: Mapping[str, str] | None = None) -> int:
        """Fetch ``path``, throw the body away and return its length; it must be whole."""
        self._socket.sendall(_head("GET", path, 0, headers))
        status, found, begun = self._read_head()
        if status != 200:
            raise Refused(f"status {status} for a download")
        wanted = int(found["content-length"])
        left = wanted - len(begun)
        while left > 0:
            count = self._socket.recv_into(self._buffer, min(left, _BUFFER_BYTES))
            if not count:
                raise Refused(f"the download ended {left} bytes early")
            left -= count
        return wanted

    def _answer(self) -> Answer:
        status, headers, body = self._read_head()
        left = int(headers.get("content-length", "0")) - len(body)
        pieces = [body]
        while left > 0:
            piece = self._socket.recv(min(left, _BUFFER_BYTES))
            if not piece:
                raise Refused("the answer ended early")
            pieces.append(piece)
            left -= len(piece)
        return Answer(status, headers, b"".join(pieces))

    def _read_head(self) -> tuple[int, dict[str, str], bytes]:
        received = b""
        while b"\r\n\r\n" not in received:
            piece = self._socket.recv(65536)
            if not piece:
                raise Refused(f"the connection ended before an answer: {received[:200]!r}")
            received += piece
        head, _, rest = received.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return int(first.split()[1]), headers, rest


def _head(method: str, path: str, length: int, headers: Mapping[str, str] | None) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1"]
    if method != "GET":
        lines.append(f"Content-Length: {length}")
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def sync(path: Path) -> None:
    """Bring a file and its folder entry to the disk, as a server should that says "stored"."""
    for target in (path, path.parent):
        descriptor = os.open(target, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
