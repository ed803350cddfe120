"""S3 when things go wrong: a real store behind a proxy that hangs, resets, cuts, loses answers and answers itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import replace

import botocore
import pytest
from tornado.ioloop import IOLoop

from tests.contract.store_places import S3Place, enter, get, keys, pattern, put
from tests.servers.proxy import Fault, Proxy, http_answer, proxy, s3_error
from tests.servers.s3 import S3Server, free_port
from tornado_backups import __version__
from tornado_backups.domain.errors import (
    ObjectDamaged,
    ObjectMissing,
    StartupError,
    StorageError,
    StorageFull,
    StorageUnavailable,
)
from tornado_backups.storage.s3 import S3Store
from tornado_backups.storage.s3_limits import S3Limits
from tornado_backups.storage.s3_url import parse_s3_url

pytest_plugins = ["tests.contract.store_fixtures"]

MIB = 1024 * 1024
KEY = "photos/0b6c8a52/photos-1.gpg"
LIMITS = S3Limits(
    io_timeout_seconds=60,
    connect_seconds=2,
    stall_seconds=1,
    slowest_bytes_per_second=1 << 40,
    complete_seconds=1,
    attempts=4,
    first_pause_seconds=0.01,
    longest_pause_seconds=0.05,
)
COMPLETE = b"<CompleteMultipartUpload"
CREATE = b"?uploads"
PUT_OBJECT = b"PUT /"
PART_TWO = b"partNumber=2"

gen_test = pytest.mark.gen_test(timeout=60)


@pytest.fixture
def faulty(moto_server: S3Server) -> Iterator[Proxy]:
    """A proxy in front of moto, without a fault yet."""
    with proxy(moto_server.port) as running:
        yield running


@pytest.fixture
def store(moto_place: S3Place, faulty: Proxy, io_loop: IOLoop) -> Iterator[S3Store]:
    """An open store that reaches moto through the proxy."""
    opened = S3Store(parse_s3_url(moto_place.server.url(faulty.port, prefix=moto_place.prefix)), LIMITS)
    io_loop.run_sync(opened.open)
    yield opened
    io_loop.run_sync(lambda: close(opened, faulty))


async def close(store: S3Store, faulty: Proxy) -> None:
    """Close the store, and have what it still had to send on given-up connections refused while the loop runs."""
    await store.close()
    faulty.drop_connections()
    await asyncio.sleep(0.05)


PASSING_FAULTS = {
    "hang": Fault("hang"),
    "reset": Fault("reset"),
    "cut in the request": Fault("cut", after_bytes=100_000),
    "lost answer": Fault("swallow"),
    "500": Fault("answer", reply=s3_error(500, "InternalError")),
    "503": Fault("answer", reply=s3_error(503, "SlowDown")),
    "no XML": Fault("answer", reply=http_answer(502, "<html>bad gateway", "text/html")),
    "late body": Fault("answer", reply=s3_error(400, "RequestTimeout")),
}


@gen_test
@pytest.mark.parametrize("fault", PASSING_FAULTS.values(), ids=PASSING_FAULTS)
@pytest.mark.parametrize(
    ("size", "when"),
    [(600_000, PUT_OBJECT), (11 * MIB, PART_TWO), (11 * MIB, CREATE), (11 * MIB, COMPLETE)],
    ids=["put", "part", "create", "complete"],
)
async def test_an_upload_survives_a_fault_that_passes(
    store: S3Store, moto_place: S3Place, faulty: Proxy, size: int, when: bytes, fault: Fault
) -> None:
    faulty.fault = replace(fault, when=when, after_bytes=within(when, fault), times=1)
    data = pattern(size)
    await put(store, KEY, data)
    assert faulty.fault.met == 1
    assert moto_place.left() == [KEY], "above all no second multipart upload from a create whose answer was lost"
    assert await get(store, KEY, 0, size) == data


@gen_test
@pytest.mark.parametrize("fault", PASSING_FAULTS.values(), ids=PASSING_FAULTS)
@pytest.mark.parametrize(
    ("size", "when"), [(600_000, PUT_OBJECT), (11 * MIB, PART_TWO), (11 * MIB, CREATE)], ids=["put", "part", "create"]
)
async def test_after_a_fault_that_stays_abort_leaves_nothing(
    store: S3Store, moto_place: S3Place, faulty: Proxy, size: int, when: bytes, fault: Fault
) -> None:
    faulty.fault = replace(fault, when=when, after_bytes=within(when, fault))
    sink = await store.begin(KEY)
    with pytest.raises(StorageUnavailable):
        await write_and_complete(sink, size)
    assert faulty.fault.met >= LIMITS.attempts
    faulty.fault = None
    await sink.abort()
    await sink.abort()
    assert moto_place.left() == []


def within(when: bytes, fault: Fault) -> int:
    """Return after how many bytes a cut falls into the request: not all requests have a long body."""
    return fault.after_bytes if when in (PUT_OBJECT, PART_TWO) else 50


async def write_and_complete(sink: object, size: int) -> None:
    for start in range(0, size, 512 * 1024):
        await sink.write(bytes(min(512 * 1024, size - start)))  # type: ignore[attr-defined]
    await sink.complete()  # type: ignore[attr-defined]


@gen_test
async def test_a_broken_connection_between_two_parts_costs_nothing(store: S3Store, faulty: Proxy) -> None:
    sink = await store.begin(KEY)
    await sink.write(pattern(11 * MIB)[: 6 * MIB])
    faulty.drop_connections()
    await sink.write(pattern(11 * MIB)[6 * MIB :])
    faulty.drop_connections()
    await sink.complete()
    assert await get(store, KEY, 0, 11 * MIB) == pattern(11 * MIB)


# -- complete --------------------------------------------------------------------------------------------------------


@gen_test
async def test_an_error_in_a_200_to_complete_is_an_error(store: S3Store, moto_place: S3Place, faulty: Proxy) -> None:
    body = '<?xml version="1.0"?><Error><Code>InternalError</Code><Message>try again</Message></Error>'
    faulty.fault = Fault("answer", when=COMPLETE, reply=http_answer(200, body))
    sink = await store.begin(KEY)
    with pytest.raises(StorageUnavailable, match="InternalError"):
        await write_and_complete(sink, 11 * MIB)
    assert faulty.fault.met == LIMITS.attempts
    assert await keys(store) == []
    faulty.fault = None
    await sink.abort()
    assert moto_place.left() == []


@gen_test
async def test_a_complete_that_succeeded_without_telling_counts_as_success(
    store: S3Store, moto_place: S3Place, faulty: Proxy
) -> None:
    faulty.fault = Fault("swallow", when=COMPLETE)
    await put(store, KEY, pattern(11 * MIB))
    assert faulty.fault.met == 1, "asking showed the object: completing again would have been NoSuchUpload"
    assert moto_place.left() == [KEY]


@gen_test
async def test_what_cannot_be_known_is_not_a_success_and_abort_undoes_it(
    store: S3Store, moto_place: S3Place, faulty: Proxy
) -> None:
    faulty.fault = Fault("swallow", when=COMPLETE)
    faulty.more = [Fault("reset", when=b"HEAD /")]
    sink = await store.begin(KEY)
    with pytest.raises(StorageUnavailable, match="unknown whether"):
        await write_and_complete(sink, 11 * MIB)
    assert moto_place.left() == [KEY]
    faulty.more = []
    await sink.abort()
    assert moto_place.left() == []


@gen_test
async def test_another_object_under_the_key_is_not_taken_for_ours(
    store: S3Store, moto_place: S3Place, faulty: Proxy
) -> None:
    await put(store, KEY, b"another")
    faulty.fault = Fault("answer", when=COMPLETE, reply=s3_error(500, "InternalError"))
    sink = await store.begin(KEY)
    with pytest.raises(StorageUnavailable, match="7 bytes, not"):
        await write_and_complete(sink, 11 * MIB)


@gen_test
async def test_abort_that_fails_may_be_repeated(store: S3Store, moto_place: S3Place, faulty: Proxy) -> None:
    sink = await store.begin(KEY)
    await sink.write(pattern(11 * MIB))
    faulty.fault = Fault("reset")
    faulty.drop_connections()
    with pytest.raises(StorageUnavailable):
        await sink.abort()
    faulty.fault = None
    await sink.abort()
    assert moto_place.left() == []


@gen_test
async def test_cancelling_at_any_moment_and_aborting_leaves_nothing(store: S3Store, moto_place: S3Place) -> None:
    for milliseconds in (0, 1, 3, 10, 30, 60, 100, 200):
        sink = await store.begin(KEY)
        task = asyncio.ensure_future(write_and_complete(sink, 16 * MIB))
        await asyncio.sleep(milliseconds / 1000)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await sink.abort()
        assert moto_place.left() == []


@gen_test
@pytest.mark.parametrize("size", [MIB, 11 * MIB], ids=["put", "multipart"])
async def test_what_the_storage_does_after_the_caller_has_gone_is_undone_as_well(
    store: S3Store, moto_place: S3Place, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """The storage carries out what has arrived, though nobody waits for its answer any more."""
    once, asked, carried_out = store._client.once, asyncio.Event(), []

    async def carry_out(parameters: dict[str, object]) -> object:
        await asyncio.sleep(0.2)
        return await once("put_object", {"Key": parameters["Key"]}, memoryview(b"the object"))

    async def slowly(method: str, parameters: dict[str, object], *more: object, **named: object) -> object:
        if method not in ("put_object", "complete_multipart_upload"):
            return await once(method, parameters, *more, **named)
        carried_out.append(asyncio.ensure_future(carry_out(parameters)))
        asked.set()
        return await asyncio.shield(carried_out[0])

    monkeypatch.setattr(store._client, "once", slowly)
    sink = await store.begin(KEY)
    task = asyncio.ensure_future(write_and_complete(sink, size))
    await asked.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await sink.abort()
    await asyncio.gather(*carried_out)
    assert moto_place.left() == []


@gen_test
async def test_an_abort_fails_while_it_is_unknown_whether_the_object_will_exist(
    store: S3Store, moto_place: S3Place, faulty: Proxy
) -> None:
    faulty.fault = Fault("hang", when=COMPLETE)
    sink = await store.begin(KEY)
    task = asyncio.ensure_future(write_and_complete(sink, 11 * MIB))
    while not faulty.fault.met:
        await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    with pytest.raises(StorageUnavailable, match="not said whether the object exists"):
        await sink.abort()
    faulty.fault = None
    await sink.abort()
    assert moto_place.left() == []


# -- time ------------------------------------------------------------------------------------------------------------


@gen_test
async def test_slow_is_not_stalled(moto_place: S3Place, faulty: Proxy) -> None:
    location = parse_s3_url(moto_place.server.url(faulty.port, prefix=moto_place.prefix))
    store = S3Store(location, replace(LIMITS, slowest_bytes_per_second=MIB))
    await store.open()
    faulty.fault = Fault("slow", when=PART_TWO, bytes_per_second=2 * MIB)
    await put(store, KEY, pattern(11 * MIB))
    assert faulty.fault.met == 1, "5 MiB took 2.5 s where 1 s without a byte is a stall"
    await close(store, faulty)


@gen_test
async def test_one_transfer_takes_no_longer_than_the_io_timeout(moto_place: S3Place, faulty: Proxy) -> None:
    location = parse_s3_url(moto_place.server.url(faulty.port, prefix=moto_place.prefix))
    store = S3Store(location, replace(LIMITS, io_timeout_seconds=0.5))
    await store.open()
    faulty.fault = Fault("slow", when=b"partNumber=1", bytes_per_second=MIB)
    sink = await store.begin(KEY)
    with pytest.raises(StorageUnavailable, match="took too long") as caught:
        await write_and_complete(sink, 11 * MIB)
    assert "--storage-io-timeout" in caught.value.hint
    faulty.fault = None
    await sink.abort()
    assert moto_place.left() == []
    await close(store, faulty)


# -- reading ---------------------------------------------------------------------------------------------------------


@gen_test
@pytest.mark.parametrize("kind", ["cut", "hang", "500"])
async def test_a_download_goes_on_after_a_break(store: S3Store, faulty: Proxy, kind: str) -> None:
    data = pattern(11 * MIB)
    await put(store, KEY, data)
    cut = Fault("cut", when=b"GET /", direction="down", after_bytes=3 * MIB, times=2)
    hang = Fault("hang", when=b"GET /", times=1)
    faulty.fault = {"cut": cut, "hang": hang, "500": replace(PASSING_FAULTS["500"], when=b"GET /", times=2)}[kind]
    assert await get(store, KEY, 5, len(data) - 7) == data[5:-2]
    assert faulty.fault.met == faulty.fault.times


@gen_test
async def test_a_download_that_never_gets_on_fails_and_is_never_short(store: S3Store, faulty: Proxy) -> None:
    await put(store, KEY, pattern(2 * MIB))
    faulty.fault = Fault("cut", when=b"GET /", direction="down", after_bytes=100_000)
    with pytest.raises(StorageUnavailable):
        await get(store, KEY, 0, 2 * MIB)
    assert faulty.fault.met == LIMITS.attempts


@gen_test
async def test_a_storage_that_answers_200_to_a_range_is_understood(store: S3Store, faulty: Proxy) -> None:
    faulty.fault = Fault("answer", when=b"GET /", reply=http_answer(200, "0123456789", "application/octet-stream"))
    assert await get(store, KEY, 4, 3) == b"456"
    assert await get(store, KEY, 0, 10) == b"0123456789"
    with pytest.raises(ObjectDamaged):
        await get(store, KEY, 4, 7)


@gen_test
async def test_a_missing_bucket_is_not_taken_for_a_missing_object(store: S3Store, faulty: Proxy) -> None:
    faulty.fault = Fault("answer", when=b"HEAD /", reply=http_answer(404))
    faulty.more = [Fault("answer", reply=s3_error(404, "NoSuchBucket"))]
    for attempt in (store.size(KEY), store.delete(KEY), store.abandon(KEY), anext(store.read(KEY, 0, 1))):
        with pytest.raises(StorageUnavailable, match="NoSuchBucket"):
            await attempt
    faulty.fault, faulty.more = None, []
    with pytest.raises(ObjectMissing):
        await store.size(KEY)


# -- what the storage says -------------------------------------------------------------------------------------------


@gen_test
@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (403, "QuotaExceeded", ""),
        (507, "XMinioStorageFull", "Storage backend has reached its minimum free drive threshold."),
        (507, "InsufficientStorage", ""),
        (403, "AccessDenied", "Cannot upload files, storage cap exceeded. See the Caps and Alerts page."),
    ],
)
@pytest.mark.parametrize(("size", "when"), [(10, PUT_OBJECT), (11 * MIB, PART_TWO), (11 * MIB, COMPLETE)])
async def test_a_full_storage_is_named_at_once(
    store: S3Store, faulty: Proxy, status: int, code: str, message: str, size: int, when: bytes
) -> None:
    faulty.fault = Fault("answer", when=when, reply=s3_error(status, code, message))
    sink = await store.begin(KEY)
    with pytest.raises(StorageFull) as caught:
        await write_and_complete(sink, size)
    assert caught.value.reason == "storage-full"
    assert faulty.fault.met == 1
    faulty.fault = None
    await sink.abort()


REFUSALS = {
    "InvalidAccessKeyId": (403, "AWS_ACCESS_KEY_ID"),
    "SignatureDoesNotMatch": (403, "AWS_SECRET_ACCESS_KEY"),
    "ExpiredToken": (400, "AWS_SESSION_TOKEN"),
    "RequestTimeTooSkewed": (403, "clock"),
    "NoSuchBucket": (404, "create the bucket"),
    "AuthorizationHeaderMalformed": (400, "region"),
    "AccessDenied": (403, "list the bucket"),
}


@gen_test
@pytest.mark.parametrize("code", REFUSALS)
async def test_a_refusal_at_start_is_one_line_with_what_helps(moto_place: S3Place, faulty: Proxy, code: str) -> None:
    status, help_text = REFUSALS[code]
    faulty.fault = Fault("answer", reply=s3_error(status, code, f"key {moto_place.server.secret_key}"))
    await expect_startup_error(moto_place.server.url(faulty.port), moto_place.server, code, help_text)


@gen_test
@pytest.mark.parametrize("code", REFUSALS)
async def test_the_same_refusal_later_is_an_unavailable_storage(store: S3Store, faulty: Proxy, code: str) -> None:
    status, help_text = REFUSALS[code]
    faulty.fault = Fault("answer", reply=s3_error(status, code))
    with pytest.raises(StorageUnavailable) as caught:
        await store.probe()
    assert code in caught.value.cause
    assert help_text in caught.value.hint


async def expect_startup_error(url: str, server: S3Server, *parts: str) -> None:
    store = S3Store(parse_s3_url(url), LIMITS)
    with pytest.raises(StartupError) as caught:
        await store.open()
    sentence = caught.value.sentence
    assert "\n" not in sentence
    assert server.secret_key not in sentence
    assert server.access_key not in sentence
    for part in parts:
        assert part in sentence
    await store.close()


@gen_test
async def test_a_wrong_secret_key_is_found_at_start(moto_place: S3Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    await expect_startup_error(moto_place.server.url(), moto_place.server, "SignatureDoesNotMatch", "'backups'")


@gen_test
async def test_an_unknown_access_key_is_found_at_start(moto_place: S3Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "UNKNOWNUNKNOWN")
    await expect_startup_error(moto_place.server.url(), moto_place.server, "InvalidAccessKeyId")


@gen_test
async def test_a_missing_bucket_is_found_at_start(moto_place: S3Place) -> None:
    url = moto_place.server.url().replace("s3://backups", "s3://other-bucket")
    await expect_startup_error(url, moto_place.server, "'other-bucket'", "NoSuchBucket", "create the bucket")


@gen_test
async def test_a_storage_that_nobody_serves_is_found_at_start(moto_place: S3Place) -> None:
    port = free_port()
    await expect_startup_error(moto_place.server.url(port), moto_place.server, "no connection", f"127.0.0.1:{port}")


@gen_test
async def test_a_storage_that_hangs_is_found_at_start(moto_place: S3Place, faulty: Proxy) -> None:
    faulty.fault = Fault("hang")
    await expect_startup_error(moto_place.server.url(faulty.port), moto_place.server, "did not answer in time")


@gen_test
async def test_missing_credentials_are_found_at_start(moto_place: S3Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    await expect_startup_error(moto_place.server.url(), moto_place.server, "no credentials", "AWS_ACCESS_KEY_ID")


@gen_test
async def test_an_unknown_profile_is_found_at_start(moto_place: S3Place) -> None:
    await expect_startup_error(moto_place.server.url(profile="nobody"), moto_place.server, "~/.aws")


@gen_test
async def test_a_plain_server_under_https_is_found_at_start(moto_place: S3Place) -> None:
    url = moto_place.server.url().replace("disableSSL=true", "disableSSL=false")
    await expect_startup_error(url, moto_place.server, "TLS")


@gen_test
async def test_no_secret_is_ever_logged(
    store: S3Store, moto_place: S3Place, faulty: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    faulty.fault = Fault("reset", when=PUT_OBJECT)
    with pytest.raises(StorageError):
        await put(store, KEY, b"x")
    assert "attempt 1 of 4" in caplog.text
    assert moto_place.server.secret_key not in caplog.text
    assert moto_place.server.access_key not in caplog.text


@gen_test
async def test_a_probe_that_breaks_off_is_cleared_by_the_next(
    store: S3Store, moto_place: S3Place, faulty: Proxy
) -> None:
    faulty.fault = Fault("hang", when=b"GET /")
    faulty.more = [Fault("hang", when=b"DELETE /")]
    probing = asyncio.ensure_future(store.probe())
    while not faulty.fault.met:
        await asyncio.sleep(0.01)
    probing.cancel()
    await asyncio.gather(probing, return_exceptions=True)
    assert len(moto_place.left()) == 1
    faulty.fault, faulty.more = None, []
    faulty.drop_connections()
    assert await keys(store) == [], "a probe is no object"
    await store.probe()
    assert moto_place.left() == []


@gen_test
async def test_a_store_that_is_not_open_says_so(moto_place: S3Place, monkeypatch: pytest.MonkeyPatch) -> None:
    enter(moto_place.server, monkeypatch)
    store = moto_place.store()
    with pytest.raises(StorageUnavailable, match="not open"):
        await store.size(KEY)


@gen_test
async def test_requests_name_this_program_and_not_the_machine_it_runs_on(store: S3Store, faulty: Proxy) -> None:
    named = f"User-Agent: tornado-backups/{__version__} botocore/{botocore.__version__}\r\n".encode()
    faulty.fault = Fault("slow", when=named, bytes_per_second=1 << 30)
    await store.probe()
    assert faulty.fault.met > 0
