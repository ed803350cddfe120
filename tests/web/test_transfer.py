"""Files over HTTP, as a client sees it."""

from __future__ import annotations

import hashlib

from tests.serving import REPOSITORY, RunningServer, message


def test_an_upload_comes_back_bit_for_bit(server: RunningServer) -> None:
    token = server.login("admin")
    body = message(300_000, b"abc")
    answer = server.upload("files", token, body)
    assert answer.status == 200, answer.body
    assert answer.data["version"]["sha256"] == hashlib.sha256(body).hexdigest()
    assert server.request("GET", f"{REPOSITORY}/files/version/latest", token=token).body == body
