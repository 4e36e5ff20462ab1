"""Aggregates: which events an aggregate refuses to record."""

from __future__ import annotations

import pytest

import eventfold as ef
from eventfold.errors import InvalidDecision


class Placed(ef.Event, type="aggregates.placed"):
    """An event that the aggregate folds: it has both keys."""

    hall: ef.Tag
    shelf: ef.Tag


class Moved(ef.Event, type="aggregates.moved"):
    """An event that no aggregate selects: it has the second key only, and may leave its value out."""

    shelf: ef.Tag[str | None] = None


class Place(ef.Aggregate):
    """An aggregate with two tag fields."""

    hall: ef.Tag
    shelf: ef.Tag

    def evolve(self, event: Placed) -> None:
        """Keep nothing."""


def test_events_of_the_aggregate_are_recorded() -> None:
    """An event of a class without the aggregate's first key is accepted, if its second key names the aggregate."""
    place = Place("h-1", "s-1")
    events = [Placed("h-1", "s-1"), Moved("s-1")]
    for event in events:
        place.record(event)
    assert place.recorded() == events


@pytest.mark.parametrize(
    ("event", "what"), [(Moved("s-2"), "shelf s-2"), (Moved(), "no shelf")], ids=["another", "none"]
)
def test_an_event_of_another_entity_is_not_recorded(event: Moved, what: str) -> None:
    """Every key that the event class has is compared; the message names the entity that the event belongs to."""
    place = Place("h-1", "s-1")
    with pytest.raises(InvalidDecision, match=rf"The Place of shelf s-1 recorded a Moved of {what}\."):
        place.record(event)
    assert place.recorded() == []


def test_an_event_that_evolve_does_not_name_is_appended_and_not_folded() -> None:
    """Within the decision the state is what a later fold returns: `evolve` does not get an event of another class."""

    class Order(ef.Aggregate):
        shelf: ef.Tag
        placed: int = 0

        def evolve(self, event: Placed) -> None:
            self.placed += 1

        def move(self) -> None:
            self.record(Moved(self.shelf))
            self.record(Placed("h-1", self.shelf))
            assert self.placed == 1

    with ef.Store("memory:") as store:
        assert len(store.decide(Order.move, Order("s-1")).events) == 2
        assert store.state(Order("s-1")).placed == 1
