"""Name dictionaries under faults: an id freed by a rollback must not stay cached for its old name."""

from __future__ import annotations

import random
import threading
from collections import Counter

import apsw
import pytest

import eventfold as ef
from eventfold.concurrency.run import run
from eventfold.core.envelope import new_id
from eventfold.core.query import ConditionClause, Query
from eventfold.engines.sqlite.batch import Batch
from eventfold.errors import AppendConflict, EventIdReused, StoreDamaged
from eventfold.ports.messages import Span
from tests.engines.sqlite.noted import assert_whole, engine_of, foreign, merge, raw, request, written


def test_a_freed_id_is_not_cached_for_a_type_that_was_rolled_back(store: ef.Store) -> None:
    """The id of a type from a refused append goes to the next new type; no event may be stored under the old name."""
    engine = engine_of(store)
    existing = raw(1, "a:1")
    run(engine.append_many([request(existing)]))
    refused, keyed, later = run(
        engine.append_many(
            [
                request(raw(2, "b:1", "c:1", type="Never", id=existing.id)),  # refused only when it is inserted
                request(raw(3), key="k"),  # has to see the requests before it in the batch
                request(raw(4, "d:1", type="Later")),  # gets the freed ids
            ]
        )
    )
    assert isinstance(refused, EventIdReused)
    assert written(keyed).first == 2 and written(later).first == 3
    assert run(engine.read(Query.of(types="Never"), Span())).events == []
    assert run(engine.read(Query.of(tags="b:1"), Span())).events == []
    again = written(run(engine.append_many([request(raw(5, "b:1", "c:1", type="Never"))]))[0])
    stored = run(engine.read(Query(), Span())).events
    assert [(event.type, event.tags) for event in stored[2:]] == [("Later", "d:1"), ("Never", "b:1\nc:1")]
    for tag, position in (("b:1", again.first), ("d:1", 3)):
        assert [event.position for event in run(engine.read(Query.of(tags=tag), Span())).events] == [position]
    assert not list(engine.check())


def test_a_condition_on_a_new_type_caches_no_id_that_a_rollback_frees(store: ef.Store) -> None:
    """A condition looks the type up in the transaction that creates it; the next attempt has to create it again."""
    engine = engine_of(store)
    existing = raw(1, "a:1")
    run(engine.append_many([request(existing)]))
    merge(engine)  # conditions ask the tables only up to the mark
    created, refused, repeated = run(
        engine.append_many(
            [
                request(raw(2, "b:1", type="New")),
                request(raw(3), unless=(ConditionClause(Query.of(types="New")),)),
                request(existing),  # known only when it is inserted: the first attempt is rolled back
            ]
        )
    )
    assert written(created).first == 2 and written(repeated).repeated
    assert isinstance(refused, AppendConflict)
    run(engine.append_many([request(raw(4, type="Later"))]))  # would get the freed id
    assert [event.type for event in run(engine.read(Query(), Span())).events][1:] == ["New", "Later"]
    assert not list(engine.check())


def test_names_inserted_by_a_failed_batch_are_forgotten(store: ef.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever ends a batch, a full disk or a bug, its new names were not stored."""
    engine = engine_of(store)
    with monkeypatch.context() as broken:
        broken.setattr(Batch, "insert", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(engine.append_many([request(raw(1, "old:1", type="Old"))]))
    run(engine.append_many([request(raw(2, "new:1", type="New"))]))
    run(engine.append_many([request(raw(3, "old:1", type="Old"))]))
    assert [each.type for each in run(engine.types())] == ["New", "Old"]
    assert [event.type for event in run(engine.read(Query.of(tags="old:1"), Span())).events] == ["Old"]
    assert not list(engine.check())


@pytest.mark.parametrize("seed", range(3))
def test_names_stay_correct_while_batches_fail_and_readers_query(store: ef.Store, path: str, seed: int) -> None:
    """Batches with new names and repeated ids are rolled back and run again, while readers query all the names."""
    engine, dice = engine_of(store), random.Random(seed)
    names = [f"n:{n}" for n in range(120)]
    stop = threading.Event()
    failed: list[BaseException] = []

    def look() -> None:
        mine = random.Random(seed)
        try:
            while not stop.is_set():
                name = mine.choice(names)
                for event in run(engine.read(Query.of(types=f"T{name}", tags=name), Span())).events:
                    assert event.tag_set[0] == name or name in event.tag_set
                    assert event.type == f"T{name}"
        except BaseException as error:  # noqa: BLE001 (the test reports what a thread raised)
            failed.append(error)

    readers = [threading.Thread(target=look) for _ in range(3)]
    for reader in readers:
        reader.start()
    expected: Counter[tuple[str, str]] = Counter()
    ids = [new_id()]
    for n in range(60):
        batch = []
        for _ in range(dice.randint(1, 6)):
            name = dice.choice(names)
            identity = dice.choice(ids) if dice.random() < 0.2 else new_id()
            key = f"k{n}-{dice.random()}" if dice.random() < 0.3 else None
            batch.append(request(raw(n, name, type=f"T{name}", id=identity), key=key))
        for each, outcome in zip(batch, run(engine.append_many(batch)), strict=True):
            if not isinstance(outcome, EventIdReused) and not written(outcome).repeated:
                expected[each.events[0].type, each.events[0].tags[0]] += 1
                ids.append(each.events[0].id)
    stop.set()
    for reader in readers:
        reader.join()
    assert not failed
    stored = run(engine.read(Query(), Span(limit=10_000))).events
    assert Counter((event.type, event.tags) for event in stored) == expected
    for table, cache in (("type", engine._names.types), ("tag", engine._names.tags)):
        truth = dict(foreign(path, f"SELECT name, id FROM {table}"))
        assert cache._ids_by_name.items() <= truth.items()
        assert {(name, number) for number, name in cache.names_by_id.items()} <= set(truth.items())
    assert assert_whole(path) == len(stored)


def test_a_full_cache_of_names_is_emptied_and_filled_again(store: ef.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store may have more tags than a process can cache."""
    monkeypatch.setattr("eventfold.engines.sqlite.dictionary.MAX_CACHED_NAMES", 10)
    engine = engine_of(store)
    for n in range(40):
        run(engine.append_many([request(raw(n, f"t:{n}", f"u:{n % 15}", type=f"T{n % 12}"))]))
    assert len(engine._names.tags._ids_by_name) <= 10
    for n in range(40):
        found = run(engine.read(Query.of(types=f"T{n % 12}", tags=f"t:{n}"), Span())).events
        assert [event.type for event in found] == [f"T{n % 12}"]
    assert not list(engine.check())


def test_a_name_and_its_number_must_agree_in_both_directions(store: ef.Store) -> None:
    """A dictionary whose index and table differ is reported as damage; no other name's events are returned."""
    engine = engine_of(store)
    run(engine.append_many([request(raw(1, "a:1")), request(raw(2, "b:1"))]))
    merge(engine)
    engine._names.tags._ids_by_name.clear()
    engine._names.tags._by_id = "SELECT 'b:1' WHERE ? > 0"  # the answer of a changed page
    with pytest.raises(StoreDamaged, match="id of another"):
        run(engine.read(Query.of(tags="a:1"), Span()))
    engine._names.types.names_by_id.clear()
    engine._names.types._by_name = "SELECT 77 WHERE ? > ''"
    with pytest.raises(StoreDamaged, match="no name of its own"):
        run(engine.read(Query(), Span()))


def test_names_of_a_merge_are_looked_up_and_created_together(store: ef.Store) -> None:
    """Names that are cached, stored, created a moment ago and new get their ids in one call, as one by one."""
    engine = engine_of(store)
    run(engine.append_many([request(raw(1, "cached:1", "stored:1"))]))
    merge(engine)
    tags = engine._names.tags
    stored = tags._ids_by_name.pop("stored:1")
    assert engine._writer is not None
    writer = engine._writer

    def work(connection: apsw.Connection) -> None:
        created = tags.ensure(connection, "created:1")
        names = ["new:2", "cached:1", "created:1", "stored:1", "new:1"]
        found = tags.ensure_all(connection, names)
        assert found == [created + 1, tags._ids_by_name["cached:1"], created, stored, created + 2]
        assert tags.ensure_all(connection, names) == found == [tags.ensure(connection, name) for name in names]

    writer.transact(work)
    assert set(tags._ids_by_name) >= {"new:1", "new:2", "created:1", "stored:1"}
    run(engine.append_many([request(raw(2, "new:1"))]))
    merge(engine)
    assert [each.position for each in run(engine.read(Query.of(tags="new:1"), Span())).events] == [2]


def test_names_of_a_merge_that_disagree_with_their_table_are_damage(store: ef.Store) -> None:
    """The index of names is compared with the table before an entry is written under an id."""
    engine = engine_of(store)
    run(engine.append_many([request(raw(1, "a:1")), request(raw(2, "b:1"))]))
    merge(engine)
    tags = engine._names.tags
    tags._ids_by_name.clear()
    tags._pair_by_id = "SELECT 'b:1', ?"  # the answer of a changed page
    run(engine.append_many([request(raw(3, "a:1"))]))
    assert engine._writer is not None
    with pytest.raises(StoreDamaged, match="id of another"):
        engine._writer._run_alone(engine._writer._final_merge)
    assert run(engine.read(Query(), Span(after=2))).events[0].tags == "a:1"
