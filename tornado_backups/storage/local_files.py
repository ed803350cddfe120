"""Blocking file operations below one folder, none of which can leave it.

Owns: walking to a key's folder without following links, durable renames and removals, and what an ``OSError`` means.
Does not own: threads or the event loop; ``storage/local`` and ``storage/local_sink`` call all of this in threads. See
docs/storage.md.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from tornado_backups.domain.errors import ObjectMissing, StorageError, StorageFull, StorageUnavailable
from tornado_backups.domain.model import StoredObject
from tornado_backups.storage.keys import RESERVED

FILE_MODE = 0o600
FOLDER_MODE = 0o700

_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR})
_HINTS = {
    errno.ENOSPC: "free some space, or add some",
    errno.EDQUOT: "raise the quota of the user that runs this server",
    errno.EFBIG: "raise the file size limit (ulimit -f) or the file system's",
    errno.EACCES: "the folder must belong to the user that runs this server",
    errno.EPERM: "the folder must belong to the user that runs this server",
    errno.EROFS: "the file system is mounted read-only",
    errno.EIO: "the disk reports errors: look into the system log",
    errno.ELOOP: "symbolic links below the storage folder are not followed",
    errno.EMFILE: "raise the limit of open files (LimitNOFILE)",
}


def storage_error(operation: str, key: str, error: OSError) -> StorageError:
    """Return the leaf that ``error`` means: full, missing or unavailable, with the system's own words."""
    number = error.errno or 0
    cause = os.strerror(number) if number else str(error) or type(error).__name__
    if number in _GONE and operation in ("read", "size"):
        return ObjectMissing(operation, key, "there is no such file")
    leaf = StorageFull if number in _FULL else StorageUnavailable
    return leaf(operation, key, cause, _HINTS.get(number, ""))


@contextlib.contextmanager
def translated(operation: str, key: str) -> Iterator[None]:
    """Turn any ``OSError`` of the block into a ``StorageError``."""
    try:
        yield
    except OSError as error:
        raise storage_error(operation, key, error) from error


@contextlib.contextmanager
def folder(root: Path, names: tuple[str, ...], made: list[str] | None = None) -> Iterator[list[int]]:
    """Yield descriptors of ``root`` and of each folder below it down to the last of ``names``.

    Links are not followed, so that nothing outside can be reached. With ``made`` (a list) missing folders are made, and
    their names appended to it.
    """
    opened = [os.open(root, _FOLDER_FLAGS & ~os.O_NOFOLLOW)]
    try:
        for name in names:
            if made is not None:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, FOLDER_MODE, dir_fd=opened[-1])
                    made.append(name)
            opened.append(os.open(name, _FOLDER_FLAGS, dir_fd=opened[-1]))
        yield opened
    finally:
        for descriptor in reversed(opened):
            os.close(descriptor)


def sync_folder(descriptor: int) -> None:
    """Make the entries of a folder durable."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # network file systems that sync entries by themselves
            raise


def temporary_prefix(name: str) -> str:
    """Return how the temporary files of an object's file ``name`` begin; no object's file can begin so."""
    return f"{RESERVED}{hashlib.sha256(name.encode()).hexdigest()[:16]}-"


def make_root(root: Path) -> None:
    """Create ``root`` with its parents, durably: each new entry's folder is synced."""
    missing = [path for path in (root, *root.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(FOLDER_MODE, exist_ok=True)
        with folder(path.parent, ()) as opened:
            sync_folder(opened[-1])


def open_for_reading(root: Path, segments: tuple[str, ...]) -> tuple[int, int]:
    """Return a descriptor and the size in bytes of a regular file."""
    with folder(root, segments[:-1]) as opened:
        descriptor = os.open(
            segments[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=opened[-1]
        )
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise FileNotFoundError(errno.ENOENT, "not a regular file")
    return descriptor, status.st_size


def remove(root: Path, segments: tuple[str, ...], keep_object: bool = False) -> None:
    """Remove an object and its temporary files, durably, and the folder that this empties; repeatable.

    With ``keep_object`` only the temporary files go. The collection's own folder (the first segment) stays.
    """
    name = segments[-1]
    try:
        with folder(root, segments[:-1]) as opened:
            doomed = [entry for entry in os.listdir(opened[-1]) if entry.startswith(temporary_prefix(name))]
            for entry in doomed if keep_object else [*doomed, name]:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(entry, dir_fd=opened[-1])
            if len(opened) > 2 and _remove_if_empty(segments[-2], opened[-2]):
                sync_folder(opened[-2])
            else:
                sync_folder(opened[-1])
    except (FileNotFoundError, NotADirectoryError):
        return  # what is not there need not be removed


def _remove_if_empty(name: str, parent: int) -> bool:
    try:
        os.rmdir(name, dir_fd=parent)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        if error.errno != errno.ENOENT:
            raise
    return True


def walk(root: Path, prefix: str) -> Iterator[StoredObject]:
    """Yield the regular files below ``root`` whose key begins with ``prefix``; what vanishes meanwhile is left out.

    Memory is bounded by the depth of the tree, not by the number of files. Temporary files are left out.
    """
    stack = [(os.scandir(root), "")]
    try:
        while stack:
            entries, path = stack[-1]
            entry = next(entries, None)
            if entry is None:
                stack.pop()[0].close()
                continue
            key = path + entry.name
            if entry.name.startswith(RESERVED):
                continue
            if entry.is_dir(follow_symlinks=False):
                below = key + "/"
                if below.startswith(prefix) or prefix.startswith(below):
                    with contextlib.suppress(FileNotFoundError):
                        stack.append((os.scandir(entry.path), below))
            elif entry.is_file(follow_symlinks=False) and key.startswith(prefix):
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    yield StoredObject(key, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))
    finally:
        for entries, _ in stack:
            entries.close()
