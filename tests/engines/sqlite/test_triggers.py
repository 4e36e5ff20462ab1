"""Triggers do not run for the writer's own rows, and the same rows are refused; those of users and others' rows do."""

from __future__ import annotations

import sqlite3

import apsw
import msgspec
import pytest

import eventfold as ef
from eventfold.concurrency.run import run
from eventfold.engines.sqlite.last_commit import LastCommit
from eventfold.errors import EventIdReused
from eventfold.ports.messages import Head
from tests.engines.sqlite.noted import Noted, assert_whole, engine_of, foreign, noted, raw, request, written


def is_off(store: ef.Store) -> bool:
    """Whether triggers are off on the connection that the store writes with."""
    engine = engine_of(store)
    assert engine._writer is not None
    connection = engine._writer._file.pool._writers[-1]
    return not connection.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, -1)


def test_the_log_is_guarded_against_others_while_the_writer_runs_no_triggers(path: str) -> None:
    """The switch is one of the writer's connection; the triggers stay in the file and run for every other one."""
    with ef.Store(path) as store:
        for n in range(3):
            store.append(noted(n))
        assert is_off(store)
        for change in ("DELETE FROM event", "UPDATE event SET data = x'00'", "REPLACE INTO event SELECT * FROM event"):
            with pytest.raises(sqlite3.DatabaseError, match="eventfold: "):
                foreign(path, change)
        store.append(noted(3), noted(4))
    assert assert_whole(path) == 5


@pytest.mark.parametrize("events", [1, 2, 32, 33, 34, 65, 98])
def test_a_known_id_is_found_without_triggers(path: str, events: int) -> None:
    """The unique index refuses it, and the repeated append returns the receipt of the first one."""
    with ef.Store(path) as store:
        engine, again = engine_of(store), [raw(n, "a:1") for n in range(events)]
        first = written(run(engine.append_many([request(*again)]))[0])
        store.append(noted(1))
        assert is_off(store)
        second = written(run(engine.append_many([request(*again)]))[0])
        assert (second.first, second.digest, second.repeated) == (first.first, first.digest, True)
        refused = run(engine.append_many([request(raw(77), *again)]))[0]
        assert isinstance(refused, EventIdReused)
        assert [each.stored.data for each in store.read(raw=True)][:events] == [event.data for event in again]
    assert assert_whole(path) == events + 1


@pytest.mark.parametrize("wrong", [-1, 1, 7])
@pytest.mark.parametrize("events", [1, 3])
def test_a_position_that_is_not_the_next_one_is_refused(
    path: str, monkeypatch: pytest.MonkeyPatch, wrong: int, events: int
) -> None:
    """If the writer had a wrong idea of the head, SQLite's next position would not be the one of the first row."""
    with ef.Store(path) as store:
        for n in range(3):
            store.append(noted(n))
        assert is_off(store)
        read = LastCommit.read

        def read_wrong(self: LastCommit, connection: apsw.Connection) -> object:
            known = read(self, connection)
            head = Head(known.head.position + wrong, known.head.time, known.head.id)
            return msgspec.structs.replace(known, head=head)

        with monkeypatch.context() as patch:
            patch.setattr(LastCommit, "read", read_wrong)
            with pytest.raises(ef.EventfoldError):
                store.using(attempts=1).append(*[noted(n) for n in range(events)])
        assert store.head() == 3
        store.append(noted(3))
        assert [each.event.n for each in store.read()] == [0, 1, 2, 3]
    assert assert_whole(path) == 4


def test_triggers_of_users_run(path: str) -> None:
    """One that another program adds while the store is open, until it is dropped."""
    with ef.Store(path) as store:
        store.append(noted(1))
        assert is_off(store)
        foreign(path, "CREATE TABLE seen (position INTEGER)")
        trigger = "CREATE TRIGGER seeing AFTER INSERT ON event BEGIN INSERT INTO seen VALUES (NEW.position); END"
        foreign(path, trigger)
        store.append(noted(2))
        store.append(noted(3), noted(4))
        assert not is_off(store)
        assert foreign(path, "SELECT position FROM seen") == [(2,), (3,), (4,)]
        foreign(path, "DROP TRIGGER seeing")
        store.append(noted(5))
        assert is_off(store)
        assert foreign(path, "SELECT count(*) FROM seen") == [(3,)]
    assert assert_whole(path) == 5


class Notes(ef.Projection):
    """The last number of each, folded within the append."""

    who: str
    n: int = 0

    def evolve(self, event: Noted) -> None:
        """Set the number."""
        self.n = event.n


def test_triggers_on_inline_read_models_run(path: str) -> None:
    """A user's trigger on a table of rows runs for the rows that an append folds."""
    with ef.Store(path, inline=[Notes]) as store:
        store.append(noted(1))
        found = foreign(path, "SELECT name FROM sqlite_schema WHERE type = 'table' AND sql LIKE '%\"who\"%'")
        (table,) = [name for (name,) in found]
        foreign(path, "CREATE TABLE seen (n INTEGER)")
        foreign(path, f"CREATE TRIGGER seeing AFTER INSERT ON {table} BEGIN INSERT INTO seen VALUES (NEW.n); END")
        store.append(noted(2))
        assert not is_off(store)
        assert foreign(path, "SELECT n FROM seen") == [(2,)]
    assert assert_whole(path) == 2


def test_a_transaction_of_others_runs_triggers(path: str) -> None:
    """A row that an import writes at another position than the next is refused; appends switch them off again."""
    with ef.Store(path) as store:
        store.append(noted(1))
        assert is_off(store)
        writer = engine_of(store)._writer
        assert writer is not None
        rest = 'type, version, data, tags, time, occurred, metadata, "offset", size, format, key, crc FROM event'

        def leave_a_gap(connection: apsw.Connection) -> None:
            connection.execute(f"INSERT INTO event SELECT 9, x'00', {rest}")

        with pytest.raises(apsw.ConstraintError, match="known event or position"):
            writer.transact(leave_a_gap)
        store.append(noted(2))
        assert is_off(store)
    assert assert_whole(path) == 2
