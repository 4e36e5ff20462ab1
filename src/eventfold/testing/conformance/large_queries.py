"""A query may have tens of thousands of items and matches what any of them matches; above the limit it is refused."""

# Mistakes are made here on purpose.
# pyright: basic

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

import eventfold as ef
from eventfold.core.query import MAX_ITEMS, MAX_NAMES, MAX_TYPES, Item, Query
from eventfold.errors import InvalidQuery
from eventfold.store import Store
from eventfold.testing.conformance.events import Account, Deposited, about, deposit, positions
from eventfold.testing.conformance.follow import until_caught_up

NAMES = tuple(f"a-{n}" for n in range(40))
TYPES = ("conformance.deposited", "conformance.noted", "conformance.none")


class Marked(ef.Event, type="conformance.marked"):
    """An event with two tags: one that many events have and one of its own."""

    account: ef.Tag
    region: ef.Tag


class Accounts(ef.State):
    """Several accounts at once."""

    account: ef.Tag[tuple[str, ...]]
    count: int = 0

    def evolve(self, event: Marked) -> None:
        """Count."""
        self.count += 1


def mixed(chance: Random, count: int) -> Query:
    """A query with this number of items of every kind; many of them match no event."""
    items: list[Item] = []
    for _ in range(count):
        types = tuple(chance.sample((*TYPES, "conformance.marked"), chance.choice((0, 0, 1, 2))))
        tags = {f"account:{chance.choice(NAMES)}{chance.choice(('', '-x', '-y'))}", f"region:{chance.randrange(9)}"}
        tags = set(
            chance.sample(sorted(tags), chance.choice((1, 1, 2) if not types or chance.random() < 0.95 else (0,)))
        )
        items.append(Item(types, tuple(sorted(tags))))
    items += [Item((), (f"account:never-{n}",)) for n in range(count)]
    return Query(tuple(dict.fromkeys(items)))


@pytest.mark.parametrize("seed", range(2))
def test_a_query_with_many_items_matches_any_of_them(store: Store, seed: int) -> None:
    """Read in both directions, in pages, counted, and as a condition: the results are those of the definition."""
    chance = Random(seed)  # noqa: S311
    for _ in range(40):
        size = chance.randint(1, 5)
        store.append(*[Marked(chance.choice(NAMES), str(chance.randrange(4))) for _ in range(size)], deposit("a-1"))
    for count in (20, 60, 150):
        log = list(store.read())
        query = mixed(chance, count)
        expected = [r.position for r in log if query.matches(r.type, r.tags)]
        assert [r.position for r in store.read(query)] == expected
        assert [r.position for r in store.read(query, backwards=True)] == expected[::-1]
        assert [r.position for r in store.read(query, after=20, until=90, limit=7)][:7] == [
            position for position in expected if 20 < position <= 90
        ][:7]
        assert store.count(query) == len(expected)
        after = chance.choice(expected)
        later = [position for position in expected if position > after]
        if later:
            with pytest.raises(ef.AppendConflict) as caught:
                store.append(deposit("b-1"), unless=query, after=after)
            assert caught.value.fields["found"] == later[0]
        assert store.append(deposit("none"), unless=query, after=expected[-1] if expected else 0)


def test_a_query_at_the_limit_is_accepted(store: Store) -> None:
    """The query is read, counted, followed, and used as a condition."""
    store.append(*[Marked(f"a-{n}", "1") for n in range(5)])
    query = Query(tuple(Item((), (f"account:a-{n}",)) for n in range(3, MAX_ITEMS + 3)))
    assert [r.position for r in store.read(query)] == [4, 5]
    assert store.count(query) == 2
    with store.follow(query) as follower:
        assert positions(until_caught_up(follower)) == [4, 5]
    assert store.append(Marked("b-1", "1"), unless=query, after=5).first == 6
    with pytest.raises(ef.AppendConflict):
        store.append(Marked("b-1", "1"), unless=query, after=4)


def test_an_item_may_name_ten_thousand_types(store: Store) -> None:
    """An item may have 10,000 types, with a tag and without."""
    store.append(Marked("a-1", "1"), Marked("a-2", "1"))
    types = ("conformance.marked", *[f"conformance.no-{n}" for n in range(9_999)])
    for query, count in ((Query((Item(types),)), 2), (Query((Item(types, ("account:a-1",)),)), 1)):
        assert store.count(query) == len(list(store.read(query))) == count
        assert store.append(deposit(), unless=query, after=2).first


def test_a_decision_may_be_about_thousands_of_entities(store: Store) -> None:
    """A state over many values of a tag is folded, and a decision over it is checked, by one query."""
    store.append(*[Marked(f"a-{n}", "1") for n in range(100)])
    asked = Accounts(tuple(f"a-{n}" for n in range(5, 3_000)))
    assert store.state(asked).count == 95

    def mark(accounts: Accounts) -> list[Any]:
        return [Marked("a-7", "1")] if accounts.count == 95 else []

    assert store.decide(mark, asked).state(asked).count == 96
    assert store.state(asked).count == 96


LARGE: dict[str, tuple[Callable[[], Query], int]] = {
    "items": (lambda: Query(tuple(Item((), (f"n:{n}",)) for n in range(MAX_ITEMS + 1))), MAX_ITEMS),
    "types of an item": (lambda: Query((Item(tuple(f"T{n}" for n in range(MAX_TYPES + 1))),)), MAX_TYPES),
    "names": (
        lambda: Query(tuple(Item(LONG_LIST, (f"n:{n}",)) for n in range(MAX_NAMES // len(LONG_LIST) + 1))),
        MAX_NAMES,
    ),
}
LONG_LIST = tuple(f"T{n}" for n in range(1_000))


@pytest.mark.parametrize("what", LARGE)
def test_a_query_beyond_a_limit_is_refused(store: Store, what: str) -> None:
    """Every use of the query is InvalidQuery, which names the limit, and nothing is written."""
    make, limit = LARGE[what]
    query = make()
    asking: list[Callable[[], Any]] = [
        lambda: list(store.read(query)),
        lambda: store.count(query),
        lambda: store.append(deposit(), unless=query),
        lambda: store.follow(query),
    ]
    for ask in asking:
        with pytest.raises(InvalidQuery, match=f"{limit:,}") as caught:
            ask()
        assert caught.value.fields["limit"] == limit
    assert store.head() == 0


def test_a_state_over_too_many_values_is_refused(store: Store) -> None:
    """The limit applies to the query of a state as to any other."""
    with pytest.raises(InvalidQuery, match=f"{MAX_ITEMS:,}"):
        store.state(Accounts(tuple(f"a-{n}" for n in range(MAX_ITEMS + 1))))
    assert store.state(Account("a-1")).balance == 0
    assert store.count(about("a-1")) == 0


class Several(ef.State):
    """The balance of several accounts together."""

    account: ef.Tag[tuple[str, ...]]
    events: int = 0

    def evolve(self, event: Deposited) -> None:
        """Fold one event."""
        self.events += 1


def test_a_state_of_many_values_is_folded_and_decided_over(store: Store, port: Any) -> None:
    """A state with hundreds of values can be read and decided over; reading it writes nothing."""
    store.extend([deposit(f"a-{n % 400}") for n in range(1_200)])
    question, epoch = Several(tuple(f"a-{n}" for n in range(300))), port.epoch
    assert store.state(question).events == 900
    assert port.epoch == epoch
    assert store.decide(lambda several: deposit("a-7"), question).state(question).events == 901
    assert store.count(question.query()) == len(list(store.read(question.query()))) == 901
    assert port.epoch == epoch
