"""Local storage when things go wrong: full disks, failing fsync, death at every step, links, cancelled calls."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.contract.store_places import get, keys, pattern, put, tree
from tornado_backups.domain.errors import ObjectDamaged, StartupError, StorageError, StorageFull, StorageUnavailable
from tornado_backups.storage.local import LocalStore

MIB = 1024 * 1024
KEY = "photos/0b6c8a52/photos-1.gpg"
PROJECT = Path(__file__).parents[2]

gen_test = pytest.mark.gen_test(timeout=60)

# Uploads 8 MiB where there is room for less, says which error that was, and what is left after abort.
UPLOAD_TOO_MUCH = """
import asyncio, sys
from pathlib import Path
from tornado_backups.domain.errors import StorageError
from tornado_backups.storage.local import LocalStore

async def main(root):
    store = LocalStore(root)
    await store.open()
    sink = await store.begin("photos/1/x")
    try:
        for _ in range(16):
            await sink.write(bytes(512 * 1024))
        await sink.complete()
    except StorageError as error:
        print(type(error).__name__, error.reason, error.cause)
    await sink.abort()
    print([path.name for path in root.rglob("*")])
    sink = await store.begin("photos/2/small")
    await sink.write(b"there is room again")
    await sink.complete()
    print(await store.size("photos/2/small"))
    await store.close()

asyncio.run(main(Path(sys.argv[1])))
"""

# Uploads 1 MiB and dies right before (or, negative, after) call number N of those that change the disk.
DIE_AT_STEP = """
import asyncio, os, sys
from pathlib import Path
from tornado_backups.storage.local import LocalStore

root, step = Path(sys.argv[1]), int(sys.argv[2])
count = 0

def dying(call):
    def wrapped(*args, **kwargs):
        global count
        count += 1
        if count == step:
            os._exit(9)
        result = call(*args, **kwargs)
        if count == -step:
            os._exit(9)
        return result
    return wrapped

async def main():
    store = LocalStore(root)
    await store.open()
    for name in ("mkdir", "write", "fsync", "rename"):
        setattr(os, name, dying(getattr(os, name)))
    sink = await store.begin("photos/1/x")
    for _ in range(2):
        await sink.write(b"." * 512 * 1024)
    await sink.complete()

asyncio.run(main())
os._exit(0)
"""


def run_script(script: str, *arguments: str, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*prefix, sys.executable, "-c", script, *arguments], cwd=PROJECT, capture_output=True, text=True, timeout=60
    )


def in_small_disk(root: Path) -> tuple[str, ...]:
    """Return what to put before a command so that ``root`` has 3 MiB: a tmpfs of its own, else a file size limit."""
    mount = f'mount -t tmpfs -o size=3m none "{root}" && exec "$@"'
    for unshare in (("unshare", "-m"), ("unshare", "-Urm")):
        command = (*unshare, "sh", "-c", mount, "sh")
        if shutil.which("unshare") and subprocess.run([*command, "true"], capture_output=True).returncode == 0:
            return command
    return with_file_limit()


def with_file_limit() -> tuple[str, ...]:
    return ("sh", "-c", 'ulimit -f 4096 && exec "$@"', "sh")


def test_a_full_disk_is_named_and_abort_makes_room_again(tmp_path: Path) -> None:
    done = run_script(UPLOAD_TOO_MUCH, str(tmp_path), prefix=in_small_disk(tmp_path))
    error, left, size = done.stdout.splitlines()
    assert error.startswith("StorageFull storage-full")
    assert left == "['photos']"
    assert size == "19"


def test_a_file_size_limit_counts_as_full(tmp_path: Path) -> None:
    done = run_script(UPLOAD_TOO_MUCH, str(tmp_path), prefix=with_file_limit())
    assert done.stdout.splitlines() == ["StorageFull storage-full File too large", "['photos']", "19"]


def test_death_at_any_step_leaves_nothing_that_abandon_does_not_remove(tmp_path: Path) -> None:
    steps, survivors = 0, 0
    for step in (signed for number in range(1, 20) for signed in (number, -number)):
        root = tmp_path / str(step)
        done = run_script(DIE_AT_STEP, str(root), str(step))
        assert done.returncode in (0, 9), done.stderr
        if done.returncode == 0:
            break
        steps += 1
        survivors += asyncio.run(check_after_death(root))
    assert steps >= 16, "mkdir twice, write twice, fsync of file and three folders, rename: each before and after"
    assert 0 < survivors < steps


async def check_after_death(root: Path) -> bool:
    """Prove that the object is whole or absent, that abandoning it leaves nothing; return whether it was whole."""
    store = LocalStore(root)
    await store.open()
    found = await keys(store)
    if found:
        assert await get(store, "photos/1/x", 0, MIB) == b"." * MIB
        assert await store.size("photos/1/x") == MIB
    await store.abandon("photos/1/x")
    assert tree(root) == []
    await store.close()
    return bool(found)


# -- fsync and friends -----------------------------------------------------------------------------------------------


def failing(call: Callable[..., object], number: int, code: int) -> Callable[..., object]:
    """Return ``call`` failing with ``code`` from its ``number``-th use on."""
    uses = 0

    def wrapped(*args: object, **kwargs: object) -> object:
        nonlocal uses
        uses += 1
        if uses >= number:
            raise OSError(code, os.strerror(code))
        return call(*args, **kwargs)

    return wrapped


@gen_test
@pytest.mark.parametrize("number", [1, 2, 3, 4])
async def test_a_failed_fsync_is_never_a_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    store = LocalStore(tmp_path)
    await store.open()
    sink = await store.begin(KEY)
    await sink.write(b"data")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing(os.fsync, number, errno.EIO))
        with pytest.raises(StorageUnavailable, match="Input/output error"):
            await sink.complete()
    with pytest.raises(StorageUnavailable, match="has ended"):
        await sink.complete()
    await sink.abort()
    assert tree(tmp_path) == []
    await store.close()


@gen_test
@pytest.mark.parametrize(
    ("code", "leaf"),
    [
        (errno.ENOSPC, StorageFull),
        (errno.EDQUOT, StorageFull),
        (errno.EFBIG, StorageFull),
        (errno.EIO, StorageUnavailable),
        (errno.EROFS, StorageUnavailable),
        (errno.EACCES, StorageUnavailable),
    ],
)
@pytest.mark.parametrize("call", ["write", "mkdir", "rename", "fsync"])
async def test_what_the_system_refuses_is_told_in_its_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int, leaf: type[StorageError]
) -> None:
    store = LocalStore(tmp_path)
    await store.open()
    sink = await store.begin(KEY)
    await sink.write(b"data")
    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing(getattr(os, call), 1, code))
        with pytest.raises(leaf) as caught:
            await sink.complete()
    assert type(caught.value) is leaf
    assert caught.value.cause == os.strerror(code)
    assert caught.value.hint
    await sink.abort()
    assert tree(tmp_path) == []
    await store.close()


@gen_test
async def test_the_file_is_synced_before_it_is_renamed_and_every_new_entry_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    fsync, rename = os.fsync, os.rename

    def recorded_fsync(descriptor: int) -> None:
        events.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    def recorded_rename(*args: object, **kwargs: object) -> None:
        events.append("rename")
        rename(*args, **kwargs)  # type: ignore[arg-type]

    store = LocalStore(tmp_path / "objects")
    await store.open()
    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "rename", recorded_rename)
    await put(store, KEY, b"first")
    assert events[0].endswith(".part")
    assert events[1:] == ["rename", "0b6c8a52", "photos", "objects"]
    events.clear()
    await put(store, "photos/second/x", b"second")
    assert events[1:] == ["rename", "second", "photos"], "the entry of photos is durable already"
    events.clear()
    await store.delete("photos/second/x")
    assert events == ["photos"], "an unlink that a power cut undoes would leave a stray object"
    (tmp_path / "objects/photos/0b6c8a52/photos-1.gpg").unlink()
    shutil.rmtree(tmp_path / "objects/photos")
    events.clear()
    await put(store, KEY, b"again")
    assert events[1:] == ["rename", "0b6c8a52", "photos", "objects"], "a folder made anew has a new entry"
    await store.close()


# -- the rest --------------------------------------------------------------------------------------------------------


@gen_test
async def test_a_cancelled_write_followed_by_abort_leaves_nothing(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    await store.open()
    for turns in range(6):
        sink = await store.begin(KEY)
        task = asyncio.ensure_future(upload(sink))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await sink.abort()
        assert tree(tmp_path) == []
    await store.close()


async def upload(sink: object) -> None:
    for _ in range(4):
        await sink.write(bytes(MIB))  # type: ignore[attr-defined]
    await sink.complete()  # type: ignore[attr-defined]


@gen_test
async def test_a_cancelled_read_closes_its_file_once_the_thread_is_done(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    await store.open()
    await put(store, KEY, pattern(4 * MIB))
    before = len(os.listdir("/proc/self/fd"))
    for turns in range(40):
        task = asyncio.ensure_future(get(store, KEY, 0, 4 * MIB))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    for _ in range(8):
        await store.threads.data(lambda: None)
    assert await get(store, KEY, 0, 4 * MIB) == pattern(4 * MIB)
    assert len(os.listdir("/proc/self/fd")) <= before
    await store.close()


@gen_test
async def test_links_below_the_folder_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "id").mkdir(parents=True)
    (outside / "id" / "secret").write_bytes(b"secret")
    root = tmp_path / "objects"
    store = LocalStore(root)
    await store.open()
    (root / "photos").symlink_to(outside)
    (root / "plain" / "id").mkdir(parents=True)
    (root / "plain" / "id" / "link").symlink_to(outside / "id" / "secret")
    for key in ("photos/id/secret", "plain/id/link"):
        with pytest.raises(StorageError):
            await anext(store.read(key, 0, 6))
        with pytest.raises(StorageError):
            await store.size(key)
    sink = await store.begin("photos/other/x")
    with pytest.raises(StorageUnavailable):
        await sink.complete()
    await sink.abort()
    await store.delete("photos/id/secret")
    await store.abandon("plain/id/link")
    assert (outside / "id" / "secret").read_bytes() == b"secret"
    assert await keys(store) == []
    await store.close()


@gen_test
async def test_files_and_folders_are_private_and_temporary_names_recognisable(tmp_path: Path) -> None:
    root = tmp_path / "deep" / "objects"
    store = LocalStore(root)
    await store.open()
    sink = await store.begin(KEY)
    await sink.write(bytes(MIB))
    await sink.settle()
    names = [name for name in tree(root) if not name.endswith("/")]
    assert len(names) == 1
    assert Path(names[0]).name.startswith(".tornado-backups-")
    assert await keys(store) == []
    await sink.complete()
    path = root / KEY
    modes = [stat.S_IMODE(part.stat().st_mode) for part in (path, path.parent, path.parent.parent, root, root.parent)]
    assert modes == [0o600, 0o700, 0o700, 0o700, 0o700]
    await store.close()


@gen_test
async def test_an_object_is_never_overwritten(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    await store.open()
    await put(store, KEY, b"first")
    sink = await store.begin(KEY)
    await sink.write(b"second")
    with pytest.raises(StorageUnavailable, match="exists already"):
        await sink.complete()
    await sink.abort()
    assert await get(store, KEY, 0, 5) == b"first"
    assert tree(tmp_path) == [f"{Path(KEY).parent}/", KEY]
    await store.close()


@gen_test
async def test_a_file_that_shrinks_while_it_is_read_is_damage(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    await store.open()
    await put(store, KEY, pattern(12 * MIB))
    digest = hashlib.sha256()
    reading = store.read(KEY, 0, 12 * MIB, digest)
    begun = [bytes(await anext(reading))]
    os.truncate(tmp_path / KEY, 8 * MIB)
    with pytest.raises(ObjectDamaged, match="the file ends at 8388608"):
        [begun.append(bytes(data)) async for data in reading]
    assert pattern(12 * MIB).startswith(b"".join(begun))
    assert MIB <= sum(map(len, begun)) < 8 * MIB
    await put(store, "photos/other/x", pattern(12 * MIB))  # no thread waits for a turn that nobody takes
    assert await get(store, "photos/other/x", 0, 12 * MIB) == pattern(12 * MIB)
    await store.close()


@gen_test
async def test_a_folder_that_cannot_be_used_is_named_in_one_line_at_start(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    for root in (blocked, blocked / "below"):
        store = LocalStore(root)
        with pytest.raises(StartupError) as caught:
            await store.open()
        assert str(root) in caught.value.sentence
        assert "\n" not in caught.value.sentence
        await store.close()
