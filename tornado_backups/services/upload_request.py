"""What an upload's headers say, who listens to how it ends, and the refusals that need no more than that.

Owns: the values and protocols between ``web`` and the upload services. Does not own: any step of an upload
(``services/upload``, ``services/running_upload``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from tornado_backups.domain.errors import QuotaExceeded, RequestError
from tornado_backups.domain.model import Actor, Collection, Version
from tornado_backups.domain.rotation import RotationPlan
from tornado_backups.domain.units import format_size

FORM_FRAMING_BYTES = 64 * 1024
"""How much of a form's declared length may be framing: it is refused early only when that much less is too much."""


@dataclass(frozen=True, slots=True)
class UploadRequest:
    """What the headers of an upload say: ``declared_bytes`` is its length on the wire, None when chunked."""

    actor: Actor
    collection: str
    declared_bytes: int | None
    declared_sha256: str | None = None
    is_form: bool = False


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """The server's own bounds: uploads at a time, and how long a lease lives between heartbeats."""

    max_concurrent: int
    lease_seconds: float


class Client(Protocol):
    """The other end of an upload's connection."""

    def still_there(self) -> bool:
        """Tell whether the client is still connected; a half-closed connection counts as gone."""

    async def still_allowed(self) -> bool:
        """Tell whether the session that began the upload is still good."""


class UploadListener(Protocol):
    """Hears how uploads end; must neither raise nor block."""

    def stored(self, collection: Collection, version: Version, plan: RotationPlan) -> None:
        """A version was registered, and ``plan`` was applied with it."""

    def refused(self, collection: Collection, error: RequestError) -> None:
        """An upload of somebody who may upload here was refused or failed."""


def check_declared(request: UploadRequest, allowed_bytes: int | None) -> None:
    """Raise ``QuotaExceeded`` when the declared length alone is too much (a form's framing is let off)."""
    if request.declared_bytes is None or allowed_bytes is None:
        return
    least = request.declared_bytes - (FORM_FRAMING_BYTES if request.is_form else 0)
    if least > allowed_bytes:
        raise too_large(request.declared_bytes, allowed_bytes, declared=True)


def too_large(size_bytes: int, allowed_bytes: int, declared: bool) -> QuotaExceeded:
    """Return the refusal, with both figures in its text."""
    verb = "declared" if declared else "received"
    return QuotaExceeded(
        f"the file is too large: {size_bytes} bytes {verb}, {allowed_bytes} bytes"
        f" ({format_size(allowed_bytes)}) allowed now",
        size_bytes,
        allowed_bytes,
        declared,
    )
