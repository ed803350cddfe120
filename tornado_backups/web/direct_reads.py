"""Bodies read from the socket straight into the bytes that are passed on.

Owns: the one read that an upload is made of. Does not own: everything else a stream does, which is Tornado's, nor TLS,
where the bytes come out of OpenSSL's own buffer.

``IOStream.read_bytes`` clears a buffer for every read, copies what came into a second one and from there into the
answer: for an upload of 1 GiB that is 3 GiB of memory traffic that nobody needs. Figures are in docs/performance.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from tornado.iostream import IOStream


class DirectStream(IOStream):
    """An ``IOStream`` whose partial ``read_bytes`` copies nothing when bytes are waiting in the socket already."""

    def read_bytes(self, num_bytes: int, partial: bool = False) -> Awaitable[bytes]:
        """See ``IOStream``. What was read ahead comes first, so that the order of bytes is the order they were sent."""
        data = self._waiting(num_bytes) if partial and not self._read_buffer_size and not self.reading() else b""
        if not data:  # nothing yet, the end, or an error: all of it is Tornado's to wait for and to tell
            return super().read_bytes(num_bytes, partial)
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        answer.set_result(data)
        return answer

    def _waiting(self, most_bytes: int) -> bytes:
        if self.closed():
            return b""
        try:
            return self.socket.recv(most_bytes)
        except BlockingIOError:
            return b""
        except OSError as error:
            self.close(exc_info=error)  # the kernel tells an error once: a second read would take it for the end
            return b""
