"""How many connections may be open, and which one goes when there would be more.

Owns: accepting; a bound below the limit of open files, so that uploads, downloads and the database always find a
descriptor; what happens when the system has none left all the same. Does not own: how long one connection may be
silent (``idle_connection_timeout``, ``base``). Explained in docs/robustness.md, "Floods of connections".

Tornado's own accept loop lets EMFILE out to the event loop, which calls it again at once, for ever, at full load and
with a traceback each time. And without a bound, clients that open connections and send nothing keep everybody else
out for as long as the idle timeout lets them.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from tornado.http1connection import HTTP1ServerConnection
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPConnection, HTTPMessageDelegate
from tornado.iostream import IOStream

from tornado_backups.web.direct_reads import DirectStream

log = logging.getLogger(__name__)

MOST_CONNECTIONS = 1024
RESERVED_DESCRIPTORS = 64
"""Left to everything that is no client: files, folders, database, object storage, callbacks."""

ACCEPTED_AT_A_TIME = 64
PAUSE_SECONDS = 0.1
WARNING_SECONDS = 60.0


def connection_bound() -> int:
    """Return how many clients may be connected, by the limit of open files as it is now."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return min(MOST_CONNECTIONS, max(soft // 4, soft - RESERVED_DESCRIPTORS))


class BoundedServer(HTTPServer):
    """An ``HTTPServer`` that closes the longest waiting connection for a new one when there are too many.

    ``in_transfer`` returns the streams that move a file: they are never closed for others. Every other request is over
    in a moment, so that the one which began longest ago is a client that keeps us waiting. While all of them move
    files, new connections wait in the kernel's queue.
    """

    def initialize(self, *args: Any, in_transfer: Callable[[], set[IOStream]], **options: Any) -> None:  # type: ignore[override]
        """See ``HTTPServer``; Tornado calls this in place of ``__init__``."""
        super().initialize(*args, **options)
        self._in_transfer = in_transfer
        self._by_age: dict[HTTP1ServerConnection, None] = {}
        self._resume: asyncio.TimerHandle | None = None
        self._warned_at = -WARNING_SECONDS

    def add_sockets(self, sockets: Iterable[socket.socket]) -> None:
        """Listen on these sockets, which must not block."""
        for sock in sockets:
            self._sockets[sock.fileno()] = sock
            self._handlers[sock.fileno()] = partial(self._ignore, sock)
            self._watch(sock)

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        """See ``HTTPServer``; called before the first byte of a request, so that waiting counts from here."""
        assert isinstance(server_conn, HTTP1ServerConnection)
        self._by_age.pop(server_conn, None)
        if not server_conn.stream.closed():
            self._by_age[server_conn] = None
        return super().start_request(server_conn, request_conn)

    def on_close(self, server_conn: object) -> None:
        """See ``HTTPServer``."""
        assert isinstance(server_conn, HTTP1ServerConnection)
        self._by_age.pop(server_conn, None)
        super().on_close(server_conn)

    def _watch(self, sock: socket.socket) -> None:
        asyncio.get_running_loop().add_reader(sock, self._accept, sock)

    def _ignore(self, sock: socket.socket) -> None:
        if self._resume is not None:
            self._resume.cancel()
        asyncio.get_running_loop().remove_reader(sock)

    def _accept(self, sock: socket.socket) -> None:
        bound = connection_bound()
        for _ in range(ACCEPTED_AT_A_TIME):
            if len(self._by_age) >= bound and self._longest_waiting() is None:
                self._pause()
                return
            try:
                connection, address = sock.accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:
                continue  # it was closed while it waited in the queue
            except OSError as error:
                self._warn(f"a connection cannot be accepted ({error.strerror})")
                self._close_longest_waiting()
                self._pause()
                return
            if len(self._by_age) >= bound:
                self._warn(f"{bound} connections are open, which is all this server keeps")
                self._close_longest_waiting()
            self._serve(connection, address)

    def _serve(self, connection: socket.socket, address: Any) -> None:
        if self.ssl_options is not None:
            self._handle_connection(connection, address)
            return
        sizes = {"max_buffer_size": self.max_buffer_size, "read_chunk_size": self.read_chunk_size}
        self.handle_stream(DirectStream(connection, **sizes), address)

    def _longest_waiting(self) -> HTTP1ServerConnection | None:
        kept = self._in_transfer()
        return next((one for one in self._by_age if one.stream not in kept), None)

    def _close_longest_waiting(self) -> None:
        found = self._longest_waiting()
        if found is not None:
            del self._by_age[found]
            found.stream.close()

    def _pause(self) -> None:
        """Stop accepting for a moment: the event loop would report the waiting connections again and again."""
        for sock in self._sockets.values():
            asyncio.get_running_loop().remove_reader(sock)
        self._resume = asyncio.get_running_loop().call_later(PAUSE_SECONDS, self._go_on)

    def _go_on(self) -> None:
        for sock in self._sockets.values():
            self._watch(sock)

    def _warn(self, what: str) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._warned_at >= WARNING_SECONDS:
            self._warned_at = now
            log.warning("%s; for a new one the client that has kept us waiting longest is disconnected", what)
