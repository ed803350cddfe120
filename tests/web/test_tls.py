"""HTTPS ended by the server itself: who gets through the handshake, and that nothing else changes by it."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from tests.servers.certificates import Authority
from tests.serving import PASSWORD, REPOSITORY, Answer, RunningServer, Tree, message
from tornado_backups.domain.errors import StartupError
from tornado_backups.web.listening import tls_context

LAST_CHUNK = b"0\r\n\r\n"
CURL_COULD_NOT_VERIFY = 60


@dataclass(frozen=True, slots=True)
class Secured:
    """A server behind TLS, and what its clients need."""

    server: RunningServer
    authority: Authority
    chain: Path
    token: str

    def context(self, authority: Authority | None = None, client_chain: Path | None = None) -> ssl.SSLContext:
        """Return what a client trusts and shows."""
        context = ssl.create_default_context(cafile=str((authority or self.authority).ca_file))
        if client_chain is not None:
            context.load_cert_chain(client_chain)
        return context

    def connect(self, context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
        """Return a connected socket after its handshake."""
        raw = self.server.raw()
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return (context or self.context()).wrap_socket(raw, server_hostname="127.0.0.1")

    def begin(self, *lines: str, context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
        """Begin an upload and return the socket after its head was sent."""
        sock = self.connect(context)
        fixed = (f"POST {REPOSITORY}/files/version HTTP/1.1", "Host: x", f"Authorization: Bearer {self.token}")
        sock.sendall("\r\n".join((*fixed, *lines, "", "")).encode())
        return sock

    def curl(
        self, *arguments: str | Path, path: str = f"{REPOSITORY}/files/version"
    ) -> subprocess.CompletedProcess[str]:
        """Run real curl."""
        words = ["curl", "-sS", "--cacert", self.authority.ca_file, "-H", f"Authorization: Bearer {self.token}"]
        url = f"https://127.0.0.1:{self.server.port}{path}"
        return subprocess.run(
            [*map(str, (*words, *arguments)), url], capture_output=True, text=True, timeout=60, check=False
        )


def request(
    server: RunningServer, context: ssl.SSLContext, method: str, path: str, body: object = None, token: str = ""
) -> Answer:
    """Send one request over TLS."""
    headers: Mapping[str, str] = {"Authorization": f"Bearer {token}"} if token else {}
    payload = json.dumps(body) if isinstance(body, dict) else body
    connection = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=20, context=context)
    try:
        connection.request(method, path, payload, dict(headers))  # type: ignore[arg-type]
        response = connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        connection.close()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """A certificate authority."""
    return Authority(tmp_path / "authority")


@pytest.fixture
def secure(
    tmp_path: Path, tree: Tree, start: Callable[..., RunningServer], authority: Authority
) -> Callable[..., Secured]:
    """Start a server with a certificate of the authority."""

    def start_one(**options: object) -> Secured:
        tree.user("admin", roles=["systemAdmin"])
        tree.collection("files", maxOneVersionSize="1M", maxCollectionSize="5M")
        chain = tmp_path / "served.pem"
        chain.write_bytes(authority.server_chain.read_bytes())
        server = start(tls_cert=chain, tls_key=chain, **options)
        context = ssl.create_default_context(cafile=str(authority.ca_file))
        if "tls_client_ca" in options:
            context.load_cert_chain(authority.client_chain)
        login = {"username": "admin", "password": PASSWORD}
        answer = request(server, context, "POST", "/api/stable/auth/login", login)
        return Secured(server, authority, chain, str(answer.data["token"]))

    return start_one


def read_to_end(sock: socket.socket) -> bytes:
    """Read until the server closes, a reset counting as a close."""
    data = b""
    try:
        while piece := sock.recv(65536):
            data += piece
    except ConnectionResetError:
        return data
    return data


def chunk(data: bytes) -> bytes:
    """Return data as one chunk."""
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


# -- who gets through the handshake ----------------------------------------------------------------------------------


def test_a_file_makes_the_round_trip_bit_for_bit(secure: Callable[..., Secured]) -> None:
    secured = secure()
    body = message(900_000)
    stored = request(secured.server, secured.context(), "POST", f"{REPOSITORY}/files/version", body, secured.token)
    assert stored.status == 200
    got = request(secured.server, secured.context(), "GET", f"{REPOSITORY}/files/version/1", None, secured.token)
    assert got.body == body


def test_a_reader_that_falters_gets_every_byte_in_its_place(secure: Callable[..., Secured], tree: Tree) -> None:
    """The server's buffers are used again, and never before what was in them has left."""
    secured = secure()
    tree.collection("large")
    path, body = f"{REPOSITORY}/large/version", message(9_000_000, bytes(range(251)))
    assert request(secured.server, secured.context(), "POST", path, body, secured.token).status == 200
    connection = http.client.HTTPSConnection("127.0.0.1", secured.server.port, timeout=20, context=secured.context())
    connection.request("GET", f"{path}/latest", None, {"Authorization": f"Bearer {secured.token}"})
    response, received = connection.getresponse(), bytearray()
    while piece := response.read(100_000):
        received += piece
        time.sleep(0.005)
    connection.close()
    assert received == body


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_current_versions_of_tls_are_spoken(secure: Callable[..., Secured], version: ssl.TLSVersion) -> None:
    secured = secure()
    context = secured.context()
    context.minimum_version = context.maximum_version = version
    with secured.connect(context) as sock:
        assert sock.version() == {ssl.TLSVersion.TLSv1_2: "TLSv1.2", ssl.TLSVersion.TLSv1_3: "TLSv1.3"}[version]


def client_hello(version: bytes) -> bytes:
    """Return a ClientHello (RFC 5246, 7.4.1.2) as old clients send it: without extensions."""
    suites = bytes.fromhex("c02bc02fc009c013002f0035")
    hello = version + bytes(32) + b"\x00" + len(suites).to_bytes(2, "big") + suites + b"\x01\x00"
    handshake = b"\x01" + len(hello).to_bytes(3, "big") + hello
    return b"\x16\x03\x01" + len(handshake).to_bytes(2, "big") + handshake


ALERT, PROTOCOL_VERSION = 21, 70


@pytest.mark.parametrize("version", [b"\x03\x01", b"\x03\x02"])
def test_older_versions_are_refused_as_what_they_are(secure: Callable[..., Secured], version: bytes) -> None:
    secured = secure()
    with secured.server.raw() as sock:
        sock.sendall(client_hello(version))
        answer = read_to_end(sock)
    assert (answer[0], answer[6]) == (ALERT, PROTOCOL_VERSION)
    with secured.server.raw() as sock:
        sock.sendall(client_hello(b"\x03\x03"))
        answer = sock.recv(1000)
    assert (answer[0], answer[6]) != (ALERT, PROTOCOL_VERSION), "the same greeting as TLS 1.2 is not refused for that"


def test_with_a_client_authority_only_its_own_get_through(
    secure: Callable[..., Secured], authority: Authority, tmp_path: Path
) -> None:
    secured = secure(tls_client_ca=authority.ca_file)
    stranger = Authority(tmp_path / "stranger")
    assert ask(secured, secured.context(client_chain=authority.client_chain)) == 200
    for context in (secured.context(), secured.context(client_chain=stranger.client_chain)):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            ask(secured, context)


def ask(secured: Secured, context: ssl.SSLContext) -> int:
    """Return the status of ``/health``."""
    return request(secured.server, context, "GET", "/health").status


def test_plain_http_on_a_tls_port_gets_no_answer_and_does_no_harm(secure: Callable[..., Secured]) -> None:
    secured = secure()
    with secured.server.raw() as sock:
        sock.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"HTTP/1.1" not in read_to_end(sock)
    assert ask(secured, secured.context()) == 200


def test_a_handshake_that_never_ends_is_dropped(secure: Callable[..., Secured]) -> None:
    secured = secure(idle_timeout="1s")
    with secured.server.raw() as sock:
        sock.sendall(client_hello(b"\x03\x03")[:20])
        started = time.monotonic()
        assert read_to_end(sock) == b""
        assert time.monotonic() - started < 10


# -- the files -------------------------------------------------------------------------------------------------------


def reload(server: RunningServer) -> None:
    """Do what SIGHUP does."""

    async def call() -> None:
        server.server.reload()

    server.run(call)


def test_a_new_certificate_is_served_after_a_reload_and_open_connections_stay(
    secure: Callable[..., Secured], tmp_path: Path
) -> None:
    secured = secure()
    newer = Authority(tmp_path / "newer")
    with secured.connect() as old:
        old.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert old.recv(4000).startswith(b"HTTP/1.1 200")
        secured.chain.write_bytes(newer.server_chain.read_bytes())
        assert ask(secured, secured.context()) == 200, "not before the reload"
        reload(secured.server)
        assert ask(secured, secured.context(newer)) == 200
        with pytest.raises(ssl.SSLCertVerificationError):
            ask(secured, secured.context())
        old.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert old.recv(4000).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("damage", [b"", b"not a certificate", None])
def test_a_broken_certificate_keeps_the_one_in_use(
    secure: Callable[..., Secured], damage: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    secured = secure()
    if damage is None:
        secured.chain.unlink()
    else:
        secured.chain.write_bytes(damage)
    reload(secured.server)
    assert ask(secured, secured.context()) == 200
    assert f"kept the certificate in use: cannot use the TLS files {secured.chain}" in caplog.text


def test_a_client_authority_that_is_replaced_lets_its_clients_in_no_more(
    secure: Callable[..., Secured], authority: Authority, tmp_path: Path
) -> None:
    trusted = tmp_path / "clients.crt"
    trusted.write_bytes(authority.ca_file.read_bytes())
    secured = secure(tls_client_ca=trusted)
    newer = Authority(tmp_path / "newer")
    trusted.write_bytes(newer.ca_file.read_bytes())
    reload(secured.server)
    assert ask(secured, secured.context(client_chain=newer.client_chain)) == 200
    with pytest.raises((ssl.SSLError, ConnectionError)):
        ask(secured, secured.context(client_chain=authority.client_chain))


def encrypt_key(chain: Path) -> None:
    """Put a passphrase on the key of a chain."""
    text = chain.read_bytes()
    begin = text.index(b"-----BEGIN PRIVATE KEY-----")
    key = serialization.load_pem_private_key(text[begin:], None)
    encryption = serialization.BestAvailableEncryption(b"a passphrase")
    encrypted = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    chain.write_bytes(text[:begin] + encrypted)


def test_files_that_cannot_be_used_are_named_at_the_start(authority: Authority, tmp_path: Path) -> None:
    chain, missing = authority.server_chain, tmp_path / "missing.pem"
    for cert, key, client_ca in (
        (missing, chain, None),
        (chain, missing, None),
        (chain, authority.client_chain, None),
        (chain, chain, missing),
        (authority.ca_file, authority.ca_file, None),
    ):
        with pytest.raises(StartupError, match=str(cert)):
            tls_context(cert, key, client_ca)


def test_a_key_with_a_passphrase_is_refused_and_nobody_is_asked_for_it(authority: Authority) -> None:
    encrypt_key(authority.server_chain)
    with pytest.raises(StartupError, match="cannot use the TLS files"):
        tls_context(authority.server_chain, authority.server_chain, None)


# -- transfers -------------------------------------------------------------------------------------------------------


def drop(sock: ssl.SSLSocket) -> None:
    """Close the connection below TLS, as a crashed client does."""
    socket.socket.close(sock)


def half_close(sock: ssl.SSLSocket) -> None:
    """Close our direction of the connection below TLS only."""
    socket.socket.shutdown(sock, socket.SHUT_WR)


def say_goodbye(sock: ssl.SSLSocket) -> None:
    """End TLS in order: ``close_notify``, without waiting for the server's own."""
    sock.settimeout(0)
    try:
        sock.unwrap()
    except (ssl.SSLError, OSError, ValueError):
        return  # the server does not answer it; ours was sent, which is all we want


@pytest.mark.parametrize("leave", [drop, half_close, say_goodbye])
@pytest.mark.parametrize("when", ["in the middle", "after the last byte", "after the last chunk"])
def test_a_client_that_leaves_has_cancelled(
    secure: Callable[..., Secured], leave: Callable[[ssl.SSLSocket], None], when: str
) -> None:
    secured = secure()
    body = message(100_000)
    chunked = when == "after the last chunk"
    with secured.begin("Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}") as sock:
        sock.sendall(chunk(body) if chunked else body[:-1])
        wait_until(lambda: len(secured.server.server.context.transfers) == 1)
        if when != "in the middle":
            sock.sendall(LAST_CHUNK if chunked else body[-1:])
        leave(sock)
        wait_until(lambda: not secured.server.server.context.transfers and not secured.server.objects())
    path, answers = f"{REPOSITORY}/files/version", []

    def stored() -> bool:
        """Upload again, as soon as the cancelled one has given the collection free."""
        answers.append(request(secured.server, secured.context(), "POST", path, message(), secured.token))
        return answers[-1].status != 409

    wait_until(stored)
    assert answers[-1].data["version"]["versionNumber"] == 1


def wait_until(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until something holds; fail when it does not in time."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


@pytest.mark.parametrize("expect", ["Expect: 100-continue", "Expect:"])
@pytest.mark.parametrize("size", [1_500_000, 20_000_000])
def test_real_curl_shows_an_early_refusal(
    secure: Callable[..., Secured], tmp_path: Path, expect: str, size: int
) -> None:
    secured = secure()
    large = tmp_path / "large"
    large.write_bytes(message(size))
    for how in (["--data-binary", f"@{large}"], ["-T", str(large)], ["-F", f"file=@{large}"]):
        done = secured.curl("-H", expect, *how)
        assert '"reason": "quota-exceeded"' in done.stdout, (how, done)
    assert secured.server.objects() == []


def test_a_refusal_comes_instead_of_the_continue(secure: Callable[..., Secured]) -> None:
    with secure().begin("Content-Length: 5000000", "Expect: 100-continue") as sock:
        assert sock.recv(1000).startswith(b"HTTP/1.1 413")


def test_real_curl_uploads_and_downloads(secure: Callable[..., Secured], tmp_path: Path) -> None:
    secured = secure()
    sent, received = tmp_path / "sent", tmp_path / "received"
    sent.write_bytes(message(800_000))
    assert '"versionNumber": 1' in secured.curl("--data-binary", f"@{sent}").stdout
    assert secured.curl("-o", received, path=f"{REPOSITORY}/files/version/latest").returncode == 0
    assert received.read_bytes() == sent.read_bytes()
    untrusting = subprocess.run(
        ["curl", "-sS", f"https://127.0.0.1:{secured.server.port}/health"], capture_output=True, timeout=60, check=False
    )
    assert untrusting.returncode == CURL_COULD_NOT_VERIFY


@pytest.mark.parametrize("path", ["/health", "/nothing", "/api/stable/auth/whoami", "/api/stable/auth/user/%FF"])
def test_browsers_are_told_to_stay_with_https(secure: Callable[..., Secured], path: str) -> None:
    secured = secure()
    answer = request(secured.server, secured.context(), "GET", path)
    assert answer.headers["strict-transport-security"] == "max-age=31536000"
