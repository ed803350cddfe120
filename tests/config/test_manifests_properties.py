"""Whatever stands in a manifest, reading it gives a value or faults, and nothing secret in either's text."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.config.manifest_texts import lookup
from tornado_backups.config.manifests import Reading, read_collection, read_secret, read_user, secret_names
from tornado_backups.config.manifests_collection import (
    ACCESS_FIELDS,
    COLLECTION_FIELDS,
    STRATEGIES,
    STRATEGY_FIELDS,
    WINDOW_FIELDS,
)
from tornado_backups.config.manifests_user import (
    ACCESS_KEY_FIELDS,
    EARLIER_ACCESS_KEY_FIELDS,
    OBJECT_FIELDS,
    ROLE_SPELLINGS,
    USER_FIELDS,
)
from tornado_backups.config.yaml_nodes import from_plain
from tornado_backups.domain.model import COLLECTION_ROLES, Collection, User

FIELDS = sorted(
    {
        *(USER_FIELDS + ACCESS_KEY_FIELDS + EARLIER_ACCESS_KEY_FIELDS + OBJECT_FIELDS),
        *(COLLECTION_FIELDS + STRATEGY_FIELDS + WINDOW_FIELDS + ACCESS_FIELDS),
        *("entry", "data", "stringData", "unknown"),
    }
)
TEXTS = st.sampled_from(
    [
        *ROLE_SPELLINGS,
        *STRATEGIES,
        "1M",
        "5d",
        "0 3 * * *",
        "${version}",
        "user",
        "collection",
        "10.0.0.0/8",
        "passwords",
    ]
)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS, st.text(max_size=12))
VALUES = st.recursive(
    SCALARS,
    lambda below: st.one_of(st.lists(below, max_size=4), st.dictionaries(st.sampled_from(FIELDS), below, max_size=6)),
    max_leaves=25,
)
SPECS = st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=10)


def check(reading: Reading[User] | Reading[Collection]) -> None:
    assert (reading.result is None) == bool(reading.breaking)
    assert all(fault.what and fault.instead and "\n" not in str(fault) for fault in reading.faults())


@settings(max_examples=60, deadline=None)
@given(SPECS)
def test_no_user_raises_and_none_gets_a_role_on_collections_that_is_not_one(spec: dict[str, object]) -> None:
    document = from_plain({"spec": spec}, "BackupUser/x")
    reading = read_user(document, "BackupUser/x", "x", lookup)
    check(reading)
    for key in reading.result.access_keys if reading.result else ():
        assert all(grant.roles and grant.roles <= COLLECTION_ROLES for grant in key.grants)
    assert secret_names(document) <= {"passwords", *map(str, _texts(spec))}


@settings(max_examples=60, deadline=None)
@given(SPECS)
def test_no_collection_raises_and_each_that_is_read_keeps_its_bounds(spec: dict[str, object]) -> None:
    spec = {"filenameTemplate": "a-${version}", "maxBackupsCount": 1} | spec
    reading = read_collection(from_plain({"spec": spec}, "BackupCollection/x"), "BackupCollection/x", "x", lookup)
    check(reading)
    if reading.result:
        assert reading.result.max_backups_count >= 1
        assert reading.result.max_one_version_bytes >= 0
        assert 0 <= reading.result.min_size_ratio <= 1
        assert not {"/", "\\", "\0"} & set(reading.result.filename(1))
        assert all(entry.roles and entry.roles <= COLLECTION_ROLES for entry in reading.result.access_control)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.sampled_from(["apiVersion", "kind", "metadata", "data", "stringData"]), VALUES))
def test_no_secret_raises(document: dict[str, object]) -> None:
    reading = read_secret(from_plain(document, "Secret/x"), "Secret/x", "x")
    assert (reading.result is None) == bool(reading.breaking)


def _texts(value: object) -> list[object]:
    if isinstance(value, dict):
        return [text for below in value.values() for text in _texts(below)]
    if isinstance(value, list):
        return [text for below in value for text in _texts(below)]
    return [value]
