"""The time of a refused login tells nothing of why: whatever the reason, exactly one Argon2 of the usual cost is in it.

The figures over 200 tries are made by ``benchmarks/login_timing.py``; here are a few, judged so that only a missing
or a second Argon2 can fail it, however busy the machine is.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.login_timing import KINDS, LOGIN, build_tree, measure
from tests.serving import RunningServer
from tornado_backups.auth import passwords

TRIES = 5


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    """A server whose users have hashes of the usual cost."""
    running = RunningServer(tmp_path, build_tree(tmp_path / "config"))
    yield running
    running.stop()


def test_every_refused_login_takes_the_time_of_one_argon2(server: RunningServer) -> None:
    measure(server, 1)
    seconds = measure(server, TRIES)
    # The fastest of several interleaved tries is what a busy machine disturbs least.
    fastest = {kind: min(times) for kind, times in seconds.items()}
    usual = fastest["wrong password"]
    assert {kind: round(each / usual, 2) for kind, each in fastest.items() if not 0.5 < each / usual < 2} == {}


def test_every_refused_login_gets_the_same_bytes_after_one_argon2_of_the_usual_cost(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    costs: list[bytes] = []
    real = passwords.verify_secret

    def noting(phc: bytes, *arguments: object) -> bool:
        costs.append(phc.rpartition(b"$")[0].rpartition(b"$")[0])
        return real(phc, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(passwords, "verify_secret", noting)
    answers = set()
    for username, password in KINDS.values():
        answer = server.request("POST", LOGIN, {"username": username, "password": password})
        same = {name: value for name, value in answer.headers.items() if name != "date"}
        answers.add((answer.status, answer.body, tuple(sorted(same.items()))))
    assert len(answers) == 1
    assert costs == [b"$argon2id$v=19$m=65536,t=1,p=4"] * len(KINDS)
