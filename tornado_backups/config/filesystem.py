"""Users and collections from a tree of YAML files.

Owns: the layout of the tree, listing it, and being the ``ConfigurationSource`` of the ``filesystem`` provider.
Does not own: noticing changes (``shelf``), reading files (``files``), what they mean (``manifests``).
Explained in docs/yaml.md, "Files and names".

A request costs one ``stat`` per file it depends on. What is kept of a broken file is its fault, never its last good
reading.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from tornado_backups.config.fields import is_name
from tornado_backups.config.files import Stamp, is_settled, stamp_of
from tornado_backups.config.manifests import COLLECTION, SECRET, USER, Kind, Secret, read_collection, read_user
from tornado_backups.config.shelf import SUFFIX, Report, Shelf, secret_shelf
from tornado_backups.domain.errors import ConfigurationFault, StartupError
from tornado_backups.domain.model import Collection, User

_LOG = logging.getLogger(__name__)

_MISNAMED = (".yml", ".yaml", ".json")

T = TypeVar("T")


class FilesystemSource:
    """A ``ConfigurationSource`` over ``root/namespace``; symbolic links are followed.

    Every fault that a request meets is given to ``on_fault`` (logged, where there is none) once per change of the
    files concerned.
    """

    def __init__(
        self, root: Path, namespace: str, on_fault: Callable[[ConfigurationFault], None] | None = None
    ) -> None:
        self._namespace = namespace
        self._base = os.path.join(root, namespace)
        self._on_fault = on_fault
        self._secrets, self._users, self._collections = self._shelves(self._report)
        self._names: tuple[Stamp, list[str]] | None = None

    async def open(self) -> None:
        """Prove that the folder of the namespace can be listed; raises ``StartupError`` in one line if not."""
        wanted = "--config-local-path names the folder that holds the namespace's"
        if not is_name(self._namespace):
            raise StartupError(f"--namespace {self._namespace!r} cannot name a folder or a Kubernetes namespace")
        try:
            with os.scandir(self._base):
                return
        except FileNotFoundError:
            wanted = "create it, or correct --config-local-path or --namespace; 'tornado-backups quickstart' makes one"
            raise StartupError(f"the configuration folder {self._base} does not exist: {wanted}") from None
        except NotADirectoryError:
            raise StartupError(f"the configuration folder {self._base} is no folder: {wanted}") from None
        except OSError as error:
            raise StartupError(
                f"the configuration folder {self._base} cannot be listed ({error.strerror}): {wanted}"
            ) from None

    async def close(self) -> None:
        """Do nothing: no file is kept open."""

    async def ping(self) -> None:
        """Prove that the folder can still be listed; raises ``ConfigurationFault`` if not."""
        try:
            await self.open()
        except StartupError as error:
            what, _, instead = error.sentence.partition(": ")
            raise ConfigurationFault(self._base, 0, what, instead) from None

    async def user(self, name: str) -> User | None:
        """Return the user as its files say now; None when there is none; raises ``ConfigurationFault`` when broken."""
        return await _value(self._users, name)

    async def collection(self, name: str) -> Collection | None:
        """Return the collection as its files say now; None and ``ConfigurationFault`` as for :meth:`user`."""
        return await _value(self._collections, name)

    async def collection_names(self) -> list[str]:
        """Return the names of all collections, broken ones too, sorted; raises ``ConfigurationFault``."""
        folder = self._collections.folder
        stamp = stamp_of(folder)
        if self._names is None or self._names[0] != stamp:
            names = sorted(name for entry in _listed(folder) if (name := _name_of(entry)))
            if stamp is None or not is_settled(stamp):
                return names
            self._names = (stamp, names)
        return list(self._names[1])

    async def faults(self) -> list[ConfigurationFault]:
        """Read every file afresh and return every fault, also of files that nothing reads because of their names."""
        secrets, users, collections = self._shelves(None)
        found = await _shelf_faults(users) + await _shelf_faults(collections) + await _shelf_faults(secrets)
        return list({str(fault): fault for fault in found}.values())

    def reload(self) -> None:
        """Forget everything that is kept; faults that are still there are reported anew."""
        for shelf in (self._secrets, self._users, self._collections):
            shelf.forget()
        self._names = None

    def _shelves(self, report: Report | None) -> tuple[Shelf[Secret], Shelf[User], Shelf[Collection]]:
        def folder(kind: Kind) -> str:
            return os.path.join(self._base, kind.folder)

        secrets = secret_shelf(folder(SECRET))
        users = Shelf(folder(USER), read_user, secrets, report)
        return secrets, users, Shelf(folder(COLLECTION), read_collection, secrets, report)

    def _report(self, fault: ConfigurationFault) -> None:
        if self._on_fault is not None:
            self._on_fault(fault)
        else:
            _LOG.error("configuration fault: %s", fault)


async def _value(shelf: Shelf[T], name: str) -> T | None:
    kept = shelf.kept(name)
    if kept is None:
        kept = shelf.find(name)
        await asyncio.sleep(0)  # after work that took a while, and may be one of thousands in turn, others come first
    return None if kept is None else kept.reading.value()


async def _shelf_faults(shelf: Shelf[T]) -> list[ConfigurationFault]:
    try:
        entries = _listed(shelf.folder)
    except ConfigurationFault as fault:
        return [fault]
    found: list[ConfigurationFault] = []
    for entry in sorted(entries):
        await asyncio.sleep(0)
        name = _name_of(entry)
        kept = shelf.find(name) if name else None
        if kept is not None:
            found += kept.reading.faults()
        elif name is None and entry.lower().endswith(_MISNAMED) and not entry.startswith("."):
            instead = f"name it like {_suggested(entry)}"
            found.append(ConfigurationFault(f"{shelf.folder}/{entry}", 1, "a file of this name is not read", instead))
    return found


def _listed(folder: str) -> Sequence[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return ()
    except OSError as error:
        what = f"the folder cannot be listed: {error.strerror}"
        raise ConfigurationFault(folder, 1, what, "make it a folder that this server can read") from None


def _name_of(entry: str) -> str | None:
    name = entry.removesuffix(SUFFIX)
    return name if name != entry and is_name(name) else None


def _suggested(entry: str) -> str:
    stem = entry.rpartition(".")[0]
    return f"{stem}{SUFFIX}" if is_name(stem) else f"admin{SUFFIX}: letters, digits, '-', '.' and '_'"
