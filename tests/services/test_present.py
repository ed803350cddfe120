"""The list of versions that is written out as text says what the JSON objects say."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from tornado_backups.domain.model import Version
from tornado_backups.services.present import version_json, versions_text

_TEXT = st.text(st.characters(blacklist_categories=["Cs"]), max_size=20)
_MOMENT = st.datetimes(datetime(1970, 1, 1), datetime(9000, 1, 1)).map(lambda at: at.replace(tzinfo=UTC))
_VERSION = st.builds(
    Version,
    id=_TEXT,
    collection=_TEXT,
    number=st.integers(1, 2**53),
    filename=_TEXT,
    object_key=_TEXT,
    size_bytes=st.integers(0, 2**63),
    sha256=_TEXT,
    session_id=_TEXT,
    uploader=_TEXT,
    created_at=_MOMENT,
    updated_at=_MOMENT,
)


@given(st.lists(_VERSION, max_size=5))
def test_versions_as_text_are_the_same_as_the_objects(versions: list[Version]) -> None:
    versions += [version._replace(updated_at=version.created_at) for version in versions]
    assert versions_text(versions) == json.dumps([version_json(each) for each in versions], ensure_ascii=False)


def test_times_are_told_to_the_microsecond_in_utc() -> None:
    at = datetime(2024, 5, 17, 12, 0, 0, 1, UTC)
    version = Version("1", "db", 1, "db-1", "db/1/db-1", 1, "", "", "", at, at + timedelta(days=1))
    found = json.loads(versions_text([version]))[0]
    assert found["CreatedAt"] == "2024-05-17T12:00:00.000001Z"
    assert found["UpdatedAt"] == "2024-05-18T12:00:00.000001Z"
