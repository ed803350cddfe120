"""What every object store promises: one suite over local files, moto and rclone."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.contract.store_places import Place, S3Place, enter, get, keys, pattern, put
from tests.servers.s3 import BUCKET, rclone
from tornado_backups.domain.errors import ObjectDamaged, ObjectMissing, StorageUnavailable
from tornado_backups.ports import ObjectStore
from tornado_backups.storage.background import NICENESS

pytest_plugins = ["tests.contract.store_fixtures"]

MIB = 1024 * 1024
KEY = "photos/0b6c8a52-4d5e-4d5b-9a53-6c1f0a0f1d11/photos-1.gpg"
OTHER = "photos/7d3f1c66-95b0-4f6e-8f6f-2f6a3b3b0c22/photos-2.gpg"
SIZES = [0, 1, 5 * MIB - 1, 5 * MIB, 5 * MIB + 1, 11 * MIB]
ODD_NAMES = [
    "with space.gpg",
    "zażółć-gęślą-🐘.gpg",
    "a+b%2Fc%20d.gpg",
    "quotes'\"and&<>;.gpg",
    ".hidden-1",
    "q?x=1#y=2&z.gpg",
    "back\\slash~tilde=*.gpg",
]
LONG_NAME = "a/" + "x" * 256
LONG_KEY = "a/" * 512 + "x"
LONE = "a/\ud800"

gen_test = pytest.mark.gen_test(timeout=60)


@gen_test
@pytest.mark.parametrize("size", SIZES)
async def test_an_object_comes_back_bit_for_bit(store: ObjectStore, place: Place, size: int) -> None:
    data = pattern(size)
    await put(store, KEY, data)
    assert await store.size(KEY) == size
    assert await get(store, KEY, 0, size) == data
    assert [name for name in place.left() if not name.endswith("/")] == [KEY]


@gen_test
@pytest.mark.parametrize("piece_bytes", [1000, 700_001, 12 * MIB])
async def test_how_the_bytes_are_cut_into_writes_makes_no_difference(store: ObjectStore, piece_bytes: int) -> None:
    data = pattern(10 * MIB + 3)
    await put(store, KEY, data, piece_bytes)
    assert await get(store, KEY, 0, len(data)) == data


@gen_test
@pytest.mark.parametrize("expected", [None, 0, 1, 100 * MIB, 5 << 40])
async def test_a_wrong_announcement_of_the_size_does_no_harm(store: ObjectStore, expected: int | None) -> None:
    data = pattern(6 * MIB)
    sink = await store.begin(KEY, expected)
    await sink.write(data)
    await sink.complete()
    assert await get(store, KEY, 0, len(data)) == data


@gen_test
@pytest.mark.parametrize("size", [0, 1, 70_000, 5 * MIB, 11 * MIB + 3])
@pytest.mark.parametrize("piece_bytes", [9_000, 700_001])
async def test_a_digest_has_been_fed_all_that_was_written_once_the_sink_has_settled(
    store: ObjectStore, size: int, piece_bytes: int
) -> None:
    data, digest = pattern(size), hashlib.sha256()
    sink = await store.begin(KEY, size, digest)
    for start in range(0, size, piece_bytes):
        await sink.write(data[start : start + piece_bytes])
    await sink.settle()
    assert digest.hexdigest() == hashlib.sha256(data).hexdigest()
    await sink.settle()
    await sink.complete()
    assert digest.hexdigest() == hashlib.sha256(data).hexdigest(), "nothing is fed twice"
    assert await get(store, KEY, 0, size) == data


@gen_test
@pytest.mark.parametrize("size", [70_000, 5 * MIB, 10 * MIB, 11 * MIB + 3])
@pytest.mark.parametrize("announced", [0, None, 1], ids=["right", "none", "too much"])
async def test_what_is_received_into_the_memory_that_a_sink_lends_is_stored_and_fed(
    store: ObjectStore, size: int, announced: int | None
) -> None:
    data, digest, done = pattern(size), hashlib.sha256(), 0
    sink = await store.begin(KEY, None if announced is None else size + announced, digest)
    while done < size:
        room = sink.room()[: min(size - done, 700_001)]
        if room:
            room[:] = data[done : done + len(room)]
            await sink.write(room)
            done += len(room)
        else:
            await sink.write(data[done : done + 9_000])
            done += len(data[done : done + 9_000])
    await sink.settle()
    assert digest.hexdigest() == hashlib.sha256(data).hexdigest()
    await sink.complete()
    assert await get(store, KEY, 0, size) == data


@gen_test
async def test_what_is_written_after_settling_is_stored_and_fed_as_well(store: ObjectStore) -> None:
    data, digest = pattern(7 * MIB), hashlib.sha256()
    sink = await store.begin(KEY, None, digest)
    for piece in (data[:10], data[10 : 6 * MIB], data[6 * MIB :]):
        await sink.write(piece)
        await sink.settle()
    assert digest.hexdigest() == hashlib.sha256(data).hexdigest()
    await sink.complete()
    assert await get(store, KEY, 0, len(data)) == data


@gen_test
async def test_a_digest_has_been_fed_all_that_was_read_once_the_reading_ended(store: ObjectStore) -> None:
    data, digest = pattern(6 * MIB + 17), hashlib.sha256()
    await put(store, KEY, data)
    assert b"".join([bytes(piece) async for piece in store.read(KEY, 5, len(data) - 5, digest)]) == data[5:]
    assert digest.hexdigest() == hashlib.sha256(data[5:]).hexdigest()


@gen_test
async def test_a_buffer_has_been_fed_before_it_comes_and_stays_until_the_next_is_asked_for(store: ObjectStore) -> None:
    data, digest = pattern(6 * MIB + 17), hashlib.sha256()
    await put(store, KEY, data)
    position = 0
    async for piece in store.read(KEY, 0, len(data), digest):
        await asyncio.sleep(0.01)  # time in which it must not be filled anew
        assert data[position : position + len(piece)] == piece
        position += len(piece)
        if position == len(data):
            assert digest.hexdigest() == hashlib.sha256(data).hexdigest()
    assert position == len(data)


class WhereItIsFed:
    """A digest that notes the thread and the niceness of whoever feeds it."""

    def __init__(self) -> None:
        self.threads: set[int] = set()
        self.niceness: set[int] = set()

    def update(self, data: bytes | memoryview) -> None:
        self.threads.add(threading.get_ident())
        self.niceness.add(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))


@gen_test
async def test_who_hashes_large_data_gives_way_to_the_event_loop(store: ObjectStore) -> None:
    data, writing, reading = pattern(12 * MIB), WhereItIsFed(), WhereItIsFed()
    sink = await store.begin(KEY, len(data), writing)
    await sink.write(data)
    await sink.settle()
    await sink.complete()
    assert [len(piece) async for piece in store.read(KEY, 0, len(data), reading)]
    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    for digest in (writing, reading):
        assert threading.get_ident() not in digest.threads
        assert digest.niceness == {min(19, own + NICENESS)}


@gen_test
async def test_any_range_can_be_read(store: ObjectStore) -> None:
    data = pattern(6 * MIB + 17)
    await put(store, KEY, data)
    for start, length in [(0, 1), (0, 0), (5 * MIB - 1, 2), (len(data) - 1, 1), (123_456, 2 * MIB), (len(data), 0)]:
        assert await get(store, KEY, start, length) == data[start : start + length]


@gen_test
async def test_reading_yields_buffers_of_bounded_size(store: ObjectStore) -> None:
    await put(store, KEY, pattern(6 * MIB))
    sizes = [len(data) async for data in store.read(KEY, 0, 6 * MIB)]
    assert max(sizes) <= 1.5 * MIB
    assert min(sizes) > 0


@gen_test
async def test_reading_behind_the_end_is_damage_and_never_a_short_answer(store: ObjectStore) -> None:
    await put(store, KEY, b"0123456789")
    for start, length in [(0, 11), (5, 6), (10, 1), (11, 5)]:
        with pytest.raises(ObjectDamaged):
            await get(store, KEY, start, length)


@gen_test
async def test_a_reader_may_stop_in_the_middle(store: ObjectStore) -> None:
    data = pattern(8 * MIB)
    await put(store, KEY, data)
    for _ in range(3):
        reading = store.read(KEY, 0, len(data))
        assert data.startswith(bytes(await anext(reading)))
        await reading.aclose()  # type: ignore[attr-defined]
    assert await get(store, KEY, 0, len(data)) == data


@gen_test
async def test_a_missing_object_is_named_as_missing(store: ObjectStore) -> None:
    with pytest.raises(ObjectMissing):
        await store.size(KEY)
    for length in (0, 1):
        with pytest.raises(ObjectMissing):
            await anext(store.read(KEY, 0, length))


@gen_test
async def test_deleting_twice_is_success(store: ObjectStore, place: Place) -> None:
    await put(store, KEY, b"x")
    await put(store, OTHER, b"y")
    await store.delete(KEY)
    await store.delete(KEY)
    assert await keys(store) == [OTHER]
    await store.delete(OTHER)
    await store.delete("nothing/ever/was-here")
    assert place.left() == []


# -- nothing before complete, nothing after abort --------------------------------------------------------------------


@gen_test
@pytest.mark.parametrize("size", [0, 1, 5 * MIB, 11 * MIB])
async def test_nothing_is_readable_before_complete(store: ObjectStore, size: int) -> None:
    sink = await store.begin(KEY)
    await sink.write(pattern(size))
    with pytest.raises(ObjectMissing):
        await store.size(KEY)
    with pytest.raises(ObjectMissing):
        await anext(store.read(KEY, 0, 1))
    assert await keys(store) == []
    await sink.complete()
    assert await store.size(KEY) == size


@gen_test
@pytest.mark.parametrize("size", [None, 0, 1, 600_000, 5 * MIB, 5 * MIB + 1, 11 * MIB])
@pytest.mark.parametrize("completed", [False, True])
async def test_abort_at_any_stage_leaves_nothing(
    store: ObjectStore, place: Place, size: int | None, completed: bool
) -> None:
    sink = await store.begin(KEY)
    if size is not None:
        await sink.write(pattern(size))
    if completed:
        await sink.complete()
    await sink.abort()
    assert place.left() == []
    assert await keys(store) == []
    await sink.abort()
    with pytest.raises(StorageUnavailable):
        await sink.complete()
    assert place.left() == []


@gen_test
async def test_abort_touches_no_other_object(store: ObjectStore) -> None:
    await put(store, OTHER, b"other")
    sink = await store.begin(KEY)
    await sink.write(pattern(6 * MIB))
    await sink.abort()
    assert await get(store, OTHER, 0, 5) == b"other"


@gen_test
@pytest.mark.parametrize("size", [0, 2 * MIB, 11 * MIB])
async def test_abandon_removes_what_a_dead_process_left(place: Place, size: int) -> None:
    dead, alive = place.store(), place.store()
    await dead.open()
    await alive.open()
    sinks = [await dead.begin(KEY) for _ in range(2)]
    for sink in sinks:
        await sink.write(pattern(size))
    bystander = await alive.begin(OTHER)
    await bystander.write(pattern(size))
    longer = await alive.begin(KEY + ".more")
    await longer.write(pattern(size))
    for sink in sinks:
        await settle(sink)
    before = place.left()
    assert any(KEY in name or KEY.rpartition("/")[0] in name for name in before) == (size >= place.visible_bytes)
    await alive.abandon(KEY)
    assert not any(name.endswith(KEY) for name in place.left())
    await alive.abandon(KEY)
    await bystander.complete()
    await longer.complete()
    assert await keys(alive) == sorted([KEY + ".more", OTHER])
    await alive.abandon(KEY + ".more")
    await alive.abandon(OTHER)
    assert place.left() == []
    for sink in sinks:
        await sink.abort()
    await dead.close()
    await alive.close()


async def settle(sink: object) -> None:
    """Wait until what the sink sends in the background is there (S3 only)."""
    flight = getattr(sink, "_flight", None)
    if flight is not None:
        await flight


@gen_test
async def test_abandon_removes_a_completed_object(store: ObjectStore, place: Place) -> None:
    await put(store, KEY, b"x")
    await store.abandon(KEY)
    assert place.left() == []


# -- names and listing -----------------------------------------------------------------------------------------------


@gen_test
@pytest.mark.parametrize("name", ODD_NAMES)
async def test_odd_names_are_kept_as_they_are(store: ObjectStore, place: Place, name: str) -> None:
    key = f"photos/some-id/{name}"
    await put(store, key, pattern(5 * MIB + 1))
    assert await keys(store) == [key]
    assert await store.size(key) == 5 * MIB + 1
    assert await get(store, key, 5 * MIB, 1) == pattern(5 * MIB + 1)[-1:]
    await store.abandon(key)
    assert place.left() == []


@gen_test
@pytest.mark.parametrize(
    "key",
    [
        "",
        "/etc/passwd",
        "a//b",
        "../x",
        "a/../../x",
        "a/./b",
        "a/b\0c",
        "a/.tornado-backups-x",
        LONG_NAME,
        LONG_KEY,
        LONE,
    ],
)
async def test_a_key_that_could_leave_the_store_or_not_be_stored_is_refused_at_once(
    store: ObjectStore, key: str
) -> None:
    with pytest.raises(StorageUnavailable):
        await store.begin(key)
    with pytest.raises(StorageUnavailable):
        await store.size(key)
    with pytest.raises(StorageUnavailable):
        await store.delete(key)
    with pytest.raises(StorageUnavailable):
        await store.abandon(key)
    with pytest.raises(StorageUnavailable):
        await anext(store.read(key, 0, 1))


@gen_test
async def test_listing_shows_keys_sizes_and_times(store: ObjectStore) -> None:
    await put(store, KEY, b"12345")
    await put(store, "other/id/file", b"")
    found = {stored.key: stored async for stored in store.list()}
    assert {key: stored.size_bytes for key, stored in found.items()} == {KEY: 5, "other/id/file": 0}
    assert abs(found[KEY].modified_at - datetime.now(UTC)) < timedelta(minutes=1)


@gen_test
async def test_listing_takes_a_prefix_of_the_key_as_text(store: ObjectStore) -> None:
    for key in ("ab/1/x", "ab/2/x", "abc/1/x", "b/1/ab"):
        await put(store, key, b"x")
    assert await keys(store, "ab/") == ["ab/1/x", "ab/2/x"]
    assert await keys(store, "ab") == ["ab/1/x", "ab/2/x", "abc/1/x"]
    assert await keys(store, "ab/2/x") == ["ab/2/x"]
    assert await keys(store, "ab/2/xy") == []
    assert await keys(store, "nothing/") == []


@gen_test
async def test_the_layout_of_an_imported_bucket_is_read_listed_and_deleted(store: ObjectStore, place: Place) -> None:
    await put(store, "photos/photos-1.gpg", b"one")
    await put(store, "photos/photos-2.gpg", b"two")
    assert await get(store, "photos/photos-2.gpg", 0, 3) == b"two"
    await store.delete("photos/photos-1.gpg")
    assert await keys(store) == ["photos/photos-2.gpg"]
    await store.delete("photos/photos-2.gpg")
    assert place.left() == []


@gen_test
async def test_more_than_a_thousand_objects_are_all_listed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, count = tmp_path / BUCKET / "many", 2001
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / str(number)).touch()
    with rclone(tmp_path) as server:
        enter(server, monkeypatch)
        store = S3Place(server, "").store()
        await store.open()
        found = [stored.key async for stored in store.list("many/")]
        await store.close()
    assert len(found) == len(set(found)) == count


@gen_test
async def test_a_listing_of_many_pages_shows_every_object_once(moto_place: S3Place) -> None:
    store = moto_place.store(list_page=7)
    await store.open()
    for number in range(22):
        await put(store, f"many/{number}/x", b"")
    found = [stored.key async for stored in store.list("many/")]
    await store.close()
    assert len(found) == len(set(found)) == 22


@gen_test
async def test_two_prefixes_in_one_bucket_do_not_see_each_other(moto_place: S3Place) -> None:
    one, two = moto_place.store(), S3Place(moto_place.server, moto_place.prefix + "inner-").store()
    await one.open()
    await two.open()
    await put(two, KEY, b"inner")
    await one.delete(KEY)
    assert await keys(two) == [KEY]
    assert await keys(one) == [f"inner-{KEY}"]
    with pytest.raises(ObjectMissing):
        await one.size(KEY)
    await one.close()
    await two.close()


# -- probe, open, close ----------------------------------------------------------------------------------------------


@gen_test
async def test_a_probe_leaves_nothing(store: ObjectStore, place: Place) -> None:
    await store.probe()
    await store.probe()
    assert place.left() == []


@gen_test
async def test_closing_twice_and_opening_again_on_the_same_place_works(place: Place) -> None:
    for _ in range(2):
        store = place.store()
        await store.open()
        await put(store, KEY, b"again")
        await store.delete(KEY)
        await store.close()
        await store.close()
        with pytest.raises(StorageUnavailable):
            await store.size(KEY)


@gen_test
async def test_opening_removes_nothing(place: Place) -> None:
    first = place.store()
    await first.open()
    await put(first, KEY, b"kept")
    sink = await first.begin(OTHER)
    await sink.write(pattern(11 * MIB))
    await settle(sink)
    before = place.left()
    second = place.store()
    await second.open()
    assert place.left() == before
    await sink.complete()
    assert await second.size(OTHER) == 11 * MIB
    await second.close()
    await first.close()
