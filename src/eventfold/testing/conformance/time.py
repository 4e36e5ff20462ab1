"""Time: recorded time never decreases along the log, so the log as of any time is a prefix of it."""

# Mistakes are made here on purpose.
# pyright: basic

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pytest

import eventfold as ef
from eventfold.core.query import Query
from eventfold.errors import InvalidInput, PositionBeyondHead
from eventfold.store import Store
from eventfold.testing.clock import Clock
from eventfold.testing.conformance.events import Account, about, amounts, deposit, deposits

TICK = timedelta(microseconds=1)


def test_recorded_time_is_the_time_of_the_clock(store: Store, clock: Clock) -> None:
    """The recorded time of an append is the time at which it was written, in UTC."""
    store.append(deposit())
    clock.advance(1.5)
    store.append(deposit())
    first, second = [recorded.time for recorded in store.read()]
    assert (second, second - first) == (clock.now, timedelta(seconds=1.5))


def test_recorded_time_never_decreases(store: Store, clock: Clock) -> None:
    """If the clock steps back, recorded time stays the same until the clock has caught up."""
    start = clock.now
    for step in (0, 10, -3_600, 5, 3_700):
        clock.advance(step)
        store.append(deposit())
    times = [(recorded.time - start).total_seconds() for recorded in store.read()]
    assert times == [0, 10, 10, 10, 115]


def test_time_does_not_step_back_after_reopening(
    store: Store, clock: Clock, reopen: Callable[[], Store], engine_under_test: Any
) -> None:
    """Recorded time does not decrease either when the store is reopened with a slower clock."""
    store.append(deposit())
    store.close()
    clock.back(7_200)
    again = engine_under_test.open(clock=clock)
    again.append(deposit())
    first, second = [recorded.time for recorded in again.read()]
    assert second == first


def test_a_time_selects_the_last_position_recorded_by_then(store: Store, clock: Clock, port: Any) -> None:
    """`at=T` is the last position whose time is not after T; 0 before the first event."""
    moments: list[datetime] = []
    for _ in range(3):
        moments.append(clock.advance(10))
        store.append(deposit(), deposit())
    from eventfold.core.envelope import to_micros

    at = lambda moment: port.position_at(to_micros(moment))  # noqa: E731
    assert [at(m) for m in moments] == [2, 4, 6]
    assert [at(m - TICK) for m in moments] == [0, 2, 4]
    assert (at(datetime(1900, 1, 1, tzinfo=UTC)), at(datetime(2999, 1, 1, tzinfo=UTC))) == (0, 6)


def test_events_of_one_microsecond_are_selected_together(store: Store, clock: Clock) -> None:
    """Of the events recorded in the same microsecond a time selects all or none."""
    for _ in range(5):
        store.append(deposit())
    assert store.count(until=clock.now) == 5
    assert store.count(until=clock.now - TICK) == 0


def test_a_state_can_be_read_as_of_any_position(store: Store) -> None:
    """`at=position` folds all events up to it, and the whole append that wrote it."""
    store.append(deposit(amount=1))
    store.append(deposit(amount=2), deposit(amount=3))
    store.append(deposit(amount=4))
    balances = [store.state(Account("a-1"), at=position).balance for position in range(5)]
    assert balances == [0, 1, 6, 6, 10]


def test_a_state_can_be_read_as_of_any_time(store: Store, clock: Clock) -> None:
    """`at=datetime` is the state as it was recorded by then, in whatever zone the time is given."""
    moments: list[datetime] = []
    for amount in (1, 2, 3):
        moments.append(clock.advance(60))
        store.append(deposit(amount=amount), deposit(amount=10))
    at = lambda moment: int(store.state(Account("a-1"), at=moment).balance)  # noqa: E731
    assert [at(m) for m in moments] == [11, 23, 36]
    assert [at(m - TICK) for m in moments] == [0, 11, 23]
    assert at(moments[1].astimezone(datetime.strptime("-0800", "%z").tzinfo)) == 23
    assert at(clock.advance(1_000)) == 36


def test_a_date_is_a_day_in_utc(store: Store, clock: Clock) -> None:
    """As a beginning a date is the first microsecond of that day, as an end the last."""
    today = clock.now.date()
    store.append(deposit(amount=1))
    clock.advance(86_400)
    store.append(deposit(amount=2))
    clock.advance(86_400)
    store.append(ef.Draft(deposit(amount=4), occurred=datetime.combine(today, time(23), UTC)))
    tomorrow = today + timedelta(days=1)
    at = [store.state(Account("a-1"), at=today + timedelta(days=number)).balance for number in (-1, 0, 1, 2)]
    assert at == [0, 1, 3, 7]
    assert [store.state(Account("a-1"), occurred_until=day).balance for day in (today, tomorrow)] == [5, 7]
    assert [each.position for each in store.read(since=tomorrow)] == [2, 3]
    assert [each.position for each in store.read(until=tomorrow)] == [1, 2]
    assert [each.position for each in store.read(occurred_since=tomorrow)] == [2]
    assert [each.position for each in store.read(occurred_since=today, occurred_until=today)] == [1, 3]
    assert (store.count(until=today), len(list(store.history(Account("a-1"), until=tomorrow)))) == (1, 2)


def test_past_states_can_be_read_in_any_order(store: Store) -> None:
    """Past states can be read in any order, and between appends, with the same results."""
    for amount in (1, 2, 3, 4):
        store.append(deposit(amount=amount))
        assert store.state(Account("a-1")).balance == sum(range(amount + 1))
    at = lambda position: int(store.state(Account("a-1"), at=position).balance)  # noqa: E731
    assert [at(p) for p in (4, 0, 2, 3, 1, 2, 4)] == [10, 0, 3, 6, 1, 3, 10]
    assert store.state(Account("a-1")).balance == 10


def test_nothing_recorded_later_changes_a_past_moment(store: Store, clock: Clock) -> None:
    """A past state does not change, even if the clock steps back before the next append."""
    store.append(deposit(amount=1))
    moment = clock.advance(10)
    assert store.state(Account("a-1"), at=moment).balance == 1
    clock.advance(1)
    store.append(deposit(amount=2))
    clock.back(5_000)
    store.append(deposit(amount=3))
    assert store.state(Account("a-1"), at=moment).balance == 1
    assert amounts(store.read(until=moment)) == [1]


def test_a_state_can_be_bounded_by_occurred(store: Store) -> None:
    """`occurred_until` folds events that had occurred by then, whenever recorded; with `at`, those recorded by `at`."""
    day = lambda n: datetime(2020, 1, n, tzinfo=UTC)  # noqa: E731
    for number, amount in ((10, 1), (5, 20), (20, 300)):
        store.append(ef.Draft(deposit(amount=amount), occurred=day(number)))
    asked = lambda **moment: int(store.state(Account("a-1"), **moment).balance)  # noqa: E731
    assert asked(occurred_until=day(10)) == 21
    assert asked(occurred_until=day(4)) == 0
    assert asked(occurred_until=day(31)) == 321
    assert asked(occurred_until=day(10), at=1) == 1
    assert asked() == 321


def test_a_state_at_a_position_in_the_future_is_refused(store: Store) -> None:
    """`at` a position beyond the head is refused; `at` a time in the future is the current state."""
    store.append(deposit())
    with pytest.raises(PositionBeyondHead):
        store.state(Account("a-1"), at=2)
    assert store.state(Account("a-1"), at=datetime.now(UTC) + timedelta(days=1)).balance == 1


@pytest.mark.parametrize("name", ["since", "until", "occurred_since", "occurred_until"])
def test_a_time_without_zone_is_refused(store: Store, name: str) -> None:
    """A naive datetime is refused wherever a time may be given."""
    bounds: dict[str, Any] = {name: datetime(2020, 1, 1)}
    with pytest.raises(InvalidInput):
        list(store.read(**bounds))
    with pytest.raises(InvalidInput):
        store.append(ef.Draft(deposit(), occurred=datetime(2020, 1, 1)))
    with pytest.raises(InvalidInput):
        store.state(Account("a-1"), at=datetime(2020, 1, 1))
    assert store.head() == 0


@pytest.mark.parametrize("position", [2, 3, 4])
def test_a_bound_never_splits_an_append(store: Store, position: int) -> None:
    """`until` and `at` inside an append include all of it, for reading, counting, folding and history."""
    store.append(deposit(amount=1))
    store.append(*deposits(3, start=2))
    store.append(deposit(amount=5))
    assert amounts(store.read(until=position)) == [1, 2, 3, 4]
    assert amounts(store.read(about("a-1"), until=position, backwards=True)) == [4, 3, 2, 1]
    assert store.count(Query(), until=position) == 4
    assert store.state(Account("a-1"), at=position).balance == Decimal(10)
    assert [step.state.balance for step in store.history(Account("a-1"), until=position)] == [1, 3, 6, 10]
