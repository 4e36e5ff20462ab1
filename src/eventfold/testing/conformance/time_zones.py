"""Tags of equal times are equal, in whatever time zone they were written; new ones are written in UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest

import eventfold as ef
from eventfold.core.envelope import NewEvent
from eventfold.core.query import Query
from eventfold.ports.messages import Span
from eventfold.store import Store
from eventfold.testing.conformance.engine_under_test import EngineUnderTest

TEN = datetime(2026, 1, 2, 10, tzinfo=UTC)
NOON = TEN.astimezone(timezone(timedelta(hours=2)))  # the same moment
OLD, NEW = "at:2026-01-02T12:00:00+02:00", "at:2026-01-02T10:00:00+00:00"


class Booked(ef.Event, type="conformance.booked"):
    """A slot was taken."""

    at: ef.Tag[datetime]
    by: ef.Tag


class Slot(ef.State):
    """The owner of a slot."""

    at: ef.Tag[datetime]
    by: str = ""

    def evolve(self, event: Booked) -> None:
        """Fold one event."""
        self.by = event.by


class Taken(Exception):
    """A domain error: the slot is taken."""


def book(slot: Slot, by: str) -> Booked:
    """A decision: a slot is booked once."""
    if slot.by:
        raise Taken
    return Booked(slot.at, by)


def as_before(tag: str = OLD, by: str = "old", **more: Any) -> NewEvent:
    """The event as an older eventfold wrote it: with the time zone of the writer."""
    data = b'{"at":"2026-01-02T12:00:00+02:00","by":"%b"}' % by.encode()
    return NewEvent.of("conformance.booked", data, tags=[tag, f"by:{by}"], **more)


def test_a_moment_is_tagged_in_utc(store: Store) -> None:
    """A datetime is tagged in UTC whatever its time zone; one without a time zone is tagged unchanged."""
    naive = datetime(2026, 1, 2, 10)
    store.append(Booked(TEN, "a"), Booked(NOON, "b"), Booked(naive, "c"))
    assert [each.tags[0] for each in store.read()] == [NEW, NEW, "at:2026-01-02T10:00:00"]
    assert store.state(Slot(NOON)).by == store.state(Slot(TEN)).by == "b"
    assert [each.event.at.utcoffset() for each in store.read(raw=False)][1] == timedelta(hours=2)


@pytest.mark.parametrize("asked_before", [False, True], ids=["not asked before", "asked before"])
def test_an_older_spelling_is_found(store: Store, port: Any, asked_before: bool) -> None:
    """States, queries, counts and many alternatives find it; its tag stays as it was written."""
    odd = "at:2026-01-02T10:19:32+00:19:32"
    if asked_before:
        assert store.state(Slot(TEN)).by == ""
    store.append_encoded(as_before(), as_before(odd, "odd"))
    store.append(Booked(TEN + timedelta(hours=1), "other"), Booked(TEN, "new"))
    for tag in (OLD, NEW, odd, "at:2026-01-02T10:00:00Z"):
        query = Query.of(tags=tag)
        assert [each.position for each in store.read(query)] == [1, 2, 4]
        assert [each.position for each in store.read(query, backwards=True, limit=2)] == [4, 2]
        assert store.count(query) == 3
        assert [each.position for each in port.read(query, Span(until=2)).events] == [1, 2]
    many = Query.any_of([item for n in range(40) for item in Query.of(tags=f"by:{n}").items] + list(query.items))
    assert [each.position for each in store.read(many)] == [1, 2, 4]
    assert store.count(many) == 3
    both = Query.of(types=Booked, tags=[NEW, "by:odd"])
    assert [each.position for each in store.read(both)] == [2]
    assert store.state(Slot(NOON)).by == "new"
    assert [each.tags[0] for each in store.read()][:2] == [OLD, odd]


def test_a_decision_over_a_moment_sees_older_spellings(store: Store) -> None:
    """A decision includes an event that has another spelling of the same time."""
    store.append_encoded(as_before())
    for at in (TEN, NOON):
        with pytest.raises(Taken):
            store.decide(book, Slot(at), "late")


def test_a_decision_over_a_moment_conflicts_with_older_spellings(
    faults: Any, engine_under_test: EngineUnderTest
) -> None:
    """If another spelling is written between the read and the append, the decision is repeated."""
    store, planned = faults()
    store.append(Booked(TEN + timedelta(hours=1), "other"))
    rival = engine_under_test.rival()
    planned.before(lambda: rival.append_encoded(as_before()))
    with pytest.raises(Taken):
        store.decide(book, Slot(NOON), "late")
    assert store.state(Slot(TEN)).by == "old"
    assert store.head() == 2


def test_a_condition_over_a_moment_holds_for_every_spelling(store: Store) -> None:
    """Any spelling of a time conflicts with any other spelling of it."""
    store.append_encoded(as_before(by="first"), unless=Query.of(tags=NEW))
    for tag in (OLD, NEW):
        with pytest.raises(ef.AppendConflict):
            store.append(Booked(TEN, "second"), unless=Query.of(tags=tag))
    with pytest.raises(ef.AppendConflict):
        store.append(Booked(TEN, "second"), unless=Slot(NOON))
    assert store.append(Booked(TEN, "second"), unless=Slot(NOON), after=1).first == 2


def test_an_append_is_the_same_however_its_moments_are_spelled(store: Store) -> None:
    """If a newer eventfold repeats an append with the same ids, it is written once."""
    identity = UUID(int=7)
    first = store.append_encoded(as_before(id=identity))
    again = store.append(ef.Draft(Booked(NOON, "old"), id=identity))
    assert (again.first, again.repeated, again.digest) == (first.first, True, first.digest)
    with pytest.raises(ef.EventfoldError) as refused:
        store.append(ef.Draft(Booked(TEN + timedelta(hours=1), "old"), id=identity))
    assert refused.value.code == "event-id-reused"
    assert store.head() == 1
