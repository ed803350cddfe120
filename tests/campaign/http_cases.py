"""Requests as no honest client sends them, as raw bytes.

Owns: the table of cases, each with how many answers it may have: a request that can be read in two ways must not be
answered and followed by another one, or a proxy in front of us and we disagree on where a request ends (request
smuggling). Does not own: sending them (``http``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from random import Random

from tornado_backups.web.routes import ROUTES, paths

NEXT = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
"""What follows every case on the same connection: answered only where the end of the first request is beyond doubt."""


@dataclass(frozen=True, slots=True)
class Case:
    """``answers`` is the most that may come back, ``least`` the fewest; ``statuses`` what they may be (empty: any)."""

    kind: str
    name: str
    data: bytes
    answers: int = 1
    least: int = 0
    statuses: frozenset[int] = frozenset()


LENGTHS = (
    "5, 6", "5,5", "+5", "-5", "0x5", "5 5", "5;", "", " ", "１", "99999999999999999999", "1e3", "5.0", "٥", "5\x0b",
    "9223372036854775807", "9" * 18, "9" * 5000, "0" * 5000 + "5",
)  # fmt: skip
ENCODINGS = (
    "chunked, chunked", "identity", "gzip, chunked", "chunked, gzip", "Chunked", "chunked\t", "\x0bchunked", "x",
    "chunked;q=1", "\"chunked\"", "chunked,", "",
)  # fmt: skip
SIZES = (
    b"", b"g", b"-1", b"+5", b"0x5", b"5;ext=1", b"5 ", b" 5", b"f" * 17, b"f" * 100, b"5\n", b"5\r", b"5_0", b"\x00",
    b"5\r\n\r\n", "５".encode(), b"0" * 40 + b"5", b"8000000000000000",
)  # fmt: skip


BEYOND_DOUBT = frozenset(
    {
        "encoding 'Chunked'",
        "encoding 'chunked\\t'",
        "name 'Transfer_Encoding'",
        "chunk size b'00000000000000000000000000000000000000005'",
        "one byte chunks",
    }
)
"""Cases that can be read in one way only: there, what follows is the next request."""


def framing(upload_head: bytes) -> Iterator[Case]:
    """Lengths and encodings; ``upload_head`` ends with the empty line."""
    head = upload_head[:-2].decode()

    def case(name: str, lines: str, body: bytes = b"hello") -> Case:
        data = head.encode() + lines.encode() + b"\r\n" + body + NEXT
        return Case("framing", name, data, 2 if name in BEYOND_DOUBT else 1)

    for length in LENGTHS:
        yield case(f"Content-Length {length!r}", f"Content-Length: {length}\r\n")
    for first, second in product((0, 5, 60), (0, 5, 60)):
        lines = f"Content-Length: {first}\r\nContent-Length: {second}\r\n"
        yield case(f"lengths {first} and {second}", lines)
    for length, encoding in product((0, 5, 15, 60), ("chunked", "Chunked", "identity", "x")):
        lines = f"Content-Length: {length}\r\nTransfer-Encoding: {encoding}\r\n"
        yield case(f"length {length} and {encoding}", lines, b"5\r\nhello\r\n0\r\n\r\n")
        lines = f"Transfer-Encoding: {encoding}\r\nContent-Length: {length}\r\n"
        yield case(f"{encoding} and length {length}", lines, b"5\r\nhello\r\n0\r\n\r\n")
    for encoding in ENCODINGS:
        yield case(f"encoding {encoding!r}", f"Transfer-Encoding: {encoding}\r\n", b"5\r\nhello\r\n0\r\n\r\n")
    for name in (
        "Transfer-Encoding ",
        " Transfer-Encoding",
        "Transfer_Encoding",
        "Transfer-Encoding\x00",
        "X:\nTransfer-Encoding",
    ):
        yield case(f"name {name!r}", f"{name}: chunked\r\nContent-Length: 5\r\n", b"0\r\n\r\n")
    chunked = "Transfer-Encoding: chunked\r\n"
    yield case("two encodings", chunked * 2, b"0\r\n\r\n")
    for size in SIZES:
        yield case(f"chunk size {size!r}", chunked, size + b"\r\nhello\r\n0\r\n\r\n")
    for name, body in {
        "no line end after a chunk": b"5\r\nhello0\r\n\r\n",
        "a chunk longer than said": b"4\r\nhello\r\n0\r\n\r\n",
        "a trailer": b"5\r\nhello\r\n0\r\nX: y\r\n\r\n",
        "bare line feeds": b"5\nhello\n0\n\n",
        "an endless chunk extension": b"5;" + b"x" * 100_000 + b"\r\nhello\r\n0\r\n\r\n",
        "one byte chunks": b"1\r\nx\r\n" * 5000 + b"0\r\n\r\n",
    }.items():
        yield case(name, chunked, body)
    for version in ("1.0", "0.9", "1.9", "2.0", "1.1 "):
        odd = head.replace("HTTP/1.1", f"HTTP/{version}", 1)
        yield Case(
            "framing", f"chunked in HTTP/{version}", (odd + chunked).encode() + b"\r\n5\r\nhello\r\n0\r\n\r\n" + NEXT
        )


def heads() -> Iterator[Case]:
    """Heads of all sizes and shapes."""

    def case(name: str, data: bytes, answers: int = 2) -> Case:
        return Case("heads", name, data, answers)

    get = b"GET /health HTTP/1.1\r\n"
    host = get + b"Host: x\r\n"
    yield case("one header of 31 KiB", host + b"X: " + b"x" * 31_000 + b"\r\n\r\n" + NEXT)
    yield case("one header of 200 KiB", host + b"X: " + b"x" * 200_000 + b"\r\n\r\n" + NEXT)
    yield case("endless headers", host + b"X: y\r\n" * 50_000)
    yield case("as many headers as fit", host + b"a:\r\n" * 8000 + b"\r\n" + NEXT)
    yield case("the same header as often as fits", host + b"X-Forwarded-For: 1\r\n" * 1500 + b"\r\n" + NEXT)
    yield case("an endless request line", b"GET /" + b"x" * 300_000)
    yield case("an endless method", b"G" * 300_000)
    yield case("empty lines without end", b"\r\n" * 40_000)
    yield case("empty lines first", b"\r\n" * 20 + NEXT)
    for octet in (*range(33), 0x7F, 0x80, 0xFF):
        raw = bytes([octet])
        yield case(f"0x{octet:02x} in a name", host + b"X" + raw + b"Y: z\r\n\r\n" + NEXT)
        yield case(f"0x{octet:02x} in a value", host + b"X: a" + raw + b"b\r\n\r\n" + NEXT)
        yield case(f"0x{octet:02x} in the path", b"GET /health" + raw + b"x HTTP/1.1\r\nHost: x\r\n\r\n" + NEXT)
        yield case(f"0x{octet:02x} in the method", b"GE" + raw + b"T /health HTTP/1.1\r\nHost: x\r\n\r\n" + NEXT)
        yield case(f"0x{octet:02x} in a token", host + b"Authorization: Bearer a" + raw + b"b\r\n\r\n" + NEXT)
    for name, line in {
        "no colon": b"hello\r\n",
        "an empty name": b": x\r\n",
        "a blank before the colon": b"X : y\r\n",
        "a fold": b"X: y\r\n z\r\n",
        "a fold first": b" X: y\r\n",
        "two hosts": b"Host: y\r\n",
        "a bad host": b"Host: a b/c\r\n",
        "an upgrade": b"Connection: Upgrade\r\nUpgrade: websocket\r\n",
        "h2c": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n",
        "Expect of something else": b"Expect: 200-ok\r\n",
        "a compressed body": b"Content-Encoding: gzip\r\nContent-Length: 0\r\n",
    }.items():
        yield case(name, host + line + b"\r\n" + NEXT)
    yield case("no host", get + b"\r\n" + NEXT)
    yield case("bare line feeds", host.replace(b"\r\n", b"\n") + b"\n" + NEXT)
    yield case("bare returns", host.replace(b"\r\n", b"\r") + b"\r")


def start_lines() -> Iterator[Case]:
    """Methods, targets and versions."""

    def case(name: str, line: bytes) -> Case:
        return Case("start lines", name, line + b"\r\nHost: x\r\n\r\n" + NEXT, 2)

    for method in ("get", "BREW", "TRACE", "PATCH", "OPTIONS", "CONNECT", "PROPFIND", "A" * 5000, "", "G T", "GÉT", "*",
                   "on_get", "__init__", "_run", "data_received"):  # fmt: skip
        for target in ("/health", "*", "x:80", "/api/stable/repository/collection/files/version"):
            yield case(f"{method[:20]} {target}", f"{method} {target} HTTP/1.1".encode())
    for target in ("http://x/health", "http://x", "http://[::1/health", "http:///health", "//x/health", "x://y//health",
                   "https://u:p@x:99999/health?x#y", "health", "", "/health#x", "/health?", "?", "#", "://", "http://x?/health",
                   "/" * 10_000, "/health" + "/" * 10_000, "/api/stable//repository//collection"):  # fmt: skip
        yield case(f"target {target[:40]}", f"GET {target} HTTP/1.1".encode())
    for version in ("HTTP/1.0", "HTTP/0.9", "HTTP/1.9", "HTTP/2.0", "HTTP/11", "http/1.1", "HTTP/1.1 x", "HTTP/-1.1",
                    "", "\x00", "HTTP/1." + "1" * 5000):  # fmt: skip
        yield case(f"version {version[:20]}", f"GET /health {version}".encode())
    for name, data in {
        "TLS": bytes.fromhex("16030100c2010000be0303") + bytes(190),
        "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
        "SSH": b"SSH-2.0-x\r\n",
        "nothing but NUL": bytes(70_000),
        "PROXY": b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + NEXT,
        "noise": Random(1).randbytes(50_000),
        "one byte": b"G",
    }.items():
        yield Case("start lines", name, data, 2)


ODD_PARTS = (
    "%00", "%2e%2e", "..", ".", "%2F", "%5c..%5c", "%", "%zz", "%ff", "%c0%ae", "%ed%a0%80", "żółw", "%E2%80%AE",
    "%0d%0aX:%20y", "x" * 3000, "\\", ";", "*", "~", "'", '"', "<script>", "{0}", "%s%n", "+", "%20", "%25",
    "${version}", "files%00", "FILES", "files.yaml", "files/", "-1", "0", "v1", "v", "1e3", "9" * 400, "latest",
    "%F0%9F%92%BE", "files%2Fversion%2F1",
)  # fmt: skip
QUERIES = (
    "?",
    "?x",
    "?code=%ff",
    "?code=" + "x" * 5000,
    "?userName=%00",
    "?sessionId=%zz",
    "?code=a&code=b",
    "?" + "a=b&" * 2000,
)


def odd_paths(token: str) -> Iterator[Case]:
    """Every parameter of every route replaced by what no name is, with every method."""
    authorization = f"Host: x\r\nAuthorization: Bearer {token}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    for route in ROUTES:
        path = paths(route)[0]
        methods = (*route.operations, "DELETE", "GET")
        for name in (part[1:-1] for part in path.split("/") if part.startswith("{")):
            for odd, method in product(ODD_PARTS, dict.fromkeys(methods)):
                if (name, odd) in (("version", "v1"), ("version", "latest")) or odd == "files/":
                    method = "GET"
                target = path.replace(f"{{{name}}}", odd).replace("{collection}", "files").replace("{version}", "1")
                data = f"{method} {target} HTTP/1.1\r\n{authorization}".encode()
                yield Case("paths", f"{method} {target[:60]}", data, 1, 1)
        for query in QUERIES:
            method = "GET" if "GET" in route.operations else "POST"
            target = path.replace("{collection}", "files").replace("{version}", "1").replace("{user}", "admin")
            yield Case(
                "paths",
                f"{method} {target}{query[:20]}",
                f"{method} {target}{query} HTTP/1.1\r\n{authorization}".encode(),
                1,
                1,
            )
