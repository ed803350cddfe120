"""The Secrets that users and collections refer to, fetched one by one and only when they are needed.

Owns: how long a fetched Secret counts as fresh, and how long as the last known while the API server is away.
Does not own: what a hash looks like (``manifests_secret``). docs/kubernetes.md states both times.

Secrets are never listed or watched, so the account needs no right to either and nobody else's is ever in memory.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from tornado_backups.config.kubernetes_api import ApiFailure, KubernetesApi
from tornado_backups.config.manifests import SECRET, Secret, read_secret
from tornado_backups.config.yaml_nodes import from_plain
from tornado_backups.domain.errors import ConfigurationFault

FRESH_SECONDS = 5.0
"""How long a changed Secret may go unnoticed while the API server answers."""

PATIENCE_SECONDS = 2.0
"""How long a request waits for a Secret of which an older reading is at hand."""

MAX_KEPT = 256
MAX_ENTRY_CHARACTERS = 4096
"""Longer entries are no hash; they are not kept."""

_ANSWERED = (403, 404)


@dataclass(frozen=True, slots=True, repr=False)
class Fetched:
    """One Secret as last seen; ``stamp`` differs whenever ``result`` may. Without a ``repr`` on purpose."""

    stamp: str
    result: Secret | ConfigurationFault | None


@dataclass(slots=True, repr=False)
class _Kept:
    """What the API said last, when it said so, and when it was last asked (monotonic seconds)."""

    fetched: Fetched
    seen_at: float
    asked_at: float


class SecretCache:
    """Fetches Secrets by name, one request at a time for each, and keeps the last 256."""

    def __init__(self, api: KubernetesApi, monotonic: Callable[[], float], stale_seconds: float) -> None:
        self._api = api
        self._monotonic = monotonic
        self._stale_seconds = stale_seconds
        self._kept: dict[str, _Kept] = {}
        self._running: dict[str, asyncio.Task[Fetched]] = {}

    async def fetch(self, names: Iterable[str]) -> dict[str, Fetched]:
        """Return each Secret, or the fault that stands in its way; never raises for what the API server does."""
        wanted = sorted(set(names))
        found = await asyncio.gather(*(self._one(name) for name in wanted))
        return dict(zip(wanted, found, strict=True))

    def forget(self) -> None:
        """Fetch everything anew from now on."""
        self._kept.clear()

    async def close(self) -> None:
        """Stop what is under way."""
        for task in self._running.values():
            task.cancel()
        if self._running:
            await asyncio.wait(self._running.values())

    async def _one(self, name: str) -> Fetched:
        kept = self._kept.get(name)
        now = self._monotonic()
        if kept and now - kept.asked_at < FRESH_SECONDS:
            return kept.fetched
        known = kept if kept and now - kept.seen_at <= self._stale_seconds else None
        if known:
            known.asked_at = now
        task = self._running.get(name)
        if task is None:
            task = self._running[name] = asyncio.create_task(self._fetch(name))
            task.add_done_callback(lambda _: self._running.pop(name))
        # Others may wait for the same task: a request that is cancelled must not take it along.
        done, _ = await asyncio.wait([task], timeout=PATIENCE_SECONDS if known else None)
        return known.fetched if known and not done else task.result()

    async def _fetch(self, name: str) -> Fetched:
        asked_at = self._monotonic()
        try:
            fetched = _read(name, await self._api.secret(name))
        except ApiFailure as failure:
            kept = self._kept.get(name)
            if failure.status not in _ANSWERED:
                if kept and asked_at - kept.seen_at <= self._stale_seconds:
                    return kept.fetched
                return Fetched("away", _away(name, failure))
            fetched = Fetched("none", None) if failure.status == 404 else Fetched("refused", _refused(name))
        self._kept.pop(name, None)
        while len(self._kept) >= MAX_KEPT:
            self._kept.pop(next(iter(self._kept)))
        self._kept[name] = _Kept(fetched, seen_at=asked_at, asked_at=asked_at)
        return fetched


def _read(name: str, entry: dict[str, Any]) -> Fetched:
    source = f"{SECRET.name}/{name}"
    metadata = entry.get("metadata")
    stamp = f"{metadata.get('uid')}:{metadata.get('resourceVersion')}" if isinstance(metadata, dict) else ""
    data = entry.get("data")
    texts = {key: _decoded(value) for key, value in data.items()} if isinstance(data, dict) else {}
    try:
        document = from_plain(
            {"apiVersion": SECRET.api_version, "kind": SECRET.name, "metadata": {"name": name}, "data": texts}, source
        )
        return Fetched(stamp, read_secret(document, source, name).value())
    except ConfigurationFault as fault:
        return Fetched(stamp, fault)


def _decoded(value: object) -> str | None:
    """Undo the base64 that the API wraps around every entry; None for what is no short text, such as a key file."""
    try:
        text = base64.b64decode(str(value), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
    return text.strip() if len(text) <= MAX_ENTRY_CHARACTERS and text.strip().isprintable() else None


def _away(name: str, failure: ApiFailure) -> ConfigurationFault:
    what = f"cannot be fetched: {failure.sentence}"
    return ConfigurationFault(f"{SECRET.name}/{name}", 0, what, "it is fetched again as soon as the API server answers")


def _refused(name: str) -> ConfigurationFault:
    what = "may not be read by this server's account"
    return ConfigurationFault(f"{SECRET.name}/{name}", 0, what, 'allow it "get" on this Secret in its Role')
