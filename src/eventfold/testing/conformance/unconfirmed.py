"""A lost reply is not a refusal: the append may be repeated after AppendUnconfirmed, and is written once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from decimal import Decimal

import pytest

import eventfold as ef
from eventfold.errors import StoreBusy, StoreFull
from eventfold.store import Store
from eventfold.testing.conformance.engine_under_test import EngineUnderTest
from eventfold.testing.conformance.events import Account, about, amounts, deposit, draft, withdraw
from eventfold.testing.faults import Faulty

Faults = Callable[..., tuple[Store, Faulty]]


@pytest.mark.parametrize("fault", ["lose_reply", "drop_request"])
def test_a_lost_reply_repeats_the_append(faults: Faults, fault: str) -> None:
    """If the reply is lost, whether the events were written or not, `append` repeats the identical events.

    They are written once. For the caller it is the first append, so its receipt is not `repeated`.
    """
    store, planned = faults()
    getattr(planned, fault)(times=2)
    receipt = store.append(deposit(amount=7), unless=about("a-1"))
    assert receipt.first == 1
    assert not receipt.repeated
    assert amounts(store.read()) == [7]


def test_with_one_attempt_the_unconfirmed_error_is_raised(faults: Faults) -> None:
    """With one attempt a lost reply is AppendUnconfirmed; repeating the same ids afterwards writes once."""
    store, planned = faults()
    planned.lose_reply()
    event = draft(deposit(amount=7), 1)
    with pytest.raises(ef.AppendUnconfirmed) as open_outcome:
        store.using(attempts=1).append(event, unless=about("a-1"))
    assert open_outcome.value.code == "append-unconfirmed"
    assert store.append(event, unless=about("a-1")).repeated
    assert amounts(store.read()) == [7]


def test_an_unconfirmed_append_is_no_conflict(faults: Faults) -> None:
    """AppendConflict and AppendUnconfirmed are different errors: neither is a subclass of the other."""
    assert not issubclass(ef.AppendConflict, ef.AppendUnconfirmed)
    assert not issubclass(ef.AppendUnconfirmed, ef.AppendConflict)


@pytest.mark.parametrize("error", [StoreBusy("Locked.", "Try again."), StoreFull("The disk is full.", "Free space.")])
def test_an_error_before_the_commit_has_written_nothing(faults: Faults, error: ef.EventfoldError) -> None:
    """Any other error means that nothing was written; it is raised unchanged, and the append is not repeated."""
    store, planned = faults()
    planned.fail_before(error)
    with pytest.raises(type(error)):
        store.append(deposit())
    assert (store.head(), len(planned.commits)) == (0, 1)
    assert store.append(deposit()).first == 1


@pytest.mark.parametrize("fault", ["lose_reply", "drop_request"])
def test_a_decision_survives_a_lost_reply(faults: Faults, fault: str) -> None:
    """`decide` repeats the identical events after a lost reply: it neither decides again nor writes twice."""
    store, planned = faults()
    store.append(deposit("a-1", 10))
    calls: list[Decimal] = []

    def counted(account: Account, amount: Decimal) -> list[ef.Event]:
        calls.append(amount)
        return withdraw(account, amount)

    getattr(planned, fault)()
    done = store.using(command_id="c").decide(counted, Account("a-1"), Decimal(4))
    assert (len(calls), done.positions, done.state(Account("a-1")).balance) == (1, range(2, 3), Decimal(6))
    assert not done.repeated, "it was decided for the first time"
    assert store.using(command_id="c").decide(counted, Account("a-1"), Decimal(4)).repeated
    assert store.state(Account("a-1")).balance == Decimal(6)
    assert store.head() == 2


def test_a_lost_reply_under_the_key_of_another_append_is_a_repeat(
    faults: Faults, engine_under_test: EngineUnderTest
) -> None:
    """If a rival wrote under the key meanwhile, nothing was written here: the receipt is the rival's, `repeated`."""
    store, planned = faults()
    rival = engine_under_test.rival()
    planned.drop_request()
    planned.before(lambda: rival.append(deposit(amount=99), key="k"))
    receipt = store.append(deposit(amount=7), key="k")
    assert (receipt.first, receipt.repeated) == (1, True)
    assert amounts(store.read()) == [99]


def test_a_state_is_correct_after_a_lost_reply_and_a_concurrent_event(
    faults: Faults, engine_under_test: EngineUnderTest
) -> None:
    """After a lost reply and a rival's event before the repetition, the state includes every event once."""
    store, planned = faults()
    rival = engine_under_test.rival()
    store.append(deposit("a-1", 10))
    planned.lose_reply()
    planned.before(lambda: rival.append(deposit("a-1", 100)))
    done = store.decide(withdraw, Account("a-1"), Decimal(4))
    assert (done.positions, done.state(Account("a-1")).balance) == (range(2, 3), Decimal(6))
    assert store.state(Account("a-1")).balance == Decimal(106)
    store.decide(withdraw, Account("a-1"), Decimal(6))
    assert store.state(Account("a-1")).balance == Decimal(100)


def test_a_conflict_after_a_lost_reply_is_a_conflict(faults: Faults, engine_under_test: EngineUnderTest) -> None:
    """If the append was not written and a rival wrote meanwhile, the repetition raises the conflict."""
    store, planned = faults()
    rival = engine_under_test.rival()
    planned.drop_request()
    planned.before(lambda: rival.append(deposit(amount=99)))
    with pytest.raises(ef.AppendConflict):
        store.append(deposit(amount=7), unless=about("a-1"))
    assert amounts(store.read()) == [99]


def test_a_failing_watcher_does_not_affect_appends(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """The append is acknowledged, other watchers are called, and the error is logged."""
    called = threading.Event()

    def fail() -> None:
        raise RuntimeError("a watcher of another caller")

    stops = [store.engine.watch(fail), store.engine.watch(called.set)]
    try:
        assert store.append(deposit(amount=7)).first == 1
        called.clear()
        assert store.append(deposit(amount=8)).first == 2
        assert called.wait(30), "the second watcher was called after the first had raised"
    finally:
        for stop in stops:
            stop()
    assert any("watches" in record.getMessage() for record in caplog.records)
    assert amounts(store.read()) == [7, 8]
