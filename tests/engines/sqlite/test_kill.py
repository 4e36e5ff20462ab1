"""`kill -9` of writers, many times: acknowledged events exist, and no append exists in part."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engines.sqlite.noted import assert_whole
from tests.support.repetitions import repetitions

KILLS = repetitions(25, 60)  # by each of two programs


@pytest.mark.parametrize("half", [1, 2])
def test_no_acknowledged_event_is_lost_when_writers_are_killed(tmp_path: Path, half: int) -> None:
    """They are killed while appending one, several, under conditions, combined, in bulk or at a checkpoint."""
    path, seed = tmp_path / "killed.db", random.randrange(2**32)
    ran = subprocess.run(
        [sys.executable, "-m", "tests.engines.sqlite.killing", str(path), str(KILLS), str(seed)],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, f"seed {seed}: {ran.stderr}"
    seen = json.loads(ran.stdout)
    assert seen["kills"] >= KILLS
    assert seen["acknowledged"] > KILLS
    assert seen["problems"] == [], f"seed {seed}"
    assert assert_whole(path) == seen["events"]
