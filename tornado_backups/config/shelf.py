"""The objects of one kind in a folder, each kept as long as the files it was read from stay the same.

Owns: finding a file by name, noticing that it or a Secret it needs has changed, reporting faults once per change.
Does not own: the layout of the tree (``filesystem``), what a file means (``manifests``).
Explained in docs/yaml.md, "Changes".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from tornado_backups.config.fields import Reading, is_name
from tornado_backups.config.files import Stamp, read_whole, stamp_of
from tornado_backups.config.manifests import Secret, SecretLookup, read_secret
from tornado_backups.config.yaml_nodes import Fields, parse
from tornado_backups.domain.errors import ConfigurationFault

SUFFIX = ".yaml"

T = TypeVar("T")
Reader = Callable[[Fields, str, str, SecretLookup], Reading[T]]
Report = Callable[[ConfigurationFault], None]


@dataclass(frozen=True, slots=True)
class Kept(Generic[T]):
    """What an object's files said. It holds as long as every path still has its stamp (None: leads to nothing).

    ``lasting`` is False when a change might escape the stamps, or the fault might go away by itself.
    """

    reading: Reading[T]
    stamps: tuple[tuple[str, Stamp | None], ...]
    lasting: bool

    def holds(self) -> bool:
        """Tell whether the files are unchanged: one ``stat`` for each."""
        return self.lasting and all(stamp_of(path) == stamp for path, stamp in self.stamps)


class Shelf(Generic[T]):
    """Readings of one kind by name. Memory grows with the files there are, not with the names asked for."""

    def __init__(self, folder: str, reader: Reader[T], secrets: Shelf[Secret] | None, report: Report | None) -> None:
        self.folder = folder
        self._reader = reader
        self._secrets = secrets
        self._report = report
        self._kept: dict[str, Kept[T]] = {}
        self._reported: dict[str, tuple[object, ...]] = {}

    def kept(self, name: str) -> Kept[T] | None:
        """Return what is kept of the object when it still holds; opens no file."""
        found = self._kept.get(name)
        return found if found is not None and found.holds() else None

    def find(self, name: str) -> Kept[T] | None:
        """Return the object as its files say now; None when there is none or ``name`` is no possible name."""
        return self.kept(name) or self._load(name)

    def forget(self) -> None:
        """Read everything anew from now on, and report anew what is still wrong."""
        self._kept.clear()
        self._reported.clear()

    def _load(self, name: str) -> Kept[T] | None:
        loaded = self._read(name, f"{self.folder}/{name}{SUFFIX}") if is_name(name) else None
        if loaded is None:
            self._kept.pop(name, None)
            self._reported.pop(name, None)
            return None
        self._kept[name] = loaded
        self._tell(name, loaded)
        return loaded

    def _read(self, name: str, path: str) -> Kept[T] | None:
        stamps: dict[str, Stamp | None] = {}
        lasting = True

        def lookup(secret: str) -> Secret | None:
            nonlocal lasting
            found = self._secrets.find(secret) if self._secrets else None
            if self._secrets and found is None:
                stamps[f"{self._secrets.folder}/{secret}{SUFFIX}"] = None
            if found is None:
                return None
            stamps.update(found.stamps)
            lasting = lasting and found.lasting
            return found.reading.value()

        try:
            whole = read_whole(path)
            if whole is None:
                return None
        except ConfigurationFault as fault:
            # No stamp tells when a missing permission or a broken disk is mended: ask again each time.
            return Kept(Reading(None, (fault,)), (), lasting=False)
        stamps[path] = whole.stamp
        try:
            reading = self._reader(parse(whole.data, path), path, name, lookup)
        except ConfigurationFault as fault:
            reading = Reading(None, (fault,))
        return Kept(reading, tuple(stamps.items()), lasting and whole.settled)

    def _tell(self, name: str, kept: Kept[T]) -> None:
        faults = kept.reading.faults()
        told = (kept.stamps, tuple(map(str, faults)))
        if faults and self._report and self._reported.get(name) != told:
            for fault in faults:
                self._report(fault)
        if faults:
            self._reported[name] = told
        else:
            self._reported.pop(name, None)


def secret_shelf(folder: str) -> Shelf[Secret]:
    """Return the shelf of Secrets; their faults show in what refers to them."""
    return Shelf(folder, lambda document, source, name, _: read_secret(document, source, name), None, None)
