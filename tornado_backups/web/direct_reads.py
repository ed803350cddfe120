"""Bodies read from the socket straight into the memory where they are used.

Owns: the one read that an upload is made of, that a fast body may gather in the kernel before it, and that others get
their turn between two.
Does not own: everything else a stream does, which is Tornado's, nor TLS, where the bytes come out of OpenSSL's own
buffer, nor the memory that is lent (``UploadSink.room``).

``IOStream.read_bytes`` clears a buffer for every read, copies what came into a second one and from there into the
answer: for an upload of 1 GiB that is 3 GiB of memory traffic that nobody needs. And a client as fast as this server
would have it woken for every few kilobytes. Figures are in docs/performance.md.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tornado.iostream import IOStream

from tornado_backups.web.giving_way import give_way

FAST_BYTES = 64 * 1024
"""A body whose last read brought this much comes fast."""

MOMENT_SECONDS = 0.001
"""How long a fast body is let gather once all of it that came has been read."""

LARGE_BYTES = 256 * 1024
"""After a read of this much others get their turn."""

UNWATCHED_BYTES = 3 * 1024 * 1024
"""What may wait in the kernel, between two reads into lent memory, before anybody is woken."""

T = TypeVar("T", int, bytes)


class DirectStream(IOStream):
    """An ``IOStream`` whose partial ``read_bytes`` copies nothing when bytes are waiting in the socket already.

    While memory is lent to it for a body of known length, it answers with views of that memory.
    """

    _room: Callable[[], memoryview] | None = None
    _left_bytes = 0
    _comes_fast = False
    _was_large = False
    _wakes_at = 1

    def lend(self, room: Callable[[], memoryview], body_bytes: int) -> None:
        """Let partial reads of the next ``body_bytes`` fill what ``room()`` returns at each of them.

        However many bytes are asked for: the length is what bounds them. For a body in chunks this is not: Tornado
        copies their contents, and reads their lengths in between.
        """
        self._room, self._left_bytes = room, body_bytes
        self._comes_fast = self._was_large = False
        self._wake_at(UNWATCHED_BYTES)

    def take_back(self) -> None:
        """Lend no memory any more; may be called again. A read that has begun still fills what it was given."""
        if self._room is not None:
            self._room, self._left_bytes = None, 0
            self._wake_at(1)

    def read_bytes(self, num_bytes: int, partial: bool = False) -> Awaitable[bytes]:
        """See ``IOStream``. What was read ahead comes first, so that the order of bytes is the order they were sent."""
        if not partial or self.reading():
            return super().read_bytes(num_bytes, partial)
        if self._room is not None:
            room = self._room()[: self._left_bytes]
            return self._receive(room) if room else self._receive_elsewhere(num_bytes)
        most = min(num_bytes, self.read_chunk_size)
        data = b"" if self._read_buffer_size else self._waiting(lambda: self.socket.recv(most), b"")
        if not data:  # nothing yet, the end, or an error: all of it is Tornado's to wait for and to tell
            return super().read_bytes(num_bytes, partial)
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        answer.set_result(data)
        return answer

    async def _receive(self, room: memoryview) -> bytes:
        if self._comes_fast:
            await asyncio.sleep(MOMENT_SECONDS)
        elif self._was_large:
            await give_way()
        count = 0 if self._read_buffer_size else self._waiting(lambda: self.socket.recv_into(room), 0)
        if not count:  # as above
            self._wake_at(1)
            # Tornado takes memory of others for its own buffer, and closes when more comes than that may hold.
            most = room[: self.max_buffer_size]
            count = await self.read_into(most, partial=True)  # type: ignore[arg-type]  # memory of any kind
        self._comes_fast = FAST_BYTES <= count < len(room)
        self._was_large = count >= LARGE_BYTES
        self._count(count)
        return room[:count]  # type: ignore[return-value]  # whoever lends memory takes views of it

    async def _receive_elsewhere(self, num_bytes: int) -> bytes:
        """Read while those who lend have no room at the moment."""
        self._wake_at(1)
        data = await super().read_bytes(min(num_bytes, self._left_bytes), partial=True)
        self._count(len(data))
        return data

    def _count(self, size_bytes: int) -> None:
        if self._room is None:
            return
        self._left_bytes -= size_bytes
        if self._left_bytes:
            self._wake_at(UNWATCHED_BYTES)
        else:
            self.take_back()

    def _wake_at(self, size_bytes: int) -> None:
        """Let the kernel call the socket readable from this much on, and always at its end (socket(7), SO_RCVLOWAT).

        Between two reads Tornado listens for the end of the connection, and would read, and copy, whatever comes.
        """
        if size_bytes != self._wakes_at and not self.closed():
            self._wakes_at = size_bytes
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size_bytes)

    def _waiting(self, receive: Callable[[], T], nothing: T) -> T:
        if self.closed():
            return nothing
        try:
            return receive()
        except BlockingIOError:
            return nothing
        except OSError as error:
            self.close(exc_info=error)  # the kernel tells an error once: a second read would take it for the end
            return nothing
