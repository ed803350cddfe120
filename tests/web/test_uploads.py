"""Uploads: what is answered when a version is stored, every way to send one, and every way to be refused."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import subprocess
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.serving import REPOSITORY, Answer, RunningServer, Tree, message

PATH = f"{REPOSITORY}/files/version"
BODY = message(3000)
SHA256 = hashlib.sha256(BODY)
HEX = SHA256.hexdigest()
SF = f"sha-256=:{base64.b64encode(SHA256.digest()).decode()}:"
VERSION_FIELDS = {
    "id", "collectionId", "versionNumber", "filename", "filesize", "sha256", "uploadedBySessionId", "user",
    "CreatedAt", "UpdatedAt", "DeletedAt",
}  # fmt: skip
OTHER = hashlib.sha256(b"other")
OTHER_SF = f"sha-256=:{base64.b64encode(OTHER.digest()).decode()}:"
ARMOUR = """-----BEGIN PGP MESSAGE-----

{}
-----END PGP MESSAGE-----
"""


@pytest.fixture
def session(server: RunningServer) -> tuple[RunningServer, str]:
    """A server, and the token of one who may upload to ``files``."""
    return server, server.login("uploader")


def form(*parts: tuple[str, bytes], boundary: str = "frontier") -> tuple[bytes, dict[str, str]]:
    """Return a form's body and its header; the file of a part has the part's own name."""
    body = b""
    for name, data in parts:
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{name}"\r\n\r\n'
        body += head.encode() + data + b"\r\n"
    return body + f"--{boundary}--\r\n".encode(), {"Content-Type": f"multipart/form-data; boundary={boundary}"}


def refused(server: RunningServer, token: str, answer: Answer, status: int, reason: str) -> str:
    """Check a refusal and that nothing is left of the upload; return its sentence."""
    assert (answer.status, answer.json["reason"]) == (status, reason), answer.body
    assert (answer.json["status"], answer.json["data"]) == (False, {})
    assert server.numbers("files", token) == []
    assert server.objects() == []
    return str(answer.json["error"])


# -- stored ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("path", [PATH, PATH.replace("stable", "alpha"), "/" + PATH.replace("/version", "//version/")])
def test_an_upload_answers_with_its_version(session: Any, method: str, path: str) -> None:
    server, token = session
    answer = server.request(method, path, BODY, token)
    assert (answer.status, answer.json["status"], set(answer.data)) == (200, True, {"version"})
    version = answer.data["version"]
    assert set(version) == VERSION_FIELDS
    assert (version["collectionId"], version["versionNumber"]) == ("files", 1)
    assert (version["filename"], version["filesize"], version["sha256"]) == ("files-1.gpg", len(BODY), HEX)
    assert version["uploadedBySessionId"] == hashlib.sha256(token.encode()).hexdigest()
    assert version["user"] == "uploader"
    assert datetime.fromisoformat(version["CreatedAt"]).tzinfo is not None
    assert version["DeletedAt"] is None
    assert server.objects() == [f"files/{version['id']}/files-1.gpg"]
    listed = server.request("GET", PATH, token=token)
    assert (set(listed.data), listed.data["versions"]) == ({"versions"}, [version])


def test_numbers_rise_and_are_never_used_twice(session: Any) -> None:
    server, token = session
    admin = server.login("admin")
    assert [server.upload("files", token).data["version"]["versionNumber"] for _ in range(3)] == [1, 2, 3]
    for number in (3, 1, 2):
        assert server.request("DELETE", f"{PATH}/{number}", token=admin).status == 200
    assert server.upload("files", token, b"refused").status == 422
    assert server.upload("files", token).data["version"]["versionNumber"] == 4


@pytest.mark.parametrize(
    "content_type",
    ["application/octet-stream", "application/x-www-form-urlencoded", "application/json", "text/plain", "nonsense", ""],
)
def test_a_raw_body_is_taken_whatever_its_type(session: Any, content_type: str) -> None:
    server, token = session
    answer = server.request("POST", PATH, BODY, token, {"Content-Type": content_type})
    assert answer.data["version"]["sha256"] == HEX


def test_a_chunked_body_is_taken(session: Any) -> None:
    server, token = session

    def pieces() -> Iterator[bytes]:
        for position in range(0, len(BODY), 700):
            yield BODY[position : position + 700]

    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        headers = {"Authorization": f"Bearer {token}"}
        connection.request("POST", PATH, pieces(), headers, encode_chunked=True)
        answer = json.loads(connection.getresponse().read())
    finally:
        connection.close()
    assert answer["data"]["version"]["sha256"] == HEX


@pytest.mark.parametrize("how", ["--data-binary", "-T", "-F"])
def test_plain_curl_uploads(session: Any, tmp_path: Path, how: str) -> None:
    server, token = session
    backup = tmp_path / "backup.gpg"
    backup.write_bytes(BODY)
    given = {"--data-binary": f"@{backup}", "-T": str(backup), "-F": f"file=@{backup}"}[how]
    command = [
        "curl",
        "-sS",
        "-H",
        f"Authorization: Bearer {token}",
        how,
        given,
        f"http://127.0.0.1:{server.port}{PATH}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout)["data"]["version"]["sha256"] == HEX


def test_curl_uploads_a_pipe(session: Any) -> None:
    server, token = session
    url = f"http://127.0.0.1:{server.port}{PATH}"
    command = ["curl", "-sS", "-H", f"Authorization: Bearer {token}", "-T", "-", url]
    done = subprocess.run(command, input=BODY, capture_output=True, timeout=60, check=True)
    assert json.loads(done.stdout)["data"]["version"]["sha256"] == HEX


def test_white_space_may_follow_an_armoured_message(session: Any) -> None:
    server, token = session
    armoured = ARMOUR.format(base64.encodebytes(BODY).decode()).encode() + b" \r\n\t\n"
    assert server.upload("files", token, armoured).status == 200


def test_connections_are_kept_alive_from_one_upload_to_the_next(session: Any) -> None:
    server, token = session
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        for number in (1, 2, 3):
            connection.request("POST", PATH, BODY, {"Authorization": f"Bearer {token}"})
            response = connection.getresponse()
            assert json.loads(response.read())["data"]["version"]["versionNumber"] == number
    finally:
        connection.close()


# -- forms -----------------------------------------------------------------------------------------------------------


def test_a_form_brings_its_file(session: Any) -> None:
    server, token = session
    body, headers = form(("note", b"x" * 1000), ("file", BODY), ("after", b"y"))
    answer = server.request("POST", PATH, body, token, headers)
    assert (answer.data["version"]["sha256"], answer.data["version"]["filesize"]) == (HEX, len(BODY))


def test_the_name_of_the_uploaded_file_never_becomes_a_path(session: Any) -> None:
    server, token = session
    body, headers = form(("file", BODY))
    body = body.replace(b'filename="file"', b'filename="../../../../etc/evil.gpg"')
    answer = server.request("POST", PATH, body, token, headers)
    assert answer.data["version"]["filename"] == "files-1.gpg"
    assert len(server.objects()) == 1


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        form(),
        form(("other", BODY)),
        (b"", {"Content-Type": "multipart/form-data; boundary=x"}),
        (BODY, {"Content-Type": "multipart/form-data; boundary=x"}),
        (BODY, {"Content-Type": "multipart/form-data"}),
        (BODY, {"Content-Type": "multipart/form-data; boundary=" + "x" * 100}),
        form(("file", BODY), ("file", BODY)),
    ],
    ids=["no part", "no file", "nothing", "no form", "no boundary", "long boundary", "two files"],
)
def test_a_form_that_is_none_is_a_bad_request(session: Any, body: bytes, headers: dict[str, str]) -> None:
    server, token = session
    refused(server, token, server.request("POST", PATH, body, token, headers), 400, "bad-request")


@pytest.mark.parametrize("cut", [1, 10, 30, 2000])
def test_a_form_that_stops_early_is_truncated(session: Any, cut: int) -> None:
    server, token = session
    body, headers = form(("file", BODY))
    refused(server, token, server.request("POST", PATH, body[: -cut - 2], token, headers), 422, "truncated")


@pytest.mark.parametrize("header", ["Content-Digest", "Repr-Digest"])
def test_a_digest_of_a_forms_framing_is_refused(session: Any, header: str) -> None:
    server, token = session
    body, headers = form(("file", BODY))
    answer = server.request("POST", PATH, body, token, {**headers, header: SF})
    assert "X-Content-Sha256" in refused(server, token, answer, 400, "bad-request")


def test_the_digest_of_a_forms_file_is_checked(session: Any) -> None:
    server, token = session
    body, headers = form(("file", BODY))
    answer = server.request("POST", PATH, body, token, {**headers, "X-Content-Sha256": OTHER.hexdigest()})
    refused(server, token, answer, 422, "digest-mismatch")
    assert server.request("POST", PATH, body, token, {**headers, "X-Content-Sha256": HEX}).status == 200


# -- digests ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Content-Sha256": HEX},
        {"X-Content-Sha256": HEX.upper()},
        {"Content-Digest": SF},
        {"Repr-Digest": SF},
        {"Content-Digest": f"md5=:AAAA:, {SF}"},
        {"Content-Digest": "sha-512=:AAAA:"},
        {"Content-Digest": SF, "Repr-Digest": SF, "X-Content-Sha256": HEX},
    ],
)
def test_a_right_digest_in_any_form_is_accepted(session: Any, headers: dict[str, str]) -> None:
    server, token = session
    assert server.request("POST", PATH, BODY, token, headers).status == 200


@pytest.mark.parametrize(
    "headers", [{"X-Content-Sha256": OTHER.hexdigest()}, {"Content-Digest": OTHER_SF}, {"Repr-Digest": OTHER_SF}]
)
def test_another_digest_is_a_mismatch_and_nothing_is_stored(session: Any, headers: dict[str, str]) -> None:
    server, token = session
    sentence = refused(server, token, server.request("POST", PATH, BODY, token, headers), 422, "digest-mismatch")
    assert HEX in sentence
    assert OTHER.hexdigest() in sentence


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Content-Sha256": HEX[:-1]},
        {"X-Content-Sha256": ""},
        {"Content-Digest": f"sha-256={HEX}"},
        {"Repr-Digest": "sha-256=:AAAA:"},
        {"X-Content-Sha256": HEX, "Content-Digest": OTHER_SF},
    ],
)
def test_a_digest_that_cannot_be_read_is_a_bad_request(session: Any, headers: dict[str, str]) -> None:
    server, token = session
    refused(server, token, server.request("POST", PATH, BODY, token, headers), 400, "bad-request")


# -- refused bodies --------------------------------------------------------------------------------------------------


def raw_empty(server: RunningServer, token: str, framing: str, end: bytes = b"") -> Answer:
    """Send an upload without a byte of body."""
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n{framing}\r\n".encode()
    with server.raw() as sock:
        sock.sendall(head + end)
        response = http.client.HTTPResponse(sock)
        response.begin()
        return Answer(response.status, dict(response.getheaders()), response.read())


@pytest.mark.parametrize(
    ("framing", "end"),
    [("Content-Length: 0\r\n", b""), ("", b""), ("Transfer-Encoding: chunked\r\n", b"0\r\n\r\n")],
    ids=["length 0", "no length", "chunked"],
)
def test_an_empty_body_is_empty(session: Any, framing: str, end: bytes) -> None:
    server, token = session
    refused(server, token, raw_empty(server, token, framing, end), 422, "empty")


def test_an_empty_file_in_a_form_is_empty(session: Any) -> None:
    server, token = session
    body, headers = form(("file", b""))
    refused(server, token, server.request("POST", PATH, body, token, headers), 422, "empty")


@pytest.mark.parametrize("cut", [1, 10, 2000])
def test_a_message_that_stops_early_is_truncated(session: Any, cut: int) -> None:
    server, token = session
    refused(server, token, server.upload("files", token, BODY[:-cut]), 422, "truncated")


def test_an_armoured_message_without_its_end_is_truncated(session: Any) -> None:
    server, token = session
    armoured = ARMOUR.format(base64.encodebytes(BODY).decode()).encode()[:-10]
    refused(server, token, server.upload("files", token, armoured), 422, "truncated")


@pytest.mark.parametrize(
    "body",
    [
        b"\x1f\x8b\x08\x00 a gzip file",
        b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAAAA\n-----END PGP PUBLIC KEY BLOCK-----\n",
        b"\x00" * 100,
        BODY + b"x",
        BODY + BODY,
        b"\n" + BODY,
    ],
    ids=["gzip", "key", "zeros", "something after", "two messages", "something before"],
)
def test_what_is_no_single_encrypted_message_is_refused(session: Any, body: bytes) -> None:
    server, token = session
    answer = server.upload("files", token, body)
    refused(server, token, answer, 422, "not-encrypted")
    assert answer.json["message"] == (
        "cannot upload version. cannot upload file, cannot copy stream, error:"
        " first chunk of uploaded data does not contain a valid GPG header"
    )


# -- refused by rule -------------------------------------------------------------------------------------------------


def test_one_who_may_not_upload_reads_the_sentence_that_scripts_look_for(server: RunningServer) -> None:
    token = server.login("downloader")
    answer = server.upload("files", token)
    assert "not authorized to upload versions to this collection" in refused(
        server, token, answer, 403, "not-authorized"
    )


def test_a_missing_collection_is_not_found_for_those_who_may_know(server: RunningServer) -> None:
    assert server.upload("missing", server.login("admin")).status == 404
    assert server.upload("missing", server.login("uploader")).status == 403


@pytest.mark.parametrize("chunked", [False, True])
def test_a_file_over_the_limit_is_refused_with_both_figures(
    tree: Tree, start: Callable[..., RunningServer], chunked: bool
) -> None:
    tree.user("admin", roles=["systemAdmin"])
    tree.collection("files", maxOneVersionSize="2K")
    server = start()
    token = server.login("admin")
    body: Any = iter([BODY]) if chunked else BODY
    sentence = refused(server, token, server.upload("files", token, body), 413, "quota-exceeded")
    assert "2048" in sentence
    assert str(len(BODY)) in sentence
    assert server.upload("files", token, message(1000)).status == 200


@pytest.mark.parametrize(
    "name", ["..", "%2e%2e", "..%2f..%2fetc", "%00", "a" * 300, "user$key$x", "%ff", ".git", "files%00"]
)
def test_a_name_that_cannot_be_a_collections_never_reaches_the_storage(server: RunningServer, name: str) -> None:
    admin, uploader = server.login("admin"), server.login("uploader")
    for tail in ("version", "version/1", "rotation", "health"):
        for prefix in (REPOSITORY, REPOSITORY.replace("stable", "alpha")):
            assert server.request("GET", f"{prefix}/{name}/{tail}", token=admin).status in (400, 404), tail
    assert server.request("POST", f"{REPOSITORY}/{name}/version", BODY, admin).status in (400, 404)
    assert server.request("POST", f"{REPOSITORY}/{name}/version", BODY, uploader).status in (400, 403)
    assert server.objects() == []


def test_as_many_uploads_run_as_are_allowed_and_the_next_is_told_to_wait(
    tree: Tree, start: Callable[..., RunningServer]
) -> None:
    tree.user("admin", roles=["systemAdmin"])
    tree.collection("files")
    tree.collection("other")
    server = start(max_concurrent_uploads=1)
    token = server.login("admin")
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: {len(BODY)}\r\n"
    with server.raw() as sock:
        sock.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
        assert sock.recv(100).startswith(b"HTTP/1.1 100")
        answer = server.upload("other", token)
        assert (answer.status, answer.json["reason"]) == (503, "busy")
        assert int(answer.headers["retry-after"]) >= 1
        sock.sendall(BODY)
        assert sock.recv(1000).startswith(b"HTTP/1.1 200")
    assert server.upload("other", token).status == 200


def test_a_draining_server_starts_no_upload_and_no_session(session: Any) -> None:
    server, token = session
    server.server.context.draining = True
    login = server.request("POST", "/api/stable/auth/login", {"username": "admin", "password": "x"})
    for answer in (server.upload("files", token), login, server.request("GET", "/ready")):
        assert (answer.status, answer.json["reason"]) == (503, "shutting-down")
        assert int(answer.headers["retry-after"]) >= 1
    assert server.request("GET", "/health").status == 200
    assert server.numbers("files", token) == []
