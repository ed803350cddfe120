"""Random ``kill -9`` of the real program under load loses nothing that was acknowledged; see ``kill_loop``."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.system.kill_loop import KillLoop, backend

KILLS = int(os.environ.get("KILL_LOOP_KILLS", "8"))


@pytest.mark.parametrize("kind", ["postgres-s3", "sqlite-local"])
def test_no_kill_loses_an_acknowledged_upload_or_leaves_anything_behind(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with backend(kind, tmp_path) as place:
        figures = KillLoop(tmp_path, place).run(KILLS)
    with capsys.disabled():
        print(f"\nkill loop on {kind}: {figures}")
    assert not figures.faults
    assert figures.kills == KILLS
    assert figures.uploads > 0
