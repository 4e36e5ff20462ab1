"""A decision reads states, decides, and appends if they did not change: consistent, retried, once per command."""

# Mistakes are made here on purpose.
# pyright: basic

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any, cast

import pytest

import eventfold as ef
from eventfold.core.query import Query
from eventfold.ports.engine import Engine
from eventfold.ports.messages import Page, Span
from eventfold.store import Store
from eventfold.testing.conformance.engine_under_test import EngineUnderTest
from eventfold.testing.conformance.events import (
    Account,
    Deposited,
    Moved,
    Noted,
    TooLittle,
    Withdrawn,
    amounts,
    deposit,
    draft,
    transfer,
    withdraw,
)
from eventfold.testing.faults import Faulty

Faults = Callable[..., tuple[Store, Faulty]]


def test_a_decision_is_made_over_the_state_and_written(store: Store) -> None:
    """`decide` folds the states among its arguments, calls the function with them, and appends what it returns."""
    store.append(deposit("a-1", 80))
    done = store.decide(transfer, Account("a-1"), Account("a-2"), amount=Decimal(50))
    assert [r.event for r in done.events] == [Withdrawn("a-1", Decimal(50)), Deposited("a-2", Decimal(50))]
    assert [r.event for r in store.read(after=1)] == [r.event for r in done.events]


def test_a_decision_returns_its_events_and_states(store: Store) -> None:
    """The result has the events as recorded, their positions, a receipt, and the states after them."""
    store.append(deposit("a-1", 80))
    done = store.using(actor="me").decide(transfer, Account("a-1"), Account("a-2"), Decimal(50))
    assert (done.positions, done.attempts, done.repeated) == (range(2, 4), 1, False)
    assert done.receipt is not None
    assert done.receipt.ids == tuple(r.stored.id for r in done.events)
    assert [r.stored for r in done.events] == [r.stored for r in store.read(after=1)]
    assert (done.state(Account("a-1")).balance, done.state(Account("a-2")).balance) == (30, 50)
    assert done.state(Account("a-1")) == store.state(Account("a-1"))


def test_a_domain_error_passes_through(store: Store) -> None:
    """An error of the decision reaches the caller unchanged, without retry, and nothing is written."""
    calls: list[int] = []

    def refusing(account: Account) -> list[ef.Event]:
        calls.append(1)
        return withdraw(account, Decimal(1))

    with pytest.raises(TooLittle):
        store.decide(refusing, Account("a-1"))
    assert (len(calls), store.head()) == (1, 0)


def test_deciding_nothing_writes_nothing(store: Store) -> None:
    """An empty list is a decision to write nothing: no receipt, no positions, the states unchanged."""
    store.append(deposit("a-1", 5))
    done = store.decide(lambda account: [], Account("a-1"))
    assert (done.events, done.receipt, list(done.positions), done.repeated) == ((), None, [], False)
    assert done.state(Account("a-1")).balance == 5
    assert store.head() == 1


def lazily(account: Account) -> Iterator[ef.Event]:
    """A decision written as a generator."""
    yield deposit(account.account, 1)
    yield deposit(account.account, 2)


@pytest.mark.parametrize(
    ("function", "written"),
    [
        (lambda account: deposit(account.account, 1), [1]),
        (lambda account: (deposit(account.account, 1), deposit(account.account, 2)), [1, 2]),
        (lambda account: ef.Draft(deposit(account.account, 1), tags=("x:1",)), [1]),
        (lambda account: [draft(deposit(account.account, 1), 1), deposit(account.account, 2)], [1, 2]),
        (lazily, [1, 2]),
    ],
    ids=["an event", "a tuple", "a draft", "drafts and events", "a generator"],
)
def test_events_may_be_returned_in_any_usual_way(store: Store, function: Any, written: list[int]) -> None:
    """A decision returns an event, a list, a tuple or a generator of them, drafts among them."""
    done = store.decide(function, Account("a-1"))
    assert amounts(store.read()) == amounts(done.events) == written
    assert done.state(Account("a-1")).balance == sum(written)


async def waiting(account: Account) -> list[ef.Event]:
    """A coroutine function, which is not a decision."""
    return [deposit(account.account)]


@pytest.mark.parametrize(
    "function",
    [lambda account: None, lambda account: "text", lambda account: [deposit(), 5], lambda account: {"a": 1}, waiting],
    ids=["None", "text", "a number among events", "a dict", "a coroutine"],
)
def test_other_return_values_are_refused(store: Store, function: Any) -> None:
    """A missing return, or anything but events, is InvalidDecision, and nothing is written."""
    with pytest.raises(ef.InvalidDecision):
        store.decide(function, Account("a-1"))
    assert store.head() == 0


def test_a_conflict_is_decided_again(faults: Faults, engine_under_test: EngineUnderTest) -> None:
    """If a rival writes to a state of the decision, the decision is made again over the new state."""
    store, planned = faults()
    rival = engine_under_test.rival()
    store.append(deposit("a-1", 10))
    planned.before(lambda: rival.append(Withdrawn("a-1", Decimal(4))))
    seen: list[Decimal] = []

    def everything(account: Account) -> list[ef.Event]:
        seen.append(account.balance)
        return [Withdrawn(account.account, account.balance)]

    done = store.decide(everything, Account("a-1"))
    assert (seen, done.attempts) == ([10, 6], 2)
    assert store.state(Account("a-1")).balance == done.state(Account("a-1")).balance == 0


def test_an_unrelated_concurrent_event_is_no_conflict(faults: Faults, engine_under_test: EngineUnderTest) -> None:
    """Events about other entities, or of types that the states do not fold, are no conflict."""
    store, planned = faults()
    rival = engine_under_test.rival()
    store.append(deposit("a-1", 10))
    planned.before(lambda: rival.append(deposit("a-2"), Noted(), Moved("a-1", "a-2", Decimal(1))))
    done = store.decide(withdraw, Account("a-1"), Decimal(4))
    assert (done.attempts, done.positions) == (1, range(5, 6))
    assert store.state(Account("a-1")).balance == 6


@pytest.mark.parametrize("account", ["a-1", "a-2", "a-3"])
def test_every_state_is_part_of_the_condition(faults: Faults, engine_under_test: EngineUnderTest, account: str) -> None:
    """A decision over several states is refused if any of them changed meanwhile, whether cached or not."""
    store, planned = faults()
    rival = engine_under_test.rival()
    store.append(deposit("a-1", 10), deposit("a-2", 10))
    store.state(Account("a-1"))
    store.append(Noted())
    store.state(Account("a-2"))

    made: list[int] = []

    def three(*accounts: Account) -> list[ef.Event]:
        made.append(1)
        return [deposit("a-9", sum(int(each.balance) for each in accounts))]

    planned.before(lambda: rival.append(deposit(account, 100)))
    done = store.decide(three, Account("a-1"), Account("a-2"), Account("a-3"))
    assert (len(made), amounts(done.events)) == (2, [120])


def test_the_number_of_attempts_is_limited(faults: Faults, engine_under_test: EngineUnderTest) -> None:
    """After `attempts` conflicts AppendConflict is raised, with the conflicting event; nothing was written."""
    store, planned = faults()
    rival = engine_under_test.rival()
    for _ in range(3):
        planned.before(lambda: rival.append(deposit("a-1")))
    with pytest.raises(ef.AppendConflict) as refused:
        store.using(attempts=3).decide(lambda account: [Noted()], Account("a-1"))
    assert refused.value.fields["found"] == 3
    assert "3 attempts" in refused.value.what
    assert amounts(store.read()) == [1, 1, 1]


def test_a_decision_may_change_its_arguments(store: Store) -> None:
    """States are passed as copies: a decision may change them, nested collections included."""
    store.append(deposit("a-1", 10), Withdrawn("a-1", Decimal(3)))

    def careless(account: Account) -> list[ef.Event]:
        account.balance = Decimal(-999)
        account.amounts.clear()
        account.by_kind["in"].append(Decimal(77))
        account.by_kind["new"] = []
        return [deposit(account.account, 1)]

    done = store.decide(careless, Account("a-1"))
    for state in (done.state(Account("a-1")), store.state(Account("a-1"))):
        assert (state.balance, state.amounts) == (8, [10, -3, 1])
        assert state.by_kind == {"in": [10, 1], "out": [3]}


def test_other_arguments_are_passed_unchanged(store: Store) -> None:
    """Arguments that are not States are passed to the function unchanged, by position or by name."""
    marker = object()
    seen: list[Any] = []

    def function(a: Any, account: Account, b: Any, *, c: Any, other: Account) -> list[ef.Event]:
        seen.extend([a, b, c, account.account, other.balance])
        return []

    store.append(deposit("a-2", 3))
    store.decide(function, 1, Account("a-1"), marker, c="text", other=Account("a-2"))
    assert seen == [1, marker, "text", "a-1", 3]


def test_a_folded_state_is_folded_again(store: Store) -> None:
    """A folded state that is passed again is folded from the beginning by its tag fields; other fields are ignored."""
    store.append(deposit("a-1", 10))
    old = store.state(Account("a-1"))
    old.balance = Decimal(10_000)
    store.append(Withdrawn("a-1", Decimal(9)))
    with pytest.raises(TooLittle):
        store.decide(withdraw, old, Decimal(5))


def test_the_same_state_may_be_passed_twice(store: Store) -> None:
    """A state that is passed twice is folded for each parameter, and the result is correct for both."""
    store.append(deposit("a-1", 10))
    done = store.decide(transfer, Account("a-1"), Account("a-1"), Decimal(4))
    assert done.state(Account("a-1")).balance == store.state(Account("a-1")).balance == 10


def test_a_decision_without_states_is_an_append(store: Store) -> None:
    """Without states there is no condition: the events are appended."""
    store.append(Noted())
    assert store.decide(lambda: [Noted("x")]).positions == range(2, 3)


def test_the_result_has_only_the_states_of_the_decision(store: Store) -> None:
    """The result has the states of the decision; asking it for another one is InvalidDecision."""
    done = store.decide(lambda account: [], Account("a-1"))
    with pytest.raises(ef.InvalidDecision):
        done.state(Account("a-2"))
    wrongs: list[Any] = ["a-1", Account, None, deposit(), Account(cast(Any, {"a": 1})), Account(cast(Any, ["a-1"]))]
    for wrong in wrongs:
        with pytest.raises(ef.InvalidDecision):
            done.state(wrong)


class Unhashable:
    """A value that cannot be in a tag field."""

    __hash__ = None  # pyright: ignore[reportAssignmentType]


@pytest.mark.parametrize("value", [{"a": 1}, 1.5, Unhashable()], ids=["a dict", "a float", "an object"])
def test_a_state_with_an_unhashable_value_is_refused(store: Store, value: Any) -> None:
    """The error is the library's, not Python's TypeError about hashing."""
    with pytest.raises(ef.EventfoldError):
        store.decide(lambda account: deposit("a-1"), Account(value))
    with pytest.raises(ef.EventfoldError):
        store.state(Account(value))
    assert store.head() == 0


def test_a_command_is_decided_once(store: Store) -> None:
    """With a command id a decision is made once: again, it returns the first events and states, and writes nothing."""
    store.append(deposit("a-1", 10))
    calls: list[int] = []

    def counted(account: Account, amount: Decimal) -> list[ef.Event]:
        calls.append(1)
        return withdraw(account, amount)

    command = store.using(command_id="command-1")
    first = command.decide(counted, Account("a-1"), Decimal(4))
    store.append(deposit("a-1", 100))
    again = command.decide(counted, Account("a-1"), Decimal(4))
    assert (len(calls), first.repeated, again.repeated) == (1, False, True)
    assert [r.stored for r in again.events] == [r.stored for r in first.events]
    assert (again.positions, again.state(Account("a-1")).balance) == (range(2, 3), 6)
    assert store.state(Account("a-1")).balance == 106


def test_a_command_decided_concurrently_returns_the_first_decision(
    faults: Faults, engine_under_test: EngineUnderTest
) -> None:
    """If the same command is decided elsewhere meanwhile, that outcome is given, and it is written once."""
    store, planned = faults()
    rival = engine_under_test.rival()
    store.append(deposit("a-1", 10))
    planned.before(lambda: rival.using(command_id="c").decide(withdraw, Account("a-1"), Decimal(4)))
    done = store.using(command_id="c").decide(withdraw, Account("a-1"), Decimal(4))
    assert done.repeated
    assert [r.stored for r in done.events] == [r.stored for r in store.read(after=1)]
    assert store.state(Account("a-1")).balance == 6


def test_a_command_has_its_first_result_after_reopening(store: Store, reopen: Callable[[], Store]) -> None:
    """Events, receipt and states are those of the first call, even if the rule would refuse now."""
    store.append(deposit("a-1", 10))
    first = store.using(command_id="c").decide(withdraw, Account("a-1"), Decimal(10))
    again = reopen().using(command_id="c").decide(withdraw, Account("a-1"), Decimal(10))
    assert [r.stored for r in again.events] == [r.stored for r in first.events]
    assert (again.repeated, again.positions, again.state(Account("a-1")).balance) == (True, first.positions, 0)


def test_a_concurrent_repeat_of_a_command_has_its_result(store: Store, engine_under_test: EngineUnderTest) -> None:
    """Sent twice at once: the slower one reads what the first has left, and gets its answer, not a refusal."""
    rival = engine_under_test.rival()
    store.append(deposit("a-1", 10))
    first: list[Any] = []

    def slow(account: Account, amount: Decimal) -> list[ef.Event]:
        if not first:
            first.append(rival.using(command_id="c").decide(withdraw, Account("a-1"), amount))
        raise TooLittle(account.account)

    done = store.using(command_id="c").decide(slow, Account("a-1"), Decimal(10))
    assert done.repeated
    assert [r.stored for r in done.events] == [r.stored for r in first[0].events]


def test_a_refused_command_may_be_tried_again(store: Store) -> None:
    """A domain error, or a decision to write nothing, is not remembered under the command id."""
    command = store.using(command_id="c")
    with pytest.raises(TooLittle):
        command.decide(withdraw, Account("a-1"), Decimal(1))
    assert command.decide(lambda account: [], Account("a-1")).receipt is None
    store.append(deposit("a-1", 10))
    assert not command.decide(withdraw, Account("a-1"), Decimal(1)).repeated


class Counted(Faulty):
    """A wrapper that counts the events that are read from the engine."""

    events = 0

    async def read(self, query: Query, span: Span) -> Page:
        """See the port."""
        page = await self.inner.read(query, span)
        self.events += len(page.events)
        return page


def test_a_decision_over_a_cached_state_reads_no_event_twice(store: Store, engine_under_test: EngineUnderTest) -> None:
    """A cached state is only caught up: a decision over it costs one commit and reads no event twice."""
    store.extend([deposit("a-1", 1) for _ in range(50)])
    counted = Counted(engine_under_test.engine())
    warm = engine_under_test.open(cast(Engine, counted))
    warm.decide(withdraw, Account("a-1"), Decimal(1))
    assert counted.events == 50
    for _ in range(5):
        warm.decide(withdraw, Account("a-1"), Decimal(1))
    assert (counted.events, len(counted.commits)) == (50, 6)
    store.append(deposit("a-1", 1), deposit("a-2", 1))
    assert warm.decide(withdraw, Account("a-1"), Decimal(1)).state(Account("a-1")).balance == 44
    assert counted.events == 51


class Counted1(ef.Event, type="conformance.counted"):
    """An event of the first version: dozens."""

    shelf: ef.Tag
    dozens: int


class Counted2(ef.Event, type="conformance.counted", version=2):
    """An event of the second version: pieces."""

    shelf: ef.Tag
    pieces: int


@ef.upcast
def pieces_of(old: Counted1) -> Counted2:
    """A dozen has 12 pieces."""
    return Counted2(old.shelf, old.dozens * 12)


class Stock(ef.State):
    """The pieces on a shelf."""

    shelf: ef.Tag
    pieces: int = 0

    def evolve(self, event: Counted2) -> None:
        """Take the field that only the newest class has."""
        self.pieces = event.pieces


def add_dozen(stock: Stock) -> Counted1:
    """Return an event of the older class."""
    return Counted1(stock.shelf, stock.pieces // 12 + 1)


def test_an_event_of_an_older_class_is_folded_as_it_is_read(store: Store, engine_under_test: EngineUnderTest) -> None:
    """The state in the result and the cached one are those of a fold over the log, after all upcasters."""
    for pieces in (12, 24, 36):
        assert store.decide(add_dozen, Stock("s-1")).state(Stock("s-1")).pieces == pieces
        assert store.state(Stock("s-1")).pieces == pieces
    assert [recorded.version for recorded in store.read(raw=True)] == [1, 1, 1]
    assert engine_under_test.open(engine_under_test.engine()).state(Stock("s-1")).pieces == 36
