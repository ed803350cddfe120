"""Files written past the page cache: the same bytes whatever is direct, and wherever the file system refuses."""

from __future__ import annotations

import errno
import mmap
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tornado_backups.storage import local_file
from tornado_backups.storage.local_file import BLOCK_BYTES, SMALLEST_DIRECT_BYTES, AppendedFile

KIB = 1024


def opened(path: Path) -> AppendedFile:
    return AppendedFile(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC))


def aligned(size_bytes: int, seed: int = 0) -> memoryview:
    """Return a view that begins at a block's address."""
    memory = mmap.mmap(-1, max(1, size_bytes))
    memory[:size_bytes] = bytes((seed + number) % 251 for number in range(1009)) * (size_bytes // 1009) + bytes(
        (seed + number) % 241 for number in range(size_bytes % 1009)
    )
    return memoryview(memory)[:size_bytes]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from([1, 4095, BLOCK_BYTES, 65_536, SMALLEST_DIRECT_BYTES, 300_001, 1536 * KIB]), max_size=6)
)
def test_what_was_appended_is_what_the_file_holds(tmp_path_factory: pytest.TempPathFactory, sizes: list[int]) -> None:
    path = tmp_path_factory.mktemp("file") / "object"
    file, pieces = opened(path), [aligned(size, seed) for seed, size in enumerate(sizes)]
    for piece in pieces:
        file.append(piece)
    file.close()
    file.close()
    assert path.read_bytes() == b"".join(pieces)


def test_memory_that_begins_at_no_block_is_written_all_the_same(tmp_path: Path) -> None:
    file, data = opened(tmp_path / "object"), aligned(SMALLEST_DIRECT_BYTES + BLOCK_BYTES)[7:]
    file.append(data)
    file.append(aligned(SMALLEST_DIRECT_BYTES))
    file.close()
    assert (tmp_path / "object").read_bytes() == bytes(data) + bytes(aligned(SMALLEST_DIRECT_BYTES))


@pytest.mark.parametrize("call", ["fcntl", "write"])
def test_a_file_system_that_refuses_is_written_through_the_page_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    refused = []
    module = local_file.fcntl if call == "fcntl" else local_file.os
    plain, control = getattr(module, call), local_file.fcntl.fcntl

    def refuse(descriptor: int, *given: object) -> object:
        flags = given[-1] if call == "fcntl" else control(descriptor, local_file.fcntl.F_GETFL)
        if isinstance(flags, int) and flags & os.O_DIRECT:
            refused.append(call)
            raise OSError(errno.EINVAL, "Invalid argument")
        return plain(descriptor, *given)

    file = opened(tmp_path / "object")
    with monkeypatch.context() as patch:
        patch.setattr(module, call, refuse)
        for _ in range(2):
            file.append(aligned(SMALLEST_DIRECT_BYTES))
    file.close()
    assert refused == [call], "asked once"
    assert (tmp_path / "object").read_bytes() == 2 * bytes(aligned(SMALLEST_DIRECT_BYTES))


def test_any_other_error_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = opened(tmp_path / "object")

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space left"):
            file.append(aligned(SMALLEST_DIRECT_BYTES))
    file.close()
