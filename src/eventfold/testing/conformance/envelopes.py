"""A State whose evolve takes the envelope gets the written one, in every way in which a state is folded."""

# pyright: basic

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import pytest

import eventfold as ef
from eventfold.core.query import Query
from eventfold.errors import InvalidState
from eventfold.store import Store
from eventfold.testing.conformance.events import Deposited, Withdrawn, deposit, deposits
from eventfold.testing.faults import Faulty

Faults = Callable[..., tuple[Store, Faulty]]
Envelope = tuple[int, datetime, datetime | None, str | None, str]


class Statement(ef.State):
    """Every envelope that was folded, in order: position, time, occurred, actor, id."""

    account: ef.Tag
    lines: list[Envelope] = []

    def evolve(self, event: Deposited | Withdrawn, recorded: ef.Recorded) -> None:
        """Collect the envelope."""
        self.lines.append(line(recorded))


class Seen(ef.Aggregate):
    """An aggregate that folds what it records."""

    account: ef.Tag
    lines: list[Envelope] = []
    within: list[int] = []

    def deposit(self) -> None:
        """Record two events, and check the state in between."""
        self.record(deposit(self.account))
        assert self.lines[-1][0] == 0
        assert abs((datetime.now(UTC) - self.lines[-1][1]).total_seconds()) < 60
        self.record(deposit(self.account))

    def evolve(self, event: Deposited, recorded: ef.Recorded) -> None:
        """Collect the envelope."""
        self.lines.append(line(recorded))


class Plain(ef.State):
    """A state without envelopes, for comparison."""

    account: ef.Tag
    count: int = 0

    def evolve(self, event: Deposited | Withdrawn) -> None:
        """Count."""
        self.count += 1


def line(recorded: ef.Recorded) -> Envelope:
    """The fields of an envelope that are compared."""
    return recorded.position, recorded.time, recorded.occurred, recorded.metadata.actor, str(recorded.id)


def written(store: Store, account: str = "a-1", until: int | None = None) -> list[Envelope]:
    """The envelopes in the log."""
    query = Query.of(types=[Deposited, Withdrawn], tags=f"account:{account}")
    return [line(recorded) for recorded in store.read(query, until=until)]


def again(account: Statement) -> list[Any]:
    """A decision over the envelopes folded so far."""
    return [deposit(account.account, len(account.lines) + 1)]


Q = TypeVar("Q", Statement, Seen)


def agrees(store: Store, question: Q) -> None:
    """The cached state and one folded from the beginning have the envelopes of the log."""
    expected = written(store, question.account)
    assert store.state(question).lines == expected
    assert store.state(question, at=store.head()).lines == expected


def test_the_envelope_is_what_was_written(store: Store) -> None:
    """evolve gets time, occurred, metadata, position and id as a read returns them, now and for past states."""
    moment = datetime(2013, 6, 1, tzinfo=UTC)
    store.using(actor="teller-7").append(ef.Draft(deposit(), occurred=moment), deposit("a-2"), deposit())
    store.append(deposit())
    question = Statement("a-1")
    agrees(store, question)
    first = store.state(question).lines[0]
    assert (first[0], first[2], first[3]) == (1, moment, "teller-7")
    assert store.state(question, at=3).lines == written(store, until=3)
    every = written(store)
    assert [step.state.lines for step in store.history(question)] == [every[:n] for n in (1, 2, 3)]
    assert store.state(question, occurred_until=moment).lines == written(store)[:1]


def test_a_decision_folds_its_events_as_they_were_written(store: Store, open_again: Callable[[], Store]) -> None:
    """The state that a decision returns, and the cached one, have the envelopes of its receipt."""
    question, rival = Statement("a-1"), open_again()
    for turn in range(4):
        decided = store.using(actor=f"teller-{turn}").decide(again, question)
        assert decided.state(question).lines == written(store)
        agrees(store, question)
        rival.append(deposit("a-1"), deposit("a-2"))
    agrees(store, question)
    agrees(rival, question)


def test_a_decision_over_several_states_folds_each_as_it_asks(store: Store) -> None:
    """A decision may read states with envelopes and states without."""

    def both(one: Statement, plain: Plain, other: Statement) -> list[Any]:
        return [deposit("a-1"), deposit("a-2"), *again(one)]

    for turn in range(3):
        decided = store.decide(both, Statement("a-1"), Plain("a-1"), Statement("a-2"))
        assert decided.state(Statement("a-1")).lines == written(store)
        assert decided.state(Statement("a-2")).lines == written(store, "a-2")
        assert decided.state(Plain("a-1")).count == 2 * (turn + 1)
        store.decide(lambda plain: [deposit(plain.account)], Plain("a-2"))


def test_an_aggregate_sees_what_it_records_before_it_is_written(store: Store) -> None:
    """An event just recorded has position 0 and the current time; after the append it has the written envelope."""
    for _ in range(3):
        decided = store.change(Seen.deposit, Seen("a-1"))
        assert decided.state(Seen("a-1")).lines == written(store)
        agrees(store, Seen("a-1"))
    alone = Seen("a-9")
    alone.deposit()
    assert [each[0] for each in alone.lines] == [0, 0]


def test_many_decisions_at_once_leave_the_envelopes_that_were_written(store: Store) -> None:
    """After concurrent decisions on one state it has every envelope of the log, each once."""
    from threading import Thread

    def decide() -> None:
        for _ in range(5):
            store.using(attempts=100).decide(again, Statement("a-1"))

    threads = [Thread(target=decide) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(written(store)) == 20
    agrees(store, Statement("a-1"))


def test_a_lost_reply_leaves_the_envelopes_that_were_written(faults: Faults) -> None:
    """If a decision was written and its reply lost, the repetition returns the envelopes of the log."""
    store, planned = faults()
    store.decide(again, Statement("a-1"))
    planned.lose_reply()
    decided = store.decide(again, Statement("a-1"))
    assert decided.state(Statement("a-1")).lines == written(store)
    assert len(written(store)) == 2
    agrees(store, Statement("a-1"))


def test_a_snapshot_includes_values_from_the_envelope(store: Store, reopen: Callable[[], Store]) -> None:
    """A state folded from a snapshot equals the state folded from the beginning."""
    store.extend(deposits(1_200))
    before = store.state(Statement("a-1")).lines
    other = reopen()
    other.append(deposit())
    assert other.state(Statement("a-1")).lines == [*before, *written(other)[1_200:]]


def test_an_error_of_evolve_is_raised_before_anything_is_written(store: Store) -> None:
    """A decision whose own events cannot be folded writes nothing, as with other states."""

    class Refusing(ef.State):
        account: ef.Tag

        def evolve(self, event: Deposited, recorded: ef.Recorded) -> None:
            raise ArithmeticError("no")

    with pytest.raises(ArithmeticError):
        store.decide(lambda state: [deposit(state.account)], Refusing("a-1"))
    assert store.head() == 0


def test_an_error_caused_by_the_written_envelope_is_raised_by_the_result(store: Store) -> None:
    """The decision succeeds, since its events were written; reading the state raises, and the state is not cached."""

    class Picky(ef.State):
        account: ef.Tag

        def evolve(self, event: Deposited, recorded: ef.Recorded) -> None:
            if recorded.position:
                raise ArithmeticError("no")

    decided = store.decide(lambda state: [deposit(state.account)], Picky("a-1"))
    assert decided.positions == range(1, 2)
    for ask in (decided.state, store.state):
        with pytest.raises(ArithmeticError):
            ask(Picky("a-1"))


def test_evolve_takes_only_an_event_and_an_envelope(store: Store) -> None:
    """Further parameters are refused unless they have defaults; one named `recorded` gets the envelope nevertheless."""

    class TooMany(ef.State):
        account: ef.Tag

        def evolve(self, event: Deposited, recorded: ef.Recorded, more: int) -> None:
            """Never called."""

    class Defaults(ef.State):
        account: ef.Tag
        seen: list[Any] = []

        def evolve(self, event: Deposited, recorded: ef.Recorded | None = None, step: int = 7) -> None:
            self.seen.append((recorded and recorded.position, step))

    with pytest.raises(InvalidState):
        store.state(TooMany("a-1"))
    store.append(deposit())
    assert store.state(Defaults("a-1")).seen == [(1, 7)]
