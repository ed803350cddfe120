"""The four requests that this program makes of a Kubernetes API server, over Tornado's own HTTP/1.1.

Owns: connecting with TLS, reading answers in bounded memory, pages of a list, the event stream of a watch.
Does not own: credentials (``kubernetes_access``), what is done with the objects (``kubernetes_watch``, ``kubernetes``).
docs/kubernetes.md lists the permissions that these requests need.

Tornado's ready-made client has no way to close a request that waits for its next byte, and a watch mostly waits; so
this stands on ``HTTP1Connection`` and owns its stream. One connection a request: there are a handful a minute.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from tornado.http1connection import HTTP1Connection, HTTP1ConnectionParameters
from tornado.httputil import HTTPHeaders, HTTPMessageDelegate, RequestStartLine, ResponseStartLine
from tornado.iostream import IOStream, SSLIOStream, StreamClosedError

from tornado_backups.config.kubernetes_access import Access, Endpoint
from tornado_backups.domain.errors import StartupError

GROUP = "backups.riotkit.org/v1alpha1"
CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 20.0
"""Longest wait for an answer's head, and for each next byte of one that does not wait for events."""

MAX_PAGE_BYTES = 64 << 20
MAX_EVENT_BYTES = 8 << 20
"""etcd takes objects of 1.5 MiB by default; more than this is no object."""

GONE = 410

T = TypeVar("T")


class ApiFailure(Exception):
    """A request that brought no result: ``status`` is the HTTP status, 0 when there was no whole answer."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence


class KubernetesApi:
    """Reads objects of one namespace. Every method raises ``ApiFailure`` and nothing else."""

    def __init__(self, namespace: str, access: Access) -> None:
        self._namespace = quote(namespace, safe="")
        self._access = access

    async def page(self, plural: str, limit: int, continue_token: str = "") -> dict[str, Any]:
        """Return one page of a list of our own kinds; ``metadata.continue`` of the answer leads to the next."""
        query = {"limit": str(limit)} | ({"continue": continue_token} if continue_token else {})
        return await self._get(f"{self._collection(plural)}?{urlencode(query)}")

    async def secret(self, name: str) -> dict[str, Any]:
        """Return one Secret by its name."""
        return await self._get(f"/api/v1/namespaces/{self._namespace}/secrets/{quote(name, safe='')}")

    async def watch(self, plural: str, resource_version: str, seconds: int) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the events after ``resource_version``, bookmarks included, until the server ends after ``seconds``.

        The first event is ours: ``{"type": "OPENED"}``, when the server has accepted the watch. Closing the iterator
        closes the connection. A connection that drops in between raises, as does one that outlives ``seconds``.
        """
        query = {"watch": "1", "resourceVersion": resource_version, "allowWatchBookmarks": "true"}
        target = f"{self._collection(plural)}?{urlencode(query | {'timeoutSeconds': str(seconds)})}"
        async with self._request(target) as answer:
            if answer.status != 200:
                raise _refusal(answer.status, await answer.whole(MAX_EVENT_BYTES))
            yield {"type": "OPENED"}
            rest = b""
            async with aclosing(answer.chunks(seconds + ANSWER_SECONDS)) as chunks:
                async for chunk in chunks:
                    *lines, rest = (rest + chunk).split(b"\n")
                    if len(rest) > MAX_EVENT_BYTES:
                        raise ApiFailure(0, f"an event of more than {MAX_EVENT_BYTES} bytes")
                    for line in lines:
                        if line.strip():
                            yield _parsed(line)

    def _collection(self, plural: str) -> str:
        return f"/apis/{GROUP}/namespaces/{self._namespace}/{plural}"

    async def _get(self, target: str) -> dict[str, Any]:
        async with self._request(target) as answer:
            body = await answer.whole(MAX_PAGE_BYTES)
            if answer.status != 200:
                raise _refusal(answer.status, body)
            return _parsed(body)

    @asynccontextmanager
    async def _request(self, target: str) -> AsyncIterator[_Answer]:
        try:
            endpoint = self._access.endpoint()
        except StartupError as error:
            raise ApiFailure(0, error.sentence) from None
        stream = await _connect(endpoint)
        answer = _Answer()
        reading = asyncio.ensure_future(answer.read_from(stream, endpoint, target))
        try:
            await answer.head()
            yield answer
        finally:
            stream.close()
            reading.cancel()
            await asyncio.wait([reading])


class _Answer(HTTPMessageDelegate):
    """One answer on its way in: at most two buffers wait in it, then the socket does."""

    def __init__(self) -> None:
        self.status = 0
        self._headers_seen = asyncio.Event()
        self._chunks: asyncio.Queue[bytes | None] = asyncio.Queue(maxsize=1)
        self._finished = False

    async def read_from(self, stream: IOStream, endpoint: Endpoint, target: str) -> None:
        """Ask for ``target`` and read until the end; what goes wrong is told by :meth:`head` and :meth:`chunks`."""
        parameters = HTTP1ConnectionParameters(no_keep_alive=True, max_header_size=65536, max_body_size=1 << 62)
        connection = HTTP1Connection(stream, is_client=True, params=parameters)
        # HTTP1Connection logs and swallows what goes wrong while reading, or raises StreamClosedError; either way an
        # answer that was not finished says so to whoever waits for it.
        with suppress(StreamClosedError):
            connection.write_headers(RequestStartLine("GET", endpoint.path + target, ""), _headers(endpoint))
            connection.finish()
            await connection.read_response(self)
        self._headers_seen.set()
        await self._chunks.put(None)

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        if isinstance(start_line, ResponseStartLine) and start_line.code >= 200:
            self.status = start_line.code
            self._headers_seen.set()
        return None

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        return self._chunks.put(chunk)

    def finish(self) -> None:
        self._finished = True

    async def head(self) -> None:
        """Wait for the status; raises ``ApiFailure`` when none comes."""
        await _within(ANSWER_SECONDS, self._headers_seen.wait())
        if not self.status:
            raise ApiFailure(0, "the connection dropped before an answer")

    async def chunks(self, idle_seconds: float) -> AsyncGenerator[bytes, None]:
        """Yield the body as it comes; raises ``ApiFailure`` when it stops or the connection drops before its end."""
        while (chunk := await _within(idle_seconds, self._chunks.get())) is not None:
            yield chunk
        if not self._finished:
            raise ApiFailure(0, "the connection dropped in the middle of an answer")

    async def whole(self, max_bytes: int) -> bytes:
        """Return the body; raises ``ApiFailure`` as :meth:`chunks` does, and when it is too long."""
        body = bytearray()
        async with aclosing(self.chunks(ANSWER_SECONDS)) as chunks:
            async for chunk in chunks:
                body += chunk
                if len(body) > max_bytes:
                    raise ApiFailure(0, f"an answer of more than {max_bytes} bytes")
        return bytes(body)


async def _within(seconds: float, awaitable: Awaitable[T]) -> T:
    try:
        async with asyncio.timeout(seconds):
            return await awaitable
    except TimeoutError:
        raise ApiFailure(0, f"no answer within {seconds:g} seconds") from None


async def _connect(endpoint: Endpoint) -> IOStream:
    loop = asyncio.get_running_loop()
    try:
        addresses = await loop.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ApiFailure(0, f"{endpoint.host} has no address: {error.strerror}") from None
    failure = ApiFailure(0, f"{endpoint.host} has no address")
    for family, kind, protocol, _, address in addresses:
        try:
            return await _connect_to(endpoint, socket.socket(family, kind, protocol), address)
        except ApiFailure as error:
            failure = error
    raise failure


async def _connect_to(endpoint: Endpoint, plain: socket.socket, address: Any) -> IOStream:
    stream = SSLIOStream(plain, ssl_options=endpoint.tls) if endpoint.tls else IOStream(plain)
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await stream.connect(address, server_hostname=endpoint.server_name)
    except TimeoutError:
        stream.close()
        raise ApiFailure(0, f"{endpoint.host}:{endpoint.port}: no connection in {CONNECT_SECONDS:g} seconds") from None
    except (StreamClosedError, OSError) as error:
        stream.close()
        cause = getattr(error, "real_error", None) or error
        raise ApiFailure(0, f"{endpoint.host}:{endpoint.port}: {cause}") from None
    except BaseException:
        stream.close()
        raise
    return stream


def _headers(endpoint: Endpoint) -> HTTPHeaders:
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    headers = HTTPHeaders({"Host": f"{host}:{endpoint.port}", "Accept": "application/json", "Connection": "close"})
    headers["User-Agent"] = "tornado-backups"
    if endpoint.token:
        headers["Authorization"] = f"Bearer {endpoint.token}"
    return headers


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        raise ApiFailure(0, "an answer that is no JSON") from None
    if not isinstance(value, dict):
        raise ApiFailure(0, "an answer that is no JSON object")
    return value


def _refusal(status: int, body: bytes) -> ApiFailure:
    """Make the failure of a ``Status`` object; its message is the API server's own and names no secret's content."""
    try:
        message = str(_parsed(body).get("message", ""))
    except ApiFailure:
        message = ""
    return ApiFailure(status, f"the API server answered {status}" + (f": {message[:300]}" if message else ""))
