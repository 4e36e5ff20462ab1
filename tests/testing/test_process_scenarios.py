"""Given, when, then for read models, processes, timers and effects: failures show all differences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import eventfold as ef
from eventfold.processes import after, cancel, decide, effect
from eventfold.testing import given
from eventfold.testing.properties import (
    decision_is_deterministic,
    effect_takes_repeats,
    events_come_back,
    process_takes_repeats,
    projection_folds_soundly,
    replay_equals_incremental,
    snapshot_equals_replay,
    upcasts_round_trip,
)


class Placed(ef.Event):
    order: ef.Tag
    amount: int = 1


class Paid(ef.Event):
    order: ef.Tag


class ReminderDue(ef.Event):
    order: ef.Tag


class Reminded(ef.Event):
    order: ef.Tag
    times: int


class Order(ef.State):
    order: ef.Tag
    reminded: int = 0

    def evolve(self, event: Reminded) -> None:
        self.reminded += 1


def remind(order: Order) -> Reminded:
    return Reminded(order.order, order.reminded + 1)


class Payment(ef.Process, start="beginning"):
    order: ef.Tag
    paid: bool = False

    def evolve(self, event: Paid) -> None:
        self.paid = True

    def react(self, event: Placed | Paid | ReminderDue) -> Iterator[Any]:
        if isinstance(event, Paid):
            yield cancel(ReminderDue)
        elif not self.paid:
            if isinstance(event, ReminderDue):
                yield decide(remind, Order(self.order))
            yield after(ReminderDue(self.order), days=3)


class Orders(ef.Projection):
    order: str
    amount: int = 0

    def evolve(self, event: Placed) -> None:
        self.amount += event.amount


@effect(start="beginning")
def mail(event: Reminded) -> None:
    raise AssertionError("an effect is not called by a scenario")


def test_timers_fire_in_order() -> None:
    """Nine days are three reminders, each set by the previous one; a payment ends them."""
    going = given(Placed("o-1")).run(Payment).waits(ReminderDue("o-1")).later(days=2, hours=23).nothing()
    going.later(hours=1).then(ReminderDue("o-1"), Reminded("o-1", 1)).gives(mail, Reminded("o-1", 1))
    going.later(days=6).then(ReminderDue("o-1"), Reminded("o-1", 2), ReminderDue("o-1"), Reminded("o-1", 3))
    going.happens(Paid("o-1")).nothing().asks(cancel(ReminderDue)).waits().later(weeks=9).nothing()


def test_actions_of_a_reaction_are_compared_as_values() -> None:
    """Decisions with their states, timers with their time."""
    going = given().run(Payment).happens(Placed("o-1")).asks(after(ReminderDue("o-1"), days=3))
    going.later(days=3).asks(decide(remind, Order("o-1")), after(ReminderDue("o-1"), days=3))


def test_differences_are_shown() -> None:
    """Both sides, line by line, for events, actions, timers, effects and rows."""
    going = given(Placed("o-1")).run(Payment)
    with pytest.raises(AssertionError, match="timers differ"):
        going.waits(ReminderDue("o-2"))
    with pytest.raises(AssertionError, match="actions differ"):
        going.happens(Placed("o-2")).asks(after(ReminderDue("o-2"), days=4))
    with pytest.raises(AssertionError, match="events differ") as failed:
        given(Placed("o-1")).run(Payment).later(days=3).then(ReminderDue("o-1"), Reminded("o-1", 2))
    assert "times: 2 → 1" in str(failed.value)
    with pytest.raises(AssertionError, match="mail differs"):
        going.gives(mail, Reminded("o-1", 1))
    with pytest.raises(AssertionError, match="rows of Orders differ") as failed:
        given(Placed("o-1", 5)).rows(Orders).are(Orders("o-1", 6))
    assert "amount: 6 → 5" in str(failed.value)


def test_rows_are_compared_by_value() -> None:
    """All rows in the order of their keys, or some."""
    scenario = given(Placed("o-2", 2), Placed("o-1", 1), Placed("o-2", 3))
    scenario.rows(Orders).are(Orders("o-1", 1), Orders("o-2", 5))
    scenario.rows(Orders, {"order": "o-2"}).are(Orders("o-2", 5))


def test_properties_accept_sound_code_and_reject_faulty_code() -> None:
    """A sound read model, process and effect pass; one that counts its own calls does not."""
    events = [Placed("o-1", 2), Placed("o-2", 3), Placed("o-1", 4), Paid("o-1")]
    projection_folds_soundly(Orders, events)
    process_takes_repeats(Payment, events)
    delivered: dict[Any, str] = {}

    @effect(start="beginning")
    def careful(recorded: ef.Recorded[Paid]) -> None:
        delivered[recorded.id] = recorded.event.order

    effect_takes_repeats(careful, events, lambda: dict(delivered))
    calls: list[int] = []

    @effect(start="beginning")
    def careless(event: Paid) -> None:
        calls.append(1)

    with pytest.raises(AssertionError, match="called twice"):
        effect_takes_repeats(careless, events, lambda: len(calls))


def test_every_property_and_scenario_holds_without_events() -> None:
    """Hypothesis tries the empty list first: a read model, a process and an effect that nothing happened to."""

    class Counts(ef.SqlProjection):
        tables = {"no_events_counted": "order_id TEXT PRIMARY KEY"}

        def placed(self, event: Placed, tx: ef.Transaction) -> None:
            tx.execute("INSERT INTO {no_events_counted} VALUES (?)", (event.order,))

    @effect(start="beginning", name="no_events_effect")
    def idle(event: Paid) -> None:
        raise AssertionError(event)

    for projection in (Orders, Counts):
        projection_folds_soundly(projection, [])
    process_takes_repeats(Payment, [])
    effect_takes_repeats(idle, [], list)
    replay_equals_incremental(Order("o-1"), [])
    snapshot_equals_replay(Order("o-1"), [])
    events_come_back([])
    upcasts_round_trip([])
    decision_is_deterministic(remind, [], Order("o-1"))
    given().rows(Orders).are()


def test_a_projection_that_depends_on_other_data_is_rejected() -> None:
    """Rows that depend on the number of calls differ when they are built again."""
    calls: list[int] = []

    class Counting(ef.Projection):
        order: str
        call: int = 0

        def evolve(self, event: Placed) -> None:
            calls.append(1)
            self.call = len(calls)

    with pytest.raises(AssertionError, match="differ"):
        projection_folds_soundly(Counting, [Placed("o-1"), Placed("o-2")])
