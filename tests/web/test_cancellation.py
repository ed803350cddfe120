"""A client that disconnects before its version is registered has cancelled: nothing is stored, the place is free."""

from __future__ import annotations

import hashlib
import socket
import time

import pytest

from tests.serving import REPOSITORY, RunningServer, message

PATH = f"{REPOSITORY}/files/version"
LAST_CHUNK = b"0\r\n\r\n"


def head(server: RunningServer, token: str, *lines: str) -> bytes:
    """Return the head of an upload."""
    fixed = (f"POST {PATH} HTTP/1.1", f"Host: 127.0.0.1:{server.port}", f"Authorization: Bearer {token}")
    return "\r\n".join((*fixed, *lines, "", "")).encode()


def chunk(data: bytes) -> bytes:
    """Return data as one chunk."""
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def assert_nothing_stored(server: RunningServer, token: str) -> None:
    """Check that the collection is empty, free, and the storage clean."""
    answer = server.upload("files", token)
    for _ in range(100):
        if answer.status != 409:
            break
        time.sleep(0.02)
        answer = server.upload("files", token)
    assert answer.data["version"]["versionNumber"] == 1
    assert len(server.objects()) == 1


def test_a_drop_in_the_middle_stores_nothing(server: RunningServer) -> None:
    token = server.login("admin")
    body = message(200_000)
    with server.raw() as sock:
        sock.sendall(head(server, token, f"Content-Length: {len(body)}") + body[:100_000])
        time.sleep(0.2)
    assert_nothing_stored(server, token)


def test_a_drop_right_after_the_last_byte_of_a_chunked_dump_stores_nothing(server: RunningServer) -> None:
    """What an unmodified client of the Go server does when the dump it pipes has failed."""
    token = server.login("admin")
    with server.raw() as sock:
        sock.sendall(head(server, token, "Transfer-Encoding: chunked") + chunk(message()) + LAST_CHUNK)
    assert_nothing_stored(server, token)


def test_a_drop_late_within_the_grace_stores_nothing(server: RunningServer) -> None:
    token = server.login("admin")
    with server.raw() as sock:
        sock.sendall(head(server, token, "Transfer-Encoding: chunked") + chunk(message()) + LAST_CHUNK)
        time.sleep(0.15)
    assert_nothing_stored(server, token)


def test_a_half_closed_connection_counts_as_gone(server: RunningServer) -> None:
    token = server.login("admin")
    body = message()
    with server.raw() as sock:
        sock.sendall(head(server, token, f"Content-Length: {len(body)}") + body)
        sock.shutdown(socket.SHUT_WR)
        received = b""
        try:
            while piece := sock.recv(1000):
                received += piece
        except ConnectionResetError:
            received += b""  # a reset is as good as an end here
    assert b"200 OK" not in received
    assert_nothing_stored(server, token)


def test_a_client_that_stays_is_answered_after_the_grace(server: RunningServer) -> None:
    token = server.login("admin")
    with server.raw() as sock:
        started = time.monotonic()
        sock.sendall(head(server, token, "Transfer-Encoding: chunked") + chunk(message()) + LAST_CHUNK)
        assert sock.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")
        assert time.monotonic() - started >= 0.3
    assert server.numbers("files", token) == [1]


def test_a_declared_digest_needs_no_grace(server: RunningServer) -> None:
    token = server.login("admin")
    body = message()
    digest = hashlib.sha256(body).hexdigest()
    with server.raw() as sock:
        lines = ("Transfer-Encoding: chunked", f"X-Content-Sha256: {digest}")
        started = time.monotonic()
        sock.sendall(head(server, token, *lines) + chunk(body) + LAST_CHUNK)
        assert sock.recv(1000).startswith(b"HTTP/1.1 200")
        assert time.monotonic() - started < 0.29


def test_only_one_upload_per_collection_runs_at_a_time(server: RunningServer) -> None:
    token = server.login("admin")
    body = message(1000)
    with server.raw() as sock:
        sock.sendall(head(server, token, f"Content-Length: {len(body)}") + body[:500])
        time.sleep(0.2)
        refused = server.upload("files", token)
        assert (refused.status, refused.json["reason"]) == (409, "upload-in-progress")
        sock.sendall(body[500:])
        assert sock.recv(1000).startswith(b"HTTP/1.1 200")
    assert server.upload("files", token).data["version"]["versionNumber"] == 2


@pytest.mark.parametrize("split", [1, 7, 64])
def test_any_chunking_stores_the_same_bytes(server: RunningServer, split: int) -> None:
    token = server.login("admin")
    body = message(300)
    with server.raw() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(head(server, token, "Transfer-Encoding: chunked"))
        for position in range(0, len(body), split):
            sock.sendall(chunk(body[position : position + split]))
        sock.sendall(LAST_CHUNK)
        assert sock.recv(1000).startswith(b"HTTP/1.1 200")
    assert server.request("GET", f"{PATH}/1", token=token).body == body
