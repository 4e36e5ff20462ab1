"""A second SQLite library in the process (`sqlite3`, pandas) opens and closes the store's file repeatedly."""

from __future__ import annotations

import importlib.util
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

import eventfold as ef
from eventfold.engines.sqlite import byte_range_locks
from eventfold.engines.sqlite.wal_index import OPEN_LOCK_BYTE, TRUNCATED_BYTES, lock_index
from tests.engines.sqlite.noted import engine_of, noted

ROOT = Path(__file__).parents[3]
SECONDS = "2"
TABLES = "SELECT count(*) FROM sqlite_schema"

pytestmark = pytest.mark.skipif(not byte_range_locks.AVAILABLE, reason="locks of open file descriptions are Linux's")


@pytest.mark.parametrize("library", ["sqlite3", "pandas"])
def test_nothing_acknowledged_is_lost_beside_a_second_library(path: str, library: str) -> None:
    """Of two processes with threads one is killed: no SIGBUS, acknowledged events exist, and the file is whole."""
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    ef.Store(path).close()
    command = [sys.executable, "-m", "tests.engines.sqlite.sharing", path]
    lasting, killed = (
        subprocess.Popen([*command, name, seconds, library], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for name, seconds in (("lasting", SECONDS), ("killed", "60"))
    )
    output = lasting.communicate(timeout=150)[0]
    killed.kill()
    output += killed.communicate(timeout=150)[0].rpartition("\n")[0]  # an incomplete last line does not count
    assert lasting.returncode == 0
    with ef.Store(path) as store:
        there = {str(recorded.id) for recorded in store.read()}
        acknowledged = set(output.split())
        assert len(acknowledged) > 2 and not acknowledged - there
        assert not list(engine_of(store).check())


def index_size(path: str) -> int:
    """Return the size of the write-ahead log's index (-shm), in bytes."""
    return os.stat(path + "-shm").st_size


def test_the_index_is_not_cut_by_the_next_library_to_open_it(path: str, store: ef.Store) -> None:
    """A second library drops the process's POSIX locks; the next library still sees that it is not the first."""
    store.append(noted(1))
    for _ in range(3):
        sqlite3.connect(path).execute("SELECT count(*) FROM event").connection.close()
        descriptor = os.open(path + "-shm", os.O_RDWR)
        try:
            assert byte_range_locks.is_locked(descriptor, OPEN_LOCK_BYTE, 1)
        finally:
            os.close(descriptor)
        assert index_size(path) > TRUNCATED_BYTES
    store.append(noted(2))
    assert store.count() == 2


def test_read_models_in_a_separate_file_are_protected_as_well(path: str, tmp_path: Path) -> None:
    """This holds for a read model's own file: another program, the last to close it, does not remove its log."""
    rows = str(tmp_path / "rows.db")

    class Count(ef.Projection):
        who: str
        n: int = 0

        def evolve(self, event: type(noted(1))) -> None:  # type: ignore[valid-type]
            self.n += 1

    with ef.Store(path, target=f"sqlite:{rows}") as store:
        store.append(noted(1, "a"))
        store.project(Count)
        sqlite3.connect(rows).execute(TABLES).connection.close()
        code = f"import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute({TABLES!r}).connection.close()"
        subprocess.run([sys.executable, "-c", code, rows], check=True, timeout=100)
        assert os.path.exists(rows + "-wal") and index_size(rows) > TRUNCATED_BYTES
        store.append(noted(2, "a"))
        store.project(Count)
        assert [row.n for row in store.rows(Count)] == [2]


def test_an_index_that_a_dead_process_left_is_truncated(path: str) -> None:
    """No process has it open, so its content is not trusted: it is truncated before it is locked."""
    ef.Store(path).close()
    with open(path + "-shm", "wb") as index:
        index.write(os.urandom(32_768))
    descriptor = lock_index(path)
    assert descriptor is not None
    assert index_size(path) == TRUNCATED_BYTES
    os.close(descriptor)
    with ef.Store(path) as store:
        assert store.append(noted(1)).last == 1


def test_an_index_in_use_is_not_truncated(path: str) -> None:
    """The second library was first: it has the index mapped, and opening a store must not truncate it."""
    ef.Store(path).close()
    connection = sqlite3.connect(path)
    try:
        assert connection.execute("SELECT count(*) FROM event").fetchone() == (0,)
        size = index_size(path)
        descriptor = lock_index(path)
        assert descriptor is not None and index_size(path) == size > TRUNCATED_BYTES
        with ef.Store(path) as store:
            store.append(noted(1))
            assert connection.execute("SELECT count(*) FROM event").fetchone() == (1,)
        os.close(descriptor)
    finally:
        connection.close()
