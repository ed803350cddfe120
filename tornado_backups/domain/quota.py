"""How many bytes an upload may have.

Owns: the sums over soft limit (``maxOneVersionSize``), hard limit (``maxCollectionSize``) and the extra space between
them. Does not own: which versions stay (``rotation``), nor the counting of arriving bytes (``services/upload``).
Explained in docs/rotation.md, "How much may be uploaded".
"""

from __future__ import annotations

from collections.abc import Sequence

from tornado_backups.domain.model import Collection, Version


def extra_space(collection: Collection) -> int:
    """Return the bytes that the hard limit leaves beyond ``maxBackupsCount`` versions of the soft limit's size.

    0 when either limit is missing: there is then nothing for extra space to lie between.
    """
    soft, hard = collection.max_one_version_bytes, collection.max_collection_bytes
    if not soft or not hard:
        return 0
    return max(0, hard - collection.max_backups_count * soft)


def allowed_bytes(collection: Collection, kept: Sequence[Version]) -> int | None:
    """Return how large an upload may be when ``kept`` are the versions that its rotation leaves; None: no limit.

    Never below 0. An upload within it keeps ``kept`` and itself within the hard limit, where there is one.
    """
    soft, hard = collection.max_one_version_bytes, collection.max_collection_bytes
    if not hard:
        return soft or None
    room = hard - sum(version.size_bytes for version in kept)
    if soft:
        used_extra = sum(max(0, version.size_bytes - soft) for version in kept)
        room = min(soft + extra_space(collection) - used_extra, room)
    return max(0, room)
