"""The least that a file can cost on this machine: one plain loop that receives, hashes and writes, and one for back.

Owns: a server that has no event loop, no checks, no database and one client, written as a system's programmer would.
What it takes of the processor is what the kernel and SHA-256 take; nobody who hashes gets below it. Does not own: how
it is timed (``throughput``). ``python -m benchmarks.floor PORT FILE`` runs it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.client import Connection
from benchmarks.ours import free_port
from benchmarks.processes import Process

_BUFFER_BYTES = 512 * 1024


class Floor:
    """The running loop; its times are compared with ours in the same round."""

    def __init__(self, process: Process, port: int) -> None:
        self.process = process
        self._port = port

    @classmethod
    @contextlib.contextmanager
    def running(cls, folder: Path) -> Iterator[Floor]:
        """Run it for a block."""
        folder.mkdir(parents=True, exist_ok=True)
        port = free_port()
        process = Process([sys.executable, "-m", "benchmarks.floor", str(port), folder / "file"], folder / "log")
        try:
            process.wait_for_port(port)
            yield cls(process, port)
        finally:
            process.stop()

    def upload(self, file: Path) -> tuple[float, float]:
        """Send a file; return seconds until it is fsynced, and processor seconds."""
        before, begin = self.process.cpu_seconds(), time.monotonic()
        with Connection.to(self._port) as connection:
            connection.send_file("PUT", "/", file)
        return time.monotonic() - begin, self.process.cpu_seconds() - before

    def download(self) -> tuple[float, float]:
        """Fetch it again; return seconds and processor seconds."""
        before, begin = self.process.cpu_seconds(), time.monotonic()
        with Connection.to(self._port) as connection:
            connection.receive_file("/")
        return time.monotonic() - begin, self.process.cpu_seconds() - before


def serve(port: int, path: Path) -> None:
    """Serve one connection after the other, for ever."""
    with socket.create_server(("127.0.0.1", port)) as listener:
        while True:
            connection, _ = listener.accept()
            with connection:
                _answer(connection, path)


def _answer(connection: socket.socket, path: Path) -> None:
    head = b""
    while b"\r\n\r\n" not in head:
        data = connection.recv(4096, socket.MSG_PEEK)
        if not data:
            return
        end = data.find(b"\r\n\r\n")
        head += connection.recv(len(data) if end < 0 else end + 4)
    lines = head.decode("latin-1").lower().split("\r\n")
    if lines[0].startswith("put"):
        length = next(int(line.partition(":")[2]) for line in lines if line.startswith("content-length:"))
        _receive(connection, path, length)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    else:
        _send(connection, path)


def _receive(connection: socket.socket, path: Path, length: int) -> None:
    view, digest = memoryview(bytearray(_BUFFER_BYTES)), hashlib.sha256()
    with path.open("wb", buffering=0) as file:
        while length > 0:
            count = connection.recv_into(view, min(length, _BUFFER_BYTES))
            if not count:
                return
            digest.update(view[:count])
            file.write(view[:count])
            length -= count
        os.fsync(file.fileno())


def _send(connection: socket.socket, path: Path) -> None:
    view, digest = memoryview(bytearray(_BUFFER_BYTES)), hashlib.sha256()
    connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {path.stat().st_size}\r\n\r\n".encode())
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(view):
            digest.update(view[:count])
            connection.sendall(view[:count])


if __name__ == "__main__":
    serve(int(sys.argv[1]), Path(sys.argv[2]))
