"""The machine's clock steps back and forward by a day, between uploads and in the middle of one.

Only the wall clock steps; the monotonic one goes on, as on a real machine whose time is set.
"""

from __future__ import annotations

import http.client
import tempfile
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from tests.campaign import wire
from tests.campaign.report import Report
from tests.serving import REPOSITORY, RunningServer, ShiftedClock, Tree, message

STEPS = (
    timedelta(days=1),
    timedelta(days=-1),
    timedelta(days=-1),
    timedelta(days=1),
    timedelta(hours=-3),
    timedelta(days=400),
)
VERSIONS = f"{REPOSITORY}/files/version"
KEEP = 4
SHORT = 3


def run(report: Report, minutes: float) -> None:
    """Step back and forward; with ``minutes`` through all of :data:`STEPS`, again and again for that long."""
    deadline = time.monotonic() + 60 * minutes
    while True:
        _once(report, STEPS if minutes else STEPS[:SHORT])
        if time.monotonic() > deadline:
            break


def _once(report: Report, steps: Sequence[timedelta]) -> None:
    with tempfile.TemporaryDirectory(prefix="campaign") as name:
        folder, clock = Path(name), ShiftedClock()
        tree = Tree(folder / "config")
        tree.user("admin", roles=["systemAdmin"])
        tree.collection("files", maxBackupsCount=KEEP)
        tree.collection("guarded", maxBackupsCount=2, protectFor="2h")
        server = RunningServer(folder, tree, clock, lease_time="3s", jwt_lifetime="100d")
        try:
            token = server.login("admin")
            for _ in range(2):
                assert server.upload("guarded", token).status == 200
            for number, step in enumerate(steps):
                token = _step(report, server, clock, step, token, maintenance_first=bool(number % 2))
        finally:
            server.stop()


def _step(
    report: Report, server: RunningServer, clock: ShiftedClock, step: timedelta, token: str, maintenance_first: bool
) -> str:
    """Step in the middle of an upload that lasts longer than its lease, then look at everything.

    A maintenance pass between the step and the next heartbeat takes the lease for one that ran out: by the new time it
    did. Such an upload is refused and nothing else; with the heartbeat first it is not even that.
    """
    what = f"a step by {step}"
    before = server.numbers("files", token)
    body = message(50_000)
    head = (
        f"POST {VERSIONS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with wire.connect(server.port, 20) as sock:
        sock.sendall(head.encode() + body[:1000])
        time.sleep(0.2)
        clock.shift += step
        if maintenance_first:
            server.maintain()
        time.sleep(1.2)
        server.maintain()
        sock.sendall(body[1000:])
        response = http.client.HTTPResponse(sock)
        response.begin()
        status, said = response.status, response.read()
    allowed = (200, 409) if maintenance_first else (200,)
    if step > timedelta(days=99):  # the session is over by the new time, and with it its upload
        allowed = (401, 409)
        token = server.login("admin")
    report.check(status in allowed, f"an upload across {what}: {status} {said!r}")
    report.count("uploads across a step of the clock", str(status))
    answer = server.upload("files", token, body)
    report.check(answer.status == 200, f"an upload after {what}: {answer.status} {answer.body!r}")
    report.count("uploads after a step of the clock", str(answer.status))
    server.maintain()
    numbers = server.numbers("files", token)
    added = 1 + (status == 200)
    expected = [*before, *range(max(before, default=0) + 1, max(before, default=0) + 1 + added)]
    report.check(numbers[-KEEP:] == numbers and numbers[-1] >= expected[-1], f"after {what} there are {numbers}")
    found = server.request("GET", f"{VERSIONS}/latest", token=token)
    report.check(found.body == body, f"after {what} the newest version is not the newest")
    for path in ("/health", "/ready", "/metrics", "/api/stable/auth/whoami"):
        answer = server.request("GET", path, token=token)
        report.check(answer.status == 200, f"after {what} {path} answers {answer.status} {answer.body[:300]!r}")
        report.count("requests after a step of the clock", str(answer.status))
    answer = server.upload("guarded", token)
    if step <= timedelta(0):  # whatever the clock says backwards, what was protected stays
        report.check(len(server.numbers("guarded", token)) >= 2, f"after {what} protected versions have gone")
    report.count("uploads to a protected collection after a step", str(answer.status))
    report.check(answer.status in (200, 403), f"after {what} a protected collection answers {answer.status}")
    return token
