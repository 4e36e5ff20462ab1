"""Rows that are assumed to be new: inserted without a look-up, and folded again where one exists."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import apsw
import pytest

import eventfold as ef
from eventfold.core.table import Table
from eventfold.errors import ProjectionStopped
from eventfold.projections import fold
from eventfold.targets.sql.target import SqlTarget
from eventfold.targets.sql.transaction import SqlTransaction


class Weighed(ef.Event, type="assumed.weighed"):
    """A parcel was weighed."""

    parcel: ef.Tag
    grams: int


class Parcels(ef.Projection):
    """A row for each parcel."""

    parcel: str
    times: int = 0
    grams: int = 0

    def evolve(self, event: Weighed) -> None:
        """Add its weight."""
        self.times += 1
        self.grams += event.grams


class Heavy(ef.Projection):
    """A row for each parcel that was heavy when it was weighed last."""

    parcel: str
    grams: int = 0

    def evolve(self, event: Weighed) -> None:
        """Keep the last weight."""
        self.grams = event.grams

    def keep(self) -> bool:
        """Light ones are deleted."""
        return self.grams > 500


class Asked:
    """The keys that were looked up, and the rows that were inserted as new ones."""

    def __init__(self) -> None:
        self.looked_up: list[Any] = []
        self.inserted: list[Any] = []


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """What the target is asked for; with 100 rows in memory, and 40 keys without a row as evidence."""
    noted, load, insert = Asked(), SqlTarget.load, SqlTransaction.insert
    monkeypatch.setattr(fold, "MAX_CACHED_ROWS", 100)
    monkeypatch.setattr(fold, "MIN_EVIDENCE_ROWS", 40)

    def noting_load(self: SqlTarget, table: Table, keys: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
        noted.looked_up += keys
        return load(self, table, keys)

    def noting_insert(self: SqlTransaction, table: Table, rows: Sequence[Sequence[Any]]) -> None:
        noted.inserted += rows
        insert(self, table, rows)

    monkeypatch.setattr(SqlTarget, "load", noting_load)
    monkeypatch.setattr(SqlTransaction, "insert", noting_insert)
    return noted


@pytest.fixture
def path(tmp_path: Path) -> str:
    """The path of a store."""
    return str(tmp_path / "parcels.db")


@pytest.fixture
def store(path: str) -> Iterator[ef.Store]:
    """A store in a file."""
    with ef.Store(path) as opened:
        yield opened


def is_right(store: ef.Store, projection: type[Any] = Parcels) -> bool:
    """Whether rows and ledger are those of the log."""
    expected = sorted(map(repr, store.view(projection).values()))
    return sorted(map(repr, store.rows(projection))) == expected and store.projections.verify(projection)[0].proved


def test_a_row_for_each_event_is_inserted_without_a_look_up(store: ef.Store, asked: Asked) -> None:
    """While each event has had a key of its own, also in a table with more rows than are held in memory."""
    store.extend((Weighed(f"p{number}", number) for number in range(1_000)), batch=20)
    store.project(Parcels)
    assert asked.looked_up == []
    assert len(asked.inserted) > 800
    assert is_right(store)


def test_a_row_that_exists_is_found_by_the_database_and_folded_on(store: ef.Store, asked: Asked) -> None:
    """The page is rolled back and folded again with the stored row, and no row is assumed to be new any more."""
    store.extend((Weighed(f"p{number}", number) for number in range(700)), batch=20)
    store.extend([Weighed("new", 1), Weighed("p3", 1_000), Weighed("newer", 1)])
    store.extend((Weighed(f"q{number}", number) for number in range(700)), batch=20)
    store.project(Parcels)
    assert ("p3",) in asked.looked_up
    assert ("q690",) in asked.looked_up
    row = store.rows(Parcels, parcel="p3")[0]
    assert (row.times, row.grams) == (2, 1_003)
    assert is_right(store)


def test_after_a_restart_a_page_without_rows_is_the_evidence(path: str, asked: Asked) -> None:
    """Keys are looked up until a page has had none that exists."""
    with ef.Store(path) as store:
        store.extend((Weighed(f"p{number}", number) for number in range(300)), batch=20)
        store.project(Parcels)
    asked.looked_up.clear()
    asked.inserted.clear()
    with ef.Store(path) as store:
        store.extend((Weighed(f"q{number}", number) for number in range(600)), batch=20)
        store.project(Parcels)
        assert 0 < len(asked.looked_up) < 300
        assert len(asked.inserted) > 300
        store.extend((Weighed(f"p{number}", 1) for number in range(200)), batch=20)
        store.project(Parcels)
        assert is_right(store)


def test_a_model_that_deletes_rows_assumes_nothing(store: ef.Store, asked: Asked) -> None:
    """A deleted row is not inserted, so that the database would not find the one that exists."""
    store.extend((Weighed(f"p{number}", 600) for number in range(500)), batch=20)
    store.extend((Weighed(f"p{number}", 100) for number in range(0, 500, 2)), batch=20)
    store.project(Heavy)
    assert asked.inserted == []
    assert is_right(store, Heavy)


def test_a_value_that_no_column_holds_is_named_as_ever(store: ef.Store, asked: Asked) -> None:
    """The event that brings a number beyond 64 bits stops the read model; the rows before it are stored."""
    store.extend((Weighed(f"p{number}", number) for number in range(600)), batch=20)
    for event in (Weighed("a", 2**62), Weighed("b", 2**63), Weighed("c", 1)):
        store.append(event)
    with pytest.raises(ProjectionStopped, match="64 bits"):
        store.project(Parcels)
    assert len(asked.inserted) > 400
    assert len(store.rows(Parcels)) == 601


def test_a_row_that_a_trigger_refuses_is_the_handlers_error(path: str, store: ef.Store, asked: Asked) -> None:
    """The database refuses it for another reason than that it exists: the page is folded again, and names the event."""
    store.extend((Weighed(f"p{number}", number) for number in range(200)), batch=20)
    store.project(Parcels)
    connection = apsw.Connection(path)
    connection.execute(
        "CREATE TRIGGER refusing BEFORE INSERT ON parcels__1 WHEN new.parcel = 'bad' "
        "BEGIN SELECT RAISE(ABORT, 'no bad parcels'); END"
    )
    connection.close()
    store.extend((Weighed(f"q{number}", number) for number in range(600)), batch=20)
    store.extend([Weighed("bad", 1), Weighed("good", 1)])
    with pytest.raises(ProjectionStopped, match="no bad parcels"):
        store.project(Parcels)
    assert len(asked.inserted) > 200
    assert len(store.rows(Parcels)) == 800


@pytest.mark.parametrize("seed", range(12))
def test_rows_are_the_plain_fold_however_often_keys_return(path: str, asked: Asked, seed: int) -> None:
    """Random logs, in which keys are new or return soon or late; the store is opened again between them."""
    chance, count = random.Random(seed), 0
    returning = chance.choice([0.0, 0.001, 0.01, 0.3])
    for _ in range(3):
        with ef.Store(path) as store:
            events: list[Weighed] = []
            for _ in range(chance.randrange(100, 900)):
                if count and chance.random() < returning:
                    events.append(Weighed(f"p{chance.randrange(count)}", chance.randrange(1_000)))
                else:
                    events.append(Weighed(f"p{count}", chance.randrange(1_000)))
                    count += 1
            store.extend(events, batch=20)
            store.project(Parcels)
            assert is_right(store)
    assert returning or asked.inserted


def test_read_models_that_commit_together_find_their_own_rows(store: ef.Store, asked: Asked) -> None:
    """A row that exists in one of them undoes the joint transaction; each then commits its own page."""

    class Counts(ef.Projection):
        grams: int
        times: int = 0

        def evolve(self, event: Weighed) -> None:
            self.times += 1

    numbers = list(range(900))
    store.extend((Weighed(f"p{number}", number) for number in numbers), batch=20)
    store.extend((Weighed(f"p{number}", 7) for number in numbers[::300]), batch=20)
    with store.run(Parcels, Counts):
        store.wait(Parcels)
        store.wait(Counts)
    assert is_right(store)
    assert is_right(store, Counts)
    assert asked.inserted
