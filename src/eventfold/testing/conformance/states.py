"""A state is a fold over the log: now, at a past moment, or step by step; what is handed out is the caller's own."""

# Mistakes are made here on purpose.
# pyright: basic

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

import eventfold as ef
from eventfold.core.query import Query
from eventfold.errors import InvalidState, UndecodableEvent
from eventfold.store import Store
from eventfold.testing.conformance.engine_under_test import EngineUnderTest
from eventfold.testing.conformance.events import (
    Account,
    Deposited,
    Moved,
    Noted,
    Opened,
    Withdrawn,
    deposit,
    deposits,
)


def test_a_state_is_folded_from_its_events(store: Store) -> None:
    """A state is folded from the events of its types that carry its question's tags, in order."""
    store.append(Opened("a-1", "ada"), deposit("a-1", 5), deposit("a-2", 100), Noted(), Opened("a-1", "bob"))
    store.append(Withdrawn("a-1", Decimal(2)), Moved("a-1", "a-2", Decimal(1)))
    state = store.state(Account("a-1"))
    assert (state.account, state.balance, state.owners, state.amounts) == ("a-1", 3, ("ada", "bob"), [5, -2])


def test_a_state_of_nothing_is_its_defaults(store: Store) -> None:
    """What no event is about has the answer it was declared with."""
    store.append(deposit("a-1"))
    assert store.state(Account("a-9")) == Account("a-9")


def test_a_state_is_up_to_date(store: Store, engine_under_test: EngineUnderTest) -> None:
    """Every call sees everything acknowledged before it, by whatever handle it was written."""
    other = engine_under_test.rival()
    for count in range(1, 6):
        (store if count % 2 else other).append(deposit("a-1", 1))
        assert store.state(Account("a-1")).balance == count
        assert other.state(Account("a-1")).balance == count


def test_a_long_state_is_folded_over_all_its_pages(store: Store) -> None:
    """Folding does not end with a page."""
    store.extend(deposits(2_500))
    state = store.state(Account("a-1"))
    assert (state.balance, len(state.amounts)) == (sum(range(2_501)), 2_500)


def test_a_state_handed_out_is_a_copy(store: Store) -> None:
    """Whatever the caller does to a state, nested collections included, no one else sees it."""
    store.append(deposit("a-1", 1), Withdrawn("a-1", Decimal(1)))
    for _ in range(2):
        state = store.state(Account("a-1"))
        assert (state.balance, state.amounts, state.by_kind) == (0, [1, -1], {"in": [1], "out": [1]})
        state.balance = Decimal(1_000)
        state.amounts.append(Decimal(7))
        state.by_kind["in"].append(Decimal(7))
        state.by_kind.clear()
    store.append(deposit("a-1", 5))
    assert store.state(Account("a-1")).by_kind == {"in": [1, 5], "out": [1]}


def test_a_past_state_is_a_copy_too(store: Store) -> None:
    """A state of the past, and each step of a history, belongs to the caller alone."""
    store.append(deposit("a-1", 1))
    store.append(deposit("a-1", 2))
    for state in (store.state(Account("a-1"), at=1), store.state(Account("a-1"), at=2)):
        state.amounts.clear()
        state.by_kind["in"].clear()
    for step in store.history(Account("a-1")):
        step.state.amounts.clear()
    assert [step.state.amounts for step in store.history(Account("a-1"))] == [[1], [1, 2]]
    assert store.state(Account("a-1"), at=1).amounts == [1]
    assert store.state(Account("a-1")).amounts == [1, 2]


def test_without_a_cache_states_are_the_same(store: Store, engine_under_test: EngineUnderTest) -> None:
    """`cache=0` keeps no states, `cache=1` one: neither changes any answer."""
    store.append(deposit("a-1", 1), deposit("a-2", 2))
    for size in (0, 1):
        small = engine_under_test.open(cache=size)
        for _ in range(2):
            assert [small.state(Account(a)).balance for a in ("a-1", "a-2")] == [1, 2]
        small.decide(lambda a, b: [], Account("a-1"), Account("a-2"))


def test_a_history_has_every_step(store: Store) -> None:
    """`history` gives each event that the state is folded from, with the state after it."""
    store.append(Opened("a-1", "ada"), deposit("a-2", 9), deposit("a-1", 5))
    store.append(Withdrawn("a-1", Decimal(2)))
    steps = list(store.history(Account("a-1")))
    assert [step.recorded.position for step in steps] == [1, 3, 4]
    assert [step.state.balance for step in steps] == [0, 5, 3]
    assert steps[-1].state == store.state(Account("a-1"))
    assert [type(step.recorded.event) for step in steps] == [Opened, Deposited, Withdrawn]


def test_a_history_can_be_cut(store: Store) -> None:
    """Steps up to `after` are folded but not given; those beyond `until` are neither."""
    for amount in (1, 2, 3, 4):
        store.append(deposit("a-1", amount))
    assert [s.state.balance for s in store.history(Account("a-1"), after=2)] == [6, 10]
    assert [s.state.balance for s in store.history(Account("a-1"), after=1, until=3)] == [3, 6]
    assert list(store.history(Account("a-9"))) == []


def test_two_moments_can_be_compared(store: Store) -> None:
    """`ef.diff` returns the fields that differ between two states, and of dict fields the keys."""
    store.append(deposit("a-1", 5))
    before = store.state(Account("a-1"))
    store.append(Withdrawn("a-1", Decimal(2)))
    after = store.state(Account("a-1"))
    changes = ef.diff(before, after)
    assert set(changes) == {"balance", "amounts", "by_kind[out]"}
    assert changes["balance"] == (5, 3)
    assert ef.diff(after, after) == {}


class Notes(ef.State):
    """Asked by type alone: a state without a question."""

    texts: list[str] = []

    def evolve(self, event: Noted) -> None:
        """Take one event in."""
        self.texts.append(event.text)


class Several(ef.State):
    """Asked by several values of one tag: any of them."""

    account: ef.Tag[tuple[str, ...]]
    total: Decimal = Decimal(0)

    def evolve(self, event: Deposited) -> None:
        """Take one event in."""
        self.total += event.amount


class Everything(ef.State):
    """Asked by a query of its own."""

    count: int = 0

    def query(self) -> Query:
        """Every event there is."""
        return Query()

    def evolve(self, event: ef.Event) -> None:
        """Take one event in."""
        self.count += 1


def test_a_state_may_ask_by_type_alone(store: Store) -> None:
    """A state without tag fields is folded from every event of its types."""
    store.append(Noted("a"), deposit(), Noted("b"))
    assert store.state(Notes()).texts == ["a", "b"]


def test_a_state_may_ask_by_any_of_several(store: Store) -> None:
    """A tuple in the question means any of its values; each event counts once."""
    store.append(deposit("a-1", 1), deposit("a-2", 20), deposit("a-3", 300))
    assert store.state(Several(("a-1", "a-3"))).total == 301
    assert store.state(Several(("a-1", "a-1"))).total == 1


def test_a_state_may_ask_by_a_query_of_its_own(store: Store) -> None:
    """Overriding `query()` asks another question, for state, decide and condition alike."""
    store.append(deposit(), Noted())
    assert store.state(Everything()).count == 2
    done = store.decide(lambda everything: [Noted(str(everything.count))], Everything())
    assert done.state(Everything()).count == 3
    with pytest.raises(ef.AppendConflict):
        store.append(Noted(), unless=[(Everything(), 2)])


class Returning(ef.State):
    """Its evolve returns something, which would be lost."""

    account: ef.Tag
    balance: Decimal = Decimal(0)

    def evolve(self, event: Deposited) -> Any:
        """Wrong on purpose."""
        return self.balance + event.amount


def test_an_evolve_that_returns_something_is_refused(store: Store) -> None:
    """`evolve` changes the state and returns nothing; a returned value is InvalidState rather than quietly lost."""
    store.append(deposit("a-1"))
    with pytest.raises(InvalidState):
        store.state(Returning("a-1"))


def test_an_empty_question_is_refused(store: Store) -> None:
    """A question with an empty value asks for nothing and is InvalidState, rather than matching everything."""
    with pytest.raises(InvalidState):
        store.state(Several(()))


@pytest.mark.parametrize("what", ["a-1", None, Account, 5])
def test_only_a_question_can_be_asked(store: Store, what: Any) -> None:
    """`state` takes a State; anything else is InvalidState."""
    with pytest.raises(InvalidState):
        store.state(what)


def test_an_event_that_cannot_be_read_stops_a_fold(store: Store, port: Any) -> None:
    """A state is never folded around an event that it cannot read: UndecodableEvent."""
    from eventfold.testing.conformance.reading import unknown

    store.append(deposit("a-1", 1))
    unknown(store, port, b'{"account":"a-1"}', "conformance.deposited")
    for _ in range(2):
        with pytest.raises(UndecodableEvent):
            store.state(Account("a-1"))
    assert store.state(Account("a-1"), at=1).balance == 1


def test_a_state_sees_events_under_their_older_names(store: Store) -> None:
    """A state by class is folded from events stored under the class's older names as well."""

    class Before(ef.Event, type="conformance.state-before"):
        account: ef.Tag

    class After(ef.Event, type="conformance.state-after", aliases=("conformance.state-before",)):
        account: ef.Tag

    class Seen(ef.State):
        account: ef.Tag
        count: int = 0

        def evolve(self, event: After) -> None:
            assert type(event) is After
            self.count += 1

    store.append(Before("a-1"), After("a-1"))
    assert store.state(Seen("a-1")).count == 2


def test_a_state_after_reopening_is_the_same(store: Store, reopen: Callable[[], Store]) -> None:
    """A state is in its events alone: after reopening it is folded again, equal."""
    store.append(Opened("a-1", "ada"), *deposits(10))
    before = store.state(Account("a-1"))
    assert reopen().state(Account("a-1")) == before
