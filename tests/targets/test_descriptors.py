"""Read models in separate files keep no file descriptors for threads that have ended."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import eventfold as ef


class Paid(ef.Event, type="descriptors-paid"):
    """A bill was paid."""

    bill: ef.Tag


class Row(ef.Projection, name="descriptors_row"):
    """The number of bills."""

    bill: str
    n: int = 0

    def evolve(self, event: Paid) -> None:
        """Count one bill."""
        self.n += 1


def count(target: str, log: str) -> None:
    """Read rows in one thread after the other; print the number of descriptors after 8 and after 48 threads."""
    counts: list[int] = []
    with ef.Store(log, target=target) as store:
        store.append(Paid("a"))
        store.project(Row)

        def request() -> None:
            store.project(Row)
            counts.append(len(store.rows(Row)))

        found: list[int] = []
        for many in (8, 40):
            for _ in range(many):
                thread = threading.Thread(target=request)
                thread.start()
                thread.join()
            found.append(len(os.listdir("/proc/self/fd")))
    assert counts == [1] * 48
    print(*found)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the system does not list descriptors")
@pytest.mark.parametrize("kind", ["sqlite", "sqlite+pysqlite", "duckdb"])
def test_threads_that_end_leave_no_descriptor(kind: str, tmp_path: Path) -> None:
    """A thread for each request asks for rows and has them brought up to date; a few descriptors are kept.

    In a process of its own, whose descriptors are counted.
    """
    target = f"{kind}:{'///' if '+' in kind else ''}{tmp_path}/rows.{kind[:4]}"
    code = "import sys; from tests.targets.test_descriptors import count; count(*sys.argv[1:])"
    command = [sys.executable, "-c", code, target, str(tmp_path / "log.db")]
    ran = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=150)
    assert ran.returncode == 0, ran.stderr
    few, many = map(int, ran.stdout.split())
    assert many <= few + 4
