"""Downloads: the right bytes with the right headers, whole, in parts or not at all; never short with a good end."""

from __future__ import annotations

import base64
import hashlib
import http.client
import logging
import socket
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.serving import REPOSITORY, Answer, RunningServer, Tree, message
from tornado_backups.domain.model import Version
from tornado_backups.services.upload import lease_name

LARGE = 24 * 1024 * 1024
BODY = message(5000, Random(1).randbytes(5000))
LARGE_BODY = message(LARGE, bytes(range(251)))


@pytest.fixture
def stored(server: RunningServer) -> tuple[RunningServer, str]:
    """A server whose collection ``files`` holds versions 1 and 2 (:data:`BODY`), and a token that may download."""
    admin = server.login("admin")
    for body in (message(10, b"1"), BODY):
        assert server.upload("files", admin, body).status == 200
    return server, server.login("downloader")


def get(server: RunningServer, token: str, which: str = "2", method: str = "GET", **headers: str) -> Answer:
    """Download; underscores in header names are hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return server.request(method, f"{REPOSITORY}/files/version/{which}", token=token, headers=named)


def object_path(server: RunningServer, name: str = "files-2.gpg") -> Path:
    """Return where a version's object lies."""
    (found,) = (server.data_dir / "objects").rglob(name)
    return found


def adopt(server: RunningServer, key: str, size: int) -> None:
    """Register an object as version 7 of ``files``, as an import from a Go server does: without its SHA-256."""
    now = server.clock.now()
    version = Version("0e9fb5c6-0000-4000-8000-000000000007", "files", 7, "old.gpg", key, size, "", "", "ann", now, now)

    async def register() -> None:
        registry = server.server.registry
        lease = await registry.acquire_lease(lease_name("files"), 30)
        assert lease is not None
        await registry.adopt_version(version, lease)
        await registry.release_lease(lease)

    server.run(register)


# -- whole -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["2", "v2", "latest", "02", "2/"])
def test_a_version_is_named_by_its_number_or_as_the_latest(stored: Any, which: str) -> None:
    server, token = stored
    answer = get(server, token, which)
    assert (answer.status, answer.body) == (200, BODY)


def test_the_older_version_is_still_there_under_both_prefixes(stored: Any) -> None:
    server, token = stored
    for prefix in (REPOSITORY, REPOSITORY.replace("stable", "alpha"), "//" + REPOSITORY.strip("/") + "/"):
        assert server.request("GET", f"{prefix}/files/version/v1", token=token).body == message(10, b"1")


def test_a_download_carries_the_headers_of_the_contract(stored: Any) -> None:
    server, token = stored
    answer = get(server, token)
    digest = hashlib.sha256(BODY)
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-length"] == str(len(BODY))
    assert answer.headers["content-disposition"].startswith('attachment; filename="files-2.gpg"')
    assert answer.headers["etag"] == f'"{digest.hexdigest()}"'
    assert answer.headers["repr-digest"] == f"sha-256=:{base64.b64encode(digest.digest()).decode()}:"
    assert answer.headers["accept-ranges"] == "bytes"
    listed = server.request("GET", f"{REPOSITORY}/files/version", token=token).data["versions"]
    assert listed[1]["sha256"] == digest.hexdigest()
    assert parsedate_to_datetime(answer.headers["last-modified"]).isoformat()[:19] == listed[1]["CreatedAt"][:19]


def test_head_has_the_headers_of_get_and_no_body(stored: Any) -> None:
    server, token = stored
    got, asked = get(server, token), get(server, token, method="HEAD")
    assert (asked.status, asked.body) == (200, b"")
    assert {**asked.headers, "date": ""} == {**got.headers, "date": ""}


@pytest.mark.parametrize(
    "which", ["0", "3", "999999999999999999999", "-1", "1.0", "v", "vv1", "LATEST", "%C2%B2", "1%00"]
)
def test_a_version_that_does_not_exist_is_not_found(stored: Any, which: str) -> None:
    server, token = stored
    answer = get(server, token, which)
    assert (answer.status, answer.json["reason"], answer.json["status"]) == (404, "not-found", False)
    head = get(server, token, which, method="HEAD")
    assert (head.status, head.body) == (404, b"")


def test_latest_of_an_empty_collection_is_not_found(server: RunningServer) -> None:
    assert get(server, server.login("admin"), "latest").status == 404


def test_a_filename_outside_ascii_arrives_whole(server: RunningServer, tree: Tree) -> None:
    tree.collection("odd", filenameTemplate='naïve "böx" ${version}%.gpg')
    token = server.login("admin")
    server.upload("odd", token)
    disposition = server.request("GET", f"{REPOSITORY}/odd/version/1", token=token).headers["content-disposition"]
    assert "filename*=UTF-8''na%C3%AFve%20%22b%C3%B6x%22%201%25.gpg" in disposition
    assert disposition.isascii()


def test_a_large_version_arrives_bit_for_bit(server: RunningServer) -> None:
    token = server.login("admin")
    assert server.upload("files", token, LARGE_BODY).status == 200
    assert get(server, token, "1").body == LARGE_BODY
    assert get(server, token, "1", Range=f"bytes={LARGE // 2}-").body == LARGE_BODY[LARGE // 2 :]


def test_an_imported_version_without_a_digest_is_served_and_claims_none(stored: Any) -> None:
    server, token = stored
    (server.data_dir / "objects" / "files" / "old.gpg").write_bytes(BODY)
    adopt(server, "files/old.gpg", len(BODY))
    answer = get(server, token, "7")
    assert (answer.status, answer.body) == (200, BODY)
    assert "repr-digest" not in answer.headers
    etag = answer.headers["etag"]
    assert etag.startswith('"')
    assert len(etag) > 10
    assert get(server, token, "7", If_None_Match=etag).status == 304
    assert get(server, token, "7", If_Range=etag, Range="bytes=0-3").status == 206
    assert get(server, token, "2", If_None_Match=etag).status == 200
    (_, _, listed) = server.request("GET", f"{REPOSITORY}/files/version", token=token).data["versions"]
    assert (listed["versionNumber"], listed["sha256"]) == (7, "")


# -- in parts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "part"),
    [
        ("0-0", BODY[:1]),
        ("5-9", BODY[5:10]),
        ("100-", BODY[100:]),
        ("-7", BODY[-7:]),
        ("4000-999999", BODY[4000:]),
        ("-999999", BODY),
    ],
    ids=["first", "middle", "from", "last", "beyond", "all"],
)
def test_a_range_answers_206_with_just_these_bytes(stored: Any, wanted: str, part: bytes) -> None:
    server, token = stored
    answer = get(server, token, Range=f"bytes={wanted}")
    assert (answer.status, answer.body) == (206, part)
    first = BODY.index(part)
    assert answer.headers["content-range"] == f"bytes {first}-{first + len(part) - 1}/{len(BODY)}"
    assert answer.headers["content-length"] == str(len(part))
    digest = base64.b64encode(hashlib.sha256(BODY).digest()).decode()
    assert answer.headers["repr-digest"] == f"sha-256=:{digest}:"
    asked = get(server, token, method="HEAD", Range=f"bytes={wanted}")
    assert (asked.status, asked.body, asked.headers["content-length"]) == (206, b"", str(len(part)))


@pytest.mark.parametrize("wanted", [f"bytes={len(BODY)}-", "bytes=9999999-99999999", "bytes=-0"])
def test_a_range_behind_the_end_is_416_with_the_length(stored: Any, wanted: str) -> None:
    server, token = stored
    answer = get(server, token, Range=wanted)
    assert (answer.status, answer.json["reason"]) == (416, "range-not-satisfiable")
    assert answer.headers["content-range"] == f"bytes */{len(BODY)}"
    assert answer.headers["content-type"].startswith("application/json")
    assert "repr-digest" not in answer.headers
    assert "content-disposition" not in answer.headers


@pytest.mark.parametrize("wanted", ["bytes=0-1,5-6", "lines=0-1", "bytes=5-1", "bytes=a-b", "bytes", "bytes=", ""])
def test_a_range_that_is_not_understood_is_ignored(stored: Any, wanted: str) -> None:
    server, token = stored
    answer = get(server, token, Range=wanted)
    assert (answer.status, answer.body) == (200, BODY)


def test_if_range_lets_the_range_count_only_while_the_version_is_the_same(stored: Any) -> None:
    server, token = stored
    headers = get(server, token).headers
    for same in (headers["etag"], headers["last-modified"]):
        assert get(server, token, Range="bytes=0-3", If_Range=same).status == 206
    for other in ('"x"', "W/" + headers["etag"], "Sat, 01 Jan 2000 00:00:00 GMT", "nonsense"):
        answer = get(server, token, Range="bytes=0-3", If_Range=other)
        assert (answer.status, answer.body) == (200, BODY)


def test_an_interrupted_download_can_be_resumed(stored: Any) -> None:
    server, token = stored
    etag = get(server, token).headers["etag"]
    rest = get(server, token, Range="bytes=1234-", If_Range=etag)
    assert BODY[:1234] + rest.body == BODY


def test_what_the_client_has_is_not_sent_again(stored: Any) -> None:
    server, token = stored
    etag = get(server, token).headers["etag"]
    for known in (etag, f"W/{etag}", f'"x", {etag}', "*"):
        for method in ("GET", "HEAD"):
            answer = get(server, token, method=method, If_None_Match=known)
            assert (answer.status, answer.body, answer.headers["etag"]) == (304, b"", etag)
    assert get(server, token, If_None_Match='"x"').status == 200


# -- who may ---------------------------------------------------------------------------------------------------------


def test_an_uploader_may_list_but_not_download(stored: Any) -> None:
    server, _ = stored
    token = server.login("uploader")
    assert server.numbers("files", token) == [1, 2]
    for method in ("GET", "HEAD"):
        assert get(server, token, method=method).status == 403


def test_a_deleted_version_is_gone_with_its_object(stored: Any) -> None:
    server, token = stored
    answer = get(server, server.login("admin"), "1", method="DELETE")
    assert answer.status == 200
    assert answer.data["version"]["versionNumber"] == 1
    assert answer.data["version"]["DeletedAt"]
    assert get(server, token, "1").status == 404
    assert get(server, server.login("admin"), "1", method="DELETE").status == 404
    assert server.numbers("files", token) == [2]
    assert [Path(name).name for name in server.objects()] == ["files-2.gpg"]


def test_a_draining_server_starts_no_download(stored: Any) -> None:
    server, token = stored
    server.server.context.draining = True
    answer = get(server, token)
    assert (answer.status, answer.json["reason"]) == (503, "shutting-down")
    assert int(answer.headers["retry-after"]) >= 1
    server.server.context.draining = False
    assert get(server, token).status == 200


# -- damaged objects -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["missing", "short", "long"])
def test_an_object_that_is_not_what_was_stored_is_a_clear_500(
    stored: Any, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    server, token = stored
    path = object_path(server)
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(BODY[:-1] if damage == "short" else BODY + b"x")
    for headers in ({}, {"Range": "bytes=0-3"}):
        answer = get(server, token, **headers)
        assert (answer.status, answer.json["reason"], answer.json["status"]) == (500, "internal", False)
        assert str(server.data_dir) not in answer.body.decode()
        assert "content-disposition" not in answer.headers
        assert "etag" not in answer.headers
    assert get(server, token, method="HEAD").status == 500
    assert any("files" in r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR)
    assert get(server, token, "1").status == 200


@pytest.mark.parametrize("size", [50, 5000, 3_000_000])
def test_bytes_that_changed_never_arrive_as_a_good_download(
    server: RunningServer, caplog: pytest.LogCaptureFixture, size: int
) -> None:
    token = server.login("admin")
    body = message(size)
    server.upload("files", token, body)
    changed = bytearray(body)
    changed[size // 2] ^= 1
    object_path(server, "files-1.gpg").write_bytes(changed)
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        get(server, token, "1")
    assert any("SHA-256" in r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR)
    answer = get(server, token, "1")
    assert (answer.status, answer.json["reason"]) == (500, "internal")
    health = server.request("GET", f"{REPOSITORY}/files/health")
    assert [c["name"] for c in health.data["health"] if not c["status"]] == ["IntegrityValidator"]


def test_an_object_that_shrinks_while_it_is_read_never_ends_well(server: RunningServer) -> None:
    token = server.login("admin")
    server.upload("files", token, message(LARGE))
    with server.raw() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        sock.sendall(request_head(server, token))
        first = sock.recv(1000)
        with object_path(server, "files-1.gpg").open("r+b") as object_file:
            object_file.truncate(LARGE // 2)
        received = len(first) + sum(len(piece) for piece in iter(lambda: receive(sock), b""))
    assert first.startswith(b"HTTP/1.1 200")
    assert received < LARGE


# -- slow and vanished readers ---------------------------------------------------------------------------------------


def request_head(server: RunningServer, token: str) -> bytes:
    """Return the request for version 1."""
    lines = (
        f"GET {REPOSITORY}/files/version/1 HTTP/1.1",
        f"Host: 127.0.0.1:{server.port}",
        f"Authorization: Bearer {token}",
    )
    return "\r\n".join((*lines, "", "")).encode()


def receive(sock: socket.socket) -> bytes:
    """Receive; a reset is an end too."""
    try:
        return sock.recv(1 << 16)
    except ConnectionResetError:
        return b""


def running(server: RunningServer) -> int:
    """Return how many transfers the server counts as running."""
    return len(server.server.context.transfers)


def until(condition: Callable[[], bool], seconds: float = 15.0) -> bool:
    """Wait for a condition; tell whether it came true in time."""
    ends_at = time.monotonic() + seconds
    while time.monotonic() < ends_at:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


@pytest.fixture
def impatient(tree: Tree, start: Callable[..., RunningServer]) -> tuple[RunningServer, str]:
    """A server that drops silent connections after a second, and a large version 1."""
    tree.user("admin", roles=["systemAdmin"])
    tree.collection("files")
    server = start(idle_timeout="1s")
    token = server.login("admin")
    assert server.upload("files", token, LARGE_BODY).status == 200
    return server, token


def small_window(server: RunningServer) -> socket.socket:
    """Return a connection whose receiver takes little at a time."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
    sock.settimeout(20)
    sock.connect(("127.0.0.1", server.port))
    return sock


def test_a_client_that_stops_reading_is_dropped(impatient: Any, caplog: pytest.LogCaptureFixture) -> None:
    server, token = impatient
    with small_window(server) as sock:
        sock.sendall(request_head(server, token))
        assert sock.recv(100).startswith(b"HTTP/1.1 200")
        assert until(lambda: running(server) == 1)
        assert until(lambda: running(server) == 0)
        received = sum(len(piece) for piece in iter(lambda: receive(sock), b""))
    assert received < LARGE
    assert any("no byte" in r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING)
    metrics = server.request("GET", "/metrics").body.decode()
    assert 'downloads_total{result="timeout"} 1' in metrics


def test_a_slow_reader_is_not_dropped(impatient: Any) -> None:
    """Not even while the kernel's buffer is full and takes nothing from the server for longer than the timeout."""
    server, token = impatient
    with small_window(server) as sock:
        sock.sendall(request_head(server, token))
        started = time.monotonic()
        received = 0
        while time.monotonic() - started < 5:
            received += len(sock.recv(16384))
            time.sleep(0.1)
        assert running(server) == 1
    assert received < LARGE // 8


def test_a_reader_that_falters_gets_every_byte_in_its_place(impatient: Any) -> None:
    """The server's buffers are used again, and never before what was in them has left."""
    server, token = impatient
    received = bytearray()
    with small_window(server) as sock:
        sock.sendall(request_head(server, token))
        head, _, begun = receive_until(sock, b"\r\n\r\n").partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        received += begun
        while len(received) < len(LARGE_BODY):
            piece = sock.recv(300_000)
            assert piece
            received += piece
            time.sleep(0.0005)
    assert received == LARGE_BODY


def receive_until(sock: socket.socket, end: bytes) -> bytes:
    """Return what came up to ``end`` and what came with it."""
    received = b""
    while end not in received:
        received += sock.recv(4096)
    return received


def test_a_client_that_leaves_ends_its_download(impatient: Any) -> None:
    server, token = impatient
    with small_window(server) as sock:
        sock.sendall(request_head(server, token))
        assert sock.recv(100).startswith(b"HTTP/1.1 200")
    assert until(lambda: running(server) == 0)
    assert get(server, token, "1", Range="bytes=0-3").status == 206
