"""Processes: each reaction happens once, with the state as it was, and failures name their cause."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import eventfold as ef
from eventfold.concurrency import run as drive
from eventfold.engines.memory import MemoryEngine
from eventfold.errors import InvalidInput, InvalidProcess, ProcessError, StoreFull
from eventfold.processes import after, at, cancel, decide
from eventfold.processes.definition import process_definition
from eventfold.processes.reaction import ProcessWorker
from eventfold.testing.clock import Clock
from eventfold.testing.faults import Faulty
from tests.processes.shop import (
    Declined,
    Order,
    OrderPlaced,
    Paid,
    Payment,
    Reminded,
    ReminderDue,
    Reserved,
    SoldOut,
    Stock,
    reserve,
)


def types(store: ef.Store) -> Counter[str]:
    """How many events there are of each type."""
    return Counter({each.type: each.count for each in store.types()})


def test_what_is_not_paid_is_reminded_of_and_what_is_paid_is_not(store: ef.Store, clock: Clock) -> None:
    """The process sets a timer, cancels it or acts on it, and is found finished from its state alone."""
    store.append(OrderPlaced("o-1"), OrderPlaced("o-2"))
    store.run_until_idle(Payment, clock=clock)
    store.append(Paid("o-1"))
    store.run_until_idle(Payment, clock=clock)
    clock.advance(60)
    store.run_until_idle(Payment, clock=clock)
    reminded = [r.event.order for r in store.read(ef.Query.of(types=[Reminded]))]
    assert reminded == ["o-2"]
    assert store.state(Payment("o-1")).done() and store.state(Payment("o-2")).done()
    assert store.state(Stock("bolt")).times == 2


def test_whatever_a_process_writes_says_what_caused_it(store: ef.Store, clock: Clock) -> None:
    """A command's events have the trigger as their cause, and all consequences of one event have one correlation id."""
    store.using(correlation_id="c-9").append(OrderPlaced("o-1"))
    store.run_until_idle(Payment, clock=clock)
    clock.advance(60)
    store.run_until_idle(Payment, clock=clock)
    events = {r.type: r for r in store.read(raw=True)}
    assert {r.metadata.correlation_id for r in events.values()} == {"c-9"}
    chain = ["shop-order-placed", "$timer-set", "shop-reminder-due", "shop-reminded"]
    for cause, effect in pairwise(chain):
        assert events[effect].metadata.causation_id == str(events[cause].id)


def test_a_repeated_reaction_writes_nothing_twice(store: ef.Store) -> None:
    """An event that is delivered again, by another worker, in another life, adds nothing to the log."""
    store.append(OrderPlaced("o-1"))
    (placed,) = store.read()
    for _ in range(3):
        drive(ProcessWorker(process_definition(Payment), store.projections.log).react(placed))
    assert types(store) == {"shop-order-placed": 1, "shop-reserved": 1, "$timer-set": 1}


def test_a_reaction_sees_the_state_right_after_its_event(memory: ef.Store) -> None:
    """However late a worker runs, it reacts with the state right after that event, not with the current one."""
    seen: list[tuple[int, bool]] = []

    class Watching(ef.Process, start="beginning"):
        order: ef.Tag
        count: int = 0
        paid: bool = False

        def evolve(self, event: OrderPlaced | Paid) -> None:
            self.count += 1
            self.paid = isinstance(event, Paid)

        def react(self, event: OrderPlaced | Paid) -> None:
            seen.append((self.count, self.paid))
            self.count = 1000  # its own copy

    memory.append(OrderPlaced("o-1"), OrderPlaced("o-1"), Paid("o-1"))
    memory.run_until_idle(Watching)
    assert seen == [(1, False), (2, False), (3, True)]


def test_replay_folds_and_never_reacts(store: ef.Store, clock: Clock) -> None:
    """Reading a process's state, current or past, writes nothing."""
    store.append(OrderPlaced("o-1"))
    store.append(Paid("o-1"))
    assert (store.state(Payment("o-1"), at=1).paid, store.state(Payment("o-1")).paid) == (False, True)
    assert store.head() == 2


def test_now_means_from_now_on(memory: ef.Store) -> None:
    """A process that starts now does not react to what was there before it was first run."""

    class Late(ef.Process, start="now"):
        order: ef.Tag

        def evolve(self, event: OrderPlaced) -> None: ...

        def react(self, event: OrderPlaced) -> Any:
            return Reminded(self.order)

    memory.append(OrderPlaced("o-1"))
    memory.run_until_idle(Late)
    memory.append(OrderPlaced("o-2"))
    memory.run_until_idle(Late)
    assert [r.event.order for r in memory.read(ef.Query.of(types=[Reminded]))] == ["o-2"]


class Reservation(ef.Process, start="beginning"):
    """Compensates: where there is not enough, the order is declined."""

    order: ef.Tag

    def evolve(self, event: OrderPlaced) -> None: ...

    def react(self, event: OrderPlaced) -> Any:
        action = decide(reserve, Stock("nut"), self.order, event.amount, most=5)
        return action.on_refusal(SoldOut, lambda error: Declined(self.order, str(error)))


def test_a_refusal_that_is_foreseen_becomes_an_event(store: ef.Store) -> None:
    """`on_refusal` records the refusal, once, and the process goes on."""
    store.append(OrderPlaced("o-1", 4), OrderPlaced("o-2", 4), OrderPlaced("o-3", 1))
    store.run_until_idle(Reservation)
    for recorded in store.read(ef.Query.of(types=[OrderPlaced])):
        drive(ProcessWorker(process_definition(Reservation), store.projections.log).react(recorded))
    assert [r.event for r in store.read(ef.Query.of(types=[Declined]))] == [Declined("o-2", "4 of 5 are gone")]
    assert store.state(Stock("nut")).reserved == 5


class Sweeping(ef.Process, start="beginning", attempts=1):
    """Names every error as a refusal."""

    order: ef.Tag

    def evolve(self, event: OrderPlaced) -> None: ...

    def react(self, event: OrderPlaced) -> Any:
        action = decide(reserve, Stock("nut"), self.order, event.amount, most=5)
        return action.on_refusal(Exception, lambda error: Declined(self.order, error.args[0]))


class Clumsy(ef.Process, start="beginning", attempts=1):
    """Makes no event of a refusal."""

    order: ef.Tag

    def evolve(self, event: OrderPlaced) -> None: ...

    def react(self, event: OrderPlaced) -> Any:
        return decide(reserve, Stock("nut"), self.order, event.amount, most=1).on_refusal(SoldOut, str)


def test_a_store_that_is_away_refuses_nothing() -> None:
    """Even if every error counts as a refusal, an order is not declined because a disk was full: it is retried."""
    engine = Faulty(MemoryEngine())
    with ef.Store(engine) as store:
        store.append(OrderPlaced("o-1", 4))
        reacting, (placed,) = ProcessWorker(process_definition(Sweeping), store.projections.log), store.read()
        engine.fail_before(StoreFull("The disk is full.", "Free space."))
        with pytest.raises(ProcessError, match="The disk is full"):
            drive(reacting.react(placed))
        engine.lose_reply(times=20)  # written, and every answer lost
        with pytest.raises(ProcessError, match="reply"):
            drive(reacting.react(placed))
        engine.clear()
        drive(reacting.react(placed))
        assert types(store) == {"shop-order-placed": 1, "shop-reserved": 1}


def test_a_refusal_that_becomes_no_event_names_the_place(store: ef.Store) -> None:
    """The instance is stuck, with the refusal and what went wrong with it."""
    store.append(OrderPlaced("o-1", 4))
    with pytest.raises(ProcessError, match=r"Clumsy\.react .*line \d+.*was refused \(SoldOut.*on_refusal failed"):
        store.run_until_idle(Clumsy)


broken: list[bool] = []


class Fragile(ef.Process, start="beginning", attempts=1):
    """A process that fails for some events."""

    order: ef.Tag

    def evolve(self, event: OrderPlaced | Paid) -> None: ...

    def react(self, event: OrderPlaced | Paid) -> Any:
        if isinstance(event, Paid):
            return Reminded(self.order)
        return decide(reserve, Stock("nail"), self.order, event.amount, most=0 if broken else 100)


def test_an_instance_that_fails_is_stuck_and_named_and_others_go_on(store: ef.Store) -> None:
    """The error names process, event, command and reason; later events of the instance wait; a retry sets it free."""
    broken.append(True)
    store.append(OrderPlaced("o-1"), Paid("o-1"), Paid("o-2"))
    with pytest.raises(ProcessError) as caught:
        store.run_until_idle(Fragile)
    for part in ("Fragile.react", "event 1 (shop-order-placed) of o-1", "reserve(Stock(", "SoldOut: 0 of 0 are gone"):
        assert part in str(caught.value)
    assert [r.event.order for r in store.read(ef.Query.of(types=[Reminded]))] == ["o-2"]
    broken.clear()
    assert store.projections.retry("fragile", 1) == 2
    store.run_until_idle(Fragile)
    assert [r.event.order for r in store.read(ef.Query.of(types=[Reminded]))] == ["o-2", "o-1"]
    assert store.state(Stock("nail")).times == 1


def test_a_stuck_event_can_be_skipped_for_a_reason(memory: ef.Store) -> None:
    """Skipping lets the instance go on, and the log says who skipped what, and why."""
    broken.append(True)
    memory.append(OrderPlaced("o-1"), Paid("o-1"))
    with pytest.raises(ProcessError):
        memory.run_until_idle(Fragile)
    memory.projections.skip("fragile", 1, "the customer called")
    memory.run_until_idle(Fragile)
    broken.clear()
    assert types(memory)["shop-reminded"] == 1
    acts = [r.event.json() for r in memory.read(ef.Query.of(types=["$projection-acted"]), raw=True)]
    assert acts[-1]["facts"]["because"] == "the customer called"


class Looping(ef.Process, start="beginning", max_chain=7, attempts=1):
    """A process whose reaction triggers itself."""

    order: ef.Tag

    def evolve(self, event: OrderPlaced) -> None: ...

    def react(self, event: OrderPlaced) -> Any:
        return OrderPlaced(self.order) if self.order == "loop" else None


def test_a_process_that_loops_is_stopped_at_its_bound(store: ef.Store) -> None:
    """A reaction that causes itself ends after `max_chain` rounds with an error that names the place; others go on."""
    store.append(OrderPlaced("loop"), OrderPlaced("fine"))
    with pytest.raises(ProcessError, match=r"Looping\.react .* react 7 times in a row") as caught:
        store.run_until_idle(Looping)
    assert "test_processes.py, line" in str(caught.value) and "ProcessLoops" in str(caught.value)
    assert types(store)["shop-order-placed"] == 2 + 7


def test_a_timer_in_between_is_no_loop(memory: ef.Store, clock: Clock) -> None:
    """A daily action without end is not a loop; only a chain without elapsed time is."""

    class Daily(ef.Process, start="beginning", max_chain=3):
        order: ef.Tag

        def evolve(self, event: OrderPlaced) -> None: ...

        def react(self, event: OrderPlaced | ReminderDue) -> Any:
            return at(ReminderDue(self.order), clock.now.replace(microsecond=0) if self.order == "past" else later())

    def later() -> Any:
        from datetime import timedelta

        return clock.now + timedelta(days=1)

    memory.append(OrderPlaced("o-1"))
    for _ in range(10):
        memory.run_until_idle(Daily, clock=clock)
        clock.advance(86_500)
    assert types(memory)["shop-reminder-due"] == 9


def test_changed_code_goes_on_where_the_old_code_was(memory: ef.Store) -> None:
    """A new version of a process reacts to later events; no rebuild or accept is needed."""

    def version(event: type) -> Any:
        class Versioned(ef.Process, start="beginning", name="versioned"):
            order: ef.Tag

            def evolve(self, event: OrderPlaced) -> None: ...

            def react(self, event: OrderPlaced | Paid) -> Any:
                return Reminded(self.order)

        class Versioned2(ef.Process, start="beginning", name="versioned"):
            order: ef.Tag

            def evolve(self, event: OrderPlaced | Paid) -> None: ...

            def react(self, event: OrderPlaced) -> Any:
                return Declined(self.order, "changed")

        Versioned2.__qualname__ = Versioned.__qualname__
        return Versioned if event is Reminded else Versioned2

    memory.append(OrderPlaced("o-1"))
    memory.run_until_idle(version(Reminded))
    memory.append(OrderPlaced("o-2"))
    memory.run_until_idle(version(Declined))
    assert types(memory)["shop-reminded"] == 1 and types(memory)["shop-declined"] == 1


def test_an_async_store_runs_the_same_processes(url: str, clock: Clock) -> None:
    """`async with store.run(…)` and `await store.run_until_idle(…)` do what they do for a Store."""

    async def story() -> None:
        async with ef.AsyncStore(url) as store:
            await store.append(OrderPlaced("o-1"))
            await store.run_until_idle(Payment, clock=clock)
            clock.advance(60)
            async with store.run(Payment, clock=clock) as running:
                async with store.follow(ef.Query.of(types=[Reminded])) as follower:
                    async for recorded in follower:
                        assert recorded.event == Reminded("o-1")
                        break
                assert running.running and not running.failed
            assert not running.running

    asyncio.run(asyncio.wait_for(story(), 60))


def test_several_runners_share_the_work(store: ef.Store) -> None:
    """Two runners at once, and another after them: each command is decided once, each timer fires once."""
    with store.run(Payment), store.run(Payment):
        for number in range(20):
            store.append(OrderPlaced(f"o-{number}"))
        with store.follow(ef.Query.of(types=[Reminded])) as follower:
            for count, _ in enumerate(follower, start=1):
                if count == 20:
                    break
    found = types(store)
    assert (found["shop-reserved"], found["shop-reminder-due"], found["shop-reminded"]) == (20, 20, 20)


def test_the_example_runs_and_goes_on_when_it_is_started_again(tmp_path: Path) -> None:
    """examples/ordering.py, as a reader runs it, twice."""
    example = Path(__file__).parents[2] / "examples" / "ordering.py"
    for _ in range(2):
        command = [sys.executable, "-W", "error", example]
        ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout.count("thank you") == ran.stdout.count("too late") == 1


# ------------------------------------------------------------------------------------------ bad input


def nameless(**keywords: Any) -> Callable[[], Any]:
    """A process class with these keywords, planned."""

    def make() -> Any:
        class Strange(ef.Process, **keywords):
            order: ef.Tag

            def evolve(self, event: OrderPlaced) -> None: ...

            def react(self, event: OrderPlaced) -> None: ...

        return process_definition(Strange)

    return make


class Untagged(ef.Event, type="shop-untagged"):
    """Says nothing about an order."""


def reacting_to(hint: Any, asynchronous: bool = False) -> Callable[[], Any]:
    """A process class whose react takes this."""

    def make() -> Any:
        def react(self: Any, event: Any) -> None: ...

        async def react_async(self: Any, event: Any) -> None: ...

        chosen = react_async if asynchronous else react
        chosen.__annotations__ = {"event": hint} if hint else {}

        class Strange(ef.Process, start="now"):
            order: ef.Tag

            def evolve(self, event: OrderPlaced) -> None: ...

        Strange.react = chosen  # type: ignore[method-assign]
        return process_definition(Strange)

    return make


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (nameless(), "does not declare where it starts"),
        (nameless(start="yesterday"), "keywords of"),
        (nameless(start="now", name="Not A Name"), "cannot be the name"),
        (nameless(start="now", max_chain=0), "below 1"),
        (reacting_to(None), "does not name the event classes"),
        (reacting_to(int), "takes <class 'int'>"),
        (reacting_to(Untagged), "has no tag order"),
        (reacting_to(OrderPlaced, asynchronous=True), "is asynchronous"),
        (lambda: process_definition(Order), "is no process"),  # type: ignore[arg-type]
        (lambda: after(ReminderDue("o-1"), days=-1), "before its cause"),
        (lambda: after("soon", days=1), "is no event"),
        (lambda: after(ReminderDue("o-1"), days=1e12), "cannot be set after that time"),
        (lambda: at(ReminderDue("o-1"), __import__("datetime").datetime(2026, 1, 1)), "has no time zone"),
        (lambda: cancel(int), "is no event"),
    ],
)
def test_a_mistake_in_a_process_class_is_refused_with_a_message(make: Callable[[], Any], message: str) -> None:
    """Each mistake in a class or an action is an InvalidInput error of two sentences."""
    with pytest.raises(InvalidInput, match=message) as caught:
        make()
    assert caught.value.remedy


def test_two_of_one_name_and_nothing_at_all_are_refused(memory: ef.Store) -> None:
    """Processes that run together need different names, and there must be at least one."""
    for work in ((), (Payment, Payment)):
        with pytest.raises(InvalidProcess):
            memory.run(*work)


def test_a_reaction_that_asks_for_nonsense_is_stuck_not_ignored(memory: ef.Store) -> None:
    """A result that is not an action, and an invalid date, are errors that name the process and the event."""

    class Wild(ef.Process, start="beginning", attempts=1):
        order: ef.Tag

        def evolve(self, event: OrderPlaced) -> None: ...

        def react(self, event: OrderPlaced) -> Any:
            return after(ReminderDue(self.order), weeks=500_000) if self.order == "far" else [42]

    memory.append(OrderPlaced("o-1"), OrderPlaced("far"), Reserved("o-1", "x", 1))
    with pytest.raises(ProcessError, match="asked for 42, which is no action"):
        memory.run_until_idle(Wild)
    errors = [entry.error for entry in memory.projections.parked("wild")]
    assert len(errors) == 2 and "after the last date" in errors[1]
