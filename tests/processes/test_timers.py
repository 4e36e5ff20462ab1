"""Timers: each fires once, as an event, when it is due by the clock, unless it was cancelled."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import Any

import pytest

import eventfold as ef
from eventfold.concurrency import run as drive
from eventfold.core.snapshot import Snapshot
from eventfold.engines.memory import MemoryEngine
from eventfold.errors import CursorMismatch, StoreBusy
from eventfold.processes import after, at, cancel
from eventfold.processes.timers import TimerQueue
from eventfold.testing.clock import Clock
from eventfold.testing.faults import Faulty
from tests.processes.shop import OrderPlaced, Paid, Reminded, ReminderDue

FIRED = ef.Query.of(types=[ReminderDue])


class Waiting(ef.Process, start="beginning"):
    """Sets one timer an hour ahead for an order, and another for an amount of two; a payment cancels them."""

    order: ef.Tag

    def evolve(self, event: OrderPlaced) -> None: ...

    def react(self, event: OrderPlaced | Paid) -> Any:
        if isinstance(event, Paid):
            yield cancel()
            return
        for number in range(event.amount):
            yield after(ReminderDue(self.order), hours=1 + number)


def timetable(store: ef.Store) -> TimerQueue:
    """Return the timers as a worker that has just started sees them."""
    table = TimerQueue("waiting", store.projections.log)
    drive(table.catch_up())
    return table


def test_a_timer_fires_when_it_is_due_and_not_before(store: ef.Store, clock: Clock) -> None:
    """Due is counted from the event reacted to; what fires occurred when it was due, and has an id of its own."""
    receipt = store.append(OrderPlaced("o-1"))
    store.run_until_idle(Waiting, clock=clock)
    (placed,) = store.read(ef.Query.of(types=[OrderPlaced]))
    clock.set(placed.time + timedelta(hours=1) - timedelta(microseconds=1))
    store.run_until_idle(Waiting, clock=clock)
    assert store.count(FIRED) == 0
    clock.advance(0.000001)
    store.run_until_idle(Waiting, clock=clock)
    (fired,) = store.read(FIRED)
    assert fired.occurred == placed.time + timedelta(hours=1) and receipt.last < fired.position
    assert fired.tags == ("$fired:waiting", "order:o-1")


def test_two_who_fire_the_same_timers_at_once_fire_each_once(url: str, clock: Clock) -> None:
    """Workers without a lease that do not know of each other cannot fire a timer twice."""
    with ef.Store(url) as store:
        store.extend([OrderPlaced(f"o-{n}") for n in range(300)])
        store.run_until_idle(Waiting, clock=clock)
        clock.advance(4_000)
        tables = [timetable(store) for _ in range(4)]
        start = threading.Barrier(4)
        counts: list[int] = []

        def fire(table: TimerQueue) -> None:
            start.wait()
            counts.append(drive(table.fire(clock())))

        threads = [threading.Thread(target=fire, args=(table,)) for table in tables]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        fired = list(store.read(FIRED))
        assert len(fired) == len({r.event.order for r in fired}) == 300 == sum(counts)


def test_a_timer_is_cancelled_before_it_fires_or_not_at_all(store: ef.Store, clock: Clock) -> None:
    """A cancellation recorded after the firer looked and before it fires is respected."""
    store.append(OrderPlaced("o-1", 2), OrderPlaced("o-2"))
    store.run_until_idle(Waiting, clock=clock)
    clock.advance(4_000)
    late = timetable(store)
    assert len(late) == 3
    store.append(Paid("o-1"))
    store.run_until_idle(Waiting, clock=Clock())  # whose clock shows that nothing is due
    assert drive(late.fire(clock())) == 1
    assert [r.event.order for r in store.read(FIRED)] == ["o-2"]
    assert len(timetable(store)) == 0


def test_a_cancellation_between_looking_and_firing_is_respected(clock: Clock) -> None:
    """A cancellation is committed between the read and the append of the worker: only the others fire."""
    inner = MemoryEngine()
    engine = Faulty(inner)
    with ef.Store(engine) as store, ef.Store(inner) as rival:
        store.append(OrderPlaced("o-1"), OrderPlaced("o-2"))
        store.run_until_idle(Waiting, clock=Clock())
        clock.advance(4_000)
        table = timetable(store)

        def cancelled() -> None:
            rival.append(Paid("o-1"))
            rival.run_until_idle(Waiting, clock=Clock())

        engine.before(cancelled)
        assert drive(table.fire(clock())) == 1
        assert [r.event.order for r in store.read(FIRED)] == ["o-2"]


class Choosy(ef.Process, start="beginning"):
    """Cancels by class and by value."""

    order: ef.Tag

    def evolve(self, event: OrderPlaced) -> None: ...

    def react(self, event: OrderPlaced | Paid) -> Any:
        if isinstance(event, OrderPlaced):
            return [after(ReminderDue(self.order), hours=1), after(Reminded(self.order), hours=1)]
        return cancel(ReminderDue) if self.order == "class" else cancel(Reminded(self.order))


def test_timers_are_cancelled_by_class_or_by_value(memory: ef.Store, clock: Clock) -> None:
    """Only the named ones end, and only those of the instance."""
    memory.append(OrderPlaced("class"), OrderPlaced("value"), OrderPlaced("other"))
    memory.run_until_idle(Choosy, clock=clock)
    memory.append(Paid("class"), Paid("value"))
    memory.run_until_idle(Choosy, clock=clock)
    clock.advance(4_000)
    memory.run_until_idle(Choosy, clock=clock)
    fired = {(type(r.event).__name__, r.event.order) for r in memory.read(ef.Query.of(types=[ReminderDue, Reminded]))}
    assert fired == {
        ("Reminded", "class"),
        ("ReminderDue", "value"),
        ("ReminderDue", "other"),
        ("Reminded", "other"),
    }


class Backward(ef.Process, start="beginning"):
    """Asks for a timer in the past."""

    order: ef.Tag

    def evolve(self, event: OrderPlaced) -> None: ...

    def react(self, event: OrderPlaced) -> Any:
        from datetime import UTC, datetime

        return at(ReminderDue(self.order), datetime(1969, 1, 1, tzinfo=UTC))


def test_a_timer_in_the_past_fires_at_once(store: ef.Store, clock: Clock) -> None:
    """What was due before it was set is due now, even before 1970; it occurred when it was due."""
    store.append(OrderPlaced("o-1"))
    store.run_until_idle(Backward, clock=clock)
    (fired,) = store.read(FIRED)
    assert fired.occurred is not None and fired.occurred.year == 1969


def test_a_worker_that_comes_late_fires_what_was_due_meanwhile(store: ef.Store, clock: Clock) -> None:
    """No worker ran for a year: the timer is set in the past, by the time of its cause, and fires at once."""
    store.append(OrderPlaced("o-1"))
    clock.advance(365 * 86_400)
    store.run_until_idle(Waiting, clock=clock)
    assert store.count(FIRED) == 1


def test_a_clock_that_jumps_fires_nothing_twice(memory: ef.Store, clock: Clock) -> None:
    """A jump ahead fires what is due by it, once; a step back holds the rest until their time has come again."""
    memory.append(OrderPlaced("o-1", 3))
    memory.run_until_idle(Waiting, clock=clock)
    fired: list[int] = []
    for seconds in (5_000, -4_900, 100, 20_000, -30_000, 30_000):
        clock.advance(seconds)
        memory.run_until_idle(Waiting, clock=clock)
        fired.append(memory.count(FIRED))
    assert fired == [1, 1, 1, 3, 3, 3]


def test_a_runner_notices_that_its_clock_was_set(memory: ef.Store, clock: Clock) -> None:
    """No runner sleeps until a timer is due without looking at the clock in between."""
    memory.append(OrderPlaced("o-1"))
    with memory.run(Waiting, clock=clock), memory.follow(FIRED) as follower:
        next(iter(memory.follow(ef.Query.of(types=["$timer-set"]), raw=True)))
        clock.advance(4_000)
        began = time.monotonic()
        assert next(iter(follower)).event.order == "o-1"
        assert time.monotonic() - began < 60


def test_timers_fire_in_the_order_in_which_they_are_due(memory: ef.Store, clock: Clock) -> None:
    """The order in which they were set does not matter."""
    memory.append(OrderPlaced("o-1", 3), OrderPlaced("o-2", 3))
    memory.run_until_idle(Waiting, clock=clock)
    clock.advance(86_400)
    memory.run_until_idle(Waiting, clock=clock)
    assert [r.event.order for r in memory.read(FIRED)] == ["o-1", "o-2"] * 3


@pytest.mark.parametrize("fault", ["lose_reply", "drop_request"])
def test_an_answer_that_is_lost_while_firing_changes_nothing(fault: str, clock: Clock) -> None:
    """Whether the append was written or not, it fires once."""
    engine = Faulty(MemoryEngine())
    with ef.Store(engine) as store:
        store.append(OrderPlaced("o-1"), OrderPlaced("o-2"))
        store.run_until_idle(Waiting, clock=clock)
        clock.advance(4_000)
        getattr(engine, fault)()
        store.run_until_idle(Waiting, clock=clock)
        assert [r.event.order for r in store.read(FIRED)] == ["o-1", "o-2"]


def test_ten_thousand_due_timers_fire_in_ten_seconds(url: str, clock: Clock) -> None:
    """A worker that has just started finds them in the log and fires them all."""
    with ef.Store(url) as store:
        store.extend([OrderPlaced(f"o-{n}", 1_000) for n in range(10)])
        store.run_until_idle(Waiting, clock=clock)
        clock.advance(86_400 * 365)
        began, worked = time.perf_counter(), time.thread_time()
        table = timetable(store)
        fired = drive(table.fire(clock()))
        took, worked = time.perf_counter() - began, time.thread_time() - worked
        assert fired == store.count(FIRED) == 10_000
        assert worked < 10 and took < 100, f"{worked:.1f} s of work in {took:.1f} s"  # others may be at work here, too


def test_a_restart_reads_no_more_than_it_must(url: str, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits is kept beside the log now and then; a new worker goes on from there, and comes to the same."""
    monkeypatch.setattr("eventfold.processes.timers.SNAPSHOT_EVERY_EVENTS", 500)
    with ef.Store(url) as store:
        store.append(OrderPlaced("o-1", 900))
        store.run_until_idle(Waiting, clock=clock)
        timetable(store)  # keeps
        store.append(OrderPlaced("o-2", 5))
        store.run_until_idle(Waiting, clock=Clock())
        engine, reads = store.projections.log.engine, []
        read = engine.read

        async def spied(query: ef.Query, span: Any) -> Any:
            page = await read(query, span)
            reads.append(len(page.events))
            return page

        monkeypatch.setattr(engine, "read", spied)
        again = timetable(store)
        assert len(again) == 905 and sum(reads) <= 5
        drive(engine.services.snapshots.delete_prefix())
        assert [each.id for each in timetable(store).waiting] == [each.id for each in again.waiting]
        assert drive(again.fire(clock() + 10**15)) == 905


def test_a_snapshot_of_another_history_is_not_believed(memory: ef.Store, clock: Clock) -> None:
    """If another event is at its position, or its format is different or damaged, the log is read instead."""
    memory.append(OrderPlaced("o-1", 2))
    memory.run_until_idle(Waiting, clock=clock)
    engine = memory.projections.log.engine
    first = drive(engine.event_id(1)) or b""
    for kept in (
        Snapshot("timers-1", 1, b"x" * 16, b"[]"),
        Snapshot("timers-0", 1, first, b"[]"),
        Snapshot("timers-1", 1, first, b"?"),
    ):
        drive(engine.services.snapshots.put("$timers:waiting", kept))
        assert len(timetable(memory)) == 2


def test_a_runner_whose_timers_fail_for_good_ends_as_a_whole(memory: ef.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reactions end as well, and the reason is kept."""

    async def broken(self: TimerQueue, now: int) -> int:
        raise CursorMismatch("The log is another.", "Look.")

    monkeypatch.setattr(TimerQueue, "fire", broken)
    with memory.run(Waiting) as running:
        assert running.wait(60)
        assert isinstance(running.failed["timers"], CursorMismatch)


def test_a_runner_outlives_a_store_that_is_away(
    memory: ef.Store, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """It logs the error, and goes on when the store is back."""
    fire, away = TimerQueue.fire, [True]

    async def sometimes(self: TimerQueue, now: int) -> int:
        if away:
            raise StoreBusy("It is away.", "Wait.")
        return await fire(self, now)

    monkeypatch.setattr(TimerQueue, "fire", sometimes)
    memory.append(OrderPlaced("o-1"))
    clock.advance(4_000)
    with memory.run(Waiting, clock=clock) as running, memory.follow(FIRED) as follower:
        while "timers" not in running.trouble:
            time.sleep(0.01)
        away.clear()
        assert next(iter(follower)).event.order == "o-1"
