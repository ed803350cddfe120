"""Which collection a session means, and whether it may know of it.

Owns: the one place where a name from a URL becomes a :class:`Collection`, and the 404-or-403 rule of a missing one.
Does not own: the decision table (``domain/permissions``), nor how collections are read (``config``).
"""

from __future__ import annotations

from tornado_backups.domain.errors import ConfigurationFault, NotAuthorized, NotFound
from tornado_backups.domain.model import Actor, Collection
from tornado_backups.domain.permissions import Action, may, may_know_of_missing_collections
from tornado_backups.ports import ConfigurationSource

REFUSALS = {
    Action.UPLOAD: "not authorized to upload versions to this collection",
    Action.DOWNLOAD: "not authorized to download versions of this collection",
    Action.LIST: "not authorized to list versions of this collection",
    Action.DELETE: "not authorized to delete versions of this collection",
}


class Catalogue:
    """Looks collections up on behalf of a session."""

    def __init__(self, source: ConfigurationSource) -> None:
        self._source = source

    async def find(self, actor: Actor, name: str, action: Action) -> Collection:
        """Return the collection if ``actor`` may do ``action`` on it.

        Raises ``NotAuthorized``, or ``NotFound`` for a missing collection, but only to those who may know which
        collections exist: everyone else gets the same 403 as for a collection that is not theirs, so that names
        cannot be probed. Raises ``ConfigurationFault`` when its file is broken, under the same condition.
        """
        try:
            collection = await self._source.collection(name)
        except ConfigurationFault:
            if not may_know_of_missing_collections(actor):
                raise NotAuthorized(REFUSALS[action]) from None
            raise
        if collection is None:
            if may_know_of_missing_collections(actor):
                raise NotFound("there is no such collection")
            raise NotAuthorized(REFUSALS[action])
        if not may(actor, action, collection):
            raise NotAuthorized(REFUSALS[action])
        return collection

    async def public(self, name: str) -> Collection:
        """Return a collection for its public health URL; raises ``NotFound``."""
        collection = await self._source.collection(name)
        if collection is None:
            raise NotFound("there is no such collection")
        return collection
