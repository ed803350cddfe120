"""YAML is read strictly: what configuration has no use for is a fault with its file and line, never a crash."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tornado_backups.config.yaml_nodes import MAX_BYTES, Fields, Items, Scalar, from_plain, parse
from tornado_backups.domain.errors import ConfigurationFault

HEAD = b"---\napiVersion: v1\n"


def fault_of(data: bytes) -> ConfigurationFault:
    with pytest.raises(ConfigurationFault) as caught:
        parse(data, "x.yaml")
    assert str(caught.value).startswith(f"x.yaml:{caught.value.line}: ")
    assert caught.value.instead
    return caught.value


def test_every_node_knows_its_line_and_every_scalar_its_text() -> None:
    read = parse(b"---\n# a comment\nname: yes\nsizes:\n  - 010\n  - '5'\nempty:\n", "x.yaml")
    assert read == Fields(
        {
            "name": Scalar("yes", True, 3),
            "sizes": Items((Scalar("010", True, 5), Scalar("5", False, 6)), 5),
            "empty": Scalar("", True, 7),
        },
        {"name": 3, "sizes": 4, "empty": 7},
        3,
    )


@pytest.mark.parametrize(
    ("data", "line", "words"),
    [
        (b"a: 1\nb: 2\na: 3\n", 3, "second time (first in line 1)"),
        (b"a: &x [1]\nb: *x\n", 2, "alias *x"),
        (b"a: !!python/object/apply:os.system ['true']\n", 1, "tag"),
        (b"a: !!str 5\n", 1, "tag"),
        (b"a: 1\n---\nb: 2\n", 3, "second document"),
        (b"5: a\n", 1, "not a text"),
        (b"no: a\n", 1, "not a text"),
        (b"~: a\n", 1, "not a text"),
        (b"? [a]\n: b\n", 1, "not a text"),
        (b"a: 1\nb: \x00\n", 2, "U+0000"),
        (b"a: 1\nb: \x1b[31m\n", 2, "U+001B"),
        (b"a: x\xef\xbb\xbf\n", 1, "U+FEFF"),
        (b"a: 1\nb: \xff\n", 2, "UTF-8"),
        ("a: 1\n".encode("utf-16"), 1, "UTF-8"),
        (b"", 1, "empty"),
        (b"# nothing\n", 1, "empty"),
        (b"- a\n", 1, "no mapping"),
        (b"just a text\n", 1, "no mapping"),
        (b"a:\n\t- b\n", 2, "not valid YAML"),
        (b"a: 'b\n", 2, "not valid YAML"),
        (b"a: [b\n", 2, "not valid YAML"),
        (b'a: "\\ud800"\n', 1, "not valid YAML"),
        (b"a: b: c\n", 1, "not valid YAML"),
        (b"a: @b\n", 1, "not valid YAML"),
        (b"a: 1\n" + b"#" * MAX_BYTES, 1, "larger than 1 MiB"),
    ],
)
def test_each_kind_of_unwanted_yaml_is_a_fault_with_its_line(data: bytes, line: int, words: str) -> None:
    fault = fault_of(data)
    assert fault.line == line
    assert words in fault.what


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 1_000_000,
        b"{" * 1_000_000,
        b"- " * 500_000,
        b"? " * 500_000,
        b"a:\n " * 200_000,
        b"[a: b, " * 140_000,
        b"[" + b"a," * 500_000 + b"]",
        b"\n".join(b"k%d: v" % number for number in range(60_000)),
        b"a: &a [x,x]\n" + b"".join(b"b%d: &b%d [*a,*a]\n" % (n, n) for n in range(1000)),
        b'"' + b"x\\\n" * 300_000,
        b"a: |\n" + b"  x\n" * 200_000 + b"\x07",
    ],
    ids=["[", "{", "-", "?", "indent", "[a: b", "wide", "keys", "billion laughs", "quote", "block"],
)
def test_bombs_are_refused_without_delay(data: bytes) -> None:
    started = time.perf_counter()
    fault_of(data)
    assert time.perf_counter() - started < 20  # 0.25 s at most on an idle machine; a bomb that goes off takes minutes


@pytest.mark.parametrize("data", [b"\xef\xbb\xbfa: 1\n", b"---\n---\na: 1\n---\n", b"%YAML 1.1\n---\na: 1\n...\n"])
def test_byte_order_mark_directives_and_empty_documents_disturb_nobody(data: bytes) -> None:
    assert list(parse(data, "x.yaml").nodes) == ["a"]


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.text("ab:-?[]{}&*!|>'\"#%@`, \n\t0", max_size=60).map(str.encode)))
def test_no_bytes_at_all_raise_anything_but_a_fault_with_a_line(data: bytes) -> None:
    lines = [1]
    try:
        parse(HEAD + data, "x.yaml")
    except ConfigurationFault as fault:
        lines.append(fault.line)
    assert min(lines) >= 1


def test_json_objects_become_the_same_tree_without_lines() -> None:
    read = from_plain({"a": [1, 0.5, True, None, "x"], "b": {}}, "BackupUser/admin")
    values = Items(
        (
            Scalar("1", True, 0),
            Scalar("0.5", True, 0),
            Scalar("true", True, 0),
            Scalar("null", True, 0),
            Scalar("x", False, 0),
        ),
        0,
    )
    assert read == Fields({"a": values, "b": Fields({}, {}, 0)}, {"a": 0, "b": 0}, 0)


def test_json_objects_have_the_same_bounds() -> None:
    deep: object = "x"
    for _ in range(100):
        deep = [deep]
    for value in ({"a": deep}, {"a": [0] * 30_000}, {"a": object()}, [1]):
        with pytest.raises(ConfigurationFault, match="BackupUser/admin: "):
            from_plain(value, "BackupUser/admin")
