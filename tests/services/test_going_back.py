"""The queries of docs/migrate.md, "And back again", run as they stand there."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.contract.registry_cases import NOON, Database, store
from tests.services.adoption_cases import put
from tests.services.go_server import GoDatabaseMaker
from tornado_backups.registry.scripted import ScriptedRegistry

pytest_plugins = ["tests.contract.registry_fixtures", "tests.services.go_server_fixtures"]

GUIDE = Path(__file__).parents[2] / "docs" / "migrate.md"


def query(name: str) -> str:
    """Return the query that the guide calls so."""
    found = re.search(rf"^ *-- {re.escape(name)}\n(.*?)^ *```", GUIDE.read_text("utf-8"), re.S | re.M)
    assert found is not None, f"docs/migrate.md has no {name}"
    return found[1]


@pytest.mark.gen_test
async def test_after_going_back_every_row_of_the_go_server_names_an_object_at_its_place(
    registry: ScriptedRegistry, database: Database, go_database: GoDatabaseMaker, tmp_path: Path
) -> None:
    imported_id, rotated_id = go_database.version("db", 1, 5, "db-v1.gpg"), go_database.version("db", 2, 5, "db-v2.gpg")
    put(tmp_path, "db/db-v1.gpg", b"12345", NOON)
    lease = await registry.acquire_lease("collection/db", 30)
    assert lease is not None
    stored = await store(registry, "photos", 7)
    template = stored._replace(id=imported_id, collection="db", filename="db-v1.gpg", size_bytes=5)
    await registry.adopt_version(template._replace(object_key="db/db-v1.gpg"), lease)
    await registry.raise_counter("db", 2)
    await registry.release_lease(lease)
    for version in (await store(registry, "db", 5), await store(registry, "o'neil", 5), template):
        put(tmp_path, f"{version.collection}/{version.id}/{version.filename}", b"12345", NOON)
    (photos,) = await registry.versions("photos")
    put(tmp_path, photos.object_key, b"1234567", NOON)

    for source, target in database.execute(query("copies.sql").rstrip().rstrip(";")):
        shutil.copy(tmp_path / source, tmp_path / target)
    statements = database.execute(query("back.sql").rstrip().rstrip(";"))
    go_database.execute("\n".join(row[0] for row in statements))

    rows = go_database.execute(
        "SELECT id, collection_id || '/' || filename, filesize, created_at, version_number FROM uploaded_versions"
        " WHERE deleted_at IS NULL ORDER BY collection_id, version_number"
    )
    assert [(row[1], row[4]) for row in rows] == [
        ("db/db-v1.gpg", 1),
        ("db/db-v3.gpg", 3),
        ("o'neil/o'neil-v1.gpg", 1),
        ("photos/photos-v1.gpg", 1),
    ]
    for _, place, size, *_ in rows:
        assert (tmp_path / str(place)).stat().st_size == size
    assert rows[1][3] == NOON
    assert go_database.execute(f"SELECT deleted_at IS NOT NULL FROM uploaded_versions WHERE id = '{rotated_id}'") == [
        (True,)
    ]
