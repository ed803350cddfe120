"""One tenant of the load: a client of its own collection that behaves well most of the time.

Owns: what it does next, over a raw connection, and writing into its ledger what it was told. Does not own: the server,
which may be killed and come back on another port at any moment.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol

from tests.campaign import wire
from tests.campaign.ledger import Ledger
from tests.campaign.report import Report
from tests.serving import REPOSITORY

SECONDS = 60.0
BLOCK_BYTES = 128 * 1024
ABSENT = (
    ConnectionRefusedError,
    ConnectionResetError,
    BrokenPipeError,
    TimeoutError,
    http.client.HTTPException,
    OSError,
)


class World(Protocol):
    """What the tenants share."""

    report: Report
    port: int


@dataclass(frozen=True, slots=True)
class Body:
    """A message of ``size_bytes`` whose bytes follow from ``seed``; never whole in memory."""

    size_bytes: int
    seed: int

    def blocks(self) -> Iterator[bytes]:
        """Yield the bytes: a session key packet, one packet of encrypted data."""
        yield b"\xc3\x0d\x04\x09\x03\x08saltsalt\x60" + b"\xd2\xff" + (self.size_bytes + 1).to_bytes(4, "big") + b"\x01"
        tile = Random(self.seed).randbytes(BLOCK_BYTES)
        for at in range(0, self.size_bytes, BLOCK_BYTES):
            yield tile[: self.size_bytes - at]

    @property
    def length(self) -> int:
        """The number of bytes that :meth:`blocks` yields."""
        return self.size_bytes + 22

    def sha256(self) -> str:
        """Return the digest of the bytes."""
        digest = hashlib.sha256()
        for block in self.blocks():
            digest.update(block)
        return digest.hexdigest()


class Tenant:
    """A user with one collection."""

    def __init__(self, world: World, collection: str, keep: int, token: str, sizes: tuple[int, int], seed: int) -> None:
        self.world = world
        self.collection = collection
        self.token = token
        self.ledger = Ledger(collection, keep)
        self._sizes = sizes
        self._chance = Random(seed)
        self._doubtful: int | None = None

    def act(self) -> None:
        """Do one thing; a server that is away is no finding."""
        actions: tuple[tuple[int, Callable[[], str]], ...] = (
            (40, self._upload),
            (12, self._abort),
            (18, self._download),
            (12, self._list),
            (6, self._wrong_token),
            (5, self._wrong_digest),
            (4, self._not_encrypted),
            (3, self._delete),
        )
        action = self._chance.choices([action for _, action in actions], [weight for weight, _ in actions])[0]
        name = action.__name__[1:].replace("_", " ")
        try:
            self.settle()
            outcome = action()
        except ABSENT:
            outcome = "server away"
            time.sleep(0.1)
        except AssertionError as error:
            self.world.report.finding(f"{self.collection}: {name}: {error}")
            outcome = "finding"
        self.world.report.count(name, outcome)

    def settle(self) -> None:
        """Find out how a deletion ended that had no answer."""
        if self._doubtful is None:
            return
        if self._doubtful not in self._numbers():
            self.ledger.deleted(self._doubtful)
        self._doubtful = None

    def _body(self) -> Body:
        low, high = self._sizes
        # As many small ones as large ones on a logarithmic scale, as backups are.
        size = int(low * (high / low) ** self._chance.random())
        return Body(size, self._chance.randrange(1 << 60))

    # -- uploads -------------------------------------------------------------------------------------------------------

    def _upload(self) -> str:
        body = self._body()
        sha256 = body.sha256()
        framing = self._chance.choice(("length", "chunked", "form"))
        digest = self._chance.choice((f"X-Content-Sha256: {sha256}\r\n", ""))
        sock = wire.connect(self.world.port, SECONDS)
        with sock:
            whole = self._send(sock, body, framing, digest)
            try:
                status, answer = _answer(sock)
            except ABSENT:
                if whole:
                    self.ledger.unanswered(sha256)
                return "unanswered"
        if status == 200:
            version = answer["data"]["version"]
            self.world.report.check(version["sha256"] == sha256, f"{self.collection}: stored other bytes: {version}")
            self.ledger.stored(version["versionNumber"], sha256)
        else:
            self.world.report.check(status in (409, 503), f"{self.collection}: an upload is answered {status} {answer}")
        return str(status)

    def _send(self, sock: socket.socket, body: Body, framing: str, more: str = "", token: str = "") -> bool:
        """Send an upload; returns whether all of it was taken."""
        try:
            for piece in self._pieces(body, framing, more, token):
                sock.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def _pieces(self, body: Body, framing: str, more: str, token: str) -> Iterator[bytes]:
        before = b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n' if framing == "form" else b""
        after = b"\r\n--b--\r\n" if framing == "form" else b""
        lines = (
            "Transfer-Encoding: chunked"
            if framing == "chunked"
            else f"Content-Length: {len(before) + body.length + len(after)}"
        )
        if framing == "form":
            lines += "\r\nContent-Type: multipart/form-data; boundary=b"
        yield (
            f"POST {REPOSITORY}/{self.collection}/version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            f"Authorization: Bearer {token or self.token}\r\n{more}{lines}\r\n\r\n"
        ).encode() + before
        for block in body.blocks():
            yield b"%x\r\n%s\r\n" % (len(block), block) if framing == "chunked" else block
        yield b"0\r\n\r\n" if framing == "chunked" else after

    def _abort(self) -> str:
        """Send less than the whole, then leave: never stored."""
        pieces = list(self._pieces(self._body(), "length", "", ""))
        sock = wire.connect(self.world.port, SECONDS)
        with sock:
            for piece in pieces[: self._chance.randrange(len(pieces) - 1)]:
                sock.sendall(piece)
            sock.sendall(pieces[-2][:-1] if len(pieces) == 2 else b"")
            if self._chance.random() < 0.5:
                wire.reset(sock)
                return "reset"
        return "closed"

    def _wrong_token(self) -> str:
        return self._refused("length", "", (401, 503), token="wrong")

    def _wrong_digest(self) -> str:
        return self._refused("length", f"X-Content-Sha256: {'0' * 64}\r\n", (422, 409, 503))

    def _refused(self, framing: str, more: str, allowed: tuple[int, ...], token: str = "") -> str:
        sock = wire.connect(self.world.port, SECONDS)
        with sock:
            self._send(sock, self._body(), framing, more, token)
            status, answer = _answer(sock)
        self.world.report.check(status in allowed, f"{self.collection}: {status} {answer}, {allowed} are right")
        return str(status)

    def _not_encrypted(self) -> str:
        status, answer, _ = self._request("POST", "", b"PK\x03\x04" + bytes(5000))
        self.world.report.check(
            status in (422, 409, 503), f"{self.collection}: a zip file is answered {status} {answer!r}"
        )
        return str(status)

    # -- everything else -----------------------------------------------------------------------------------------------

    def _request(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes, str]:
        """Return status, the body when it is small, and its SHA-256."""
        connection = http.client.HTTPConnection("127.0.0.1", self.world.port, timeout=SECONDS)
        try:
            headers = {"Authorization": f"Bearer {self.token}"}
            connection.request(method, f"{REPOSITORY}/{self.collection}/version{path}", body, headers)
            response = connection.getresponse()
            digest, start = hashlib.sha256(), b""
            while block := response.read(BLOCK_BYTES):
                digest.update(block)
                start = start or block
            if response.length:
                raise http.client.IncompleteRead(start)
            return response.status, start, digest.hexdigest()
        finally:
            connection.close()

    def _download(self) -> str:
        expected = self.ledger.last()
        status, start, sha256 = self._request("GET", "/latest" if expected is None else f"/{expected[0]}")
        right = sha256 == expected[1] if expected and status == 200 else status in (200, 404, 503)
        self.world.report.check(right, f"{self.collection}: version {expected}: {status} {start[:200]!r} {sha256}")
        return str(status)

    def _list(self) -> str:
        status, answer, _ = self._request("GET", "")
        expected = self.ledger.last()
        if status == 200 and expected is not None:
            numbers = [version["versionNumber"] for version in json.loads(answer)["data"]["versions"]]
            self.world.report.check(expected[0] in numbers, f"{self.collection}: {expected[0]} is not in {numbers}")
        return str(status)

    def _delete(self) -> str:
        expected = self.ledger.last()
        if expected is None:
            return "not now"
        try:
            status, answer, _ = self._request("DELETE", f"/{expected[0]}")
        except ABSENT:
            self._doubtful = expected[0]
            return "unanswered"
        self.world.report.check(status in (200, 503), f"{self.collection}: a delete is answered {status} {answer!r}")
        if status == 200:
            self.ledger.deleted(expected[0])
        return str(status)

    def _numbers(self) -> list[int]:
        _, answer, _ = self._request("GET", "")
        return [version["versionNumber"] for version in json.loads(answer)["data"]["versions"]]

    def found(self) -> dict[int, str]:
        """Return number → SHA-256 of everything that is listed, downloaded."""
        self.settle()
        _, answer, _ = self._request("GET", "")
        found = {}
        for version in json.loads(answer)["data"]["versions"]:
            status, start, sha256 = self._request("GET", f"/{version['versionNumber']}")
            told = f"{self.collection}: version {version['versionNumber']} is listed, but {status} {start[:200]!r}"
            self.world.report.check(status == 200 and sha256 == version["sha256"], told)
            found[version["versionNumber"]] = sha256
        return found


def _answer(sock: socket.socket) -> tuple[int, Any]:
    response = http.client.HTTPResponse(sock)
    response.begin()
    if response.getheader("Server") != "tornado-backups":
        raise ConnectionRefusedError("another program has taken over the port of a server that was killed")
    body = response.read()
    try:
        return response.status, json.loads(body)
    except ValueError:
        raise AssertionError(f"an answer that is no JSON: {response.status} {response.getheaders()} {body!r}") from None
