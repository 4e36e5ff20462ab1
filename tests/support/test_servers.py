"""A server ends with the process that started it, also if that process has no time to stop it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.servers import mariadb, postgres

ROOT = Path(__file__).parents[2]
PATIENCE_S = 30.0
PROGRAM = """
import os
from tests.support.servers import {module}
server = {module}.shared()
print(server._process.pid, server.folder, flush=True)
{removed}
os._exit(0)
"""


@pytest.mark.parametrize("module", ["postgres", pytest.param("mariadb", marks=mariadb.needed)])
@pytest.mark.parametrize("is_removed", [False, True])
def test_a_server_ends_with_the_process_that_started_it(module: str, is_removed: bool) -> None:
    """Without its exit handlers; `remove_shared` removes the files too."""
    program = PROGRAM.format(module=module, removed=f"{module}.remove_shared()" if is_removed else "")
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=90
    )
    pid, folder = done.stdout.split()
    ends = time.monotonic() + PATIENCE_S
    while postgres._running(int(pid)):  # pyright: ignore[reportPrivateUsage]
        assert time.monotonic() < ends, f"{module} goes on without the process that started it"
        time.sleep(0.05)
    assert Path(folder).exists() is not is_removed
    shutil.rmtree(folder, ignore_errors=True)
