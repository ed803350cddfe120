"""Every YAML example of users, collections and secrets loads without a fault, wherever it stands.

And in docs/yaml.md every field there is stands in an example and in the text.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from tests.docs.pages import Block, blocks, pages, read
from tornado_backups.config.manifests import Reading, Secret, read_collection, read_secret, read_user
from tornado_backups.config.manifests_collection import (
    ACCESS_FIELDS,
    COLLECTION_FIELDS,
    STRATEGIES,
    STRATEGY_FIELDS,
    WINDOW_FIELDS,
)
from tornado_backups.config.manifests_secret import REFERENCE_FIELDS
from tornado_backups.config.manifests_user import (
    ACCESS_KEY_FIELDS,
    EARLIER_ACCESS_KEY_FIELDS,
    EARLIER_USER_FIELDS,
    OBJECT_FIELDS,
    ROLE_SPELLINGS,
    USER_FIELDS,
)
from tornado_backups.config.yaml_nodes import Fields, Items, Node, Scalar, from_plain, parse
from tornado_backups.domain.model import Collection, User

PAGE = read("docs/yaml.md")
EXAMPLES = [block.text for block in blocks("docs/yaml.md") if block.language == "yaml"]
KINDS = ("BackupUser", "BackupCollection", "Secret")
LEAST = {"filenameTemplate": "${version}", "maxBackupsCount": 1}


def name_in(document: Fields) -> str:
    metadata = document.nodes.get("metadata")
    name = metadata.nodes["name"] if isinstance(metadata, Fields) else None
    return name.text if isinstance(name, Scalar) else "web"


def kind_of(document: Fields) -> str:
    kind = document.nodes["kind"]
    assert isinstance(kind, Scalar)
    return kind.text


def secrets() -> dict[str, Secret]:
    documents = [parse(text.encode(), "docs/yaml.md") for text in EXAMPLES]
    found = [document for document in documents if kind_of(document) == "Secret"]
    return {name_in(each): read_secret(each, "docs/yaml.md", name_in(each)).value() for each in found}


@pytest.mark.parametrize("text", EXAMPLES, ids=[f"example {number}" for number in range(1, len(EXAMPLES) + 1)])
def test_each_example_loads_without_a_fault(text: str) -> None:
    document = parse(text.encode(), "docs/yaml.md")
    name, kind, lookup = name_in(document), kind_of(document), secrets().get
    reading: Reading[User] | Reading[Collection] | Reading[Secret]
    if kind == "BackupUser":
        reading = read_user(document, "docs/yaml.md", name, lookup)
    elif kind == "BackupCollection":
        reading = read_collection(document, "docs/yaml.md", name, lookup)
    else:
        reading = read_secret(document, "docs/yaml.md", name)
    assert [str(fault) for fault in reading.faults()] == []
    assert reading.value()


def objects_of(block: Block) -> list[dict[str, Any]]:
    """Return the users, collections and secrets of a block; a bare ``spec`` is a collection's, shown in part."""
    found = [each for each in yaml.safe_load_all(block.text) if isinstance(each, dict)]
    whole = [each for each in found if each.get("kind") in KINDS]
    parts = [{"kind": "BackupCollection", "spec": LEAST | each["spec"]} for each in found if set(each) == {"spec"}]
    return whole + parts


OBJECTS = [
    pytest.param(page, value, id=f"{block.place} {number}")
    for page in pages()
    for block in blocks(page)
    if block.language == "yaml"
    for number, value in enumerate(objects_of(block), 1)
]


def secrets_of(page: str) -> dict[str, Secret]:
    of_page = (value for where, value in (each.values for each in OBJECTS) if where == page)
    found = {each["metadata"]["name"]: each for each in of_page if each["kind"] == "Secret"}
    return {name: read_secret(from_plain(each, page), page, name).value() for name, each in found.items()}


@pytest.mark.parametrize(("page", "value"), OBJECTS)
def test_each_user_collection_and_secret_of_any_page_loads_without_a_fault(page: str, value: dict[str, Any]) -> None:
    document = from_plain({"apiVersion": "backups.riotkit.org/v1alpha1", **value}, page)
    name, lookup = name_in(document), secrets_of(page).get
    reading: Reading[User] | Reading[Collection] | Reading[Secret]
    if value["kind"] == "Secret":
        reading = read_secret(document, page, name)
    else:
        reader = read_user if value["kind"] == "BackupUser" else read_collection
        reading = reader(document, page, name, lookup)
    assert [str(fault) for fault in reading.faults()] == []
    assert reading.value()


def test_examples_are_found_in_all_the_places_that_have_them() -> None:
    found = {value.id.partition(":")[0] for value in OBJECTS}
    assert found >= {"README.md", "docs/yaml.md", "docs/install-vps.md", "docs/rotation.md", "docs/windows.md"}


def keys_below(node: Node) -> set[str]:
    if isinstance(node, Items):
        return set().union(*map(keys_below, node.nodes))
    if isinstance(node, Fields):
        return set(node.nodes).union(*map(keys_below, node.nodes.values()))
    return set()


def test_every_field_stands_in_an_example_and_in_the_text() -> None:
    fields = {
        *USER_FIELDS,
        *EARLIER_USER_FIELDS,
        *ACCESS_KEY_FIELDS,
        *EARLIER_ACCESS_KEY_FIELDS,
        *OBJECT_FIELDS,
        *COLLECTION_FIELDS,
        *ACCESS_FIELDS,
        *WINDOW_FIELDS,
        *STRATEGY_FIELDS,
        *REFERENCE_FIELDS,
        "data",
        "stringData",
    }
    in_examples = set().union(*(keys_below(parse(text.encode(), "docs/yaml.md")) for text in EXAMPLES))
    assert fields - in_examples == {"window"}  # the other spelling of windows
    prose = re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)
    assert [field for field in sorted(fields) if f"`{field}`" not in prose] == []


@pytest.mark.parametrize("word", [*ROLE_SPELLINGS, *STRATEGIES])
def test_every_role_and_strategy_is_in_the_text(word: str) -> None:
    assert f"`{word}`" in PAGE


def test_the_sample_of_a_fault_is_what_check_config_prints() -> None:
    lines = ["apiVersion: backups.riotkit.org/v1alpha1", "kind: BackupCollection", "spec:", "", "", ""]
    lines += [
        "  filenameTemplate: ${version}",
        "  maxBackupsCount: 1",
        "  windows: [{from: 00 30 * * *, duration: 1h}]",
    ]
    (sample,) = [line for line in PAGE.splitlines() if "web.yaml:9: " in line]
    source = sample.partition(":9: ")[0]
    reading = read_collection(parse("\n".join(lines).encode(), source), source, "web", secrets().get)
    assert [str(fault) for fault in reading.faults()] == [sample]
