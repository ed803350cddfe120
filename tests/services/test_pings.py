"""The dead-man service of a collection hears how each upload ended, and holds up none."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from tests.services.doubles import COLLECTION
from tornado_backups.domain.errors import CallbackFailed, QuotaExceeded
from tornado_backups.services import pings as module
from tornado_backups.services.pings import Pings, fail_url

PINGED = replace(COLLECTION, ping_url="https://hc.example.org/uuid?run=1")
NOTHING: Any = None
REFUSAL = QuotaExceeded("too large", 2, 1)


@dataclass
class Service:
    """The other end; fails ``failures`` times first."""

    called: list[str] = field(default_factory=list)
    failures: int = 0

    async def call(self, url: str) -> None:
        self.called.append(url)
        if len(self.called) <= self.failures:
            raise CallbackFailed("it answered 500")


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITS_SECONDS", (0.0, 0.0, 0.0))


async def ended(pings: Pings) -> None:
    """Wait for every ping that is on its way."""
    if pings._tasks:
        await asyncio.wait(set(pings._tasks))


def pings_to(service: Service) -> Pings:
    client: Any = service
    return Pings(client)


@pytest.mark.gen_test
async def test_a_stored_version_calls_the_url_and_a_refused_upload_its_fail_path() -> None:
    service = Service()
    pings = pings_to(service)
    pings.stored(PINGED, NOTHING, NOTHING)
    await ended(pings)
    pings.refused(PINGED, REFUSAL)
    await ended(pings)
    assert service.called == ["https://hc.example.org/uuid?run=1", "https://hc.example.org/uuid/fail?run=1"]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://a.example/x", "https://a.example/x/fail"),
        ("https://a.example/x/", "https://a.example/x/fail"),
        ("https://a.example", "https://a.example/fail"),
        ("https://a.example/x?a=b&c", "https://a.example/x/fail?a=b&c"),
        ("http://user:pw@a.example:8/x#f", "http://user:pw@a.example:8/x/fail#f"),
    ],
)
def test_fail_goes_behind_the_path_and_before_the_query(url: str, expected: str) -> None:
    assert fail_url(url) == expected


@pytest.mark.gen_test
async def test_a_collection_without_a_url_pings_nobody() -> None:
    service = Service()
    pings = pings_to(service)
    pings.stored(COLLECTION, NOTHING, NOTHING)
    pings.refused(COLLECTION, REFUSAL)
    await ended(pings)
    assert service.called == []


@pytest.mark.gen_test
@pytest.mark.parametrize(("failures", "calls"), [(0, 1), (1, 2), (2, 3), (99, 3)])
async def test_a_ping_is_tried_three_times_and_then_given_up(
    failures: int, calls: int, caplog: pytest.LogCaptureFixture
) -> None:
    service = Service(failures=failures)
    pings = pings_to(service)
    pings.stored(PINGED, NOTHING, NOTHING)
    await ended(pings)
    assert len(service.called) == calls
    assert sum("was not delivered" in line for line in caplog.messages) == min(failures, 3)


@pytest.mark.gen_test
async def test_pings_that_hang_are_bounded_in_number_and_given_up_at_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "MOST_AT_A_TIME", 3)
    service = Service()
    started = 0

    async def hang(url: str) -> None:
        nonlocal started
        started += 1
        await asyncio.Event().wait()

    service.call = hang  # type: ignore[method-assign]
    pings = pings_to(service)
    for _ in range(5):
        pings.stored(PINGED, NOTHING, NOTHING)
    await asyncio.sleep(0.01)
    assert started == 3
    assert sum("is dropped" in line for line in caplog.messages) == 2
    await pings.close()
    assert pings._tasks == set()
