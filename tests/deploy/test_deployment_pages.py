"""The pages on installation: their YAML is good, their proxy blocks work before real proxies, their files exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.deploy.test_crds import complaints
from tornado_backups.config.manifests import Secret, read_collection, read_secret, read_user
from tornado_backups.config.yaml_nodes import from_plain

ROOT = Path(__file__).parents[2]
PAGES = ("install-vps.md", "docker.md", "kubernetes.md", "tutorial-kubernetes.md")


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def objects(page: str) -> list[dict[str, Any]]:
    return [one for block in blocks(page, "yaml") for one in yaml.safe_load_all(block)]


def fault_sentences(value: dict[str, Any], secrets: dict[str, Secret]) -> list[str]:
    name, source = value["metadata"]["name"], f"{value['kind']}/{value['metadata']['name']}"
    document = from_plain({key: part for key, part in value.items() if key != "type"}, source)
    if value["kind"] == "Secret":
        reading: Any = read_secret(document, source, name)
        secrets[name] = reading.value()
    else:
        reader = read_user if value["kind"] == "BackupUser" else read_collection
        reading = reader(document, source, name, secrets.get)
    return [fault.sentence for fault in reading.faults()]


@pytest.mark.parametrize("page", ["install-vps.md", "tutorial-kubernetes.md"])
def test_the_server_reads_every_object_of_a_page_without_a_fault(page: str) -> None:
    secrets: dict[str, Secret] = {}
    kinds = []
    for value in objects(page):
        if value["kind"] in ("Secret", "BackupUser", "BackupCollection"):
            kinds.append(value["kind"])
            assert fault_sentences(value, secrets) == []
        if value["kind"].startswith("Backup"):
            assert complaints(value) == []
        else:
            kubernetes_validate.validate(value, "1.31", strict=True)
    assert kinds == ["Secret", "BackupUser", "BackupCollection"]


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_names_exists(page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    named = set(re.findall(r"\$SRC\"?/((?:systemd|helm)/[\w.-]+)", text))
    named |= set(re.findall(r"(?:^|[\s`])((?:helm|tests)/[\w./-]+)", text))
    for path in named:
        assert (ROOT / path.rstrip(".")).exists(), path


@pytest.mark.parametrize("page", PAGES)
def test_every_page_says_what_was_not_tried(page: str) -> None:
    text = (ROOT / "docs" / page).read_text().lower()
    assert "**not run by a test**" in text or "**not tried**" in text


def test_every_unit_is_installed_by_the_page() -> None:
    text = "".join(blocks("install-vps.md", "bash"))
    for path in (ROOT / "systemd").iterdir():
        assert f"systemd/{path.name}" in text, path.name
