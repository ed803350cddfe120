"""The CRDs: valid, complete, and of the same mind as the program that reads the objects.

The cases in ``custom-resources.json`` are judged three times: by the schema (JSON Schema and CEL), by the program's
own reading, and, when the CRDs change, by hand with the API server's own validation (docs/kubernetes.md).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cel
import jsonschema
import kubernetes_validate
import pytest
import yaml

from tornado_backups.config.manifests import Secret, read_collection, read_user
from tornado_backups.config.manifests_collection import (
    ACCESS_FIELDS,
    COLLECTION_FIELDS,
    STRATEGIES,
    STRATEGY_FIELDS,
    WINDOW_FIELDS,
)
from tornado_backups.config.manifests_user import ACCESS_KEY_FIELDS, OBJECT_FIELDS, ROLE_SPELLINGS, USER_FIELDS
from tornado_backups.config.yaml_nodes import from_plain
from tornado_backups.domain.model import COLLECTION_ROLES

CRDS = Path(__file__).parents[2] / "helm" / "tornado-backups" / "crds"
CASES = json.loads(Path(__file__).with_name("custom-resources.json").read_text())
HASH = "$argon2id$v=19$m=65536,t=1,p=4$c2FsdHNhbHRzYWx0c2FsdA$MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE"


def definition(kind: str) -> dict[str, Any]:
    name = {"BackupUser": "backupusers", "BackupCollection": "backupcollections"}[kind]
    return dict(yaml.safe_load((CRDS / f"{name}.yaml").read_text()))


def schema(kind: str) -> dict[str, Any]:
    return dict(definition(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"])


def below(node: dict[str, Any], path: str = "") -> list[tuple[str, dict[str, Any]]]:
    """Return every schema below ``node`` with its path."""
    found = [(path, node)]
    for name, child in node.get("properties", {}).items():
        found += below(child, f"{path}.{name}")
    if "items" in node:
        found += below(node["items"], f"{path}[]")
    return found


def pruned(value: Any, node: dict[str, Any]) -> list[str]:
    """Return the fields that the API server would drop (or refuse, with kubectl's strict validation)."""
    if isinstance(value, dict) and "properties" in node:
        unknown = [name for name in value if name not in node["properties"]]
        known = [pruned(child, node["properties"][name]) for name, child in value.items() if name not in unknown]
        return [*unknown, *(name for names in known for name in names)]
    if isinstance(value, list) and "items" in node:
        return [name for child in value for name in pruned(child, node["items"])]
    return []


def broken_rules(value: Any, node: dict[str, Any]) -> list[str]:
    found = [
        rule["message"]
        for rule in node.get("x-kubernetes-validations", [])
        if isinstance(value, dict) and not cel.evaluate(rule["rule"], {"self": value})
    ]
    if isinstance(value, dict):
        for name, child in node.get("properties", {}).items():
            found += broken_rules(value[name], child) if name in value else []
    if isinstance(value, list) and "items" in node:
        for child in value:
            found += broken_rules(child, node["items"])
    return found


def complaints(value: dict[str, Any]) -> list[str]:
    """Return what an API server with these CRDs has against the object."""
    whole = schema(value["kind"])
    validator = jsonschema.Draft202012Validator(whole)
    spec = {key: value[key] for key in value if key not in ("apiVersion", "kind", "metadata")}
    found = [error.message for error in validator.iter_errors(value)] + pruned(spec, whole) + broken_rules(value, whole)
    keys = [key.get("name") for key in (value.get("spec") or {}).get("accessKeys", [])]
    return found + (["duplicate accessKeys"] if len(set(keys)) != len(keys) else [])


@pytest.mark.parametrize("kind", ["BackupUser", "BackupCollection"])
@pytest.mark.parametrize("version", ["1.25", "1.31", "1.37"])
def test_the_definition_fits_the_schema_of_kubernetes(kind: str, version: str) -> None:
    kubernetes_validate.validate(definition(kind), version, strict=True)


@pytest.mark.parametrize("kind", ["BackupUser", "BackupCollection"])
def test_the_definition_has_names_columns_and_one_stored_version(kind: str) -> None:
    spec = definition(kind)["spec"]
    assert spec["group"] == "backups.riotkit.org"
    assert spec["scope"] == "Namespaced"
    assert spec["names"]["kind"] == kind
    assert spec["names"]["shortNames"]
    (version,) = spec["versions"]
    assert (version["name"], version["served"], version["storage"]) == ("v1alpha1", True, True)
    for column in version["additionalPrinterColumns"]:
        path = column["jsonPath"]
        assert path == ".metadata.creationTimestamp" or any(path == at for at, _ in below(schema(kind)))


@pytest.mark.parametrize("kind", ["BackupUser", "BackupCollection"])
def test_every_text_list_and_pattern_is_bounded_and_anchored(kind: str) -> None:
    patterns = 0
    for path, node in below(schema(kind)["properties"]["spec"], ".spec"):
        if node.get("type") == "string" and "enum" not in node:
            assert "maxLength" in node, path
        if node.get("type") == "array":
            assert "maxItems" in node, path
        if "pattern" in node:
            patterns += 1
            assert node["pattern"].startswith("^"), path
            assert node["pattern"].endswith("$"), path
        if node.get("x-kubernetes-int-or-string"):
            # Anything more in there and the API server refuses the schema as not structural.
            assert node["anyOf"] == [{"type": "integer"}, {"type": "string"}], path
    assert patterns >= 5


def test_the_schemas_know_exactly_the_fields_that_the_program_reads() -> None:
    user = schema("BackupUser")["properties"]["spec"]["properties"]
    key = user["accessKeys"]["items"]["properties"]
    assert set(user) == set(USER_FIELDS)
    assert set(key) == set(ACCESS_KEY_FIELDS)
    assert set(key["objects"]["items"]["properties"]) == set(OBJECT_FIELDS)
    assert set(user["roles"]["items"]["enum"]) == set(ROLE_SPELLINGS)
    collection = schema("BackupCollection")["properties"]["spec"]["properties"]
    assert set(collection) == set(COLLECTION_FIELDS)
    assert set(collection["strategySpec"]["properties"]) == set(STRATEGY_FIELDS)
    assert set(collection["windows"]["items"]["properties"]) == set(WINDOW_FIELDS)
    assert collection["window"] == collection["windows"]
    assert set(collection["accessControl"]["items"]["properties"]) == set(ACCESS_FIELDS)
    assert collection["strategyName"]["enum"] == list(STRATEGIES)
    for roles in (collection["accessControl"], key["objects"]):
        assert set(roles["items"]["properties"]["roles"]["items"]["enum"]) == {role.value for role in COLLECTION_ROLES}


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_the_schema_judges_objects_as_expected(case: dict[str, Any]) -> None:
    found = complaints(case["object"])
    assert (not found) is case["valid"], found


@pytest.mark.parametrize("case", [case for case in CASES if case["valid"]], ids=lambda case: case["name"])
def test_whatever_the_schema_lets_in_the_program_can_read(case: dict[str, Any]) -> None:
    value = case["object"]
    name = value["metadata"]["name"]
    source = f"{value['kind']}/{name}"
    document = from_plain({key: value[key] for key in ("apiVersion", "kind", "metadata", "spec")}, source)
    reading = (read_user if value["kind"] == "BackupUser" else read_collection)(
        document, source, name, lambda secret: Secret(secret, {"hash": (HASH, 0), "code": ("a" * 64, 0)})
    )
    assert reading.faults() == []
