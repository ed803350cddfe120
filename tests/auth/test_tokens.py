"""Tokens: what is accepted, what is refused, how the key comes to be."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tornado_backups.auth.tokens import SECRET_FILE, TokenSigner, load_or_create_secret, session_id
from tornado_backups.domain.errors import NotAuthenticated, StartupError
from tornado_backups.domain.model import COLLECTION_ROLES, Grant, Role

SECRET = "an example secret of more than 32 bytes"
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
SCOPE = (Grant("iwa-ait", frozenset({Role.BACKUP_UPLOADER, Role.BACKUP_DOWNLOADER})),)


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def forge(claims: object, key: bytes = SECRET.encode(), header: object = None, digest: Any = hashlib.sha256) -> str:
    """Sign by hand, so that nothing of the library under test is in it."""
    head = {"alg": "HS256", "typ": "JWT"} if header is None else header
    signed = f"{b64(json.dumps(head).encode())}.{b64(json.dumps(claims).encode())}"
    return f"{signed}.{b64(hmac.new(key, signed.encode(), digest).digest())}"


def claims(**changes: object) -> dict[str, object]:
    return {"login": "alice", "accessKeyName": "", "exp": LATER.timestamp(), "orig_iat": NOW.timestamp()} | changes


def refused(token: str, signer: TokenSigner | None = None, now: datetime = NOW) -> bool:
    try:
        (signer or TokenSigner(SECRET)).verify(token, now)
    except NotAuthenticated:
        return True
    return False


def test_a_token_says_again_what_was_put_into_it() -> None:
    signer = TokenSigner(SECRET)
    read = signer.verify(signer.issue("alice", "web", SCOPE, NOW, LATER), NOW)
    assert (read.login, read.access_key_name, read.scope) == ("alice", "web", SCOPE)
    assert (read.issued_at, read.expires_at) == (NOW, LATER)


def test_the_claims_are_those_of_the_contract_and_the_scope_is_base64_json_like_the_go_servers() -> None:
    payload = TokenSigner(SECRET).issue("alice", "web", SCOPE, NOW, LATER).split(".")[1]
    read = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert set(read) == {"login", "accessKeyName", "operationsScope", "orig_iat", "iat", "exp", "jti"}
    assert json.loads(base64.b64decode(read["operationsScope"], validate=True)) == {
        "elements": [{"type": "collection", "name": "iwa-ait", "roles": ["backupDownloader", "backupUploader"]}]
    }
    assert (read["iat"], read["orig_iat"], read["exp"]) == (NOW.timestamp(), NOW.timestamp(), LATER.timestamp())


def test_two_tokens_of_the_same_moment_differ() -> None:
    signer = TokenSigner(SECRET)
    assert signer.issue("alice", "", (), NOW, LATER) != signer.issue("alice", "", (), NOW, LATER)


def test_a_refreshed_token_keeps_when_it_was_first_issued() -> None:
    signer = TokenSigner(SECRET)
    token = signer.issue("alice", "", (), NOW, LATER, NOW - timedelta(days=3))
    assert signer.verify(token, NOW).issued_at == NOW - timedelta(days=3)


def test_a_token_ends_in_the_second_it_expires() -> None:
    signer = TokenSigner(SECRET)
    token = signer.issue("alice", "", (), NOW, LATER)
    assert not refused(token, signer, LATER - timedelta(microseconds=1))
    assert refused(token, signer, LATER)


def test_a_token_signed_by_hand_is_accepted_so_that_the_forgeries_below_fail_for_their_own_reason() -> None:
    assert not refused(forge(claims()))


@pytest.mark.parametrize("key", [b"another secret", b"", SECRET.encode() + b"x", SECRET[:-1].encode()])
def test_a_token_signed_with_another_key_is_refused(key: bytes) -> None:
    assert refused(forge(claims(), key))


@pytest.mark.parametrize(
    "algorithm", ["none", "None", "NONE", "nOnE", "", None, 0, [], "HS384", "hs256", "RS256", "ES256"]
)
def test_no_other_algorithm_is_accepted_whatever_the_header_says(algorithm: object) -> None:
    header = {"alg": algorithm, "typ": "JWT"}
    assert refused(forge(claims(), header=header))
    assert refused(forge(claims(), key=b"", header=header))
    assert refused(forge(claims(), header=header).rpartition(".")[0] + ".")


@pytest.mark.parametrize(("name", "digest"), [("HS384", hashlib.sha384), ("HS512", hashlib.sha512)])
def test_the_longer_hmacs_are_refused_even_with_the_right_key(name: str, digest: Any) -> None:
    assert refused(forge(claims(), header={"alg": name, "typ": "JWT"}, digest=digest))


def test_a_public_key_taken_for_a_secret_signs_nothing() -> None:
    public_key = b"-----BEGIN PUBLIC KEY-----\nMFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAK\n-----END PUBLIC KEY-----\n"
    assert refused(forge(claims(), public_key))
    assert refused(forge(claims(), public_key, {"alg": "RS256", "typ": "JWT"}))


def test_a_key_given_in_the_header_is_not_used() -> None:
    header = {"alg": "HS256", "jwk": {"kty": "oct", "k": b64(b"mine")}, "kid": "../../dev/null", "jku": "http://x/"}
    assert refused(forge(claims(), b"mine", header))


def test_every_changed_character_is_refused() -> None:
    token = forge(claims(login="a"))
    for position, character in enumerate(token):
        other = "A" if character != "A" else "B"
        assert refused(token[:position] + other + token[position + 1 :]), position


def test_the_claims_of_one_token_do_not_fit_the_signature_of_another() -> None:
    header, _, signature = forge(claims()).split(".")
    other = forge(claims(login="admin")).split(".")[1]
    assert refused(f"{header}.{other}.{signature}")


@pytest.mark.parametrize(
    "wrong",
    [
        {"login": None},
        {"login": ""},
        {"login": 7},
        {"login": ["alice"]},
        {"accessKeyName": None},
        {"accessKeyName": {"a": 1}},
        {"exp": None},
        {"exp": "tomorrow"},
        {"exp": True},
        {"exp": 1e300},
        {"exp": 0},
        {"orig_iat": "yesterday"},
        {"operationsScope": "%%%"},
        {"operationsScope": base64.b64encode(b"no json").decode()},
        {"operationsScope": 7},
        {"operationsScope": {"elements": "all"}},
        {"operationsScope": {"elements": ["iwa-ait"]}},
    ],
)
def test_a_well_signed_token_with_misshapen_claims_is_refused(wrong: dict[str, object]) -> None:
    assert refused(forge(claims(**wrong)))


@pytest.mark.parametrize("body", [[], "x", 7, None])
def test_a_well_signed_token_that_is_no_object_is_refused(body: object) -> None:
    assert refused(forge(body))


@pytest.mark.parametrize("token", ["", ".", "..", "a.b.c", "é.é.é", "\ud800.a.b", "x" * 100_000, "null", "eyJ.eyJ.x"])
def test_what_is_no_token_is_refused(token: str) -> None:
    assert refused(token)


def test_deeply_nested_claims_are_refused_and_do_not_crash() -> None:
    signed = b64(b'{"alg":"HS256"}') + "." + b64(b"[" * 5000)
    token = signed + "." + b64(hmac.new(SECRET.encode(), signed.encode(), hashlib.sha256).digest())
    assert refused(token)


@settings(max_examples=150, deadline=None)
@given(text=st.text(max_size=200) | st.from_regex(r"[\w-]{0,80}\.[\w-]{0,80}\.[\w-]{0,80}"))
def test_any_text_is_refused_and_never_crashes(text: str) -> None:
    assert refused(text)


GO_SCOPE = {"elements": [{"type": "collection", "name": "iwa-ait", "roles": ["backupUploader"]}]}
GO_GRANT = (Grant("iwa-ait", frozenset({Role.BACKUP_UPLOADER})),)


@pytest.mark.parametrize(
    ("claim", "scope"),
    [
        (base64.b64encode(json.dumps(GO_SCOPE).encode()).decode(), GO_GRANT),
        (base64.urlsafe_b64encode(json.dumps(GO_SCOPE).encode()).decode().rstrip("="), GO_GRANT),
        (GO_SCOPE, GO_GRANT),
        ("", ()),
        (None, ()),
        (base64.b64encode(b'{"elements":null}').decode(), ()),
        (base64.b64encode(b'{"elements":[]}').decode(), ()),
        (base64.b64encode(b"null").decode(), ()),
    ],
)
def test_a_go_token_is_read_with_its_scope(claim: object, scope: tuple[Grant, ...]) -> None:
    token = forge(claims(accessKeyName="web", operationsScope=claim, rand="41"))
    read = TokenSigner(SECRET).verify(token, NOW)
    assert (read.login, read.access_key_name, read.scope, read.issued_at) == ("alice", "web", scope, NOW)


@pytest.mark.parametrize(
    "element",
    [
        {"type": "user", "name": "bob", "roles": ["systemAdmin"]},
        {"type": "collection", "name": "iwa-ait", "roles": ["systemAdmin", "nonsense", 7]},
        {"type": "collection", "name": "iwa-ait", "roles": None},
        {"type": "collection", "roles": ["backupUploader"]},
        {},
    ],
)
def test_a_scope_element_that_grants_nothing_still_narrows(element: dict[str, object]) -> None:
    scope = TokenSigner(SECRET).verify(forge(claims(operationsScope={"elements": [element]})), NOW).scope
    assert len(scope) == 1
    assert not scope[0].roles


@settings(max_examples=50, deadline=None)
@given(
    scope=st.lists(
        st.builds(Grant, st.text(min_size=1, max_size=20), st.frozensets(st.sampled_from(sorted(COLLECTION_ROLES)))),
        max_size=5,
    )
)
def test_any_scope_survives_the_way_through_a_token(scope: list[Grant]) -> None:
    signer = TokenSigner(SECRET)
    assert signer.verify(signer.issue("alice", "", tuple(scope), NOW, LATER), NOW).scope == tuple(scope)


def test_a_short_key_signs_as_hmac_defines_it_and_without_a_warning() -> None:
    signer = TokenSigner("short")
    assert not refused(forge(claims(), b"short"), signer)
    assert not refused(signer.issue("alice", "", (), NOW, LATER), signer)


@pytest.mark.parametrize("secret", ["", "  \n", "-----BEGIN RSA PRIVATE KEY-----\nMIIB\n-----END RSA PRIVATE KEY-----"])
def test_an_empty_key_and_a_pem_key_are_refused_at_start(secret: str) -> None:
    with pytest.raises(StartupError) as caught:
        TokenSigner(secret)
    assert "MIIB" not in caught.value.sentence


def test_the_session_id_is_the_sha256_of_the_token_in_hex() -> None:
    assert session_id("abc") == TokenSigner(SECRET).session_id("abc") == hashlib.sha256(b"abc").hexdigest()


def test_cryptography_is_not_imported_even_where_it_is_installed() -> None:
    program = (
        "import sys; import tornado_backups.auth.tokens; "
        "assert not [name for name in sys.modules if name.startswith('cryptography')], 'imported'; "
        "import importlib.util; print(importlib.util.find_spec('cryptography') is not None)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in {"True", "False"}, "and whoever wants it can still find it"


# -- the key ---------------------------------------------------------------------------------------------------------


def test_a_key_is_generated_once_with_mode_0600_and_enough_bytes(tmp_path: Path) -> None:
    secret = load_or_create_secret(tmp_path, "")
    assert len(secret.encode()) >= 32
    assert load_or_create_secret(tmp_path, "") == secret
    assert stat.S_IMODE((tmp_path / SECRET_FILE).stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [SECRET_FILE], "no temporary file is left"


def test_servers_that_start_at_once_agree_on_one_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: load_or_create_secret(tmp_path, ""), range(32)))) == 1


def test_a_key_is_made_on_a_file_system_without_hard_links_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError("Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    secret = load_or_create_secret(tmp_path, "")
    assert load_or_create_secret(tmp_path, "") == secret
    assert [path.name for path in tmp_path.iterdir()] == [SECRET_FILE]


def test_a_configured_key_wins_and_nothing_is_written(tmp_path: Path) -> None:
    assert load_or_create_secret(tmp_path, SECRET) == SECRET
    assert list(tmp_path.iterdir()) == []


def test_a_short_configured_key_is_warned_about_without_showing_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert load_or_create_secret(tmp_path, "hunter2") == "hunter2"
    assert "shorter than 32 bytes" in caplog.text
    assert "hunter2" not in caplog.text


def test_a_key_file_that_others_could_read_is_closed_and_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secret = load_or_create_secret(tmp_path, "")
    (tmp_path / SECRET_FILE).chmod(0o644)
    with caplog.at_level(logging.WARNING):
        assert load_or_create_secret(tmp_path, "") == secret
    assert "readable by others" in caplog.text
    assert stat.S_IMODE((tmp_path / SECRET_FILE).stat().st_mode) == 0o600


@pytest.mark.parametrize("content", [b"", b"short\n", b"\xff\xfe" * 40])
def test_a_damaged_key_file_stops_the_start_and_is_never_replaced(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / SECRET_FILE
    path.write_bytes(content)
    with pytest.raises(StartupError, match=SECRET_FILE):
        load_or_create_secret(tmp_path, "")
    assert path.read_bytes() == content


def test_a_folder_that_cannot_hold_the_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="missing/jwt-secret"):
        load_or_create_secret(tmp_path / "missing", "")
