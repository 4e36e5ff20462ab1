"""An exception at any instruction of a call: nothing is lost, duplicated, claimed or locked, and the store goes on.

The tests take a sample of the instructions; `EVENTFOLD_SWEEP=1` raises at every one (see `whole`), in some minutes.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

import eventfold as ef
from tests.interrupts.sweep import Sweep, descriptors
from tests.support.servers.postgres import shared

# An exception that is raised in a finaliser is reported and not propagated.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
ROOT = Path(__file__).parents[2]
ACTS = ("decide_warm", "decide_cold", "append", "follow", "follow_on", "read", "lock")
EVERY = 1 if os.environ.get("EVENTFOLD_SWEEP") else 0  # 0: a sample


@pytest.fixture(params=["memory", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A store's address; its files are in memory where the system has such a file system."""
    yield "memory:" if request.param == "memory" else str(tmp_path / "store.db")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="descriptors are counted by Linux")
@pytest.mark.parametrize("act", ACTS)
def test_an_exception_at_any_instruction_is_survived(act: str, url: str) -> None:
    """After each interrupt another thread uses the store: in time, and everything acknowledged exists once.

    It runs in a process of its own, whose descriptors and threads are counted.
    """
    code = "import sys; from tests.interrupts.test_sweep import survive; survive(*sys.argv[1:])"
    command = [sys.executable, "-W", "ignore", "-c", code, act, url]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=170)
    assert ran.returncode == 0, ran.stderr[-5_000:]


def survive(act: str, url: str) -> None:
    """Run the sweep in that process."""
    before, threads = descriptors(), threading.active_count()
    with ef.Store(url) as store:
        sweep = Sweep(store)
        sweep.sweep(getattr(sweep, act), EVERY or (61 if act.startswith("decide") else 23), whole=WHOLE.get(act, ()))
    assert descriptors() <= before
    assert threading.active_count() <= threads + 1


def test_an_exception_at_any_instruction_of_a_read_model_is_survived(tmp_path: Path) -> None:
    """Neither the writers' lock nor a transaction of the rows stays taken; the rows are right afterwards."""
    with ef.Store(str(tmp_path / "store.db")) as store:
        sweep = Sweep(store)
        sweep.sweep(sweep.project, EVERY or 199)


@pytest.mark.parametrize("act", ["decide_warm", "append", "lock", "follow"])
def test_an_exception_at_any_instruction_is_survived_on_postgresql(act: str) -> None:
    """A smaller sample on PostgreSQL; afterwards no connection counts as lent."""
    url = shared().url()
    with ef.Store(url, schema=f"t{uuid4().hex}") as store:
        sweep = Sweep(store)
        sweep.sweep(getattr(sweep, act), EVERY or (149 if act == "lock" else 449))
        gc.collect()
        servers: Any = store.engine._servers  # type: ignore[attr-defined]
        pools = (servers.writer_pool, servers._reader_pool)
        over = [checkout.is_over() for pool in pools for checkout in pool._checkouts.values()]
        assert all(over)


# Every instruction of the files in which this call claims something that other callers would wait for.
WHOLE = {
    "decide_cold": ("log/pipeline.py",),
    "append": ("engines/sqlite/pool.py", "engines/sqlite/writer_lock.py"),
    "lock": ("log/lock_holders.py", "engines/sqlite/named_locks.py"),
}


def whole(store: ef.Store) -> int:
    """Raise at every instruction of every call, and a second time with an error that `except Exception` catches.

    Returns the number of points. Raises AssertionError where something does not hold.
    """
    points = 0
    for error in (KeyboardInterrupt, TimeoutError):
        for act in ACTS:
            sweep = Sweep(store)
            points += sweep.sweep(getattr(sweep, act), 1, error)
    return points


def test_the_files_with_claims_exist() -> None:
    """The lists of files whose every instruction matters name files that exist."""
    package = Path(ef.__file__).parent
    assert all((package / name).exists() for names in WHOLE.values() for name in names)
