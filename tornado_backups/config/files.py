"""Read one configuration file whole, and tell later whether it is still the same.

Owns: stamps, the bound on size, and the sentences for everything that is there but is no readable file.
Does not own: what the bytes mean (``yaml_nodes``), which files there are (``filesystem``).
"""

from __future__ import annotations

import errno
import os
import stat
import time
from dataclasses import dataclass

from tornado_backups.config.yaml_nodes import MAX_BYTES, too_large
from tornado_backups.domain.errors import ConfigurationFault

Stamp = tuple[int, int, int, int, int]
"""Device, inode, size, modification and change time in nanoseconds: what no change leaves as it was."""

_SETTLED_NS = 100_000_000
_ATTEMPTS = 5
_ABSENT = (errno.ENOENT, errno.ENAMETOOLONG)


@dataclass(frozen=True, slots=True)
class WholeFile:
    """A file's bytes. ``settled`` tells that a later change cannot have the same ``stamp``.

    Kernels count file times in steps of some milliseconds, so that two changes within one step look the same.
    """

    data: bytes
    stamp: Stamp
    settled: bool


def stamp_of(path: str) -> Stamp | None:
    """Return the stamp of what ``path`` leads to, links followed; None when it leads to nothing that can be asked."""
    try:
        return _stamp(os.stat(path))
    except OSError:
        return None


def is_settled(stamp: Stamp) -> bool:
    """Tell whether the last change lies so far back that the next one gets another stamp."""
    return abs(time.time_ns() - stamp[4]) > _SETTLED_NS


def read_whole(path: str) -> WholeFile | None:
    """Return the file, read between two equal stamps; None when nothing of that name is there.

    Never blocks on a pipe or device and reads at most 1 MiB. Raises ``ConfigurationFault``, in line 1, for what is
    there but cannot be read, a link to nothing included.
    """
    try:
        for _ in range(_ATTEMPTS):
            whole = _read_once(path)
            if whole is not None:
                return whole
    except OSError as error:
        if error.errno in _ABSENT and not os.path.islink(path):
            return None
        raise ConfigurationFault(path, 1, *_explained(error)) from None
    raise ConfigurationFault(path, 1, "the file changes while it is read", "write to another name, then rename it")


def _read_once(path: str) -> WholeFile | None:
    """Return the file, or None when it changed in between."""
    before = os.stat(path)
    _check_regular(path, before)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    with open(descriptor, "rb", buffering=0) as file:
        opened = os.fstat(descriptor)
        _check_regular(path, opened)
        data = _read_all(descriptor, opened.st_size)
        after = os.fstat(file.fileno())
    stamp = _stamp(before)
    if len(data) != opened.st_size or not stamp == _stamp(opened) == _stamp(after) == stamp_of(path):
        return None
    return WholeFile(data, stamp, is_settled(stamp))


def _read_all(descriptor: int, size: int) -> bytes:
    """Return the whole content, or one byte more than ``size``: then it is longer than it was said to be."""
    parts, left = [], size + 1
    while left and (part := os.read(descriptor, left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _check_regular(path: str, status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise ConfigurationFault(path, 1, "this is a folder", "put a YAML file in its place")
    if not stat.S_ISREG(status.st_mode):
        raise ConfigurationFault(path, 1, "this is a pipe, socket or device", "put a YAML file in its place")
    if status.st_size > MAX_BYTES:
        raise too_large(path)


def _explained(error: OSError) -> tuple[str, str]:
    match error.errno:
        case errno.ENOENT:
            return "this is a link to nothing", "restore what it points to, or remove it"
        case errno.ELOOP:
            return "this link leads in a circle", "point it to a file"
        case errno.EACCES | errno.EPERM:
            return "the file must not be read by this server", f"let user {os.geteuid()} read it and enter its folders"
    return f"the file cannot be read: {error.strerror}", "make it a readable file"


def _stamp(status: os.stat_result) -> Stamp:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
