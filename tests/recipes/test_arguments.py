"""States in arguments of decisions: each is loaded, however it is nested, and a mistaken one is refused."""

from __future__ import annotations

from typing import Any

import pytest

import eventfold as ef


class Stocked(ef.Event, type="arguments-stocked"):
    """Pieces were added to an item."""

    item: ef.Tag
    count: int


class Sold(ef.Event, type="arguments-sold"):
    """Pieces of an item were sold."""

    item: ef.Tag
    count: int


class Item(ef.State):
    """How many pieces of an item there are."""

    item: ef.Tag
    left: int = 0

    def evolve(self, event: Stocked | Sold) -> None:
        """The fold."""
        self.left += event.count if isinstance(event, Stocked) else -event.count


class Shelf(ef.Aggregate):
    """The same as an aggregate."""

    item: ef.Tag
    left: int = 0

    def sell(self, answer: Any = None) -> Any:
        """Record a sale, and return `answer`."""
        self.record(Sold(self.item, 1))
        return answer

    def evolve(self, event: Stocked | Sold) -> None:
        """The fold."""
        self.left += event.count if isinstance(event, Stocked) else -event.count


def sell(basket: list[tuple[Item, int]], at: dict[str, Item]) -> list[Sold]:
    """Sell each item of the basket once, if there is enough of each."""
    if all(item.left >= count for item, count in basket) and all(item.left for item in at.values()):
        return [Sold(item.item, count) for item, count in basket]
    return []


@pytest.fixture
def store() -> ef.Store:
    """Return a store with three teas and one cup."""
    store = ef.Store("memory:")
    store.append(Stocked("tea", 3), Stocked("cup", 1))
    return store


def test_states_in_lists_tuples_and_dicts_are_loaded(store: ef.Store) -> None:
    """States inside arguments are loaded, and states in the result are evaluated like any other."""
    done = store.decide(sell, [(Item("tea"), 2), (Item("cup"), 1)], at={"gate": Item("tea")})
    assert [recorded.event for recorded in done.events] == [Sold("tea", 2), Sold("cup", 1)]
    assert (done.state(Item("tea")).left, done.state(Item("cup")).left) == (1, 0)
    assert store.decide(sell, [(Item("tea"), 2)], at={}).events == ()


def test_states_in_lists_are_part_of_the_condition(store: ef.Store) -> None:
    """Someone else's write to one of them makes the decision be made again."""
    rivals = [Sold("cup", 1)]

    def slowly(basket: list[Item]) -> list[Sold]:
        if rivals:
            store.append(rivals.pop())
        return [Sold(item.item, 1) for item in basket if item.left]

    done = store.decide(slowly, [Item("tea"), Item("cup")])
    assert (done.attempts, [recorded.event for recorded in done.events]) == (2, [Sold("tea", 1)])


def test_other_collections_pass_through_as_they_are(store: ef.Store) -> None:
    """A list or dict without a state in it reaches the decision itself, not a copy."""
    rows, found = [1, [2]], {"a": [3]}
    seen: list[Any] = []

    def look(item: Item, rows: list[Any], found: dict[str, Any]) -> list[Sold]:
        seen.extend([rows, found, rows[1]])
        return []

    store.decide(look, Item("tea"), rows, found=found)
    assert seen[0] is rows and seen[1] is found and seen[2] is rows[1]


def test_aggregates_in_lists_record(store: ef.Store) -> None:
    """Aggregates decide together from a list as well."""

    def clear(shelves: list[Shelf]) -> None:
        for shelf in shelves:
            shelf.sell()

    done = store.decide(clear, [Shelf("tea"), Shelf("cup")])
    assert [recorded.event for recorded in done.events] == [Sold("tea", 1), Sold("cup", 1)]


@pytest.mark.parametrize("argument", [Item, [Item], {"a": (Item,)}])
def test_a_class_is_no_question(store: ef.Store, argument: Any) -> None:
    """A State class instead of an instance would be no condition: it is refused, and the error shows what to write."""
    with pytest.raises(ef.InvalidDecision, match=r"class Item.*Item\(…\)"):
        store.decide(lambda item: [Sold("tea", 1)], argument)
    assert store.head() == 2


@pytest.mark.parametrize("answer", [[], Sold("tea", 1)])
def test_recorded_events_are_never_lost(store: ef.Store, answer: Any) -> None:
    """A method that records events and also returns a value has two results: it is refused."""
    with pytest.raises(ef.InvalidDecision, match="return nothing"):
        store.change(Shelf.sell, Shelf("tea"), answer)
    assert store.head() == 2
