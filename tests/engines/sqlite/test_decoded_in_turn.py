"""Rows are decoded when their events are asked for: what comes before one that cannot be read, and which errors."""

from __future__ import annotations

from pathlib import Path

import pytest

import eventfold as ef
from eventfold.core.envelope import NewEvent
from eventfold.errors import UndecodableEvent

folded: list[int] = []


class Weighed(ef.Event, type="turn.weighed"):
    grams: int


class Labelled(ef.Event, type="turn.labelled", version=2):
    text: str


class Grams(ef.State):
    sum: int = 0

    def evolve(self, event: Weighed) -> None:
        folded.append(event.grams)
        if event.grams < 0:
            raise ValueError("a weight below zero")
        self.sum += event.grams


class Last(ef.State):
    position: int = 0

    def evolve(self, event: Weighed, recorded: ef.Recorded) -> None:
        self.position = recorded.position


@pytest.fixture
def store(memory_folder: Path) -> ef.Store:
    """A store in a file, with three events."""
    folded.clear()
    store = ef.Store(str(memory_folder / "log.db"))
    store.append(*map(Weighed, (1, 2, 3)))
    return store


def test_events_before_one_that_cannot_be_read_come_first(store: ef.Store) -> None:
    """Then its error, which names it; the iterator has ended then, and no event is skipped."""
    store.append_encoded(NewEvent.of("turn.weighed", b'{"grams":"much"}'))
    store.append(Weighed(5))
    reading = store.read()
    assert [next(reading).event.grams for _ in range(3)] == [1, 2, 3]
    with pytest.raises(UndecodableEvent, match=r"Event 4 no longer fits Weighed"):
        next(reading)
    assert list(reading) == []
    for state in (Grams(), Last()):
        with pytest.raises(UndecodableEvent, match=r"Event 4 no longer fits Weighed"):
            store.state(state)
    assert folded == [1, 2, 3]
    store.close()


def test_an_error_of_evolve_is_not_taken_for_one_of_the_event(store: ef.Store) -> None:
    """It passes unchanged, and evolve was called once for each event before."""
    store.append(Weighed(-1), Weighed(5))
    with pytest.raises(ValueError, match="a weight below zero"):
        store.state(Grams())
    assert folded == [1, 2, 3, -1]
    store.close()


def test_an_error_of_the_caller_is_not_taken_for_one_of_the_event(store: ef.Store) -> None:
    """An error that is raised at the place of the loop comes out as it is."""
    reading = store.read()
    assert next(reading).position == 1
    with pytest.raises(KeyError, match="of the caller"):
        for _ in reading:
            raise KeyError("of the caller")
    assert [recorded.position for recorded in reading] == [3]
    store.close()


def test_types_and_versions_may_alternate(store: ef.Store) -> None:
    """Two types of one version, of two versions, and one type in two versions."""
    store.append_encoded(NewEvent.of("turn.labelled", b'{"text":"a"}', version=1))
    store.append(Weighed(4), Labelled("b"), Weighed(5))
    read = [recorded.event for recorded in store.read()]
    assert read == [*map(Weighed, (1, 2, 3)), Labelled("a"), Weighed(4), Labelled("b"), Weighed(5)]
    assert [recorded.event for recorded in store.read(until=4)] == read[:4]
    assert [recorded.event for recorded in store.read(ef.Query.of(types=[Labelled]))] == [Labelled("a"), Labelled("b")]
    assert store.state(Grams()).sum == 15
    store.close()
