"""A raw client: sends bytes as told, reads what comes back, and says how the connection ended."""

from __future__ import annotations

import re
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r\n]*\r\n")
_LENGTH = re.compile(rb"\r\nContent-Length: (\d+)\r\n", re.IGNORECASE)


@dataclass(slots=True)
class Reply:
    """``statuses`` of the answers in order, ``rest`` bytes that are no answer, ``ended``: how it ended."""

    statuses: list[int] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    rest: bytes = b""
    ended: str = "open"
    seconds: float = 0.0


def connect(port: int, seconds: float) -> socket.socket:
    """Return a connected socket that sends at once."""
    sock = socket.create_connection(("127.0.0.1", port), seconds)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def reset(sock: socket.socket) -> None:
    """Close with a RST: what was sent may be lost, and nothing more can be read."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def exchange(port: int, pieces: Sequence[bytes], seconds: float, then: str = "wait", pause: float = 0.0) -> Reply:
    """Send ``pieces`` in turn, then ``wait`` for the end, ``half`` close, ``close`` or ``reset``; return what came."""
    begun = time.monotonic()
    reply = Reply()
    sock = connect(port, seconds)
    try:
        with sock:
            try:
                for number, piece in enumerate(pieces):
                    if number and pause:
                        time.sleep(pause)
                    sock.sendall(piece)
                if then == "half":
                    sock.shutdown(socket.SHUT_WR)
            except (BrokenPipeError, ConnectionResetError):
                pass  # the server has had enough; what it said before is read below
            if then == "reset":
                reset(sock)
            if then in ("reset", "close"):
                reply.ended = "left"
                return reply
            reply = read(sock, begun + seconds)
    except TimeoutError:
        pass  # it stays "open", which is what the caller judges
    reply.seconds = time.monotonic() - begun
    return reply


def read(sock: socket.socket, deadline: float) -> Reply:
    """Read until the server closes or the time is over, and take the answers apart."""
    data = bytearray()
    ended = "open"
    while (left := deadline - time.monotonic()) > 0:
        sock.settimeout(left)
        try:
            piece = sock.recv(1 << 18)
        except TimeoutError:
            break
        except ConnectionResetError:
            ended = "reset"
            break
        if not piece:
            ended = "closed"
            break
        data += piece
    reply = parse(bytes(data))
    reply.ended = ended
    return reply


def parse(data: bytes) -> Reply:
    """Take answers apart; Tornado's bare answers to what is no HTTP count too."""
    reply = Reply()
    while found := _STATUS.match(data):
        end = data.find(b"\r\n\r\n")
        if end < 0:
            break
        length = _LENGTH.search(data, 0, end + 2)
        size = int(length[1]) if length else 0
        if int(found[1]) >= 200:
            reply.statuses.append(int(found[1]))
            reply.bodies.append(data[end + 4 : end + 4 + size])
        data = data[end + 4 + size :]
    reply.rest = data
    return reply
