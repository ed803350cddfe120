"""Webhooks and pings reach the outside, and nothing that lies inside, by whatever name or detour."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from tornado.iostream import IOStream

from tornado_backups.domain.errors import CallbackFailed
from tornado_backups.outbound import http as module
from tornado_backups.outbound.http import GuardedResolver, HttpCallbackClient, is_public

INSIDE = [
    "127.0.0.1", "127.255.255.254", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1",
    "169.254.169.254", "100.64.0.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255",
    "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12:3456::1", "fec0::1", "ff02::1", "100::1",
    "2001:db8::1", "64:ff9b:1::1",
    # an IPv4 address inside: mapped, translated, compatible, NAT64, 6to4, Teredo (its last bits are inverted)
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:0:127.0.0.1", "::127.0.0.1",
    "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2002:a00:1::", "2001:0:0:0:0:0:80ff:fffe",
]  # fmt: skip
OUTSIDE = ["1.1.1.1", "8.8.8.8", "172.32.0.1", "192.169.0.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]


@dataclass
class Outside:
    """A real HTTP server, which happens to be on loopback."""

    port: int
    requests: list[tuple[str, str, bytes, dict[str, str]]] = field(default_factory=list)

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        """Return a URL on it."""
        return f"http://{host}:{self.port}{path}"


@pytest.fixture
def outside() -> Iterator[Outside]:
    """A server that answers ``/NNN`` with status NNN, redirects ``/to/URL``, and sends 200 else."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            here.requests.append((self.command, self.path, self.rfile.read(length), dict(self.headers)))
            word = self.path.strip("/")
            if word == "redirect":
                self.send_response(302)
                self.send_header("Location", here.url("/target"))
            else:
                self.send_response(int(word) if word.isdigit() else 200)
            body = b"x" * {"large": 200_000, "204": 0}.get(word, 2)
            if body:  # a 204 has neither (RFC 9110, 8.6)
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST

        def log_message(self, *given: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    here = Outside(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield here
    server.shutdown()
    thread.join()
    server.server_close()


async def called(url: str, allow_private: bool = True, **given: Any) -> None:
    """Call once with a client of its own."""
    client = HttpCallbackClient(allow_private)
    try:
        await client.call(url, **given)
    finally:
        await client.close()


def resolving(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Let names resolve to ``answers``, one after the other, the last for ever; return the names asked for."""
    asked: list[str] = []

    async def getaddrinfo(self: Any, host: str, port: int, **named: Any) -> list[Any]:
        addresses = answers[min(len(asked), len(answers) - 1)]
        asked.append(host)
        families = [(socket.AF_INET6 if ":" in address else socket.AF_INET, address) for address in addresses]
        return [(family, socket.SOCK_STREAM, 6, "", (address, port)) for family, address in families]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
    return asked


@pytest.mark.parametrize("address", INSIDE)
def test_an_address_inside_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", OUTSIDE)
def test_an_address_outside_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.gen_test
async def test_a_get_and_a_post_arrive_as_they_were_given(outside: Outside) -> None:
    await called(outside.url("/ping?x=1"))
    await called(outside.url("/hook"), body='{"ä": 1}', headers={"X-Signature-256": "sha256=00"})
    (get, ping, nothing, _), (post, hook, body, headers) = outside.requests
    assert (get, ping, nothing) == ("GET", "/ping?x=1", b"")
    assert (post, hook, body) == ("POST", "/hook", '{"ä": 1}'.encode())
    assert headers["X-Signature-256"] == "sha256=00"


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "2130706433", "127.1", "0x7f000001", "[::1]", "[::ffff:127.0.0.1]"]
)
async def test_loopback_is_refused_however_it_is_spelled_and_nothing_is_sent(outside: Outside, host: str) -> None:
    with pytest.raises(CallbackFailed, match=r"private|reached"):
        await called(outside.url(host=host), allow_private=False)
    assert outside.requests == []


@pytest.mark.gen_test
async def test_a_name_with_addresses_inside_and_outside_leads_only_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, ["10.0.0.1", "1.1.1.1", "fe80::1", "2606:4700::1111"])
    found = await GuardedResolver(allow_private=False).resolve("example.org", 443)
    assert [address[0] for _, address in found] == ["1.1.1.1", "2606:4700::1111"]


@pytest.mark.gen_test
async def test_the_address_that_was_checked_is_the_one_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = resolving(monkeypatch, ["192.0.2.1", "1.1.1.1"], ["127.0.0.1"])
    connected: list[str] = []

    def connect(self: Any, address: tuple[str, int], *given: Any, **named: Any) -> Any:
        connected.append(address[0])
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        future.set_exception(OSError("no route"))
        return future

    monkeypatch.setattr(IOStream, "connect", connect)
    with pytest.raises(CallbackFailed):
        await called("http://rebinding.example/", allow_private=False)
    assert asked == ["rebinding.example"]
    assert connected == ["1.1.1.1"]


@pytest.mark.gen_test
async def test_a_redirect_is_not_followed(outside: Outside) -> None:
    with pytest.raises(CallbackFailed, match="302"):
        await called(outside.url("/redirect"))
    assert [path for _, path, _, _ in outside.requests] == ["/redirect"]


@pytest.mark.gen_test
@pytest.mark.parametrize("status", [400, 404, 410, 500, 503])
async def test_any_answer_but_2xx_is_not_delivered(outside: Outside, status: int) -> None:
    with pytest.raises(CallbackFailed, match=str(status)):
        await called(outside.url(f"/{status}"))


@pytest.mark.gen_test
@pytest.mark.parametrize("status", [200, 201, 202, 204])
async def test_2xx_is_delivered(outside: Outside, status: int) -> None:
    await called(outside.url(f"/{status}"))
    assert len(outside.requests) == 1


@pytest.mark.gen_test
async def test_an_answer_too_large_to_keep_is_cut_off(outside: Outside) -> None:
    with pytest.raises(CallbackFailed):
        await called(outside.url("/large"))


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://127.0.0.1/", "nonsense", "http://", "http://[", "http://a b/", ""]
)
async def test_what_is_no_http_url_fails_as_a_callback_and_not_as_a_bug(url: str) -> None:
    with pytest.raises(CallbackFailed):
        await called(url)


@pytest.mark.gen_test
async def test_a_name_that_does_not_resolve_and_a_port_where_nobody_listens_fail_as_callbacks() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(CallbackFailed, match="cannot be reached"):
            await called(f"http://127.0.0.1:{bound.getsockname()[1]}/")
    with pytest.raises(CallbackFailed, match="cannot be reached"):
        await called("http://does-not-exist.invalid/")


@pytest.mark.gen_test
async def test_a_server_that_never_answers_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CALL_SECONDS", 0.2)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with pytest.raises(CallbackFailed):
            await called(f"http://127.0.0.1:{listener.getsockname()[1]}/")


@pytest.mark.gen_test
async def test_close_may_be_called_again_and_before_any_call() -> None:
    client = HttpCallbackClient(False)
    await client.close()
    await client.close()
