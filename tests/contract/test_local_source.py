"""The buffers of downloads from local files: how large they are, how many, and who still reads after the end."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.contract.store_places import pattern, put
from tornado_backups.storage.local import LocalStore
from tornado_backups.storage.local_source import BUFFER_BYTES, BUFFERS
from tornado_backups.storage.shares import SMALLEST_SHARE_BYTES, SUM_BYTES, share

gen_test = pytest.mark.gen_test(timeout=60)
KEY = "photos/0b6c8a52/photos-1.gpg"
MIB = 1024 * 1024


def test_shares_together_are_no_more_than_the_sum_until_each_is_the_least() -> None:
    assert [share(BUFFER_BYTES, count) for count in (0, 1, 5)] == [BUFFER_BYTES] * 3
    for count in range(6, SUM_BYTES // SMALLEST_SHARE_BYTES + 1):
        assert SMALLEST_SHARE_BYTES <= share(BUFFER_BYTES, count) <= SUM_BYTES // count
        assert share(BUFFER_BYTES, count) % SMALLEST_SHARE_BYTES == 0
    assert share(BUFFER_BYTES, 1000) == SMALLEST_SHARE_BYTES


@gen_test
async def test_a_reader_takes_smaller_buffers_when_others_come_and_larger_when_they_left(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    await store.open()
    await put(store, KEY, pattern(24 * MIB))
    reader = store.read(KEY, 0, 24 * MIB)
    assert len(await anext(reader)) == BUFFER_BYTES
    others = [store.read(KEY, 0, 24 * MIB) for _ in range(7)]
    for other in others:
        await anext(other)
    sizes = [len(await anext(reader)) for _ in range(BUFFERS + 2)]
    assert sizes[BUFFERS:] == [share(BUFFER_BYTES, 8)] * 2, "what was read ahead before has its size"
    for other in others:
        await other.aclose()
    sizes = [len(await anext(reader)) for _ in range(BUFFERS + 2)]
    assert sizes[BUFFERS:] == [BUFFER_BYTES] * 2
    await reader.aclose()
    await store.close()


@gen_test
async def test_no_more_is_read_ahead_than_the_buffers_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[int] = []
    preadv = os.preadv

    def noted(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        ends.append(offset + sum(map(len, buffers)))
        return preadv(descriptor, buffers, offset)

    store = LocalStore(tmp_path)
    await store.open()
    await put(store, KEY, pattern(16 * MIB))
    monkeypatch.setattr(os, "preadv", noted)
    used = 0
    reading = store.read(KEY, 0, 16 * MIB)
    async for data in reading:
        for _ in range(3):
            await store.threads.data(lambda: None)
        used += len(data)
        assert max(ends) - used <= (BUFFERS - 1) * BUFFER_BYTES
    assert max(ends) == used == 16 * MIB
    await store.close()


class Gate:
    """A digest that waits, in its thread, until it is let go on."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.open = threading.Event()
        self.fed_bytes = 0

    def update(self, data: bytes | memoryview) -> None:
        self.entered.set()
        assert self.open.wait(10)
        self.fed_bytes += len(data)


@gen_test
async def test_a_closed_reader_reads_and_hashes_no_more_than_what_had_begun(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    await store.open()
    await put(store, KEY, pattern(16 * MIB))
    before = len(os.listdir("/proc/self/fd"))
    gate = Gate()
    reading = store.read(KEY, 0, 16 * MIB, gate)
    first = asyncio.ensure_future(anext(aiter(reading)))
    while not gate.entered.is_set():
        await asyncio.sleep(0.001)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await close(reading)
    assert len(os.listdir("/proc/self/fd")) == before + 1, "a thread still uses it"
    gate.open.set()
    while len(os.listdir("/proc/self/fd")) > before:
        await asyncio.sleep(0.001)
    assert gate.fed_bytes == BUFFER_BYTES, "the one that was being hashed"
    await store.close()


async def close(reading: AsyncIterator[object]) -> None:
    await reading.aclose()  # type: ignore[attr-defined]
