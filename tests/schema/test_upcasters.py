"""Upcasters merge kinds and move fields, and a chain with a gap is found before anything is written or read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

import eventfold as ef
from eventfold.errors import InvalidEvent


def leads(source: type, target: Any, function: Callable[[Any], Any]) -> None:
    """Declare a function as the way from a class of this function's own to another."""

    def step(old: Any) -> Any:
        return function(old)

    step.__qualname__ = f"step_from_{source.__qualname__}"
    step.__annotations__ = {"old": source, "return": target}
    ef.upcast(step)


class Sum(msgspec.Struct, frozen=True):
    """A value object."""

    cents: int
    currency: str


def test_two_kinds_become_one() -> None:
    """Old events of both are read as the one, and a condition over the one sees both."""

    class ByCard(ef.Event, type="merged-by-card"):
        order: ef.Tag
        cents: int
        card: str

    class InCash(ef.Event, type="merged-in-cash"):
        order: ef.Tag
        cents: int

    class Received(ef.Event, type="merged-received"):
        order: ef.Tag
        sum: Sum
        by: str

    class Paid(ef.State):
        order: ef.Tag
        cents: int = 0

        def evolve(self, event: Received) -> None:
            self.cents += event.sum.cents

    leads(ByCard, Received, lambda old: Received(old.order, Sum(old.cents, "EUR"), old.card))
    leads(InCash, Received, lambda old: Received(old.order, Sum(old.cents, "EUR"), "cash"))
    with ef.Store("memory:") as store:
        store.append(ByCard("o-1", 700, "4242"), InCash("o-1", 50), Received("o-1", Sum(1, "EUR"), "coin"))
        assert store.state(Paid("o-1")).cents == 751
        assert [recorded.event.by for recorded in store.read()] == ["4242", "cash", "coin"]
        for after in (0, 1):  # an event of either old kind stands there
            with pytest.raises(ef.AppendConflict) as conflict:
                store.append(InCash("o-2", 1), unless=Paid("o-1"), after=after)
            assert conflict.value.fields["found"] > after


def test_a_field_moves_into_an_event_of_its_own() -> None:
    """An old event with the field is read as two events, and the current code records two."""

    class Placed(ef.Event, type="moving-placed"):
        order: ef.Tag

    class Addressed(ef.Event, type="moving-addressed"):
        order: ef.Tag
        street: str

    class PlacedWithAddress(ef.Event, type="moving-placed-with-address"):
        order: ef.Tag
        street: str

    leads(
        PlacedWithAddress, tuple[Placed, Addressed], lambda old: (Placed(old.order), Addressed(old.order, old.street))
    )
    with ef.Store("memory:") as store:
        store.append(PlacedWithAddress("o-1", "Elm 1"), Placed("o-2"), Addressed("o-2", "Oak 2"))
        read = [recorded.event for recorded in store.read()]
    assert read == [Placed("o-1"), Addressed("o-1", "Elm 1"), Placed("o-2"), Addressed("o-2", "Oak 2")]


def test_a_chain_with_a_gap_is_found_before_anything_is_written() -> None:
    """Version 2 leads nowhere: the first event of version 3 says so, not the first old one that is met in ten years."""

    class One(ef.Event, type="gapped"):
        item: ef.Tag

    class Two(ef.Event, type="gapped", version=2):
        item: ef.Tag

    class Three(ef.Event, type="gapped", version=3):
        item: ef.Tag

    leads(One, Two, lambda old: Two(old.item))
    with ef.Store("memory:") as store:
        with pytest.raises(
            InvalidEvent, match=r"gapped has a gap: its upcasters lead .*One v1 → .*Two v2, and .*Three is"
        ):
            store.append(Three("x"))
        assert store.head() == 0
        leads(Two, Three, lambda old: Three(old.item))
        store.append(Three("x"))
        assert store.head() == 1
