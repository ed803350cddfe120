"""Passwords: hashes, bounds, one Argon2 at a time, turns between clients."""

from __future__ import annotations

import asyncio
import base64
import logging
import re
import threading
import time
from collections.abc import Coroutine
from typing import Any

import psutil
import pytest
from argon2.low_level import Type, hash_secret

from tornado_backups.auth import passwords
from tornado_backups.auth.passwords import (
    MAX_WAITING,
    MAX_WAITING_PER_CLIENT,
    PasswordVerifier,
    encode_password,
    hash_password,
    verify_password,
)
from tornado_backups.domain.errors import Busy

CHEAP = hash_secret(b"riotkit", b"somesalt", 1, 8, 1, 32, Type.ID).decode()


def test_a_new_hash_is_argon2id_with_the_parameters_of_the_contract() -> None:
    phc = hash_password("riotkit")
    match = re.fullmatch(r"\$argon2id\$v=19\$m=65536,t=1,p=4\$([A-Za-z0-9+/]{22})\$([A-Za-z0-9+/]{43})", phc)
    assert match is not None
    assert len(base64.b64decode(match[2] + "=")) == 32
    assert verify_password("riotkit", phc)
    assert not verify_password("riotkit ", phc)


def test_two_hashes_of_one_password_differ() -> None:
    assert hash_password("riotkit") != hash_password("riotkit")


def test_the_encoded_form_is_the_phc_text_in_base64() -> None:
    phc = base64.b64decode(encode_password("riotkit"), validate=True).decode()
    assert verify_password("riotkit", phc)


@pytest.mark.parametrize("variant", [Type.ID, Type.I, Type.D])
@pytest.mark.parametrize(("passes", "memory", "lanes", "size"), [(1, 8, 1, 16), (3, 1024, 2, 32), (2, 102400, 8, 64)])
def test_hashes_with_other_parameters_verify_too(
    variant: Type, passes: int, memory: int, lanes: int, size: int
) -> None:
    phc = hash_secret("pässwörd\0x".encode(), b"another salt", passes, memory, lanes, size, variant).decode()
    assert verify_password("pässwörd\0x", phc)
    assert not verify_password("pässwörd", phc)


@pytest.mark.parametrize(
    "phc",
    [
        None,
        "",
        "riotkit",
        "$2b$12$abcdefghijklmnopqrstuuWlQ9HZ8rVfBhXn0YxPYk0KD4GkBvx5a",
        "$argon2id$v=19$m=65536,t=1,p=4$",
        "$argon2id$v=19$m=65536,t=1,p=4$c2FsdHNhbHQ$",
        "$argon2id$v=19$m=0,t=0,p=0$c2FsdHNhbHQ$c2FsdHNhbHRzYWx0c2FsdA",
        "$argon2id$v=7$m=64,t=1,p=1$c2FsdHNhbHQ$c2FsdHNhbHRzYWx0c2FsdA",
        CHEAP + "\n",
        CHEAP.replace("m=8", "m=４"),
    ],
)
@pytest.mark.parametrize("password", ["", "riotkit", "\ud800"])
def test_without_a_usable_hash_nobody_gets_in(phc: str | None, password: str) -> None:
    assert verify_password(password, phc) is False


@pytest.mark.parametrize(
    "cost", ["m=4194304,t=1,p=4", "m=65536,t=4294967295,p=4", "m=65536,t=17,p=1", "m=8000,t=1,p=1000"]
)
def test_a_hash_of_absurd_cost_is_refused_quickly_and_named_in_the_log(
    cost: str, caplog: pytest.LogCaptureFixture
) -> None:
    phc = f"$argon2id$v=19${cost}$c2FsdHNhbHQ$c2FsdHNhbHRzYWx0c2FsdA"
    before = time.monotonic()
    with caplog.at_level(logging.WARNING):
        assert not verify_password("riotkit", phc)
    assert time.monotonic() - before < 5
    assert "costs more than this server allows" in caplog.text
    assert "c2FsdHNhbHQ" not in caplog.text


@pytest.mark.parametrize(
    "phc", [None, "", "garbage", "$argon2id$v=19$m=4194304,t=9,p=4$c2FsdHNhbHQ$c2FsdHNhbHRzYWx0c2FsdA"]
)
def test_where_there_is_no_usable_hash_exactly_one_argon2_of_the_usual_cost_runs(
    phc: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[bytes] = []
    real = passwords.verify_secret

    def counting(hashed: bytes, secret: bytes, variant: str) -> bool:
        computed.append(hashed)
        return real(hashed, secret, variant)

    monkeypatch.setattr(passwords, "verify_secret", counting)
    assert not verify_password("riotkit", phc)
    assert len(computed) == 1
    assert computed[0].startswith(b"$argon2id$v=19$m=65536,t=1,p=4$")


def test_an_unknown_user_takes_as_long_as_a_wrong_password() -> None:
    phc = hash_password("riotkit")

    def best_of(count: int, checked: str | None) -> float:
        times = []
        for _ in range(count):
            before = time.perf_counter()
            verify_password("wrong", checked)
            times.append(time.perf_counter() - before)
        return min(times)

    # The fastest of several interleaved runs is what a machine under load disturbs least; only a missing or doubled
    # computation could move it by half.
    wrong, unknown = zip(*[(best_of(1, phc), best_of(1, None)) for _ in range(12)], strict=True)
    assert 0.5 < min(unknown) / min(wrong) < 2


# -- one at a time ---------------------------------------------------------------------------------------------------


class Gate:
    """Stands in for Argon2: counts who is inside, lets one through at a time, remembers the order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.inside = self.most = 0
        self.order: list[str] = []
        self.open = threading.Event()
        self.entered = threading.Event()
        self._lock = threading.Lock()
        monkeypatch.setattr(passwords, "verify_password", self.check)

    def check(self, password: str, phc_hash: str | None) -> bool:
        with self._lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
            self.order.append(password)
        self.entered.set()
        assert self.open.wait(10)
        with self._lock:
            self.inside -= 1
        return phc_hash is not None


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(monkeypatch)


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(coroutine, 20))


async def started(tasks: list[asyncio.Task[bool]]) -> None:
    """Let every task run until it waits for its turn or for the thread."""
    for _ in tasks:
        await asyncio.sleep(0)


def test_checks_run_one_at_a_time_and_each_gets_its_own_answer(gate: Gate) -> None:
    async def scenario() -> None:
        verifier = PasswordVerifier()
        gate.open.set()
        answers = await asyncio.gather(
            *(verifier.verify(str(number), "hash" if number % 2 else None, "192.0.2.1") for number in range(20))
        )
        assert answers == [bool(number % 2) for number in range(20)]
        assert gate.most == 1
        verifier.close()

    run(scenario())


def test_a_client_with_many_logins_waits_for_its_own_and_the_others_for_one_of_them_each(gate: Gate) -> None:
    async def scenario() -> None:
        verifier = PasswordVerifier()
        hostile = [asyncio.create_task(verifier.verify(f"h{n}", None, "192.0.2.66")) for n in range(10)]
        await started(hostile)
        honest = [asyncio.create_task(verifier.verify(f"a{n}", None, f"192.0.2.{n}")) for n in range(2)]
        await started(honest)
        gate.open.set()
        await asyncio.gather(*hostile, *honest)
        assert gate.order[:6] == ["h0", "h1", "a0", "a1", "h2", "h3"]
        verifier.close()

    run(scenario())


def test_a_client_that_waits_too_often_is_refused_while_others_are_not(gate: Gate) -> None:
    async def scenario() -> None:
        verifier = PasswordVerifier()
        hostile = [
            asyncio.create_task(verifier.verify("h", None, f"2001:db8::{n:x}"))
            for n in range(MAX_WAITING_PER_CLIENT + 1)
        ]
        await started(hostile)
        with pytest.raises(Busy) as caught:
            await verifier.verify("h", None, "2001:db8::ffff")
        assert caught.value.retry_after_seconds >= 1
        honest = asyncio.create_task(verifier.verify("a", "hash", "192.0.2.1"))
        await started([honest])
        gate.open.set()
        assert await honest
        await asyncio.gather(*hostile)
        verifier.close()

    run(scenario())


def test_the_number_of_all_that_wait_is_bounded(gate: Gate) -> None:
    async def scenario() -> None:
        verifier = PasswordVerifier()
        waiting = [
            asyncio.create_task(verifier.verify("x", None, f"10.0.{n // 250}.{n % 250}"))
            for n in range(MAX_WAITING + 1)
        ]
        await started(waiting)
        with pytest.raises(Busy):
            await verifier.verify("x", None, "192.0.2.1")
        gate.open.set()
        await asyncio.gather(*waiting)
        assert await verifier.verify("x", "hash", "192.0.2.1"), "and afterwards there is room again"
        verifier.close()

    run(scenario())


def test_clients_that_went_away_leave_no_place_taken(gate: Gate) -> None:
    async def scenario() -> None:
        verifier = PasswordVerifier()
        running = asyncio.create_task(verifier.verify("running", None, "192.0.2.1"))
        waiting = [asyncio.create_task(verifier.verify(f"w{n}", None, "192.0.2.2")) for n in range(3)]
        last = asyncio.create_task(verifier.verify("last", "hash", "192.0.2.3"))
        await started([running, *waiting, last])
        await asyncio.to_thread(gate.entered.wait, 10)
        for task in (running, *waiting):
            task.cancel()
        gate.open.set()
        assert await last
        assert gate.most == 1, "a check whose caller has gone ends before the next begins"
        assert not [name for name in gate.order if name.startswith("w")]
        assert await verifier.verify("again", "hash", "192.0.2.2")
        verifier.close()

    run(scenario())


def test_a_turn_handed_to_a_client_that_is_cancelled_in_that_moment_is_passed_on(gate: Gate) -> None:
    async def scenario() -> None:
        turns = passwords._Turns()
        await turns.enter("a")
        second = asyncio.create_task(turns.enter("b"))
        third = asyncio.create_task(turns.enter("c"))
        await asyncio.sleep(0)
        turns.leave()
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        await asyncio.wait_for(third, 5)
        turns.leave()
        await asyncio.wait_for(turns.enter("d"), 5)

    run(scenario())


def test_four_parallel_logins_never_exceed_one_argon2_above_idle_and_give_it_back() -> None:
    phc = hash_password("riotkit")

    async def scenario() -> None:
        verifier = PasswordVerifier()
        process = psutil.Process()
        await verifier.verify("riotkit", phc)
        idle_bytes = process.memory_info().rss
        peak_bytes = idle_bytes
        done = threading.Event()

        def watch() -> None:
            nonlocal peak_bytes
            while not done.is_set():
                peak_bytes = max(peak_bytes, process.memory_info().rss)

        watcher = threading.Thread(target=watch)
        watcher.start()
        answers = await asyncio.gather(*(verifier.verify("riotkit", phc, f"192.0.2.{n}") for n in range(4)))
        done.set()
        watcher.join()
        assert answers == [True] * 4
        assert peak_bytes - idle_bytes < 72 * 2**20
        assert process.memory_info().rss - idle_bytes < 4 * 2**20
        verifier.close()

    run(scenario())
