"""What every handler shares: admission, bounded bodies, JSON answers, refusals that reach the client.

Owns: the life of one request, and the Tornado facts it has to honour (docs/adr/0006).
Does not own: how long a silent client is waited for (``web/patience``), what a route does (one module per resource),
the statuses (``web/errors``).

All handlers stream: a JSON body is gathered here up to a bound, an upload's goes on to its service. A refusal while
the body still arrives is written and flushed at once, then the rest of the body is read and dropped up to a bound,
and only then the connection closes: closing a socket with unread input would reset it, and the client might never
read the answer.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

from tornado.iostream import StreamClosedError
from tornado.web import HTTPError, stream_request_body

from tornado_backups.domain.addresses import client_address
from tornado_backups.domain.errors import (
    BadRequest,
    InternalError,
    MethodNotAllowed,
    NotAuthenticated,
    NotFound,
    RateLimited,
    RequestError,
    ShuttingDown,
    TransferTimeout,
    UploadCancelled,
)
from tornado_backups.domain.model import Actor
from tornado_backups.web.context import Context
from tornado_backups.web.errors import KEPT_TO_THE_LOG, body_of, headers_of, status_of
from tornado_backups.web.fields import check_framing
from tornado_backups.web.patience import PatientHandler

log = logging.getLogger(__name__)

JSON_BODY_BYTES = 64 * 1024
DRAIN_BYTES = 64 * 1024 * 1024
DRAIN_SECONDS = 30.0
DRAIN_IDLE_SECONDS = 5.0
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE")

SECURITY_HEADERS = {
    "Server": "tornado-backups",
    "Content-Type": "application/json; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}


@stream_request_body
class ApiHandler(PatientHandler):
    """One request. A resource defines ``on_get``, ``on_post`` …; what it raises becomes the answer.

    ``limit`` names the rate limit that counts the request (empty: none), ``public`` lets it in without a session,
    ``starts_work`` methods are refused with 503 while the server drains, ``audits_its_refusals`` says that the
    resource has written a refusal into the audit trail itself.
    """

    limit: ClassVar[str] = "default"
    public: ClassVar[bool] = False
    starts_work: ClassVar[frozenset[str]] = frozenset()
    audits_its_refusals: bool = False

    def initialize(self, context: Context) -> None:
        """Take the wiring; Tornado calls this before anything else."""
        self.context = context
        self.address = ""
        self.actor: Actor | None = None
        self.token = ""
        self._body = bytearray()
        self._verb_running = False
        self._dropped_bytes = 0
        self.watch_connection()

    # -- admission ---------------------------------------------------------------------------------------------------

    async def prepare(self) -> None:
        """Admit the request or refuse it: before ``100 Continue`` and before a byte of the body is read."""
        self._arm(self.context.settings.idle_timeout)
        expects = self.request.headers.get("Expect", "").lower() == "100-continue"
        if expects:
            self.request.headers["Expect"] = "100-continue"
        self._working = True
        try:
            await self._admit()
        except Exception as error:
            # Without this header Tornado keeps its "100 Continue" to itself, which a refusal has made void.
            self.request.headers.pop("Expect", None)
            await self._refuse(error)
        finally:
            self._working = False
            self._progress()

    async def _admit(self) -> None:
        self.address = self._client_address()
        if self.limit:
            await self._count_against_limit()
        check_framing(self.request.headers.get)
        method = self.request.method or ""
        if getattr(self, f"on_{method.lower()}", None) is None:
            raise MethodNotAllowed(f"this path does not know the method {method[:20]}", self.allowed_methods())
        if method in self.starts_work and self.context.draining:
            raise ShuttingDown("the server is shutting down and starts nothing new")
        if not self.public:
            self.token = self._bearer_token()
            self.actor = await self.context.sessions.authenticate(self.token, self.address)
        await self.before_body()

    async def _count_against_limit(self) -> None:
        limiter = self.context.limiters.get(self.limit)
        if limiter is None:
            return
        try:
            limiter.check(self.address)
        except RateLimited:
            self.context.metrics.add("rate_limited_total", limit=self.limit)
            raise

    async def before_body(self) -> None:
        """Do what the headers allow; overridden by resources that stream their body."""

    def _client_address(self) -> str:
        family = getattr(self.wire.context, "address_family", None)
        over_ip = family in (socket.AF_INET, socket.AF_INET6)
        return client_address(
            self.request.remote_ip if over_ip else None,
            ",".join(self.request.headers.get_list("X-Forwarded-For")),
            self.context.settings.trusted_proxies,
            self.context.settings.unix_trusted,
        )

    def _bearer_token(self) -> str:
        scheme, _, token = self.request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise NotAuthenticated("an Authorization header of the form `Bearer TOKEN` is needed")
        return token.strip()

    def session_actor(self) -> Actor:
        """Return who acts; only for routes that are not public."""
        assert self.actor is not None
        return self.actor

    @classmethod
    def allowed_methods(cls) -> tuple[str, ...]:
        """Return the methods this resource knows, in a fixed order."""
        return tuple(method for method in METHODS if hasattr(cls, f"on_{method.lower()}"))

    # -- the body ----------------------------------------------------------------------------------------------------

    async def data_received(self, chunk: bytes | memoryview) -> None:
        """Pass the body on; nothing may be raised from here, or Tornado drops the connection with no answer."""
        self._progress()
        if self._refused:
            self._drop(len(chunk))
            return
        self._working = True
        try:
            await self.take(chunk)
        except Exception as error:
            await self._refuse(error)
        finally:
            self._working = False
            self._progress()

    async def take(self, chunk: bytes | memoryview) -> None:
        """Gather a small body; overridden by resources that stream theirs."""
        self._body += chunk
        if len(self._body) > JSON_BODY_BYTES:
            raise BadRequest(f"the body is longer than {JSON_BODY_BYTES} bytes, which no request here needs")

    def json_body(self) -> object:
        """Return the gathered body as JSON; raises ``BadRequest``."""
        try:
            return json.loads(self._body.decode("utf-8"))
        except (ValueError, RecursionError):
            raise BadRequest("the body is not valid JSON in UTF-8") from None

    def _drop(self, size_bytes: int) -> None:
        self._dropped_bytes += size_bytes
        if self._dropped_bytes > DRAIN_BYTES:
            self._end()

    # -- the verbs ---------------------------------------------------------------------------------------------------

    async def _run(self, *_: str, **__: str) -> None:
        if self._refused:
            self._end()
            return
        self._disarm()
        self._verb_running = True
        verb: Callable[[], Awaitable[None]] = getattr(self, f"on_{(self.request.method or '').lower()}")
        try:
            await verb()
        except Exception as error:
            await self._refuse(error)

    get = head = post = put = delete = patch = options = _run

    # -- answers -----------------------------------------------------------------------------------------------------

    def set_default_headers(self) -> None:
        """Put the same security headers on every answer."""
        for name, value in SECURITY_HEADERS.items():
            self.set_header(name, value)
        if self.request.protocol == "https":
            self.set_header("Strict-Transport-Security", "max-age=31536000")

    def compute_etag(self) -> None:
        """Send no ETag of Tornado's making."""
        return

    def answer(self, data: dict[str, Any], status: int = 200, **more: object) -> None:
        """Send a JSON answer and end the request."""
        self.set_status(status)
        self.finish(json.dumps({"status": status < 400, "data": data, **more}, ensure_ascii=False))

    def answer_written(self, data: str) -> None:
        """Answer as :meth:`answer` does, with ``data`` written out as JSON already."""
        self.finish(f'{{"status": true, "data": {data}}}')

    async def on_refusal(self, error: RequestError) -> None:
        """Undo what the resource began; called once, before the refusal is answered."""

    async def _refuse(self, error: Exception) -> None:
        """Answer an error: at once when the headers are still ours, by dropping the connection when they are not."""
        if not isinstance(error, RequestError):
            if isinstance(error, StreamClosedError):
                error = UploadCancelled("the client disconnected")
            elif isinstance(error, HTTPError) and error.status_code == 400:
                error = BadRequest(UNREADABLE)  # a parameter that is no UTF-8
            else:
                log.error("%s failed", self._request_summary(), exc_info=error)
                error = InternalError("a fault of the program")
        elif isinstance(error, KEPT_TO_THE_LOG):
            log.error("%s: %s", self._request_summary(), error.sentence)
        if self._refused:
            return
        self._refused = True
        await self.on_refusal(error)
        if self.gone.is_set() or self._finished:
            return
        if self._headers_written or isinstance(error, UploadCancelled):
            self.wire.stream.close()
            return
        if not self.audits_its_refusals and not error.audited:
            self._audit_refusal(error)
        await self._send_refusal(error)

    def _audit_refusal(self, error: RequestError) -> None:
        actor = self.actor
        self.context.audit.record(
            "refusal",
            error.reason,
            user=actor.user.name if actor else "",
            session_id=actor.session.id if actor else "",
            address=self.address,
            collection=self.path_kwargs.get("collection", ""),
            method=self.request.method,
            path=self.request.path,
        )

    async def _send_refusal(self, error: RequestError) -> None:
        payload = json.dumps(body_of(error), ensure_ascii=False).encode()
        self.clear()
        self.set_status(status_of(error))
        for name, value in headers_of(error).items():
            self.set_header(name, value)
        if self._verb_running:
            self.finish(payload)
            return
        self.set_header("Connection", "close")
        self.set_header("Content-Length", str(len(payload)))
        self.write(payload)
        self._deadline = self._loop.call_later(DRAIN_SECONDS, self._end)
        self._arm(DRAIN_IDLE_SECONDS)
        try:
            await self.flush()
        except StreamClosedError:
            return  # the client did not wait for its answer; on_connection_close cleans up
        self._say_no_more()

    def _say_no_more(self) -> None:
        """Keep Tornado from a second answer, a bare 400, to a body whose framing breaks behind the first one.

        A proxy in front of us might pass it on as the answer to somebody else's request.
        """
        stream = self.wire.stream
        if stream is not None:
            setattr(stream, "write", _write_nothing)  # noqa: B010 - a method, of this one instance

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer what Tornado itself refuses (an unknown method, a path that is no UTF-8) in our own words."""
        if status_code == 405:
            error: RequestError = MethodNotAllowed("this path does not know that method", self.allowed_methods())
        elif status_code in (400, 404):
            error = BadRequest(UNREADABLE) if status_code == 400 else NotFound(NO_PATH)
        else:
            error = InternalError("a fault of the program")
        for name, value in headers_of(error).items():
            self.set_header(name, value)
        self.finish(json.dumps(body_of(error)))

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Log what no handler caught; Tornado's own refusals are in the access log already."""
        if not isinstance(value, HTTPError):
            log.error("%s failed", self._request_summary(), exc_info=(typ, value, tb))

    def _request_summary(self) -> str:
        """Describe the request for the log, without its query: a health code may be in there."""
        return f"{self.request.method} {self.request.path} ({self.address or self.request.remote_ip})"

    def expire(self, sentence: str) -> None:
        """Give the request up with 408 and close its connection."""
        task = asyncio.ensure_future(self._expire(sentence))
        self.context.tasks.add(task)
        task.add_done_callback(self.context.tasks.discard)

    async def _expire(self, sentence: str) -> None:
        await self._refuse(TransferTimeout(sentence))
        if not self.gone.is_set():
            self._end()


def _write_nothing(data: bytes | memoryview) -> asyncio.Future[None]:
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    done.set_result(None)
    return done


UNREADABLE = "the path or a parameter cannot be read"
NO_PATH = "there is nothing at this path; /openapi.json lists what there is"
