"""Aggregates: which events an aggregate refuses to record."""

from __future__ import annotations

import pytest

import eventfold as ef
from eventfold.errors import InvalidDecision


class Moved(ef.Event, type="aggregates.moved"):
    """An event with a tag of one of the aggregate's two keys, which it may leave out."""

    shelf: ef.Tag[str | None] = None


class Place(ef.Aggregate):
    """An aggregate with two tag fields."""

    room: ef.Tag
    shelf: ef.Tag
    moves: int = 0

    def evolve(self, event: Moved) -> None:
        """Count."""
        self.moves += 1


def test_an_event_of_the_aggregate_is_recorded_and_folded() -> None:
    """An event need not have all keys of the aggregate; those that it has name the aggregate."""
    place = Place("r-1", "s-1")
    place.record(Moved("s-1"))
    assert (place.recorded(), place.moves) == ([Moved("s-1")], 1)


@pytest.mark.parametrize(
    ("event", "what"), [(Moved("s-2"), "shelf s-2"), (Moved(), "no shelf")], ids=["another", "none"]
)
def test_an_event_of_another_entity_is_not_recorded(event: Moved, what: str) -> None:
    """Every key that the event class has is compared; the message names the entity that the event belongs to."""
    place = Place("r-1", "s-1")
    with pytest.raises(InvalidDecision, match=rf"The Place of shelf s-1 recorded a Moved of {what}\."):
        place.record(event)
    assert (place.recorded(), place.moves) == ([], 0)
