"""Series of SIGINT and SIGALRM at random moments, in threads and in tasks: nothing hangs, is lost or is duplicated."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from tests.support.servers.postgres import shared

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
def test_a_storm_of_signals_is_survived(engine: str, mode: str, tmp_path: Path) -> None:
    """Some dozens of signals are sent here; `python -m tests.interrupts.storm` takes any number."""
    signals = 60 if mode == "sync" else 10
    where = [str(tmp_path / "store.db")] if engine == "sqlite" else [shared().url()]
    schema = [] if engine == "sqlite" else [f"t{uuid4().hex}"]
    command = [sys.executable, "-m", "tests.interrupts.storm", *where, str(signals), mode, *schema]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=330)
    assert ran.returncode == 0, ran.stderr[-5_000:]
    assert int(ran.stdout.split()[0]) > signals // 3, ran.stdout
