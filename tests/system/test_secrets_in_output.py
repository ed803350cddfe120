"""What the program writes at its most talkative, read from outside: every event is there, and no secret."""

from __future__ import annotations

import http.client
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.secrets_watch import SHAPES
from tests.serving import message
from tests.system.program import COLLECTION, SECONDS, environment, serving

HEALTH_CODE = "the-code-for-readiness"
WRONG_PASSWORD = "a wrong password, typed in haste"
WEBHOOK_SECRET = "the-secret-of-the-webhook"


class Client:
    """Sends requests and does not mind how they are answered."""

    def __init__(self, port: int) -> None:
        self._port = port

    def ask(self, method: str, path: str, body: bytes | None = None, authorization: str = "") -> tuple[int, bytes]:
        """Return status and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=SECONDS)
        headers = {"Authorization": authorization} if authorization else {}
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


def log_in(client: Client, username: str, password: str) -> str:
    """Return a token, or nothing when the login is refused."""
    body = json.dumps({"username": username, "password": password}).encode()
    status, answer = client.ask("POST", "/api/stable/auth/login", body)
    return str(json.loads(answer)["data"]["token"]) if status == 200 else ""


def make_traffic(client: Client, password: str) -> list[str]:
    """Do all that a log could tell of; return the secrets that were used."""
    token = log_in(client, "admin", password)
    assert token
    for username, wrong in (
        ("admin", WRONG_PASSWORD),
        (WRONG_PASSWORD, "x"),
        (password, password),
        ("a$b$c", password),
    ):
        assert not log_in(client, username, wrong)
    bearer = f"Bearer {token}"
    forged = token[:-6] + "AAAAAA"
    for authorization in (bearer, f"Bearer {forged}", f"Basic {token}", token, ""):
        client.ask("GET", "/api/stable/auth/whoami", None, authorization)
    for path in (f"/ready?code={HEALTH_CODE}", "/ready?code=wrong", f"/metrics?code={HEALTH_CODE}&token={token}"):
        client.ask("GET", path)
    client.ask("GET", f"/{token}")
    client.ask("GET", f"/api/stable/auth/user/{token}", None, bearer)
    client.ask("DELETE", f"/api/stable/auth/logout?sessionId={token}", None, bearer)
    client.ask("POST", f"{COLLECTION}/version", message(), bearer)
    client.ask("POST", f"{COLLECTION}/version?token={token}", b"not encrypted", bearer)
    client.ask("GET", f"{COLLECTION}/version/{token}", None, bearer)
    client.ask("POST", "/api/stable/auth/login", f'{{"password": "{password}"'.encode())
    _, answer = client.ask("GET", "/api/stable/auth/refresh_token", None, bearer)
    second = str(json.loads(answer)["data"]["token"])
    client.ask("DELETE", "/api/stable/auth/logout", None, f"Bearer {second}")
    client.ask("GET", "/api/stable/auth/whoami", None, f"Bearer {second}")
    return [token, forged, second, password, WRONG_PASSWORD, HEALTH_CODE, WEBHOOK_SECRET]


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_most_talkative_log_and_the_audit_trail_hold_no_secret(tmp_path: Path, form: str) -> None:
    folder, said = tmp_path / "quickstart", tmp_path / "said"
    with serving(folder):
        pass  # the first start shows the new password on purpose; this one is over
    audit = tmp_path / "audit.log"
    options = ["--listen=127.0.0.1:0", "--log-level=debug", f"--log-format={form}", f"--audit-log={audit}"]
    options += [f"--health-check-key={HEALTH_CODE}", "--alert-webhook=http://user:pass-of-webhook@127.0.0.1:9/"]
    options += [f"--alert-webhook-secret={WEBHOOK_SECRET}", "--rate-default-limit=0", "--rate-auth-limit=0"]
    with said.open("wb") as output:
        command = [sys.executable, "-m", "tornado_backups", "quickstart", "--dir", str(folder), *options]
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment())
    try:
        port = wait_for(lambda: re.search(r"listening on \S+:(\d+)", said.read_text()), process)
        secrets = make_traffic(Client(int(port[1])), (folder / "admin-password").read_text().strip())
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0
    finally:
        process.kill()
        process.wait(SECONDS)
    secrets += [(folder / "jwt-secret").read_text().strip(), "pass-of-webhook"]
    text = said.read_text() + audit.read_text()
    for event in ("wrong-password", "unknown-user", "not-encrypted", '"upload"', '"refresh"', '"logout"', "GET /ready"):
        assert event in text or event.replace('"', '\\"') in text, event
    assert [secret for secret in secrets if secret in text] == []
    # The guide shows how to use a token, not one: what is shown there stands for it.
    kept = [line for line in text.splitlines() if "Bearer $TOKEN" not in line]
    assert [what for what, shape in SHAPES.items() if any(shape.search(line) for line in kept)] == []


def wait_for(find: Callable[[], re.Match[str] | None], process: subprocess.Popen[bytes]) -> re.Match[str]:
    """Wait until something is found while the program runs."""
    while process.poll() is None:
        if found := find():
            return found
        time.sleep(0.05)
    raise AssertionError(f"the server ended with status {process.returncode}")
