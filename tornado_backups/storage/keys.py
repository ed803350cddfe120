"""What a key may look like, for every store alike.

Owns: the check that a key names something inside the store, and the names that the stores keep for themselves.
Does not own: which keys exist; ``services/upload`` makes them as ``{collection}/{id}/{filename}`` (docs/storage.md).
"""

from __future__ import annotations

from tornado_backups.domain.errors import StorageUnavailable

RESERVED = ".tornado-backups-"
"""No segment of an object's key begins so: temporary files and probes do, which is how they are told apart."""

LONGEST_SEGMENT_BYTES = 255
LONGEST_KEY_BYTES = 1024


def check_key(operation: str, key: str, prefix: str = "") -> tuple[str, ...]:
    """Return the segments of ``key``; raises ``StorageUnavailable`` for one that no store could hold safely.

    ``prefix`` is what the store puts before it, which counts for the length only.

    Refused: empty, ``.`` and ``..`` segments, NUL, reserved names, and lengths that S3 (1024 bytes of UTF-8 in all) or
    common file systems (255 bytes a segment) cannot hold, so that an upload fails at its first and not its last byte.
    """
    segments = tuple(key.split("/"))
    if any(segment in ("", ".", "..") for segment in segments) or "\0" in key:
        raise StorageUnavailable(operation, key, "the key has an empty, '.' or '..' part", "use collection/id/filename")
    if any(segment.startswith(RESERVED) for segment in segments):
        raise StorageUnavailable(operation, key, f"names beginning {RESERVED!r} are kept for temporary files")
    try:
        longest = max(len(segment.encode()) for segment in segments)
        total = len((prefix + key).encode())
    except UnicodeEncodeError:
        raise StorageUnavailable(operation, key.encode(errors="replace").decode(), "the key is not Unicode") from None
    if longest > LONGEST_SEGMENT_BYTES or total > LONGEST_KEY_BYTES:
        limits = f"{LONGEST_SEGMENT_BYTES} bytes a name, {LONGEST_KEY_BYTES} in all"
        raise StorageUnavailable(operation, key, "the key is too long", f"{limits}: shorten filenameTemplate")
    return segments
