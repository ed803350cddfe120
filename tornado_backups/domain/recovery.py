"""Which stored object becomes which version, when only the storage remembers.

Owns: the two layouts that objects of this program and of the Go server lie in, the number that a name holds, and the
order in which numbers are given. Does not own: listing, reading and registering (``services/recover``).
Explained in docs/restore-after-losing-the-database.md.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Collection as SizedIterable
from collections.abc import Iterable
from dataclasses import dataclass

from tornado_backups.domain.model import StoredObject

MAX_NUMBER = 2**53 - 1
"""The highest version number: the last that every JSON reader understands exactly (RFC 8259, 6)."""

LONGEST_NAME_BYTES = 255

_VARIABLE = "${version}"
_DIGITS = re.compile(r"[0-9]+")
_EXACT = r"[1-9][0-9]*"


@dataclass(frozen=True, slots=True)
class Place:
    """What a key says of its object; ``version_id`` is empty in the Go server's layout ``{collection}/{filename}``."""

    collection: str
    version_id: str
    filename: str


@dataclass(frozen=True, slots=True)
class Adoption:
    """An object that becomes version ``number``; ``named_number`` is the one that its name holds."""

    stored: StoredObject
    place: Place
    number: int
    named_number: int


@dataclass(frozen=True, slots=True)
class RecoveryPlan:
    """What becomes a version, by rising named number, and what is left, with the reason."""

    adoptions: tuple[Adoption, ...]
    left: tuple[tuple[StoredObject, str], ...]

    @property
    def highest(self) -> int:
        """The highest number that the plan gives; 0 when it gives none."""
        return max((adoption.number for adoption in self.adoptions), default=0)


def storable_name(name: str) -> bool:
    """Tell whether a collection or file name can be part of a key that every store and registry holds."""
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        return False
    try:
        return len(name.encode()) <= LONGEST_NAME_BYTES
    except UnicodeEncodeError:
        return False  # a file name that is not UTF-8


def place_of(key: str) -> Place | None:
    """Return where an object of a known layout belongs; None for any other key.

    Known are ``{collection}/{id}/{filename}`` with a UUID, and the Go server's ``{collection}/{filename}``.
    """
    parts = key.split("/")
    if not all(storable_name(part) for part in parts):
        return None
    if len(parts) == 2:
        return Place(parts[0], "", parts[1])
    if len(parts) == 3 and _is_uuid(parts[1]):
        return Place(*parts)
    return None


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def number_by_template(filename: str, template: str) -> int | None:
    """Return the number that stands where ``template`` has its first ``${version}``; None where the name differs."""
    before, _, behind = template.partition(_VARIABLE)
    match = re.fullmatch(f"{re.escape(before)}({_EXACT}){re.escape(behind)}", filename)
    return _possible(match[1]) if match else None


def number_by_guess(filename: str) -> int | None:
    """Return the number that a name most likely holds; None when it holds none that a version can have.

    The last run of digits before the first dot (``pg15-7.sql.bz2`` is 7), else the first run behind it (``db.7.gpg``).
    """
    stem, _, behind = filename.partition(".")
    in_stem = _DIGITS.findall(stem)
    runs = in_stem[-1:] or _DIGITS.findall(behind)[:1]
    return _possible(runs[0]) if runs else None


def _possible(digits: str) -> int | None:
    # Python refuses to read thousands of digits; no number that long is possible anyway.
    number = int(digits) if len(digits) < 20 else 0
    return number if 0 < number <= MAX_NUMBER else None


def plan_recovery(
    objects: Iterable[StoredObject], template: str | None, taken: SizedIterable[int], last_number: int
) -> RecoveryPlan:
    """Give numbers to one collection's unknown ``objects``, in the order of number, then age.

    ``template`` is the collection's ``filenameTemplate``, None when no such collection is configured; ``taken`` are the
    numbers of its registered versions, ``last_number`` is its counter. A number already taken becomes the next after
    the highest of all. Among objects of one number those that fit the template come first. An object of the Go server's
    layout must fit it: nothing else tells it from a stranger's file.
    """
    found: list[tuple[int, bool, StoredObject, Place]] = []
    left: list[tuple[StoredObject, str]] = []
    for stored in objects:
        place = place_of(stored.key)
        if place is None:
            left.append((stored, "it lies in neither collection/id/filename nor collection/filename"))
            continue
        exact = number_by_template(place.filename, template) if template is not None else None
        number = exact or (number_by_guess(place.filename) if place.version_id else None)
        if number is None:
            left.append((stored, _no_number(place, template)))
        else:
            found.append((number, exact is None, stored, place))
    found.sort(key=lambda entry: (*entry[:2], entry[2].modified_at, entry[2].key))
    return RecoveryPlan(_numbered(found, set(taken), last_number), tuple(left))


def _numbered(
    found: list[tuple[int, bool, StoredObject, Place]], taken: set[int], last_number: int
) -> tuple[Adoption, ...]:
    highest = max(last_number, *taken, *(entry[0] for entry in found), 0)
    adoptions = []
    for named_number, _, stored, place in found:
        number = named_number
        if number in taken:
            highest += 1
            number = highest
        taken.add(number)
        adoptions.append(Adoption(stored, place, number, named_number))
    return tuple(adoptions)


def _no_number(place: Place, template: str | None) -> str:
    if place.version_id:
        return "its name holds no number that a version can have"
    if template is None:
        return f"no collection {place.collection!r} is configured, and only its filenameTemplate could tell the number"
    return f"its name does not fit the collection's filenameTemplate {template!r}"
