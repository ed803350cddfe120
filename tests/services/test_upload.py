"""The ways an upload can end, and what each leaves: by real SQLite and a real folder, with faults where none come."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest

from tests.services.doubles import COLLECTION, NOW, Client, Listener, Source, SteadyClock, Told, actor
from tests.serving import message
from tornado_backups.domain.errors import (
    Busy,
    DatabaseUnavailable,
    DigestMismatch,
    EmptyUpload,
    LeaseLost,
    NotAuthenticated,
    NotEncrypted,
    QuotaExceeded,
    RequestError,
    StorageUnavailable,
    Truncated,
    UploadCancelled,
    UploadInProgress,
    WindowClosed,
)
from tornado_backups.domain.model import AccessEntry, BackupWindow, Role, User
from tornado_backups.registry.sqlite import SqliteRegistry
from tornado_backups.services import running_upload
from tornado_backups.services.catalogue import Catalogue
from tornado_backups.services.running_upload import Upload
from tornado_backups.services.upload import Uploads, lease_name
from tornado_backups.services.upload_request import UploadLimits, UploadRequest
from tornado_backups.storage import local_file, local_sink, shares
from tornado_backups.storage.local import LocalStore

BODY = message(1000)
AWAY = DatabaseUnavailable("the database does not answer")


@dataclass
class Room:
    """The upload service over a real registry and store that can be told to fail."""

    uploads: Uploads
    registry: Told
    store: Told
    source: Source
    clock: SteadyClock
    listener: Listener
    folder: Path

    def objects(self) -> list[str]:
        """Return every file and every folder of a version that exists."""
        return sorted(str(path) for path in self.folder.rglob("*") if len(path.relative_to(self.folder).parts) > 1)

    async def begin(self, declared: int | None = len(BODY), client: Client | None = None, **more: str) -> Upload:
        """Begin an upload by an administrator."""
        return await self.uploads.begin(UploadRequest(actor(), "files", declared, **more), client or Client())

    async def numbers(self) -> list[int]:
        """Return the numbers of the live versions."""
        return [version.number for version in await self.registry.inner.versions("files")]

    async def assert_free_and_clean(self) -> None:
        """Assert that the collection can be uploaded to again and that nothing is left."""
        assert self.uploads.running == set()
        assert await self.registry.inner.abandoned_intents(10) == []
        assert len(self.objects()) == 2 * len(await self.numbers())
        lease = await self.registry.inner.acquire_lease(lease_name("files"), 30)
        assert lease is not None
        await self.registry.inner.release_lease(lease)


ONE_BUFFER = shares.SMALLEST_SHARE_BYTES
"""What a sink takes, in these tests, before it begins to write, and it tells what came of that at the next call."""


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask again without a pause, and send off 64 KiB as soon as they are there."""
    monkeypatch.setattr(running_upload, "COMMIT_RETRY_SECONDS", 0.0)
    monkeypatch.setattr(local_sink, "BUFFER_BYTES", ONE_BUFFER)


@pytest.fixture
def open_room(tmp_path: Path):
    """Open a room with a lease time and a number of places."""

    @asynccontextmanager
    async def enter(lease_seconds: float = 30.0, places: int = 2) -> AsyncIterator[Room]:
        clock = SteadyClock()
        registry = Told(SqliteRegistry(tmp_path / "registry.sqlite", clock, "owner", exclusive=True))
        store = Told(LocalStore(tmp_path / "objects"))
        source = Source({"files": COLLECTION})
        await registry.inner.open()
        await store.inner.open()
        limits = UploadLimits(places, lease_seconds)
        uploads = Uploads(registry, store, Catalogue(source), clock, limits)
        listener = Listener()
        uploads.listeners.append(listener)
        try:
            yield Room(uploads, registry, store, source, clock, listener, tmp_path / "objects")
        finally:
            await store.inner.close()
            await registry.inner.close()

    return enter


@pytest.mark.gen_test
async def test_a_version_holds_exactly_the_bytes_that_were_written_in_whatever_pieces(open_room) -> None:
    body = message(300_000, bytes(range(251)))
    async with open_room() as room:
        for number, piece in enumerate((1, 100, 65_535, 65_536, 200_000), 1):
            upload = await room.begin(len(body))
            for start in range(0, len(body), piece if piece > 1 else 997):
                await upload.write(body[start : start + (piece if piece > 1 else 997)])
            version = await upload.commit()
            assert (version.number, version.size_bytes) == (number, len(body))
            assert version.sha256 == hashlib.sha256(body).hexdigest()
            read = [bytes(data) async for data in room.store.inner.read(version.object_key, 0, len(body))]
            assert b"".join(read) == body


@pytest.mark.gen_test
async def test_abort_undoes_everything_however_often_and_from_wherever_it_is_called(open_room) -> None:
    async with open_room() as room:
        upload = await room.begin(None)
        body = message(4_000_000)
        await upload.write(body[:2_000_000])
        await upload.write(body[2_000_000:3_500_000])  # which waits for the one before
        assert room.objects()
        await asyncio.gather(*(upload.abort() for _ in range(3)))
        await upload.abort()
        assert room.store.calls.count("abort") == 1
        await room.assert_free_and_clean()
        with pytest.raises(UploadCancelled):
            await upload.write(body[3_500_000:3_600_000])
        with pytest.raises(RequestError):
            await upload.commit()
        assert await room.numbers() == []


@pytest.mark.gen_test
async def test_abort_after_a_commit_changes_nothing(open_room) -> None:
    async with open_room() as room:
        upload = await room.begin()
        await upload.write(BODY)
        await upload.commit()
        await upload.abort()
        assert await room.numbers() == [1]
        await room.assert_free_and_clean()


@pytest.mark.gen_test
async def test_abort_waits_for_the_write_that_runs_before_it_cleans(open_room) -> None:
    async with open_room() as room:
        upload = await room.begin(None)
        entered, go_on = asyncio.Event(), asyncio.Event()

        async def slow(data: bytes) -> None:
            entered.set()
            await go_on.wait()

        room.store.instead["write"] = slow
        writing = asyncio.ensure_future(upload.write(message(100_000)[:-1]))
        await entered.wait()
        aborting = asyncio.ensure_future(upload.abort())
        for _ in range(5):
            await asyncio.sleep(0)
        assert "abort" not in room.store.calls
        go_on.set()
        await asyncio.gather(aborting, writing)
        await room.assert_free_and_clean()


async def write_and_commit(upload: Upload, body: bytes) -> None:
    await upload.write(body)
    await upload.commit()


REFUSED_AT_THE_END = {
    "empty": (b"", EmptyUpload),
    "cut off": (BODY[:-1], Truncated),
    "plain text": (b"not a backup at all, but long enough to tell", NotEncrypted),
    "something behind it": (BODY + b"x", NotEncrypted),
}


@pytest.mark.gen_test
@pytest.mark.parametrize(("body", "error"), REFUSED_AT_THE_END.values(), ids=REFUSED_AT_THE_END)
async def test_a_body_that_is_refused_leaves_nothing(open_room, body: bytes, error: type[RequestError]) -> None:
    async with open_room() as room:
        upload = await room.begin(None)
        with pytest.raises(error):
            await write_and_commit(upload, body)
        await upload.abort()
        assert await room.numbers() == []
        await room.assert_free_and_clean()


@pytest.mark.gen_test
async def test_a_digest_that_does_not_match_is_refused_before_the_object_exists(open_room) -> None:
    async with open_room() as room:
        upload = await room.begin(declared_sha256="0" * 64)
        await upload.write(BODY)
        with pytest.raises(DigestMismatch):
            await upload.commit()
        assert "complete" not in room.store.calls
        await upload.abort()
        await room.assert_free_and_clean()


@pytest.mark.gen_test
async def test_the_first_byte_too_many_ends_the_upload(open_room) -> None:
    async with open_room() as room:
        room.source.collections["files"] = replace(COLLECTION, max_one_version_bytes=len(BODY) - 1)
        with pytest.raises(QuotaExceeded) as declared:
            await room.begin()
        assert (declared.value.declared, declared.value.size_bytes) == (True, len(BODY))
        upload = await room.begin(None)
        await upload.write(BODY[:-1])
        with pytest.raises(QuotaExceeded) as received:
            await upload.write(BODY[-1:])
        assert (received.value.declared, received.value.size_bytes) == (False, len(BODY))
        assert received.value.allowed_bytes == len(BODY) - 1
        await upload.abort()
        await room.assert_free_and_clean()


@pytest.mark.gen_test
@pytest.mark.parametrize("following", ["write", "commit"])
async def test_a_write_that_fails_in_the_background_is_raised_by_what_is_called_next(
    open_room, monkeypatch: pytest.MonkeyPatch, following: str
) -> None:
    async with open_room() as room:
        upload = await room.begin(None)
        body = message(200_000)
        with monkeypatch.context() as patch:
            patch.setattr(local_file.AppendedFile, "append", out_of_order)
            await upload.write(body[:ONE_BUFFER])
            with pytest.raises(StorageUnavailable, match="Input/output error"):
                await (upload.write(body[ONE_BUFFER:]) if following == "write" else upload.commit())
        await upload.abort()
        assert await room.numbers() == []
        await room.assert_free_and_clean()


def out_of_order(*_: object) -> None:
    raise OSError(errno.EIO, "Input/output error")


@pytest.mark.gen_test
async def test_a_write_that_fails_in_the_background_is_no_surprise_to_abort(
    open_room, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_room() as room:
        upload = await room.begin(None)
        monkeypatch.setattr(local_file.AppendedFile, "append", out_of_order)
        await upload.write(message(200_000)[:ONE_BUFFER])
        await upload.abort()
        await room.assert_free_and_clean()


@pytest.mark.gen_test
@pytest.mark.parametrize("step", ["begin_upload", "add_intent"])
async def test_a_begin_that_fails_at_the_database_leaves_the_collection_free(open_room, step: str) -> None:
    async with open_room() as room:
        room.registry.fail[step] = AWAY
        with pytest.raises(DatabaseUnavailable):
            await room.begin()
        room.registry.fail.clear()
        await room.assert_free_and_clean()
        assert room.listener.heard == [("refused", "database-unavailable")]
        await (await room.begin()).abort()


@pytest.mark.gen_test
async def test_a_begin_that_fails_at_the_storage_takes_its_intent_back(open_room) -> None:
    async with open_room() as room:
        room.store.fail["begin"] = StorageUnavailable("begin", "", "gone")
        with pytest.raises(StorageUnavailable):
            await room.begin()
        await room.assert_free_and_clean()


@pytest.mark.gen_test
async def test_a_begin_that_is_cancelled_leaves_the_collection_free(open_room) -> None:
    async with open_room() as room:
        reached = asyncio.Event()

        async def hang(*given: object) -> None:
            reached.set()
            await asyncio.Event().wait()

        for step in ("begin_upload", "add_intent"):
            room.registry.instead[step] = hang
            beginning = asyncio.ensure_future(room.begin())
            await reached.wait()
            reached.clear()
            beginning.cancel()
            await asyncio.wait([beginning])
            assert beginning.cancelled()
            room.registry.instead.clear()
            await room.assert_free_and_clean()


@pytest.mark.gen_test
async def test_places_are_given_back_by_every_end(open_room) -> None:
    async with open_room(places=1) as room:
        for end in ("commit", "abort"):
            upload = await room.begin()
            with pytest.raises(Busy):
                await room.begin()
            await upload.write(BODY)
            await getattr(upload, end)()
        room.registry.fail["add_intent"] = AWAY
        for _ in range(3):
            with pytest.raises(DatabaseUnavailable):
                await room.begin()
        room.registry.fail.clear()
        await (await room.begin()).abort()


@pytest.mark.gen_test
async def test_a_second_upload_to_a_collection_is_told_so(open_room) -> None:
    async with open_room() as room:
        upload = await room.begin()
        with pytest.raises(UploadInProgress):
            await room.begin()
        await upload.abort()
        await room.assert_free_and_clean()


@pytest.mark.gen_test
async def test_a_closed_window_names_its_next_opening_and_admins_pass(open_room) -> None:
    async with open_room() as room:
        window = BackupWindow("0 3 * * *", timedelta(hours=1), "UTC")
        room.source.collections["files"] = replace(
            COLLECTION, windows=(window,), access_control=(AccessEntry("bob", frozenset({Role.BACKUP_UPLOADER})),)
        )
        bob = replace(actor(), user=User("bob"))
        with pytest.raises(WindowClosed) as refused:
            await room.uploads.begin(UploadRequest(bob, "files", 100), Client())
        assert refused.value.opens_at == NOW.replace(hour=3) + timedelta(days=1)
        await (await room.begin()).abort()
        assert ("refused", "window-closed") in room.listener.heard


# -- the lease -----------------------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_a_lease_that_was_taken_over_ends_the_upload_before_anything_is_registered(open_room) -> None:
    async with open_room(lease_seconds=0.03) as room:
        asked = asyncio.Event()

        async def taken_over(*given: object) -> bool:
            asked.set()
            return False

        room.registry.instead["renew_lease"] = taken_over
        upload = await room.begin(None)
        await asked.wait()
        await asyncio.sleep(0)
        with pytest.raises(LeaseLost):
            await upload.write(message(100_000))
        with pytest.raises(LeaseLost):
            await upload.commit()
        assert "complete" not in room.store.calls
        await upload.abort()
        assert await room.numbers() == []
        await room.assert_free_and_clean()


@pytest.mark.gen_test
async def test_a_heartbeat_without_a_database_gives_up_only_when_the_lease_time_is_over(open_room) -> None:
    async with open_room(lease_seconds=0.03) as room:
        beats: asyncio.Queue[None] = asyncio.Queue()

        async def away(*given: object) -> bool:
            beats.put_nowait(None)
            raise AWAY

        room.registry.instead["renew_lease"] = away
        upload = await room.begin(None)
        for _ in range(3):
            await beats.get()
        body = message(200_000)
        await upload.write(body[:100_000])  # by its own clock no time has passed
        room.clock.seconds += 0.031
        for _ in range(2):
            await beats.get()
            if upload._lease_lost:
                break
            await asyncio.sleep(0)
        with pytest.raises(LeaseLost):
            await upload.write(body[100_000:])
        await upload.abort()
        await room.assert_free_and_clean()


@pytest.mark.gen_test
async def test_a_lease_that_the_database_took_back_meanwhile_refuses_the_commit_and_undoes_the_object(
    open_room,
) -> None:
    async with open_room() as room:
        upload = await room.begin()
        await upload.write(BODY)
        room.clock.forward(timedelta(seconds=31))
        assert len(await room.registry.inner.abandoned_intents(10)) == 1
        with pytest.raises(LeaseLost):
            await upload.commit()
        await upload.abort()
        assert await room.numbers() == []
        await room.assert_free_and_clean()


# -- the commit ----------------------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_a_commit_whose_outcome_is_unknown_leaves_object_and_intent_to_maintenance(open_room) -> None:
    async with open_room() as room:
        upload = await room.begin()
        await upload.write(BODY)
        room.registry.fail["commit_upload"] = AWAY
        with pytest.raises(DatabaseUnavailable):
            await upload.commit()
        await upload.abort()
        assert room.registry.calls.count("commit_upload") == running_upload.COMMIT_ATTEMPTS
        assert not {"abort", "abandon", "drop_intent", "release_lease"} & {*room.registry.calls, *room.store.calls}
        assert len(room.objects()) == 2
        assert room.uploads.running == set()
        room.clock.forward(timedelta(seconds=31))
        assert len(await room.registry.inner.abandoned_intents(10)) == 1


@pytest.mark.gen_test
async def test_a_commit_that_is_cancelled_half_way_leaves_the_object_alone(open_room) -> None:
    async with open_room() as room:
        upload = await room.begin()
        await upload.write(BODY)
        reached = asyncio.Event()

        async def hang(*given: object) -> None:
            reached.set()
            await asyncio.Event().wait()

        room.registry.instead["commit_upload"] = hang
        committing = asyncio.ensure_future(upload.commit())
        await reached.wait()
        committing.cancel()
        await asyncio.wait([committing])
        await upload.abort()
        assert len(room.objects()) == 2
        assert "abort" not in room.store.calls


@pytest.mark.gen_test
async def test_a_commit_is_asked_again_until_the_database_answers_and_counts_once(open_room) -> None:
    async with open_room() as room:
        upload = await room.begin()
        await upload.write(BODY)
        lost = 0

        async def answer_gets_lost(*given: object) -> None:
            nonlocal lost
            await room.registry.inner.commit_upload(*given)
            lost += 1
            if lost < 3:
                raise AWAY

        room.registry.instead["commit_upload"] = answer_gets_lost
        assert (await upload.commit()).number == 1
        assert lost == 3
        assert await room.numbers() == [1]
        await room.assert_free_and_clean()


@pytest.mark.gen_test
@pytest.mark.parametrize("fault", ["complete", "plan"])
async def test_a_commit_that_fails_before_the_database_is_asked_is_undone(open_room, fault: str) -> None:
    async with open_room() as room:
        upload = await room.begin()
        await upload.write(BODY)
        if fault == "complete":
            room.store.fail["complete"] = StorageUnavailable("complete", "", "gone")
        else:
            room.registry.fail["versions"] = AWAY
        with pytest.raises(RequestError):
            await upload.commit()
        room.registry.fail.clear()
        await upload.abort()
        assert "commit_upload" not in room.registry.calls
        await room.assert_free_and_clean()


@pytest.mark.gen_test
async def test_a_client_that_went_away_has_cancelled_even_when_the_object_is_whole(open_room) -> None:
    async with open_room() as room:
        client = Client()
        upload = await room.begin(client=client)
        await upload.write(BODY)

        async def goes_away_meanwhile() -> None:
            client.there = False

        room.store.instead["complete"] = goes_away_meanwhile
        with pytest.raises(UploadCancelled):
            await upload.commit()
        await upload.abort()
        assert "commit_upload" not in room.registry.calls
        await room.assert_free_and_clean()


@pytest.mark.gen_test
async def test_a_session_that_ended_while_the_upload_ran_registers_nothing(open_room) -> None:
    async with open_room() as room:
        upload = await room.begin(client=Client(allowed=False))
        await upload.write(BODY)
        with pytest.raises(NotAuthenticated):
            await upload.commit()
        await upload.abort()
        assert await room.numbers() == []
        await room.assert_free_and_clean()


@pytest.mark.gen_test
async def test_a_single_use_session_is_good_for_one_upload(open_room) -> None:
    async with open_room() as room:
        single = actor(single_use=True)
        await room.registry.inner.add_session(single.session)
        for expected in ([1], [1]):
            upload = await room.uploads.begin(UploadRequest(single, "files", len(BODY)), Client())
            await upload.write(BODY)
            try:
                await upload.commit()
            except NotAuthenticated:
                await upload.abort()
            assert await room.numbers() == expected
        await room.assert_free_and_clean()


@pytest.mark.gen_test
async def test_a_clean_up_that_fails_is_left_to_maintenance_and_said(
    open_room, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with open_room() as room:
        upload = await room.begin()
        await upload.write(BODY)
        room.store.fail["abort"] = StorageUnavailable("abort", "", "gone")
        await upload.abort()
        assert "drop_intent" not in room.registry.calls  # the intent is all that names the debris
        assert "clean-up is left to the next maintenance pass" in caplog.text
        assert room.uploads.running == set()


@pytest.mark.gen_test
async def test_listeners_hear_of_every_version_and_every_refusal_of_an_entitled_client(open_room) -> None:
    async with open_room() as room:
        upload = await room.begin()
        await upload.write(BODY)
        await upload.commit()
        with pytest.raises(RequestError):
            await room.uploads.begin(UploadRequest(replace(actor(), user=User("eve")), "files", 1), Client())
        running = await room.begin()
        with pytest.raises(UploadInProgress):
            await room.begin()
        await running.abort()
        assert room.listener.heard == [("stored", 1), ("refused", "upload-in-progress")]
