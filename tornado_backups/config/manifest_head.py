"""What every configuration object has in common: ``apiVersion``, ``kind`` and ``metadata.name``.

Owns: the three kinds and their places in the tree. Does not own: anything below ``spec`` or ``data``.
Explained in docs/yaml.md, "Files and names".
"""

from __future__ import annotations

from dataclasses import dataclass

from tornado_backups.config.fields import Faults, Section
from tornado_backups.config.yaml_nodes import Fields, shown


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of configuration object; ``folder`` is its place below the namespace."""

    name: str
    api_version: str
    plural: str

    @property
    def folder(self) -> str:
        """The folder below the namespace, as a relative path."""
        return f"{self.api_version}/{self.plural}"


USER = Kind("BackupUser", "backups.riotkit.org/v1alpha1", "backupusers")
COLLECTION = Kind("BackupCollection", "backups.riotkit.org/v1alpha1", "backupcollections")
SECRET = Kind("Secret", "v1", "secrets")


def open_manifest(document: Fields, source: str, kind: Kind, name: str, faults: Faults) -> Section:
    """Return the whole object as a section, its head checked against ``kind`` and ``name``.

    A file's head must be there, but for ``metadata.name``, which its filename tells. Objects without lines come from
    an API, whose lists leave the head out of their items.
    """
    manifest = Section(source, "", document, faults)
    for field, expected in (("apiVersion", kind.api_version), ("kind", kind.name)):
        given = manifest.text(field)
        if given != expected and (given or document.line):
            manifest.broken(field, f"is {shown(given)}" if given else "is missing", f"write {field}: {expected}")
    metadata = manifest.section("metadata")
    if metadata is not None and metadata.has("name") and metadata.text("name") != name:
        what = f"is {shown(metadata.text('name'))}, but the object is found under the name {shown(name)}"
        metadata.broken("name", what, f"write name: {name}, or rename the file")
    return manifest
