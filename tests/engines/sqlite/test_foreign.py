"""Other programs that use the file: careless closes, last closers, statements that would change the log."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

import eventfold as ef
from eventfold.engines.sqlite import schema
from eventfold.engines.sqlite.errors import memory_file_system
from eventfold.engines.sqlite.file_guards import FileGuard
from eventfold.errors import AppendUnconfirmed, StoreDamaged, StoreUnsafe
from tests.engines.sqlite.noted import assert_whole, engine_of, foreign, merge, noted
from tests.engines.sqlite.other import Other

OPEN_AND_CLOSE = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("SELECT count(*) FROM event").fetchone()
connection.close()
"""
REST = (
    'type, version, data, tags, time, occurred, metadata, "offset", size, format, key, crc '
    "FROM event WHERE position = 1"
)


def last_closer(path: str) -> None:
    """Run another program that opens the file, reads, and closes as if it were the last to have it open."""
    subprocess.run([sys.executable, "-c", OPEN_AND_CLOSE, path], check=True, timeout=100)


def careless_close(path: str) -> None:
    """Read the header in this process: closing the file drops every POSIX lock that the process has on it."""
    with open(path, "rb") as file:
        file.read(16)


@pytest.fixture
def unguarded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system without locks of open file descriptions (F_OFD_SETLK)."""
    monkeypatch.setattr(FileGuard, "lock_shared", lambda self: None)


@pytest.mark.skipif(not hasattr(__import__("fcntl"), "F_OFD_SETLK"), reason="locks of descriptions are Linux's")
def test_a_careless_close_takes_nothing_from_a_guarded_store(path: str, store: ef.Store) -> None:
    """Without the process's POSIX locks, the guard still shows other programs that they are not the last."""
    for round in range(4):
        store.append(noted(round))
        careless_close(path)
        last_closer(path)
        assert os.path.exists(path + "-wal")
    store.append(noted(9))
    with ef.Store(path) as again:
        assert [recorded.event.n for recorded in again.read()] == [0, 1, 2, 3, 9]


@pytest.mark.skipif(not hasattr(__import__("fcntl"), "F_OFD_SETLK"), reason="locks of descriptions are Linux's")
def test_no_other_program_can_end_the_write_ahead_log_under_a_store(path: str, store: ef.Store) -> None:
    """Switching the journal mode needs exclusive access, and does not get it, with or without careless closes."""
    store.append(noted(1))
    careless_close(path)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        foreign_now(path, "PRAGMA journal_mode = delete")
    store.append(noted(2))
    assert store.count() == 2


def foreign_now(path: str, sql: str) -> None:
    """Run another program's statement, without waiting for locks."""
    code = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute(sys.argv[2])"
    ran = subprocess.run([sys.executable, "-c", code, path, sql], capture_output=True, text=True, timeout=100)
    if ran.returncode:
        raise sqlite3.OperationalError(ran.stderr.strip().splitlines()[-1])


@pytest.mark.usefixtures("unguarded")
@pytest.mark.parametrize("written_before", [0, 3])
def test_without_a_guard_a_lost_write_ahead_log_is_noticed_at_the_next_commit(path: str, written_before: int) -> None:
    """Nothing written to a removed write-ahead log is acknowledged; repeated after reopening, it is written once."""
    with ef.Store(path) as store:
        for n in range(written_before):
            store.append(noted(n))
        careless_close(path)
        last_closer(path)
        assert not os.path.exists(path + "-wal")
        draft = ef.Draft(noted(9), id=uuid4())
        with pytest.raises((AppendUnconfirmed, StoreDamaged)):
            store.using(attempts=1).append(draft)
        with pytest.raises(StoreDamaged):
            store.append(draft)
        with pytest.raises(StoreDamaged):
            list(store.read())
    with ef.Store(path) as store:
        store.append(draft)
        assert [recorded.event.n for recorded in store.read()] == [*range(written_before), 9]
    assert assert_whole(path) == written_before + 1


@pytest.mark.usefixtures("unguarded")
def test_a_follower_raises_when_the_log_was_lost(path: str) -> None:
    """A follower of a file whose write-ahead log was removed raises, instead of waiting without end."""
    with ef.Store(path) as store:
        store.append(noted(1))
        with store.follow() as follower:
            pages = follower.pages(timeout=40)
            assert len(next(pages)) == 1
            careless_close(path)
            last_closer(path)
            with pytest.raises(StoreDamaged):
                next(pages)


def test_another_connection_of_the_process_does_not_take_the_log_away(path: str, store: ef.Store) -> None:
    """Opening and closing the standard library's SQLite in the same process is also a careless close."""
    for n in range(3):
        store.append(noted(n))
        assert foreign(path, "SELECT count(*) FROM event") == [(n + 1,)]
        last_closer(path)
    assert assert_whole(path) == 3


def test_two_stores_of_one_process_may_come_and_go(path: str, process: Callable[..., Other]) -> None:
    """Closing one of them drops the other's POSIX locks, and still no other program closes as the last one."""
    with ef.Store(path) as first:
        first.append(noted(0))
        for n in range(1, 4):
            with ef.Store(path) as second:
                second.append(noted(n))
            last_closer(path)
            first.append(noted(10 * n))
        assert [recorded.event.n for recorded in first.read()] == [0, 1, 10, 2, 20, 3, 30]
    assert assert_whole(path) == 7


# ------------------------------------------------------------------------------------------ the log is append-only

CHANGES = f"""
    UPDATE event SET data = x'7b7d' WHERE position = 1
    UPDATE event SET position = 77 WHERE position = 1
    UPDATE OR REPLACE event SET id = (SELECT id FROM event WHERE position = 2) WHERE position = 1
    DELETE FROM event WHERE position = 2
    DELETE FROM event
    INSERT OR REPLACE INTO event SELECT * FROM event WHERE position = 1
    REPLACE INTO event SELECT 9, id, {REST}
    INSERT INTO event SELECT * FROM event WHERE position = 1 ON CONFLICT DO UPDATE SET data = x'00'
    INSERT INTO event SELECT 9, x'00', {REST}
    INSERT OR IGNORE INTO event SELECT 0, x'00', {REST}
    UPDATE type SET name = 'Other'
    DELETE FROM type
    REPLACE INTO type SELECT id, 'Other' FROM type
    REPLACE INTO type SELECT id + 1, name FROM type
    UPDATE tag SET name = name || 'x'
    DELETE FROM tag
    REPLACE INTO tag SELECT id, name || 'x' FROM tag
    REPLACE INTO tag SELECT id + 100, name FROM tag
    UPDATE posting SET last = last + 1
    DELETE FROM posting WHERE tag = 1
    REPLACE INTO posting SELECT run, tag, last, 2, positions, crc FROM posting WHERE tag = 1
    INSERT INTO posting SELECT run, tag + 100, last, type, positions, crc FROM posting WHERE tag = 1
    UPDATE run SET "end" = "end" + 1
    UPDATE run SET state = 0
    DELETE FROM run
    REPLACE INTO run SELECT start, id, "end", 2, crc FROM run
    UPDATE request SET first = 2
    DELETE FROM request
    REPLACE INTO request SELECT key, 2, crc FROM request
    UPDATE store SET id = 'another'
    DELETE FROM store
    REPLACE INTO store VALUES (1, 'another', 1, 0, 0)
""".strip().splitlines()


@pytest.mark.parametrize("change", [line.strip() for line in CHANGES])
def test_the_database_itself_refuses_to_change_the_log(path: str, change: str) -> None:
    """Any program that sends SQL to the file is refused, also where REPLACE deletes without a delete trigger."""
    with ef.Store(path) as store:
        store.append(noted(1), key="once")
        store.append(noted(2), noted(3))
        merge(engine_of(store))
        before = snapshot(path)
        with pytest.raises(sqlite3.DatabaseError, match="eventfold: "):
            foreign(path, change)
        assert snapshot(path) == before
        assert [recorded.event.n for recorded in store.read()] == [1, 2, 3]


def snapshot(path: str) -> list[object]:
    """Return every row of the log's tables."""
    tables = ("event", "type", "tag", "run", "posting", "request", "store")
    return [foreign(path, f"SELECT * FROM {table} ORDER BY 1, 2") for table in tables]


def test_a_posting_that_another_program_adds_is_found(path: str) -> None:
    """To a run of its own: reads by the tag then raise, and a check reports it."""
    with ef.Store(path) as store:
        store.append(noted(1, "a"))
        store.append(noted(2, "b"))
        merge(engine_of(store))
        foreign(path, "INSERT INTO run VALUES (2, 77, 3, 0, 0)")
        foreign(path, "INSERT INTO posting SELECT 77, tag, 3, type, positions, crc FROM posting WHERE run <> 77")
        foreign(path, "UPDATE run SET state = 1")
        assert [problem.what for problem in engine_of(store).check() if "row of run" in problem.what]
        with pytest.raises(StoreDamaged):
            list(store.read(ef.Query.of(tags="who:a")))


def test_a_store_whose_guards_were_dropped_is_refused(path: str) -> None:
    """Dropping a trigger cannot be prevented, so opening notices it; tables of other programs may exist in the file."""
    with ef.Store(path) as store:
        store.append(noted(1))
    foreign(path, "CREATE TABLE mine (a)")
    with ef.Store(path) as store:
        assert store.count() == 1
    foreign(path, "DROP TRIGGER event_no_delete")
    with pytest.raises(StoreDamaged, match="event_no_delete"):
        ef.Store(path)


def test_the_definitions_are_compared_with_those_of_a_new_store(tmp_path: Path) -> None:
    """Opening compares everything that a new store contains: nothing is left out of the comparison."""
    path = str(tmp_path / "new.db")
    ef.Store(path).close()
    found = foreign(path, "SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL")
    assert set(found) == schema.expected_definitions()


# ------------------------------------------------------------------------------------------ journal modes


@pytest.mark.parametrize("mode", ["delete", "truncate", "persist"])
def test_a_journal_mode_that_another_program_set_is_set_back(path: str, mode: str) -> None:
    """No other program has the file open: the store opens, appends at once, and is in WAL mode again."""
    with ef.Store(path) as store:
        store.append(noted(1))
    assert foreign(path, f"PRAGMA journal_mode = {mode}") == [(mode,)]
    began = time.monotonic()
    with ef.Store(path, timeout=160) as store:
        assert store.append(noted(2)).last == 2
        assert time.monotonic() - began < 40
        assert foreign(path, "PRAGMA journal_mode") == [("wal",)]
    assert assert_whole(path) == 2


def test_a_journal_mode_that_cannot_be_set_back_is_refused_at_once(path: str, process: Callable[..., Other]) -> None:
    """While another program uses the file, opening is refused within seconds; after it has closed, the store opens."""
    with ef.Store(path) as store:
        store.append(noted(1))
    foreign(path, "PRAGMA journal_mode = delete")
    other = process()
    other(f"reading = sqlite3.connect({path!r}, isolation_level=None); reading.execute('BEGIN')")
    other("reading.execute('SELECT * FROM store').fetchall()")
    began = time.monotonic()
    with pytest.raises(StoreUnsafe, match="journal_mode=delete"):
        ef.Store(path, timeout=160)
    assert time.monotonic() - began < 40
    with ef.Store(path, readonly=True) as store:  # a read-only store needs no WAL mode
        assert store.count() == 1
    other("reading.close()")
    with ef.Store(path) as store:
        assert store.append(noted(2)).last == 2


@pytest.mark.usefixtures("unguarded")
def test_a_journal_mode_changed_under_an_open_store_is_noticed(path: str) -> None:
    """Where no lock prevents the change, no append is acknowledged, and new connections are refused."""
    with ef.Store(path) as store:
        store.append(noted(1))
        careless_close(path)
        foreign(path, "PRAGMA journal_mode = delete")
        with pytest.raises((AppendUnconfirmed, StoreUnsafe, StoreDamaged)):
            store.using(attempts=1).append(noted(2))
        with pytest.raises((StoreUnsafe, StoreDamaged)):
            store.count()
    with ef.Store(path) as store:
        assert store.append(noted(3)).last == store.count()
    assert assert_whole(path) == store_count(path)


def store_count(path: str) -> int:
    """Return the number of events, by SQL."""
    return foreign(path, "SELECT count(*) FROM event")[0][0]


# ------------------------------------------------------------------------------------------ memory


@pytest.mark.skipif(memory_file_system("/dev/shm") != "tmpfs", reason="this system has no file system in memory there")
def test_a_store_in_memory_is_logged_as_a_warning(memory_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The warning is logged once for each path and process, by the logger "eventfold"; `stats` reports it, too."""
    path = str(memory_folder / "log.db")
    with caplog.at_level("WARNING", "eventfold"):
        for _ in range(2):
            with ef.Store(path) as store:
                assert store.stats()["file_system"] == "tmpfs: nothing there survives a restart of the machine"
    (record,) = (each for each in caplog.records if path in each.getMessage())
    assert record.name == "eventfold" and "restart" in record.getMessage()


def test_a_store_on_a_disk_is_not_logged_as_a_warning(disk_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Skipped where temporary files are in memory."""
    path = str(disk_path / "log.db")
    if memory_file_system(os.path.dirname(path)):
        pytest.skip("temporary files are in memory here")
    with ef.Store(path) as store:
        assert "file_system" not in store.stats()
    assert not [each for each in caplog.records if path in each.getMessage()]
