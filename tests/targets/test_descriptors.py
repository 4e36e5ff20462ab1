"""Read models kept in files of their own hold no file descriptors for threads that have ended."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

import eventfold as ef


class Paid(ef.Event, type="descriptors-paid"):
    """A bill was paid."""

    bill: ef.Tag


class Row(ef.Projection, name="descriptors_row"):
    """How often."""

    bill: str
    n: int = 0

    def evolve(self, event: Paid) -> None:
        """Once more."""
        self.n += 1


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the system does not list descriptors")
@pytest.mark.parametrize("kind", ["sqlite", "sqlite+pysqlite", "duckdb"])
def test_threads_that_end_leave_no_descriptor(kind: str, tmp_path: Path) -> None:
    """A thread for each request asks for rows and has them brought up to date; a few descriptors are kept."""
    target = f"{kind}:{'///' if '+' in kind else ''}{tmp_path}/rows.{kind[:4]}"
    counts: list[int] = []
    with ef.Store(str(tmp_path / "log.db"), target=target) as store:
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
    assert found[1] <= found[0] + 4
