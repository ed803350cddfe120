"""Read the fields of one mapping by name and kind, and note every fault with its place.

Owns: what counts as text, number, size, duration, yes or no; unknown keys with "did you mean"; the two weights of
faults. Does not own: which fields there are (``manifests_*``), nor YAML itself (``yaml_nodes``).
Explained in docs/yaml.md, "Faults".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Generic, TypeVar

from tornado_backups.config.yaml_nodes import Fields, Items, Node, Scalar, shown
from tornado_backups.domain.errors import ConfigurationFault
from tornado_backups.domain.units import parse_duration, parse_size

MAX_TEXT = 4096
MAX_NAME = 253

_NAME = re.compile(r"[A-Za-z0-9](?:[-._A-Za-z0-9]*[A-Za-z0-9])?")
_WHOLE = re.compile(r"0|[1-9][0-9]{0,17}")
_DECIMAL = re.compile(r"[0-9]{0,9}(?:[0-9]|\.[0-9]{1,15})")
_YES_NO = {"true": True, "yes": True, "on": True, "y": True, "false": False, "no": False, "off": False, "n": False}
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff]")

T = TypeVar("T")


def is_name(text: str) -> bool:
    """Tell whether ``text`` may name a user, collection, secret or namespace, and so become part of a path.

    Letters, digits, ``-``, ``.`` and ``_``, a letter or digit at both ends, 253 characters at most: Kubernetes' names
    (RFC 1123) and those that people who only ever had files gave to them. Nothing else may come near the file system.
    """
    return len(text) <= MAX_NAME and _NAME.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Faults:
    """What was found wrong: ``breaking`` makes the whole object unusable, ``voiding`` only an entry of it."""

    breaking: list[ConfigurationFault] = field(default_factory=list)
    voiding: list[ConfigurationFault] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Reading(Generic[T]):
    """The result of reading one object: its value, unless it is broken, and every fault found on the way."""

    result: T | None
    breaking: tuple[ConfigurationFault, ...] = ()
    voiding: tuple[ConfigurationFault, ...] = ()

    def value(self) -> T:
        """Return the object; raise its first breaking ``ConfigurationFault`` when it has any."""
        if self.breaking or self.result is None:
            first = self.breaking[0]
            raise ConfigurationFault(first.source, first.line, first.what, first.instead)
        return self.result

    def faults(self) -> list[ConfigurationFault]:
        """Return all faults, in the order of their lines."""
        return sorted((*self.breaking, *self.voiding), key=lambda fault: (fault.source, fault.line))


class Section:
    """One mapping, whose fields are asked for by name.

    A getter never raises: what is wrong is added to ``faults`` as breaking and a harmless value returned, so that one
    reading finds every fault. A field with no value (``null``) counts as not given.
    """

    def __init__(self, source: str, path: str, fields: Fields, faults: Faults) -> None:
        self.source = source
        self.path = path
        self.line = fields.line
        self.faults = faults
        self._fields = fields

    def only(self, known: Sequence[str]) -> None:
        """Note every key that is not in ``known`` as a breaking fault."""
        for key, line in self._fields.lines.items():
            if key not in known:
                what = f"the key {shown(key)} is not known{f' in {self.path}' if self.path else ''}"
                self._broken(line, what, did_you_mean(key, known, "use one of"))

    def has(self, name: str) -> bool:
        """Tell whether the field is given a value."""
        return self._node(name) is not None

    def text(self, name: str, default: str = "") -> str:
        """Return a text of at most 4096 characters; a number stands for its digits."""
        return self._scalar(name, default, lambda text: text, "write a text")

    def boolean(self, name: str, default: bool = False) -> bool:
        """Return a truth value, in any of the spellings YAML 1.1 knows."""
        return self._scalar(name, default, _boolean, "write true or false")

    def whole(self, name: str, default: int, at_least: int) -> int:
        """Return a whole number, written with or without quotes."""

        def parse(text: str) -> int:
            if not _WHOLE.fullmatch(text) or int(text) < at_least:
                raise ValueError
            return int(text)

        return self._scalar(name, default, parse, f"write a whole number, {at_least} or more")

    def ratio(self, name: str) -> float:
        """Return a share from 0 to 1; 0 when not given."""

        def parse(text: str) -> float:
            if not _DECIMAL.fullmatch(text) or float(text) > 1:
                raise ValueError
            return float(text)

        return self._scalar(name, 0.0, parse, "write a number from 0 to 1, such as 0.5")

    def size(self, name: str) -> int:
        """Return bytes; 0 when not given."""
        return self._scalar(name, 0, parse_size, "write a size such as 500M or 1.5G")

    def duration(self, name: str) -> timedelta:
        """Return a duration; nothing when not given."""
        return self._scalar(name, timedelta(0), parse_duration, "write a duration such as 90s, 1h30m or 5d")

    def section(self, name: str) -> Section | None:
        """Return the mapping below ``name``; None when not given."""
        node = self._node(name)
        if node is None:
            return None
        if isinstance(node, Fields):
            return Section(self.source, self._path(name), node, self.faults)
        self._broken(node.line, f"{self._path(name)} is no mapping", "write 'key: value' lines below it")
        return None

    def sections(self, name: str) -> list[Section]:
        """Return the mappings of the list below ``name``."""
        found = []
        for index, node in enumerate(self._items(name)):
            path = f"{self._path(name)}[{index}]"
            if isinstance(node, Fields):
                found.append(Section(self.source, path, node, self.faults))
            else:
                self._broken(node.line, f"{path} is no mapping", "write 'key: value' lines behind the dash")
        return found

    def texts(self, name: str) -> list[tuple[str, int]]:
        """Return the texts of the list below ``name``, each with its line."""
        found = []
        for index, node in enumerate(self._items(name)):
            if isinstance(node, Scalar) and not node.is_null and node.text:
                found.append((node.text[:MAX_TEXT], node.line))
            else:
                self._broken(node.line, f"{self._path(name)}[{index}] is no text", "write a text behind the dash")
        return found

    def scalars(self) -> list[tuple[str, str | None, int]]:
        """Return all keys with their text (None where it is none) and line."""
        return [
            (key, node.text if isinstance(node, Scalar) and not node.is_null else None, self._fields.lines[key])
            for key, node in self._fields.nodes.items()
        ]

    def required(self, *names: str) -> None:
        """Note each of ``names`` that is not given as a breaking fault."""
        for name in names:
            if not self.has(name):
                self._broken(self.line, f"{self._path(name)} is missing", f"add {name}: …")

    def broken(self, name: str, what: str, instead: str) -> None:
        """Note a breaking fault of the field; ``what`` continues the sentence that its path begins."""
        self._broken(self.line_of(name), f"{self._path(name)} {what}", instead)

    def void(self, name: str, what: str, instead: str) -> None:
        """Note that the entry this section stands for counts for nothing, because of the field ``name``."""
        self.void_at(self.line_of(name), f"{self._path(name)} {what}", instead)

    def void_at(self, line: int, what: str, instead: str) -> None:
        """Note an entry that counts for nothing, by its line."""
        self.faults.voiding.append(ConfigurationFault(self.source, line, what, instead))

    def line_of(self, name: str) -> int:
        """Return where the field stands, or where the section begins when it is not given."""
        return self._fields.lines.get(name, self.line)

    def _scalar(self, name: str, default: T, parse: Callable[[str], T], instead: str) -> T:
        node = self._node(name)
        if node is None:
            return default
        if not isinstance(node, Scalar):
            self.broken(name, "is a list or mapping", instead)
        elif len(node.text) > MAX_TEXT:
            self.broken(name, f"is longer than {MAX_TEXT} characters", instead)
        elif _CONTROL.search(node.text):
            self.broken(name, "holds control characters", "remove them")
        else:
            try:
                return parse(node.text)
            except ValueError as error:
                what, _, advice = str(error).partition("; ")
                self.broken(name, what if advice else f"is {shown(node.text)}", advice or instead)
        return default

    def _node(self, name: str) -> Node | None:
        node = self._fields.nodes.get(name)
        return None if isinstance(node, Scalar) and node.is_null else node

    def _items(self, name: str) -> Iterable[Node]:
        node = self._node(name)
        if node is None or isinstance(node, Items):
            return node.nodes if node else ()
        self._broken(
            self.line_of(name), f"{self._path(name)} is no list", "write one entry per line, each behind a dash"
        )
        return ()

    def _path(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def _broken(self, line: int, what: str, instead: str) -> None:
        self.faults.breaking.append(ConfigurationFault(self.source, line, what, instead))


def did_you_mean(word: str, known: Iterable[str], otherwise: str) -> str:
    """Return advice for a misspelt word: the closest of ``known``, else all of them behind ``otherwise``."""
    from difflib import get_close_matches  # most configurations have no fault

    candidates = {candidate.lower(): candidate for candidate in known}
    close = get_close_matches(word.lower(), candidates, n=1, cutoff=0.7)
    return f'did you mean "{candidates[close[0]]}"?' if close else f"{otherwise} {', '.join(candidates.values())}"


def _boolean(text: str) -> bool:
    try:
        return _YES_NO[text.lower()]
    except KeyError:
        raise ValueError from None
