"""Read YAML strictly, and remember where everything stood.

Owns: turning the bytes of one file, or the JSON objects of an API, into a tree of mappings, sequences and scalars with
line numbers; the bounds on its size and depth; the refusal of everything YAML can do that configuration has no use for
(aliases, tags, several documents, duplicate keys, keys that are not text).
Does not own: what the fields mean (``fields``, ``manifests_*``). Explained in docs/yaml.md, "What YAML is accepted".

Scalars keep their text: what a field expects decides whether ``5`` is a number or a name, not YAML's rules of guessing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from tornado_backups.domain.errors import ConfigurationFault

MAX_BYTES = 1024 * 1024
"""Larger files are refused unread: no user or collection needs a hundredth of it."""

MAX_DEPTH = 20
MAX_NODES = 20_000

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_NOT_TEXT = re.compile(
    r"~|null|true|false|yes|no|on|off|[-+]?(?:0[box])?[0-9][0-9_]*(?:\.[0-9]*)?(?:e[-+]?[0-9]+)?|[-+]?\.(?:inf|nan)|",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Scalar:
    """A single value as it was written; ``plain`` tells that it stood without quotes."""

    text: str
    plain: bool
    line: int

    @property
    def is_null(self) -> bool:
        """Tell whether this is YAML's way of giving no value."""
        return self.plain and self.text in ("", "~", "null", "Null", "NULL")


@dataclass(frozen=True, slots=True)
class Items:
    """A sequence."""

    nodes: tuple[Node, ...]
    line: int


@dataclass(frozen=True, slots=True)
class Fields:
    """A mapping, in order; ``lines`` holds where each key stands."""

    nodes: dict[str, Node]
    lines: dict[str, int]
    line: int


Node = Scalar | Items | Fields


def parse(data: bytes, source: str) -> Fields:
    """Return the one mapping that the file consists of.

    ``source`` names the file in messages. Raises ``ConfigurationFault`` with a line from 1 on for anything else; takes
    time and memory in proportion to ``data``, of which it refuses more than :data:`MAX_BYTES`.
    """
    text = _decode(data, source)
    try:
        return _Builder(source).document(yaml.parse(text, Loader=_LOADER))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise ConfigurationFault(
            source,
            mark.line + 1 if mark else 1,
            f"this is not valid YAML: {error.problem or error.context or 'it cannot be read'}",
            "indent with spaces only, write one 'key: value' per line, and close every quote and bracket",
        ) from None
    except yaml.YAMLError:
        raise ConfigurationFault(source, 1, "this is not valid YAML", "write the file anew as UTF-8 text") from None


def from_plain(value: object, source: str) -> Fields:
    """Return the same tree for an object that came as JSON from an API; all its lines are 0.

    ``source`` names the object in messages, such as ``BackupUser/admin``. The bounds are those of :func:`parse`.
    """
    budget = [MAX_NODES]
    node = _plain_node(value, source, MAX_DEPTH, budget)
    if not isinstance(node, Fields):
        raise ConfigurationFault(source, 0, "this is no object", "give an object with apiVersion, kind, metadata, spec")
    return node


def _decode(data: bytes, source: str) -> str:
    if len(data) > MAX_BYTES:
        raise too_large(source)
    try:
        text = data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigurationFault(source, line, "this is not UTF-8 text", "save the file as UTF-8") from None
    forbidden = _FORBIDDEN.search(text)
    if forbidden:
        line = text.count("\n", 0, forbidden.start()) + 1
        code = f"U+{ord(forbidden[0]):04X}"
        raise ConfigurationFault(source, line, f"the invisible character {code} stands here", "remove it")
    return text


def too_large(source: str) -> ConfigurationFault:
    """Return the fault of a file over :data:`MAX_BYTES`."""
    return ConfigurationFault(source, 1, "the file is larger than 1 MiB", "keep one object of a few kilobytes in it")


class _Builder:
    """Builds the tree of one document from the parser's events, never deeper or larger than allowed."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._left = MAX_NODES

    def document(self, events: Iterator[yaml.Event]) -> Fields:
        """Return the one document; raises ``ConfigurationFault`` with its line."""
        root: Node | None = None
        for event in events:
            if not isinstance(event, yaml.NodeEvent):
                continue
            node = self._node(event, events, MAX_DEPTH)
            if isinstance(node, Scalar) and node.plain and not node.text:
                continue  # what stands between two separators when nothing does
            if root is not None:
                raise ConfigurationFault(self._source, node.line, "a second document begins here", "keep one per file")
            root = node
        if not isinstance(root, Fields):
            line, what = (root.line, "this is no mapping") if root else (1, "the file is empty")
            raise ConfigurationFault(self._source, line, what, "begin with apiVersion, kind, metadata and spec")
        return root

    def _node(self, event: yaml.Event, events: Iterator[yaml.Event], depth: int) -> Node:
        self._left -= 1
        if depth < 0 or self._left < 0:
            raise self._fault(
                event, "the file is nested too deeply or has too many parts", "keep to the fields allowed"
            )
        if isinstance(event, yaml.AliasEvent):
            raise self._fault(event, f"the alias *{event.anchor} is not accepted", "write the value out")
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise self._fault(event, f"the tag {tag!r} is not accepted", "remove it; quotes make any value a text")
        line = _line(event)
        if isinstance(event, yaml.ScalarEvent):
            return Scalar(event.value, event.style in (None, ""), line)
        if isinstance(event, yaml.SequenceStartEvent):
            return Items(tuple(self._items(events, depth - 1)), line)
        return self._fields(line, events, depth - 1)

    def _items(self, events: Iterator[yaml.Event], depth: int) -> Iterator[Node]:
        for event in events:
            if isinstance(event, yaml.SequenceEndEvent):
                return
            yield self._node(event, events, depth)

    def _fields(self, line: int, events: Iterator[yaml.Event], depth: int) -> Fields:
        fields = Fields({}, {}, line)
        for event in events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            key = self._node(event, events, depth)
            if not isinstance(key, Scalar) or (key.plain and _NOT_TEXT.fullmatch(key.text)):
                raise self._fault(event, "this key is not a text", "write it in quotes")
            if key.text in fields.nodes:
                earlier = fields.lines[key.text]
                raise self._fault(
                    event, f"the key {shown(key.text)} stands here a second time (first in line {earlier})", "keep one"
                )
            fields.nodes[key.text] = self._node(next(events), events, depth)
            fields.lines[key.text] = key.line
        return fields

    def _fault(self, event: yaml.Event, what: str, instead: str) -> ConfigurationFault:
        return ConfigurationFault(self._source, _line(event), what, instead)


def shown(text: str) -> str:
    """Return ``text`` fit for a message: quoted, on one line, not longer than a line."""
    return repr(text if len(text) <= 60 else text[:60] + "…")


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def _plain_node(value: object, source: str, depth: int, budget: list[int]) -> Node:
    budget[0] -= 1
    if depth < 0 or budget[0] < 0:
        raise ConfigurationFault(
            source, 0, "the object is nested too deeply or too large", "keep to the fields allowed"
        )
    match value:
        case None:
            return Scalar("null", True, 0)
        case bool():
            return Scalar("true" if value else "false", True, 0)
        case int() | float():
            return Scalar(repr(value), True, 0)
        case str():
            return Scalar(value, False, 0)
        case list() | tuple():
            return Items(tuple(_plain_node(item, source, depth - 1, budget) for item in value), 0)
        case dict():
            nodes = {str(key): _plain_node(item, source, depth - 1, budget) for key, item in value.items()}
            return Fields(nodes, dict.fromkeys(nodes, 0), 0)
    raise ConfigurationFault(
        source, 0, f"a {type(value).__name__} stands here", "give text, numbers, lists and objects"
    )
