"""An alert by a filter: raised and cleared once, also under two runners and after a restart."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import eventfold as ef
from eventfold.alerts import delivery
from eventfold.alerts.filter_alert import FilterAlert
from eventfold.errors import InvalidFilter, InvalidInput
from eventfold.testing.clock import Clock


class TransferRefused(ef.Event):
    """What the filters of these tests describe."""

    account: ef.Tag
    amount: int = 0


class Refusals(ef.Projection):
    """A read model whose name is taken."""

    account: str
    count: int = 0

    def evolve(self, event: TransferRefused) -> None:
        """Count."""
        self.count += 1


FILTER = "type:TransferRefused data.amount>1000"


def alert(name: str = "big", text: str = FILTER) -> FilterAlert:
    """More than two large ones within a minute."""
    return FilterAlert(name, text, 2, timedelta(minutes=1))


@pytest.fixture
def clock() -> Clock:
    """A clock that the test sets."""
    return Clock(datetime(2026, 6, 1, 12, tzinfo=UTC))


def states(store: ef.Store) -> list[tuple[str, bool]]:
    """The episodes: why, and whether they are open, oldest first."""
    return [(each.reason, each.is_open) for each in store.alerts.list("big", open_only=False)[::-1]]


def test_it_is_raised_and_cleared_once(clock: Clock) -> None:
    """Only events that match count; a restart counts the last window again, and raises nothing twice."""
    with ef.Store("memory:", clock=clock) as store:
        messages: list[delivery.Message] = []
        work: list[Any] = [alert(), delivery.function(messages.append, name="me", group_page=0)]
        store.run_until_idle(*work, clock=clock)
        for _ in range(2):
            store.append(TransferRefused("a-1", 2_000), TransferRefused("a-1", 5))
            store.run_until_idle(*work, clock=clock)
            clock.advance(1)
        assert states(store) == []
        store.append(TransferRefused("a-1", 2_000))
        for _ in range(3):
            store.run_until_idle(*work, clock=clock)
        ((reason, is_open),) = states(store)
        assert reason.startswith("3 in ") and is_open
        clock.advance(61)
        store.run_until_idle(*work, clock=clock)
        store.run_until_idle(*work, clock=clock)
        assert [is_open for _, is_open in states(store)] == [False]
        assert [each.kind for each in messages] == ["raised", "cleared"]
        assert store.alerts.names() == ["big"]


def test_two_runners_raise_it_once(clock: Clock) -> None:
    """The second finds it raised."""
    with ef.Store("memory:", clock=clock) as store:
        one, two = alert(), alert()
        store.run_until_idle(one, delivery.log(), clock=clock)
        store.append(*(TransferRefused("a-1", 2_000) for _ in range(3)))
        store.run_until_idle(one, delivery.log(), clock=clock)
        store.run_until_idle(two, delivery.log(), clock=clock)
        assert len(states(store)) == 1


def test_what_cannot_be_watched_is_refused(clock: Clock) -> None:
    """A name that a read model has, a filter that cannot be parsed, a rate that is none."""
    with ef.Store("memory:", clock=clock) as store:
        store.project(Refusals)
        with pytest.raises(InvalidInput, match="read model named refusals"):
            store.run_until_idle(alert("refusals"), delivery.log(), clock=clock)
        with pytest.raises(InvalidFilter):
            store.run_until_idle(alert(text="type:("), delivery.log(), clock=clock)
    with pytest.raises(InvalidInput, match="is not one"):
        FilterAlert("big", FILTER, 2, timedelta())
    with pytest.raises(InvalidInput, match="cannot be the name"):
        alert("Big Ones")
