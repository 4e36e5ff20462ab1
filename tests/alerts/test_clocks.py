"""Clocks that jump: the one by which rows are asked, and the one by which events are recorded."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

import pytest

import eventfold as ef
from eventfold.alerts import ask_clock
from eventfold.alerts.ask_clock import BEHIND_US, CONFIRM_US, AskClock
from eventfold.projections.catch_up import wall_clock
from eventfold.testing.clock import Clock
from tests.alerts.rules import CardTesting, NoOrders, OrderPlaced, PaymentDeclined, facts, words

HOUR_US, SECOND_US = 3_600_000_000, 1_000_000


class TwoClocks:
    """A wall clock that can be set, and a monotonic one; both in µs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall, self.passed = 1_800_000_000_000_000, 500 * SECOND_US

        def read() -> int:
            return self.wall

        monkeypatch.setattr(ask_clock, "wall_clock", read)
        self.asked = AskClock(read, lambda: self.passed * 1000)

    def wait(self, micros: int) -> int:
        """Let time pass on both; return the time that rows are asked by, plus what it is behind."""
        self.wall += micros
        self.passed += micros
        return self.asked.now() + BEHIND_US


def test_a_wall_clock_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also through small corrections, and it never goes back."""
    clocks = TwoClocks(monkeypatch)
    assert clocks.wait(0) == clocks.wall
    assert clocks.wait(SECOND_US) == clocks.wall
    clocks.wall += 5 * SECOND_US
    assert clocks.wait(SECOND_US) == clocks.wall
    before = clocks.wall
    clocks.wall -= 5 * SECOND_US
    assert clocks.wait(SECOND_US) == before
    assert clocks.wait(9 * SECOND_US) == clocks.wall


def test_a_jump_ahead_is_followed_only_after_a_while(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A clock that is set an hour ahead and back within half a minute changes nothing; one that stays is believed."""
    clocks = TwoClocks(monkeypatch)
    begin = clocks.wait(0)
    clocks.wall += HOUR_US
    with caplog.at_level(logging.WARNING, "eventfold"):
        assert clocks.wait(SECOND_US) == begin + SECOND_US
        assert clocks.wait(10 * SECOND_US) == begin + 11 * SECOND_US
    assert [record.getMessage() for record in caplog.records] == [
        "The clock of this machine jumped by +3600 s. Alerts follow it if it lasts for 30 seconds."
    ]
    clocks.wall -= HOUR_US
    assert clocks.wait(SECOND_US) == clocks.wall
    clocks.wall += HOUR_US
    assert clocks.wait(SECOND_US) < clocks.wall - SECOND_US
    assert clocks.wait(CONFIRM_US) == clocks.wall


def test_a_jump_back_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time goes on as it passes, until the wall clock has caught up."""
    clocks = TwoClocks(monkeypatch)
    begin = clocks.wait(0)
    clocks.wall -= HOUR_US
    assert clocks.wait(SECOND_US) == begin + SECOND_US
    assert clocks.wait(1800 * SECOND_US) == begin + 1801 * SECOND_US
    clocks.wall += HOUR_US
    assert clocks.wait(SECOND_US) == clocks.wall


def test_a_clock_of_the_caller_is_used_as_it_is() -> None:
    """A test moves it by hours, and does not wait."""
    clock = Clock()
    asked = AskClock(clock)
    clock.advance(7200)
    assert asked.now() == clock.micros and not asked.is_wall_clock
    assert AskClock(wall_clock).is_wall_clock


def test_a_clock_that_was_ahead_or_behind_for_a_while_loses_and_doubles_nothing() -> None:
    """Recorded time never goes back: events after a jump ahead stand at one moment until the clock has caught up."""
    clock = Clock()
    with ef.Store("memory:", clock=clock) as store:
        store.run_until_idle(CardTesting, NoOrders, clock=clock)
        store.append(OrderPlaced("o-1"), PaymentDeclined("c-1"))
        store.run_until_idle(CardTesting, NoOrders, clock=clock)
        clock.advance(3700)  # an hour ahead: silence is reported
        store.run_until_idle(CardTesting, NoOrders, clock=clock)
        assert words(facts(store)) == [("raised", "")]
        clock.back(3700)
        store.run_until_idle(CardTesting, NoOrders, clock=clock)  # the facts are recorded an hour ahead now
        store.append(OrderPlaced("o-2"), *[PaymentDeclined("c-1")] * 3)
        for _ in range(3):
            store.run_until_idle(CardTesting, NoOrders, clock=clock)
            clock.advance(60)
        assert words(facts(store)) == [("raised", ""), ("cleared", "")]
        times = [event.time for event in store.read()]
        assert times == sorted(times)
        clock.set(datetime(2026, 1, 2, tzinfo=clock.now.tzinfo))
        store.append(*[PaymentDeclined("c-2")] * 4)
        for _ in range(2):
            store.run_until_idle(CardTesting, NoOrders, clock=clock)
        assert ("raised", "c-2") in words(facts(store))
        assert all(proof.proved for proof in store.projections.verify_rows(CardTesting))
        assert clock.now - times[0] < timedelta(days=2)


def test_an_event_that_was_recorded_before_a_silence_was_reported_ends_it_with_the_next_one() -> None:
    """A runner whose clock is ahead of the log's raises too early: the episode is ended, not forgotten."""
    log_clock, runner_clock = Clock(), Clock()
    with ef.Store("memory:", clock=log_clock) as store:
        store.run_until_idle(NoOrders, clock=runner_clock)
        store.append(OrderPlaced("o-1"))
        runner_clock.advance(4_000)
        store.run_until_idle(NoOrders, clock=runner_clock)
        assert words(facts(store)) == [("raised", "")]
        for _ in range(3):
            log_clock.advance(1_800)
            store.append(OrderPlaced("o-2"))
            store.run_until_idle(NoOrders, clock=runner_clock)
        assert words(facts(store)) == [("raised", ""), ("cleared", "")]
