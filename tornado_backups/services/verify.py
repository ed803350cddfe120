"""Read stored objects back and compare them with the registry.

Owns: what "whole" means (size and SHA-256), and that reading goes on in bounded steps.
Does not own: when (``services/maintenance`` for the scrub, ``cli`` for the command).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from tornado_backups.domain.errors import ObjectDamaged, ObjectMissing
from tornado_backups.domain.model import Version
from tornado_backups.ports import ObjectStore


@dataclass(slots=True)
class Reading:
    """One object on its way through the hash; may be taken up again where it stopped."""

    version: Version
    done_bytes: int = 0
    digest: Any = field(default_factory=hashlib.sha256)

    @property
    def is_done(self) -> bool:
        """Whether every registered byte was read."""
        return self.done_bytes >= self.version.size_bytes

    async def advance(self, store: ObjectStore, most_bytes: int) -> str:
        """Read up to ``most_bytes`` more; return what is wrong with the object, or an empty text so far.

        Raises ``StorageUnavailable``: then nothing is known, and the reading may be taken up later.
        """
        try:
            if self.done_bytes == 0:
                size_bytes = await store.size(self.version.object_key)
                if size_bytes != self.version.size_bytes:
                    return f"the object has {size_bytes} bytes, {self.version.size_bytes} were registered"
            length = min(most_bytes, self.version.size_bytes - self.done_bytes)
            digest, done_bytes = self.digest.copy(), self.done_bytes  # ahead of us when the storage fails in between
            async for data in store.read(self.version.object_key, done_bytes, length, digest):
                done_bytes += len(data)
            self.digest, self.done_bytes = digest, done_bytes
        except ObjectMissing:
            return "the object is missing"
        except ObjectDamaged as error:
            return error.cause
        return self._verdict() if self.is_done else ""

    def _verdict(self) -> str:
        found = self.digest.hexdigest()
        if self.version.sha256 and found != self.version.sha256:
            return f"its SHA-256 is {found}, {self.version.sha256} was registered"
        return ""

    @property
    def sha256(self) -> str:
        """The object's hash, empty as long as not all of it was read: a part's would be taken for the whole's."""
        return str(self.digest.hexdigest()) if self.is_done else ""
