"""What the campaign found, each as a test of its own; docs/robustness.md lists them in the same order."""

from __future__ import annotations

import pytest

from tests.campaign import wire
from tests.serving import REPOSITORY, RunningServer

UPLOAD = f"POST {REPOSITORY}/files/version HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    "framing",
    [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Content-Length: 5, 6\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: " + "9" * 5000 + "\r\n",
    ],
    ids=["both", "encoding", "two lengths", "sign", "digits"],
)
@pytest.mark.parametrize("wrong_token", [True, False])
def test_a_request_of_doubtful_length_is_answered_once_and_nothing_behind_it(
    server: RunningServer, framing: str, wrong_token: bool
) -> None:
    token = "wrong" if wrong_token else server.login("admin")
    data = f"{UPLOAD}Authorization: Bearer {token}\r\n{framing}\r\nhelloGET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    reply = wire.exchange(server.port, [data.encode()], 10)
    assert (reply.statuses, reply.rest, reply.ended) == ([400], b"", "closed")
    assert server.objects() == []


def test_a_refused_upload_whose_chunks_break_afterwards_is_not_answered_again(server: RunningServer) -> None:
    head = f"{UPLOAD}Authorization: Bearer wrong\r\nTransfer-Encoding: chunked\r\n\r\n"
    reply = wire.exchange(server.port, [head.encode(), b"no chunk size\r\n"], 10, pause=0.1)
    assert (reply.statuses, reply.rest, reply.ended) == ([401], b"", "closed")
