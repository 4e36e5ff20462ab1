"""A store file that is a copy of a log elsewhere: it takes imports only, of its own log, from several processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eventfold.concurrency import run
from eventfold.core.envelope import NewEvent, StoredEvent
from eventfold.core.query import Query
from eventfold.engines.sqlite import SqliteEngine
from eventfold.engines.sqlite.replica_engine import SqliteReplica
from eventfold.engines.sqlite.writer import Writer
from eventfold.errors import EventfoldError, ReplicaMismatch, StoreDamaged, StoreReadOnly
from eventfold.ports.messages import AppendRequest, Span
from eventfold.ports.services import ReplicaOf, require
from eventfold.store import Store

OF = ReplicaOf("ab" * 16, 3, "nats://a,b,c/store")
SPAWN = multiprocessing.get_context("spawn")


def events(first: int, last: int) -> list[StoredEvent]:
    """Events of one log, each an append of its own, but for every tenth and the one before it."""
    found: list[StoredEvent] = []
    for position in range(first, last + 1):
        offset, size = {9: (0, 2), 0: (1, 2)}.get(position % 10, (0, 1))
        tags = f"account:{position % 7}\norder:{position}"
        identity = position.to_bytes(16)
        found.append(
            StoredEvent(position, identity, "Deposited", 1, b'{"n":1}', tags, position, offset=offset, size=size)
        )
    return found


@pytest.fixture
def path(tmp_path: Path) -> str:
    """The path of a copy."""
    return str(tmp_path / "copy.db")


def opened(path: str, of: ReplicaOf = OF, **options: Any) -> SqliteReplica:
    """The copy, opened."""
    engine = SqliteReplica(path, of, **options)
    run(engine.open())
    return engine


@pytest.fixture
def copy(path: str) -> Iterator[SqliteReplica]:
    """A copy with ten events."""
    engine = opened(path)
    run(require(engine, "replica").import_events(events(1, 10), [("k", 3)]))
    yield engine
    run(engine.close())


def request() -> AppendRequest:
    """One event."""
    return AppendRequest((NewEvent.of("Deposited", b"{}"),))


def test_it_has_the_identity_of_its_log(path: str, copy: SqliteReplica) -> None:
    """Store id and epoch are those of the log, also after it is opened again."""
    assert (copy.store_id, copy.epoch, copy.capabilities.durable) == (OF.store_id, OF.epoch, False)
    run(copy.close())
    again = opened(path)
    assert (again.store_id, again.epoch, run(again.head()).position) == (OF.store_id, OF.epoch, 10)
    assert run(again.stats())["copy_of"] == OF.address
    run(again.close())


@pytest.mark.parametrize("plainly", [False, True], ids=["as a copy", "as a store"])
def test_it_refuses_appends(path: str, copy: SqliteReplica, plainly: bool) -> None:
    """An append to it names the address of the log; as a plain store it can be read, and nothing else."""
    engine = copy
    if plainly:
        engine = SqliteEngine(path)
        run(engine.open())
    services = engine.services
    assert services.replication is not None
    calls = [
        engine.append_many([request()]),
        services.replication.import_events(events(12, 12)),
        services.replication.take_identity("0" * 32, 1),
    ]
    if plainly:
        calls.append(require(engine, "replica").import_events(events(12, 12)))
    for call in calls:
        with pytest.raises(StoreReadOnly) as refused:
            run(call)
        assert OF.address in refused.value.what
        assert OF.address in refused.value.remedy
    assert (run(engine.head()).position, len(run(engine.read(Query(), Span())).events)) == (10, 10)
    run(engine.close())


def test_a_store_that_becomes_a_copy_while_it_is_open_takes_no_more_events(path: str) -> None:
    """An empty file that another process had open as a store: the trigger of the copy refuses its events."""
    engine = SqliteEngine(path)
    run(engine.open())
    copy = opened(path)
    with pytest.raises(EventfoldError):
        run(engine.append_many([request()]))
    run(require(copy, "replica").import_events(events(1, 3)))
    assert run(copy.head()).position == 3
    run(engine.close())
    run(copy.close())


def test_another_program_cannot_insert_events(path: str, copy: SqliteReplica) -> None:
    """A statement of another program is refused by the database."""
    run(copy.close())
    with sqlite3.connect(path) as other:
        for statement in (
            "INSERT INTO event SELECT 11, x'00', type, version, data, tags, time, occurred, metadata, \"offset\", size,"
            " format, key, crc FROM event WHERE position = 10",
            "INSERT INTO request (key, first, crc) VALUES ('new', 1, 0)",
        ):
            with pytest.raises(sqlite3.IntegrityError, match="a copy of a log"):
                other.execute(statement)


OTHERS = {
    "another store": ReplicaOf("cd" * 16, 3, OF.address),
    "another epoch": ReplicaOf("ab" * 16, 4, OF.address),
}


@pytest.mark.parametrize("of", OTHERS.values(), ids=OTHERS.keys())
def test_a_copy_of_another_log_is_refused_at_open(path: str, copy: SqliteReplica, of: ReplicaOf) -> None:
    """The error names the file, which is not changed; an empty copy is made one of the other log."""
    run(copy.close())
    with pytest.raises(ReplicaMismatch) as refused:
        opened(path, of)
    assert refused.value.fields["path"] == path
    again = opened(path)
    assert run(again.head()).position == 10
    run(again.close())
    empty = path + ".empty"
    run(opened(empty).close())
    other = opened(empty, of)
    assert (other.store_id, other.epoch) == (of.store_id, of.epoch)
    run(other.close())


def test_a_store_of_its_own_does_not_become_a_copy(path: str) -> None:
    """A file with events that are no copy is refused, whatever its identity."""
    with Store(path) as store:
        store.append_encoded(NewEvent.of("Deposited", b"{}"))
        own = ReplicaOf(store.engine.store_id, store.engine.epoch, OF.address)
    with pytest.raises(ReplicaMismatch, match="a store of its own"):
        opened(path, own)


def test_an_import_into_a_copy_that_was_made_another_is_refused(path: str) -> None:
    """Two processes with different logs open one empty file: only the later may import."""
    first = opened(path)
    second = opened(path, OTHERS["another store"])
    with pytest.raises(ReplicaMismatch):
        run(require(first, "replica").import_events(events(1, 3)))
    run(require(second, "replica").import_events(events(1, 3)))
    run(first.close())
    run(second.close())


def test_a_log_with_an_id_twice_is_reported(copy: SqliteReplica) -> None:
    """An event id that is at two positions of the log is named with both."""
    twice = events(12, 13)
    twice[1].id = (4).to_bytes(16)
    run(require(copy, "replica").import_events(events(11, 11)))
    with pytest.raises(StoreDamaged, match="positions 4 and 13"):
        run(require(copy, "replica").import_events(twice))
    assert run(copy.head()).position == 11


def test_a_backup_of_a_copy_is_a_store_of_its_own(path: str, copy: SqliteReplica) -> None:
    """The backup has a later epoch, and takes appends; the copy itself cannot be restored in place."""
    copy.backup(path + ".backup")
    with Store(path + ".backup") as store:
        assert (store.engine.store_id, store.engine.epoch) == (OF.store_id, OF.epoch + 1)
        assert store.append_encoded(NewEvent.of("Deposited", b"{}")).first == 11
    run(copy.close())
    with pytest.raises(StoreReadOnly):
        run(SqliteEngine(path).restored())
    assert run(opened(path).head()).position == 10


def test_a_copy_can_be_copied_and_takes_its_place(path: str, copy: SqliteReplica) -> None:
    """The file that `copy_to` writes is a copy of the same log, which is imported further."""
    run(require(copy, "replica").copy_to(path + ".two"))
    run(require(copy, "replica").import_events(events(11, 12)))
    again = opened(path + ".two")
    assert run(again.head()).position == 10
    run(require(again, "replica").import_events(events(1, 12)))
    assert run(again.head()) == run(copy.head())
    run(again.close())
    verify(path + ".two", 12)


def import_all(path: str, last: int, step: int, started: Any) -> None:
    """Import a log from its first event on, in calls of `step` events (a multiple of ten), beside others."""
    engine = opened(path, merge_events=500)
    started.wait(60)
    replica = require(engine, "replica")
    for first in range(1, last, step):
        run(replica.import_events(events(first, min(last, first + step - 1))))
    run(engine.close())


def verify(path: str, last: int) -> None:
    """Every event is there once, and the index agrees with the events."""
    engine = opened(path)
    assert list(engine.check()) == []
    assert run(engine.head()).position == last
    assert run(engine.count(Query.of(tags=["account:3"]))) == sum(n % 7 == 3 for n in range(1, last + 1))
    run(engine.close())


@pytest.mark.parametrize("moment", ["_open_as_copy", "_transact_alone"])
def test_another_process_may_mark_and_fill_the_file_while_it_is_opened(
    path: str, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """A process that read the identity of the new file before another one made it a copy opens that copy."""
    target = SqliteReplica if moment == "_open_as_copy" else Writer
    original = getattr(target, moment)

    def late(self: Any, *arguments: Any) -> Any:
        monkeypatch.setattr(target, moment, original)
        other = opened(path)
        run(require(other, "replica").import_events(events(1, 10)))
        run(other.close())
        return original(self, *arguments)

    monkeypatch.setattr(target, moment, late)
    copy = opened(path)
    run(require(copy, "replica").import_events(events(1, 20)))
    assert (copy.store_id, copy.epoch, run(copy.head()).position) == (OF.store_id, OF.epoch, 20)
    run(copy.close())


def test_several_processes_import_the_same_log_at_once(path: str) -> None:
    """Three processes import everything in calls of different sizes; every event is there once."""
    started = SPAWN.Event()
    workers = [SPAWN.Process(target=import_all, args=(path, 3_010, step, started)) for step in (20, 30, 70)]
    for each in workers:
        each.start()
    started.set()
    for each in workers:
        each.join(120)
    assert [each.exitcode for each in workers] == [0, 0, 0]
    verify(path, 3_010)


def test_a_process_that_is_killed_while_it_imports_leaves_whole_appends(path: str) -> None:
    """Killed at several points, and continued by others: nothing is missing, nothing is there twice."""
    for least in (200, 900, 1_600):
        started = SPAWN.Event()
        started.set()
        worker = SPAWN.Process(target=import_all, args=(path, 2_010, 10, started))
        worker.start()
        watching = opened(path)
        while worker.is_alive() and run(watching.head()).position < least:
            worker.join(0.005)
        if worker.pid is not None and worker.is_alive():
            os.kill(worker.pid, signal.SIGKILL)
        worker.join(60)
        head = run(watching.head()).position
        assert run(watching.boundary(head)) == head
        run(watching.close())
    run_to_the_end = SPAWN.Event()
    run_to_the_end.set()
    import_all(path, 2_010, 100, run_to_the_end)
    verify(path, 2_010)
