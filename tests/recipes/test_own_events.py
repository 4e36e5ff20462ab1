"""Events an aggregate may record: its own; those of another entity are refused, and both are named."""

from __future__ import annotations

from typing import Annotated

import pytest

import eventfold as ef


class Stocked(ef.Event, type="racks-stocked"):
    """Goods were put on a shelf."""

    shelf: ef.Tag
    goods: ef.Tag


class Rack(ef.Aggregate):
    """A shelf selected by its name; the items on it have another tag."""

    shelf: ef.Tag
    goods: list[str] = []

    def stock(self, shelf: str, goods: str) -> None:
        """Record for any shelf, as a faulty method might."""
        self.record(Stocked(shelf, goods))

    def evolve(self, event: Stocked) -> None:
        """The fold."""
        self.goods.append(event.goods)


class WideRack(Rack):
    """An aggregate that selects all shelves."""

    def query(self) -> ef.Query:
        """Return its own query."""
        return ef.Query.of(types=[Stocked])


class Row(ef.Aggregate):
    """Several shelves, selected together."""

    shelf: Annotated[tuple[str, ...], ef.tag()]
    count: int = 0

    def evolve(self, event: Stocked) -> None:
        """The fold."""
        self.count += 1


@pytest.mark.parametrize(("other", "message"), [("s-2", "a Stocked of shelf s-2"), ("", "a Stocked of ")])
def test_an_aggregate_records_no_events_of_another(other: str, message: str) -> None:
    """Its next fold would never see them: the error names both entities before anything is folded or written."""
    rack = Rack("s-1")
    with pytest.raises(ef.InvalidDecision, match=f"The Rack of shelf s-1 recorded {message}.*decide over both"):
        rack.stock(other, "tea")
    assert rack == Rack("s-1") and not rack.recorded()
    with ef.Store("memory:") as store:
        with pytest.raises(ef.InvalidDecision):
            store.change(Rack.stock, Rack("s-1"), other, "tea")
        assert store.head() == 0
        store.change(Rack.stock, Rack("s-1"), "s-1", "tea")
        assert store.state(Rack("s-1")).goods == ["tea"]


def test_an_aggregate_of_any_of_several_records_for_each_of_them() -> None:
    """A tuple in its tag fields means any of its values."""

    row = Row(("s-1", "s-2"))
    row.record(Stocked("s-2", "tea"))
    with pytest.raises(ef.InvalidDecision, match="shelf s-1, s-2 recorded a Stocked of shelf s-3"):
        row.record(Stocked("s-3", "tea"))
    assert row.count == 1


def test_an_aggregate_with_a_query_of_its_own_records_what_it_likes() -> None:
    """If it has its own query, its tag fields do not show what it selects."""
    rack = WideRack("s-1")
    rack.stock("s-2", "tea")
    assert rack.goods == ["tea"]
