"""A state is a fold over the log: now, at a past time, or step by step; each caller gets a copy."""

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
    """A state is folded, in order, from the events of its types that have the tags of its fields."""
    store.append(Opened("a-1", "ada"), deposit("a-1", 5), deposit("a-2", 100), Noted(), Opened("a-1", "bob"))
    store.append(Withdrawn("a-1", Decimal(2)), Moved("a-1", "a-2", Decimal(1)))
    state = store.state(Account("a-1"))
    assert (state.account, state.balance, state.owners, state.amounts) == ("a-1", 3, ("ada", "bob"), [5, -2])


def test_a_state_without_events_has_its_defaults(store: Store) -> None:
    """A state without matching events has its declared defaults."""
    store.append(deposit("a-1"))
    assert store.state(Account("a-9")) == Account("a-9")


def test_a_state_is_up_to_date(store: Store, engine_under_test: EngineUnderTest) -> None:
    """Every call includes all events acknowledged before it, whichever handle wrote them."""
    other = engine_under_test.rival()
    for count in range(1, 6):
        (store if count % 2 else other).append(deposit("a-1", 1))
        assert store.state(Account("a-1")).balance == count
        assert other.state(Account("a-1")).balance == count


def test_a_long_state_is_folded_over_all_its_pages(store: Store) -> None:
    """A state is folded from all pages of its events."""
    store.extend(deposits(2_500))
    state = store.state(Account("a-1"))
    assert (state.balance, len(state.amounts)) == (sum(range(2_501)), 2_500)


def test_a_state_handed_out_is_a_copy(store: Store) -> None:
    """Changes that a caller makes to a state, nested collections included, are visible to no other caller."""
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
    """A past state, and each step of a history, is a copy for the caller."""
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
    """`cache=0` caches no states, `cache=1` one; results do not depend on it."""
    store.append(deposit("a-1", 1), deposit("a-2", 2))
    for size in (0, 1):
        small = engine_under_test.open(cache=size)
        for _ in range(2):
            assert [small.state(Account(a)).balance for a in ("a-1", "a-2")] == [1, 2]
        small.decide(lambda a, b: [], Account("a-1"), Account("a-2"))


def test_a_history_has_every_step(store: Store) -> None:
    """`history` yields each event of the state, with the state after it."""
    store.append(Opened("a-1", "ada"), deposit("a-2", 9), deposit("a-1", 5))
    store.append(Withdrawn("a-1", Decimal(2)))
    steps = list(store.history(Account("a-1")))
    assert [step.recorded.position for step in steps] == [1, 3, 4]
    assert [step.state.balance for step in steps] == [0, 5, 3]
    assert steps[-1].state == store.state(Account("a-1"))
    assert [type(step.recorded.event) for step in steps] == [Opened, Deposited, Withdrawn]


def test_a_history_can_be_bounded(store: Store) -> None:
    """Events up to `after` are folded but not yielded; events after `until` are not folded."""
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
    """A state without tag fields: it selects by type only."""

    texts: list[str] = []

    def evolve(self, event: Noted) -> None:
        """Fold one event."""
        self.texts.append(event.text)


class Several(ef.State):
    """A state that selects any of several values of one tag."""

    account: ef.Tag[tuple[str, ...]]
    total: Decimal = Decimal(0)

    def evolve(self, event: Deposited) -> None:
        """Fold one event."""
        self.total += event.amount


class Everything(ef.State):
    """A state that defines its query."""

    count: int = 0

    def query(self) -> Query:
        """All events."""
        return Query()

    def evolve(self, event: ef.Event) -> None:
        """Fold one event."""
        self.count += 1


def test_a_state_may_select_by_type_only(store: Store) -> None:
    """A state without tag fields is folded from every event of its types."""
    store.append(Noted("a"), deposit(), Noted("b"))
    assert store.state(Notes()).texts == ["a", "b"]


def test_a_state_may_select_any_of_several_values(store: Store) -> None:
    """A tuple in a tag field means any of its values; each event is folded once."""
    store.append(deposit("a-1", 1), deposit("a-2", 20), deposit("a-3", 300))
    assert store.state(Several(("a-1", "a-3"))).total == 301
    assert store.state(Several(("a-1", "a-1"))).total == 1


def test_a_state_may_define_its_query(store: Store) -> None:
    """Overriding `query()` changes the query of state, decide and condition."""
    store.append(deposit(), Noted())
    assert store.state(Everything()).count == 2
    done = store.decide(lambda everything: [Noted(str(everything.count))], Everything())
    assert done.state(Everything()).count == 3
    with pytest.raises(ef.AppendConflict):
        store.append(Noted(), unless=[(Everything(), 2)])


class Returning(ef.State):
    """A state whose evolve wrongly returns a value."""

    account: ef.Tag
    balance: Decimal = Decimal(0)

    def evolve(self, event: Deposited) -> Any:
        """Wrong on purpose."""
        return self.balance + event.amount


def test_an_evolve_that_returns_something_is_refused(store: Store) -> None:
    """`evolve` changes the state and returns None; another value is InvalidState, since it would be ignored."""
    store.append(deposit("a-1"))
    with pytest.raises(InvalidState):
        store.state(Returning("a-1"))


def test_an_empty_question_is_refused(store: Store) -> None:
    """A state with an empty tag value is InvalidState: without it, the state would match everything."""
    with pytest.raises(InvalidState):
        store.state(Several(()))


@pytest.mark.parametrize("what", ["a-1", None, Account, 5])
def test_only_a_state_is_accepted(store: Store, what: Any) -> None:
    """`state` takes a State; anything else is InvalidState."""
    with pytest.raises(InvalidState):
        store.state(what)


def test_an_event_that_cannot_be_read_stops_a_fold(store: Store, port: Any) -> None:
    """A state never skips an event that it cannot decode: UndecodableEvent."""
    from eventfold.testing.conformance.reading import unknown

    store.append(deposit("a-1", 1))
    unknown(store, port, b'{"account":"a-1"}', "conformance.deposited")
    for _ in range(2):
        with pytest.raises(UndecodableEvent):
            store.state(Account("a-1"))
    assert store.state(Account("a-1"), at=1).balance == 1


def test_a_state_sees_events_under_their_older_names(store: Store) -> None:
    """A state by class is also folded from events that are stored under older names of the class."""

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
    """A state depends on its events only: after reopening it is folded again, equal."""
    store.append(Opened("a-1", "ada"), *deposits(10))
    before = store.state(Account("a-1"))
    assert reopen().state(Account("a-1")) == before
