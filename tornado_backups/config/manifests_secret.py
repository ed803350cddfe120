"""Secrets, and the references that users and collections make to them.

Owns: reading ``kind: Secret``, finding the entry a reference names, saying what is wrong with it without repeating it.
Does not own: the spellings of hashes (``domain/phc``), where Secrets come from (``filesystem``, ``kubernetes``).
Explained in docs/yaml.md, "Secret".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tornado_backups.config.fields import Faults, Reading, Section, did_you_mean, is_name
from tornado_backups.config.manifest_head import SECRET, open_manifest
from tornado_backups.config.yaml_nodes import Fields, Items, Node, Scalar, shown
from tornado_backups.domain.errors import ConfigurationFault

REFERENCE_FIELDS = ("name", "entry")

_REFERENCES = ("passwordFromRef", "healthSecretRef")


@dataclass(frozen=True, slots=True, repr=False)
class Secret:
    """A Secret's entries as they stand (``data`` is not decoded), each with its line; ``repr`` shows none of them."""

    source: str
    entries: dict[str, tuple[str, int]]


SecretLookup = Callable[[str], Secret | None]
"""Returns the Secret of that name, None when there is none; raises ``ConfigurationFault`` when it is broken."""


def read_secret(document: Fields, source: str, name: str) -> Reading[Secret]:
    """Read a Secret; ``stringData`` wins over ``data``. Entries that are no text are voiding faults."""
    faults = Faults()
    manifest = open_manifest(document, source, SECRET, name, faults)
    entries: dict[str, tuple[str, int]] = {}
    for block in (manifest.section("data"), manifest.section("stringData")):
        for key, text, line in block.scalars() if block else ():
            if text is None:
                manifest.void_at(line, f"the entry {shown(key)} is no text", "write the hash in quotes")
            else:
                entries[key] = (text, line)
    result = None if faults.breaking else Secret(source, entries)
    return Reading(result, tuple(faults.breaking), tuple(faults.voiding))


def secret_names(document: Fields) -> frozenset[str]:
    """Return the names of all Secrets that a user or collection refers to, for sources that must fetch them first."""
    return frozenset(_names_below(document))


def resolve(
    reference: Section, lookup: SecretLookup, normalise: Callable[[str], str], wanted: str
) -> str | ConfigurationFault:
    """Return the normalised text of the entry that ``reference`` names, or the fault that keeps it from being found.

    ``normalise`` raises ``ValueError`` with the end of a sentence that begins with the entry; ``wanted`` says what
    would be right. The fault points to the Secret's line when the entry itself is wrong, else to the reference.
    """
    reference.only(REFERENCE_FIELDS)
    name, entry = reference.text("name"), reference.text("entry")

    def misses(where: str, what: str, instead: str) -> ConfigurationFault:
        return ConfigurationFault(
            reference.source, reference.line_of(where), f"{reference.path}.{where} {what}", instead
        )

    if not name or not entry:
        return misses("entry" if name else "name", "is missing", "give the name of a Secret and of one of its entries")
    if not is_name(name):
        return misses("name", f"is {shown(name)}", "write a Secret's name: letters, digits, '-', '.' and '_'")
    try:
        secret = lookup(name)
    except ConfigurationFault as fault:
        return fault
    if secret is None:
        return misses("name", f"names the Secret {shown(name)}, which does not exist", "create it or correct the name")
    if entry not in secret.entries:
        advice = did_you_mean(entry, secret.entries, "it has")
        return misses("entry", f"is {shown(entry)}, which the Secret {shown(name)} lacks", advice)
    text, line = secret.entries[entry]
    try:
        return normalise(text)
    except ValueError as error:
        return ConfigurationFault(secret.source, line, f"the entry {shown(entry)} {error}", wanted)


def _names_below(node: Node) -> list[str]:
    if isinstance(node, Items):
        return [name for item in node.nodes for name in _names_below(item)]
    if not isinstance(node, Fields):
        return []
    found = []
    for key, below in node.nodes.items():
        name = below.nodes.get("name") if key in _REFERENCES and isinstance(below, Fields) else None
        if isinstance(name, Scalar) and is_name(name.text):
            found.append(name.text)
        found += _names_below(below)
    return found
