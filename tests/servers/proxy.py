"""A TCP proxy that misbehaves on demand: it hangs, resets, cuts, loses answers, answers by itself, or is slow.

A plain module without fixtures, for any protocol over TCP. It runs in a thread with an event loop of its own, so that
blocking and asynchronous tests may use it alike. Faults are set and cleared at any time from the test's thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["hang", "reset", "cut", "swallow", "answer", "slow"]
_BUFFER_BYTES = 64 * 1024


@dataclass
class Fault:
    """What to do to a connection, from the moment that the client has sent ``when`` (in one piece) on it.

    ``hang``: nothing is passed on any more, in either direction. ``reset``: the client is reset at once. ``cut``: it is
    reset after ``after_bytes`` more bytes of ``direction``. ``swallow``: the request passes, its answer does not: the
    client is reset when it comes. ``answer``: ``reply`` is sent instead of passing the request on, then the connection
    is closed. ``slow``: ``bytes_per_second`` in each direction.

    At most ``times`` connections meet it (None: all). ``met`` counts them.
    """

    kind: Kind
    when: bytes = b""
    direction: Literal["up", "down"] = "up"
    after_bytes: int = 0
    reply: bytes = b""
    bytes_per_second: int = 0
    times: int | None = None
    met: int = 0

    def applies(self, data: bytes) -> bool:
        """Tell whether a connection that sends ``data`` meets the fault now, and count it."""
        if self.when not in data or (self.times is not None and self.met >= self.times):
            return False
        self.met += 1
        return True


def http_answer(status: int, body: str = "", content_type: str = "application/xml") -> bytes:
    """Return a whole HTTP answer for :class:`Fault` of kind ``answer``."""
    data = body.encode()
    head = f"HTTP/1.1 {status} Said by the proxy\r\nContent-Type: {content_type}\r\nContent-Length: {len(data)}\r\n"
    return head.encode() + b"Connection: close\r\n\r\n" + data


def s3_error(status: int, code: str, message: str = "said by the proxy") -> bytes:
    """Return an S3 error as an HTTP answer."""
    text = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return http_answer(status, text)


@dataclass
class Proxy:
    """A running proxy: ``port`` to connect to, ``fault`` to set, ``connections`` accepted so far.

    Where one fault is not enough, ``more`` are tried after it, in turn.
    """

    port: int = 0
    fault: Fault | None = None
    more: list[Fault] = field(default_factory=list)
    connections: int = 0
    _open: set[asyncio.StreamWriter] = field(default_factory=set)
    _loop: asyncio.AbstractEventLoop | None = None

    def drop_connections(self) -> None:
        """Reset every connection that is open."""
        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(self._drop_all(), self._loop).result()

    async def _drop_all(self) -> None:
        for writer in list(self._open):
            _reset(writer)


@contextlib.contextmanager
def proxy(port: int, host: str = "127.0.0.1") -> Iterator[Proxy]:
    """Run a proxy in front of ``host:port``; connections that are open at the end are reset."""
    running = Proxy()
    ready = threading.Event()
    stop: list[asyncio.Event] = []

    async def serve() -> None:
        running._loop = asyncio.get_running_loop()
        stop.append(asyncio.Event())
        tasks: set[asyncio.Task[None]] = set()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(_Connection(running, reader, writer).run(host, port))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        running.port = server.sockets[0].getsockname()[1]
        ready.set()
        await stop[0].wait()
        server.close()
        await running._drop_all()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="fault-proxy", daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield running
    finally:
        assert running._loop is not None
        running._loop.call_soon_threadsafe(stop[0].set)
        thread.join(10)


class _Connection:
    def __init__(self, owner: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.owner = owner
        self.client_reader = reader
        self.client_writer = writer
        self.fault: Fault | None = None
        self.passed_bytes = {"up": 0, "down": 0}
        self.waiting = asyncio.Event()  # never set: a connection that hangs waits for it

    async def run(self, host: str, port: int) -> None:
        self.owner.connections += 1
        self.owner._open.add(self.client_writer)
        upstream: asyncio.StreamWriter | None = None
        try:
            reader, upstream = await asyncio.open_connection(host, port)
            self.owner._open.add(upstream)
            pumps = [
                asyncio.ensure_future(self.pump("up", self.client_reader, upstream)),
                asyncio.ensure_future(self.pump("down", reader, self.client_writer)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_EXCEPTION)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        except OSError:
            _reset(self.client_writer)  # the server is away: so are we
        finally:
            for writer in (self.client_writer, upstream):
                if writer is not None:
                    self.owner._open.discard(writer)
                    writer.close()

    async def pump(
        self, direction: Literal["up", "down"], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while data := await reader.read(_BUFFER_BYTES):
            if direction == "up" and self.fault is None:
                faults = [self.owner.fault, *self.owner.more]
                self.fault = next((fault for fault in faults if fault and fault.applies(data)), None)
            data = await self.mangle(direction, data)
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()

    async def mangle(self, direction: Literal["up", "down"], data: bytes) -> bytes:
        """Return what to pass on, or end the connection by raising."""
        fault = self.fault
        if fault is None:
            return data
        if fault.kind == "hang":
            await self.waiting.wait()
        if fault.kind == "reset" or (fault.kind == "swallow" and direction == "down"):
            self.end()
        if fault.kind == "answer":
            self.client_writer.write(fault.reply)
            await self.client_writer.drain()
            self.client_writer.write_eof()
            with contextlib.suppress(TimeoutError):  # what the client still sends is read, or it might see a reset
                async with asyncio.timeout(1):
                    while await self.client_reader.read(_BUFFER_BYTES):
                        continue
            raise ConnectionAbortedError
        if fault.kind == "cut" and direction == fault.direction:
            room = fault.after_bytes - self.passed_bytes[direction]
            self.passed_bytes[direction] += len(data)
            if len(data) > room:
                if direction == "down":
                    self.client_writer.write(data[: max(0, room)])
                    await self.client_writer.drain()
                self.end()
        if fault.kind == "slow":
            await asyncio.sleep(len(data) / fault.bytes_per_second)
        return data

    def end(self) -> None:
        _reset(self.client_writer)
        raise ConnectionResetError


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close so that the peer sees RST and not the end of the stream."""
    raw = writer.get_extra_info("socket")
    if raw is not None and raw.fileno() >= 0:
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
