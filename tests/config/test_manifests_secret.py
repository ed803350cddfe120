"""Secrets: entries are used as they stand; a wrong one harms nobody who does not need it."""

from __future__ import annotations

from tests.config.manifest_texts import ENCODED, SECRET, secret, user
from tornado_backups.config.manifests import read_secret, secret_names
from tornado_backups.config.yaml_nodes import from_plain, parse


def test_data_and_string_data_are_used_as_they_stand_and_string_data_wins() -> None:
    read = secret(
        "apiVersion: v1\nkind: Secret\nmetadata:\ndata: {a: YQ==, b: '1'}\nstringData:\n  b: plain\n  c: 007\n",
        "s",
    )
    assert read.entries == {"a": ("YQ==", 4), "b": ("plain", 6), "c": ("007", 7)}


def test_nothing_of_a_secret_shows_in_its_repr() -> None:
    assert ENCODED not in repr(secret())
    assert ENCODED not in repr(read_secret(parse(SECRET.encode(), "s"), "s", "passwords"))


def test_an_entry_that_is_no_text_is_a_fault_of_that_entry_alone() -> None:
    text = SECRET + "  list: [a]\n  nothing:\n"
    reading = read_secret(parse(text.encode(), "s.yaml"), "s.yaml", "passwords")
    assert [(fault.source, fault.line) for fault in reading.faults()] == [("s.yaml", 10), ("s.yaml", 11)]
    assert set(reading.value().entries) == {"admin", "health", "broken"}


def test_a_secret_of_another_kind_or_name_is_broken() -> None:
    for text in (SECRET.replace("kind: Secret", "kind: ConfigMap"), SECRET.replace("name: passwords", "name: other")):
        assert read_secret(parse(text.encode(), "s.yaml"), "s.yaml", "passwords").result is None


def test_a_secret_without_entries_is_whole_and_a_reference_to_it_is_not() -> None:
    empty = secret("apiVersion: v1\nkind: Secret\n", "s")
    assert empty.entries == {}
    assert "lacks" in str(user("passwordFromRef: {name: passwords, entry: x}").faults()[0])


def test_the_names_of_all_referenced_secrets_are_found_wherever_they_stand() -> None:
    document = from_plain(
        {
            "spec": {
                "passwordFromRef": {"name": "a", "entry": "x"},
                "healthSecretRef": {"name": "b"},
                "accessKeys": [{"passwordFromRef": {"name": "c"}}, {"passwordFromRef": "d"}, {"name": "e"}],
                "passwordfromref": {"name": "f"},
                "other": {"passwordFromRef": {"name": "../g"}},
            }
        },
        "BackupUser/x",
    )
    assert secret_names(document) == {"a", "b", "c"}
