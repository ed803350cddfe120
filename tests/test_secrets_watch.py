"""The watch over the logs of this very run: it sees what it is there to see."""

from __future__ import annotations

import logging

import pytest

from tests.secrets_watch import watch
from tests.serving import PASSWORD, PASSWORD_HASH, RunningServer

log = logging.getLogger("tornado_backups.tests")

SECRETS = (
    "eyJhbGciOiJIUzI1NiJ9.eyJsb2dpbiI6ImFkbWluIn0.c2lnbmF0dXJl",
    "$argon2id$v=19$m=65536,t=1,p=4$c2FsdHNhbHQ$aGFzaGhhc2g",
    "JGFyZ29uMmlkJHY9MTkkbT02NTUzNg==",
    "Authorization: Bearer abcdefghij",
    "GET /ready?code=swordfish",
    "postgresql://user:swordfish@db/name",
)


@pytest.mark.parametrize("secret", SECRETS)
def test_what_looks_like_a_secret_is_seen_at_any_level(secret: str) -> None:
    log.debug("here is %s", secret)
    assert len(watch.take()) == 1


@pytest.mark.parametrize("secret", [PASSWORD, PASSWORD_HASH])
def test_a_secret_in_use_is_seen_in_messages_arguments_and_tracebacks(server: RunningServer, secret: str) -> None:
    log.info("the password is %s", secret)
    assert watch.take()
    try:
        raise ValueError(secret)
    except ValueError:
        log.exception("it failed")
    assert watch.take()
    log.info("%s and nothing more", {"given": secret}, extra={})
    assert watch.take()


def test_the_generated_signing_key_of_a_server_is_known(server: RunningServer) -> None:
    log.warning("signed with %s", (server.data_dir / "jwt-secret").read_text())
    assert watch.take()


@pytest.mark.parametrize(
    "harmless",
    [
        "an Authorization header of the form `Bearer TOKEN` is needed",
        "GET /ready (127.0.0.1)",
        "listening on http://127.0.0.1:8080",
        "code=*** and Bearer ***",
        "session 1f0e0b3c5d7a9e2b4c6d8f0a1b3c5d7e9f0a2b4c6d8e0f1a3b5c7d9e1f2a4b6c has ended",
    ],
)
def test_what_is_no_secret_is_left_alone(harmless: str) -> None:
    log.info("%s", harmless)
    assert watch.take() == []
