"""A refusal reaches the client as an answer, not as a reset connection, whenever and however the client sends."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.serving import REPOSITORY, RunningServer, Tree, message

PATH = f"{REPOSITORY}/small/version"


@pytest.fixture
def small(tree: Tree, start: Callable[..., RunningServer]) -> RunningServer:
    """A server with a collection that takes 100 KiB a version."""
    tree.user("admin", roles=["systemAdmin"])
    tree.collection("small", maxBackupsCount=2, maxOneVersionSize="100K", maxCollectionSize="200K")
    return start(idle_timeout="2s")


def head(server: RunningServer, token: str, *lines: str, path: str = PATH) -> bytes:
    """Return the head of an upload."""
    fixed = (f"POST {path} HTTP/1.1", f"Host: 127.0.0.1:{server.port}", f"Authorization: Bearer {token}")
    return "\r\n".join((*fixed, *lines, "", "")).encode()


def read_answer(sock: socket.socket) -> tuple[int, dict]:
    """Read one answer and return its status and JSON; fails when the connection is reset before."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(65536)
        assert piece, f"closed after {data!r}"
        data += piece
    top, _, body = data.partition(b"\r\n\r\n")
    length = next(int(line.split(b":")[1]) for line in top.split(b"\r\n") if line.lower().startswith(b"content-length"))
    while len(body) < length:
        body += sock.recv(65536)
    return int(top.split(b" ")[1]), json.loads(body[:length])


def read_to_end(sock: socket.socket) -> bytes:
    """Read until the server closes."""
    data = b""
    while piece := sock.recv(65536):
        data += piece
    return data


def test_an_upload_over_the_limit_is_refused_before_the_first_byte(small: RunningServer) -> None:
    token = small.login("admin")
    with small.raw() as sock:
        sock.sendall(head(small, token, "Content-Length: 5000000", "Expect: 100-continue"))
        status, body = read_answer(sock)
        assert (status, body["reason"]) == (413, "quota-exceeded")
        assert "5000000" in body["error"]
        assert "102400" in body["error"]
    assert small.objects() == []


def test_a_refusal_never_follows_a_continue(small: RunningServer) -> None:
    token = small.login("admin")
    with small.raw() as sock:
        sock.sendall(head(small, token, "Content-Length: 5000000", "Expect: 100-continue"))
        received = read_to_end(sock)
    assert received.startswith(b"HTTP/1.1 413")
    assert b"100 (Continue)" not in received


def test_an_accepted_upload_is_told_to_continue(small: RunningServer) -> None:
    token = small.login("admin")
    body = message()
    with small.raw() as sock:
        sock.sendall(head(small, token, f"Content-Length: {len(body)}", "Expect: 100-Continue"))
        assert sock.recv(100).startswith(b"HTTP/1.1 100")
        sock.sendall(body)
        assert read_answer(sock)[0] == 200


def test_a_client_that_sends_without_waiting_still_reads_the_refusal(small: RunningServer) -> None:
    token = small.login("admin")
    with small.raw() as sock:
        sock.sendall(head(small, token, "Content-Length: 20000000"))
        for _ in range(200):
            sock.sendall(bytes(100_000))
        status, body = read_answer(sock)
    assert (status, body["reason"]) == (413, "quota-exceeded")


def test_a_chunked_upload_is_refused_at_the_first_byte_too_many(small: RunningServer) -> None:
    token = small.login("admin")
    body = message(200_000)
    with small.raw() as sock:
        sock.sendall(head(small, token, "Transfer-Encoding: chunked"))
        sock.sendall(b"19000\r\n" + body[:0x19000] + b"\r\n")
        time.sleep(0.2)
        sock.sendall(b"1\r\n" + body[0x19000:0x19001] + b"\r\n")
        status, answer = read_answer(sock)
    assert (status, answer["reason"]) == (413, "quota-exceeded")
    assert small.objects() == []


def test_an_unencrypted_body_is_refused_while_it_is_still_being_sent(small: RunningServer) -> None:
    token = small.login("admin")
    with small.raw() as sock:
        sock.sendall(head(small, token, "Content-Length: 90000") + b"PK\x03\x04 this is a zip file")
        status, answer = read_answer(sock)
    assert (status, answer["reason"]) == (422, "not-encrypted")
    assert "first chunk of uploaded data does not contain a valid GPG header" in answer["message"]


def test_a_wrong_token_is_refused_before_the_first_byte(small: RunningServer) -> None:
    with small.raw() as sock:
        sock.sendall(head(small, "wrong", "Content-Length: 50", "Expect: 100-continue"))
        status, answer = read_answer(sock)
    assert (status, answer["reason"], answer["code"]) == (401, "not-authenticated", 401)


def test_the_connection_closes_when_the_refused_client_stays_silent(small: RunningServer) -> None:
    token = small.login("admin")
    with small.raw() as sock:
        sock.sendall(head(small, token, "Content-Length: 5000000") + b"x")
        started = time.monotonic()
        assert read_to_end(sock).startswith(b"HTTP/1.1 413")
        assert time.monotonic() - started < 15


@pytest.mark.parametrize("expect", ["Expect: 100-continue", "Expect:"])
@pytest.mark.parametrize("size", [300_000, 30_000_000])
def test_real_curl_shows_the_refusal(small: RunningServer, tmp_path: Path, expect: str, size: int) -> None:
    token = small.login("admin")
    large = tmp_path / "large"
    large.write_bytes(message(size))
    for how in (["--data-binary", f"@{large}"], ["-T", str(large)], ["-F", f"file=@{large}"]):
        command = ["curl", "-sS", "-H", f"Authorization: Bearer {token}", "-H", expect, *how]
        done = subprocess.run(
            [*command, f"http://127.0.0.1:{small.port}{PATH}"], capture_output=True, text=True, timeout=60, check=False
        )
        assert '"reason": "quota-exceeded"' in done.stdout, (how, done)


def test_real_curl_shows_the_refusal_of_a_pipe(small: RunningServer, tmp_path: Path) -> None:
    token = small.login("admin")
    command = ["curl", "-sS", "-H", f"Authorization: Bearer {token}", "-T", "-"]
    url = f"http://127.0.0.1:{small.port}{PATH}"
    done = subprocess.run([*command, url], input=message(40_000_000), capture_output=True, timeout=60, check=False)
    assert b'"reason": "quota-exceeded"' in done.stdout, done


def test_a_slow_body_is_answered_with_408(small: RunningServer) -> None:
    token = small.login("admin")
    with small.raw() as sock:
        sock.sendall(head(small, token, "Content-Length: 5000") + message()[:20])
        status, answer = read_answer(sock)
    assert (status, answer["reason"]) == (408, "timeout")
    assert small.objects() == []


def test_a_body_that_trickles_is_not_idle(small: RunningServer) -> None:
    token = small.login("admin")
    body = message(10)
    with small.raw() as sock:
        sock.sendall(head(small, token, f"Content-Length: {len(body)}"))
        for position in range(0, len(body), 10):
            sock.sendall(body[position : position + 10])
            time.sleep(0.9)
        assert read_answer(sock)[0] == 200


def test_headers_that_never_end_are_dropped(small: RunningServer) -> None:
    with small.raw() as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: x\r\n")
        assert sock.recv(100) == b""


def test_a_json_body_must_be_complete_within_the_idle_timeout(small: RunningServer) -> None:
    with small.raw() as sock:
        sock.sendall(b"POST /api/stable/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n")
        started = time.monotonic()
        sock.settimeout(0.5)
        answer = b""
        while time.monotonic() - started < 8 and b"}" not in answer:
            try:
                sock.sendall(b" ")
                answer += sock.recv(4096)
            except TimeoutError:
                continue  # nothing came yet: go on trickling
        assert answer.startswith(b"HTTP/1.1 408")


def test_a_json_body_is_bounded(small: RunningServer) -> None:
    answer = small.request("POST", "/api/stable/auth/login", b'{"username": "' + b"x" * 100_000)
    assert answer.status == 400
    assert answer.json["reason"] == "bad-request"
