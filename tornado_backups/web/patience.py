"""How long a client is waited for, and whether it is still there.

Owns: the idle timer and the deadline of a request, and the two ways to learn that a client has gone.
Does not own: what is answered when patience ends (``web/base``), how many connections there may be
(``web/connections``). See docs/adr/0006.
"""

from __future__ import annotations

import asyncio
import socket
from typing import cast

from tornado.http1connection import HTTP1Connection
from tornado.web import RequestHandler


class PatientHandler(RequestHandler):
    """A request that is given up when its client moves no byte for too long.

    ``gone`` is set once the client has disconnected. While ``_working`` is true it is us who keep the client waiting,
    and no time is counted.
    """

    def watch_connection(self) -> None:
        """Begin; to be called from ``initialize``."""
        self.gone = asyncio.Event()
        self._refused = False
        self._working = False
        self._loop = asyncio.get_running_loop()
        self._headers_at = self._progress_at = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._deadline: asyncio.TimerHandle | None = None

    @property
    def wire(self) -> HTTP1Connection:
        """The connection below this request."""
        return cast(HTTP1Connection, self.request.connection)

    def _end(self) -> None:
        """Finish a request that was refused while its body arrived, and close the connection."""
        self._disarm()
        if not self._finished:
            self.finish()
        self.wire.stream.close()

    def on_connection_close(self) -> None:
        """Let whoever waits know that the client has gone; Tornado's own part must run, or the body future hangs."""
        super().on_connection_close()
        self.gone.set()
        self._disarm()

    def on_finish(self) -> None:
        """Stop the timers."""
        self._disarm()

    def still_there(self) -> bool:
        """Tell whether the client is still connected, asking the kernel: its FIN may not have been read yet."""
        stream = self.wire.stream
        if self.gone.is_set() or stream is None or stream.closed():
            return False
        try:
            # The plain socket's method also for TLS, whose own takes no flags: it sees the end, not what is encrypted.
            return bool(socket.socket.recv(stream.socket, 1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def _progress(self) -> None:
        self._progress_at = self._loop.time()

    def _arm(self, idle_seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._idle_seconds = idle_seconds
        self._timer = self._loop.call_later(idle_seconds, self._check_idle)

    def _disarm(self) -> None:
        for timer in (self._timer, self._deadline):
            if timer is not None:
                timer.cancel()

    def idle_since(self) -> float:
        """Return from when on the client is waited for (loop time): a small body must be complete in time."""
        return self._progress_at if self._refused else self._headers_at

    def _check_idle(self) -> None:
        left = self._idle_seconds if self._working else self.idle_since() + self._idle_seconds - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(max(left, 0.05), self._check_idle)
        elif self._refused:
            self._end()
        else:
            self.expire(f"no byte arrived for {self._idle_seconds:g} s")

    def expire(self, sentence: str) -> None:
        """Give the request up, for the reason that ``sentence`` says."""
        raise NotImplementedError
