"""After a failover that lost events, a living process returns nothing that it remembers of them, and decides on none.

In each test the new history grows beyond the end of the old one, so that a position alone proves nothing.
"""

# The engines are replaced by test doubles here.
# pyright: basic

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID

import pytest

import eventfold as ef
from eventfold.concurrency import run
from eventfold.core.query import Query
from eventfold.engines.memory import MemoryEngine
from eventfold.errors import AppendConflict, CursorMismatch
from eventfold.log.copy import copy, verify
from eventfold.processes import Process, after, decide
from eventfold.store import Store
from eventfold.testing import Faulty
from eventfold.testing.conformance.engine_under_test import EngineUnderTest
from tests.epochs.engine import Handle, Log


class Taken(ef.Event, type="epochs.taken"):
    """A seat was taken, as the nth time."""

    seat: ef.Tag
    n: int


class Noted(ef.Event, type="epochs.noted"):
    """An event that no state reads."""

    text: str


class Seat(ef.State):
    """How often a seat was taken."""

    seat: ef.Tag
    n: int = 0

    def evolve(self, event: Taken) -> None:
        """Add one."""
        self.n += 1


def take(seat: Seat) -> Taken:
    """Take the seat; every caller may."""
    return Taken(seat.seat, seat.n + 1)


class Failover:
    """A living store, and the log under it."""

    def __init__(self, engine_under_test: EngineUnderTest) -> None:
        self.engine_under_test, self.log = engine_under_test, Log()
        self.handle = Handle(self.log)
        self.planned = Faulty(self.handle)  # type: ignore[arg-type]
        self.store: Store = engine_under_test.open(self.planned)  # type: ignore[arg-type]

    def other(self, *events: Any) -> None:
        """Append as another process does."""
        with Store(self.log) as store:
            store.append(*events)

    def fail_over(self, lost: int = 3, grown: int = 5) -> None:
        """Lose the last events; then others write."""
        self.log.fail_over(lost)
        for number in range(grown):
            self.other(Noted(f"new {number}"))


@pytest.fixture(params=["sync", "async"])
def failover(request: pytest.FixtureRequest) -> Iterator[Failover]:
    """A store before its failover, in both modes."""
    engine_under_test = EngineUnderTest("memory:", request.param)
    yield Failover(engine_under_test)
    engine_under_test.close()


def test_a_state_is_not_answered_from_lost_events(failover: Failover) -> None:
    """This holds for the current state, and for a state at a position that both histories have."""
    for _ in range(8):
        failover.store.decide(take, Seat("a"))
    assert failover.store.state(Seat("a")).n == 8
    failover.fail_over()
    assert failover.store.state(Seat("a")).n == 5
    assert failover.store.state(Seat("a"), at=8).n == 5
    assert failover.store.head() == 10


def test_a_state_that_is_being_read_is_read_again(failover: Failover) -> None:
    """The failover comes between the cached state and the page that brings it up to date."""
    for _ in range(8):
        failover.store.decide(take, Seat("a"))
    failover.handle.during = failover.fail_over
    assert failover.store.state(Seat("a")).n == 5
    assert failover.store.state(Seat("a")).n == 5


def test_a_decision_is_made_over_the_new_history(failover: Failover) -> None:
    """The next taker is the sixth, not the ninth; the receipt is of the new epoch."""
    for _ in range(8):
        failover.store.decide(take, Seat("a"))
    failover.fail_over()
    done = failover.store.decide(take, Seat("a"))
    assert (done.events[0].event.n, done.positions, done.receipt and done.receipt.epoch) == (6, range(11, 12), 2)
    assert failover.store.decide(take, Seat("a")).events[0].event.n == 7


def test_a_decision_is_made_again_where_the_failover_comes_before_its_append(failover: Failover) -> None:
    """A state read before the failover is not used after it, even if the seat was not written since."""
    for _ in range(8):
        failover.store.decide(take, Seat("a"))
    failover.planned.before(failover.fail_over)
    done = failover.store.decide(take, Seat("a"))
    assert [r.event.n for r in failover.store.read(Query.of(tags="seat:a"))] == [1, 2, 3, 4, 5, 6]
    assert done.state(Seat("a")).n == 6


def test_a_decision_over_nothing_that_matches_is_made_again(failover: Failover) -> None:
    """A condition that starts at a lost position would miss what is before that position in the new history."""
    for number in range(8):
        failover.store.append(Noted(str(number)))
    assert failover.store.state(Seat("a")).n == 0
    failover.log.fail_over(3)
    failover.other(Taken("a", 1))
    failover.other(*[Noted(str(number)) for number in range(4)])
    assert failover.store.decide(take, Seat("a")).events[0].event.n == 2


def test_decisions_in_flight_are_made_again(failover: Failover) -> None:
    """Two submitted decisions, the second built on the first, meet the failover: both are made over the new history."""
    planned = Faulty(failover.handle, blocks=True)  # type: ignore[arg-type]
    store = failover.engine_under_test.open(planned)  # type: ignore[arg-type]
    for _ in range(8):
        store.decide(take, Seat("a"))
    gate = planned.hold()
    done: list[int] = []
    threads = [
        threading.Thread(target=lambda: done.append(store.decide(take, Seat("a")).events[0].event.n)) for _ in range(2)
    ]
    with gate:
        for thread in threads:
            thread.start()
        assert gate.arrived()
        failover.fail_over()
    for thread in threads:
        thread.join(60)
    assert sorted(done) == [6, 7]
    assert [r.event.n for r in store.read(Query.of(tags="seat:a"))] == list(range(1, 8))


def test_an_append_after_a_lost_cursor_is_refused(failover: Failover) -> None:
    """A cursor that was verified before the failover proves nothing after it."""
    for number in range(8):
        failover.store.append(Noted(str(number)))
    follower = failover.store.follow()
    pages = follower.pages(timeout=0)
    assert len(next(pages)) == 8
    failover.planned.before(failover.fail_over)
    with pytest.raises(AppendConflict):
        failover.store.append(Taken("a", 1), unless=Query.of(tags="seat:a"), after=follower.cursor)
    with pytest.raises(CursorMismatch):
        failover.store.append(Taken("a", 1), unless=Query.of(tags="seat:a"), after=follower.cursor)
    follower.close()


def test_a_repeated_append_is_recognised_in_another_epoch(failover: Failover) -> None:
    """An event that survived the failover is found by its id before its condition is judged."""
    event = ef.Draft(Noted("kept"), id=UUID(int=7))
    failover.planned.lose_reply()
    failover.planned.before(lambda: failover.fail_over(lost=0))
    follower = failover.store.follow()
    receipt = failover.store.append(event, unless=Query.of(tags="seat:a"), after=follower.cursor)
    assert (receipt.first, failover.store.head()) == (1, 6)
    follower.close()


def test_a_follower_of_lost_events_is_refused(failover: Failover) -> None:
    """A live follower and its saved cursor are refused: the new history is never read as if it followed the old one."""
    for number in range(8):
        failover.store.append(Noted(str(number)))
    follower = failover.store.follow()
    pages = follower.pages(timeout=0)
    assert len(next(pages)) == 8
    failover.fail_over()
    with pytest.raises(CursorMismatch):
        next(pages)
    with pytest.raises(CursorMismatch):
        next(failover.store.follow(after=str(follower.cursor)).pages(timeout=0))
    follower.close()


def test_a_follower_goes_on_where_nothing_of_its_own_was_lost(failover: Failover) -> None:
    """It is at position 5, which both histories have; the failover comes while it reads on."""
    for number in range(5):
        failover.store.append(Noted(f"old {number}"))
    follower = failover.store.follow()
    pages = follower.pages(timeout=0)
    assert len(next(pages)) == 5
    for number in range(3):
        failover.other(Noted(f"lost {number}"))
    failover.handle.during = failover.fail_over
    assert [r.event.text for r in next(pages)] == [f"new {number}" for number in range(5)]
    follower.close()


def test_a_reader_goes_on_after_its_last_event_or_raises_that_it_is_lost(failover: Failover) -> None:
    """The failover comes between two pages of one read."""
    failover.store.extend([Noted(str(number)) for number in range(1_005)])
    reading = iter(failover.store.read())
    assert next(reading).position == 1
    failover.fail_over(lost=3, grown=5)
    assert [r.position for r in reading] == list(range(2, 1_008))
    reading = iter(failover.store.read())
    assert next(reading).position == 1
    failover.fail_over(lost=100, grown=200)
    with pytest.raises(CursorMismatch):
        list(reading)


class Last(ef.Projection, name="epochs_last"):
    """The takers of each seat, in memory or in a table."""

    seat: str
    takers: int = 0

    def evolve(self, event: Taken) -> None:
        """Add one."""
        self.takers += 1


def test_a_view_is_not_continued_over_lost_events(failover: Failover) -> None:
    """`since` with a view of the old history returns the rows of the new one."""
    for _ in range(8):
        failover.store.decide(take, Seat("a"))
    before = failover.store.view(Last)
    assert before["a"].takers == 8
    failover.fail_over()
    after = failover.store.view(Last, since=before)
    assert (after["a"].takers, after.position) == (5, 10)
    failover.handle.during = lambda: failover.fail_over(lost=7, grown=9)
    assert failover.store.view(Last, since=after)["a"].takers == 3


def test_a_snapshot_of_lost_events_is_not_used(failover: Failover) -> None:
    """If another event, or none, is at its position now, the state is folded from the log."""
    if isinstance(failover.store, Store):
        failover.store.close()
    failover.store = EngineUnderTest("memory:").open(failover.planned, snapshots=4)  # type: ignore[arg-type]
    for _ in range(8):
        failover.store.append(Taken("a", 0))
    assert failover.store.state(Seat("a")).n == 8
    assert len(failover.log._snapshots) == 1
    failover.fail_over()
    with Store(failover.log, snapshots=4) as new:
        assert new.state(Seat("a")).n == 5
    assert failover.store.state(Seat("a")).n == 5


def test_a_snapshot_is_not_stored_across_a_failover(failover: Failover) -> None:
    """A state folded before the failover would be stored with the id of an event that came after it."""
    store = EngineUnderTest("memory:").open(failover.planned, snapshots=4)  # type: ignore[arg-type]
    for _ in range(8):
        failover.log.epoch, failover.handle.epoch = 1, 1
        store.append(Taken("a", 0))
    found = failover.log.event_id

    async def late(position: int) -> Any:
        if failover.log.epoch == 1:
            failover.fail_over()
        return await found(position)

    failover.log.event_id = late  # type: ignore[method-assign]
    store.state(Seat("a"))
    assert failover.log._snapshots == {}
    assert store.state(Seat("a")).n == 5
    store.close()


def test_rows_ahead_of_the_log_are_refused_while_their_runner_lives(failover: Failover, tmp_path: Path) -> None:
    """The runner ends with the reason, and writes no row from the new history as if it followed the old one."""

    class Kept(Last, name="epochs_kept", target=f"sqlite:{tmp_path}/rows.db"):
        def evolve(self, event: Taken) -> None:
            super().evolve(event)

    for _ in range(8):
        failover.store.append(Taken("a", 0))
    with Store(failover.planned) as store:  # type: ignore[arg-type]
        with store.run(Kept) as running:
            store.wait(Kept)
            failover.fail_over()
            failover.other(Taken("a", 0), Taken("b", 0))
            assert soon(lambda: running.failed)
        assert isinstance(next(iter(running.failed.values())), CursorMismatch)
        assert [(row.seat, row.takers) for row in store.rows(Kept)] == [("a", 8)]
        with pytest.raises(CursorMismatch):
            store.wait(Kept, 8)
        with pytest.raises(CursorMismatch):
            store.project(Kept)


def test_rows_that_lost_nothing_are_updated_by_the_same_runner(failover: Failover, tmp_path: Path) -> None:
    """They are at an event that both histories have: the runner goes on, and drops the page it read early."""

    class Kept(Last, name="epochs_kept_on", target=f"sqlite:{tmp_path}/rows.db"):
        def evolve(self, event: Taken) -> None:
            super().evolve(event)

    for _ in range(5):
        failover.store.append(Taken("a", 0))
    with Store(failover.planned) as store:  # type: ignore[arg-type]
        store.project(Kept)
        failover.other(*[Taken("lost", 0)] * 3)

        def fail_over() -> None:
            failover.fail_over()
            failover.other(Taken("a", 0), Taken("b", 0))

        failover.handle.during = fail_over
        with store.run(Kept) as running:
            assert soon(lambda: len(store.rows(Kept)) > 1)
            store.wait(Kept)
            assert not running.failed
        assert [(row.seat, row.takers) for row in store.rows(Kept, order="seat")] == [("a", 6), ("b", 1)]
        assert all(proof.proved for proof in store.projections.verify(Kept))


def test_a_copy_is_of_one_history() -> None:
    """The failover comes between two pages: the copy goes on if the copied events still exist, else it is refused."""
    for lost, refused in ((3, False), (700, True)):
        log = Log()
        handle = Handle(log)
        with Store(handle) as store:  # type: ignore[arg-type]
            store.extend([Noted(str(number)) for number in range(1_500)])
        target = MemoryEngine()

        def fail_over(done: int, of: int, log: Log = log, handle: Handle = handle, lost: int = lost) -> None:
            if log.epoch == 1:

                def during() -> None:
                    log.fail_over(lost)
                    with Store(log) as other:
                        other.extend([Noted(f"new {number}") for number in range(1_000)])

                handle.during = during

        if refused:
            with pytest.raises(CursorMismatch):
                run(copy(handle, target, progress=fail_over))  # type: ignore[arg-type]
        else:
            copied = run(copy(handle, target, progress=fail_over))  # type: ignore[arg-type]
            assert copied.events == 2_497
            assert run(verify(log, target)).verified


class Ordered(ef.Event, type="epochs.ordered"):
    """Something was ordered."""

    order: ef.Tag


class Due(ef.Event, type="epochs.due"):
    """The time of an order has come."""

    order: ef.Tag


class Waiting(Process, name="epochs_waiting", start="beginning"):
    """Waits a day after each order."""

    order: ef.Tag
    due: int = 0

    def evolve(self, event: Ordered | Due) -> None:
        """Count the timers that fired."""
        self.due += isinstance(event, Due)

    def react(self, event: Ordered | Due) -> Iterator[Any]:
        """Set a timer."""
        if isinstance(event, Ordered):
            yield after(Due(self.order), days=1)


def test_a_timer_that_was_lost_does_not_fire() -> None:
    """Pending timers are read again from the new log, even if the failover comes right before one fires."""
    from eventfold.processes.timers import TimerQueue

    log = Log()
    handle = Handle(log)
    planned = Faulty(handle)  # type: ignore[arg-type]
    with Store(planned) as store:  # type: ignore[arg-type]
        store.append(Ordered("o-1"))
        store.run_until_idle(Waiting)
        table = TimerQueue("epochs_waiting", store.projections.log)
        run(table.catch_up())
        assert len(table) == 1
        late = table.next_due()
        assert late is not None

        def fail_over() -> None:
            log.fail_over(1)
            with Store(log) as other:
                other.append(*[Noted(str(number)) for number in range(4)])

        planned.before(fail_over)
        assert run(table.fire(late + 1)) == 0
        assert len(table) == 0
        assert not list(store.read(Query.of(types="epochs.due")))


class Greeted(ef.Event, type="epochs.greeted"):
    """A customer who ordered was greeted."""

    order: ef.Tag


class Greeting(ef.State):
    """How often an order's customer was greeted."""

    order: ef.Tag
    times: int = 0

    def evolve(self, event: Greeted) -> None:
        """Add one."""
        self.times += 1


def greet(greeting: Greeting) -> Greeted:
    """Greet, without a check whether it happened before."""
    return Greeted(greeting.order)


class Greeter(Process, name="epochs_greeter", start="beginning"):
    """Requests a decision and writes an event about every order."""

    order: ef.Tag
    meanwhile: ClassVar[list[Callable[[], None]]] = []

    def evolve(self, event: Ordered) -> None:
        """Do nothing: the process has no state of its own."""

    def react(self, event: Ordered) -> Iterator[Any]:
        """Run the test's step, then greet and note it."""
        if self.meanwhile:
            self.meanwhile.pop()()
        if event.order == "quiet":
            return
        yield decide(greet, Greeting(self.order))
        yield Noted(f"greeted {self.order}")


def test_nothing_is_written_about_an_event_that_a_failover_lost() -> None:
    """A reaction ends with the history of its event; the events of the new history are reacted to once."""
    log = Log()
    with Store(Handle(log)) as store:  # type: ignore[arg-type]
        store.append(Ordered("before"))
        store.run_until_idle(Greeter)

        def fail_over() -> None:
            log.fail_over(1)
            with Store(log) as other:
                other.append(*[Noted(f"new {number}") for number in range(4)], Ordered("after"))

        Greeter.meanwhile.append(fail_over)
        store.append(Ordered("lost"))
        store.run_until_idle(Greeter)
        assert [each.event.order for each in store.read(Query.of(types="epochs.greeted"))] == ["before", "after"]
        noted = [each.event.text for each in store.read(Query.of(types="epochs.noted"))]
        assert [text for text in noted if "greeted" in text] == ["greeted before", "greeted after"]
        assert store.projections.parked(Greeter) == []
        assert all(proof.proved for proof in store.projections.verify(Greeter))


def test_nothing_is_written_about_a_lost_event_after_a_surviving_one() -> None:
    """Of events that were read together, the first still exists after a failover, and the last does not."""
    log = Log()
    with Store(Handle(log)) as store:  # type: ignore[arg-type]
        store.append(Ordered("before"))
        store.run_until_idle(Greeter)

        def fail_over() -> None:
            log.fail_over(1)
            with Store(log) as other:
                other.append(*[Noted(f"new {number}") for number in range(4)], Ordered("after"))
            assert store.head()  # from here on this process knows the new epoch

        for order in ("quiet", "kept", "lost"):
            store.append(Ordered(order))
        Greeter.meanwhile.append(fail_over)
        store.run_until_idle(Greeter)
        greeted = [each.event.order for each in store.read(Query.of(types="epochs.greeted"))]
        assert greeted == ["before", "kept", "after"]
        assert all(proof.proved for proof in store.projections.verify(Greeter))


def test_a_memory_engine_refuses_a_condition_of_another_epoch() -> None:
    """The engine itself judges: a state read in epoch 1 conflicts in epoch 2, and the decision is made again."""
    engine = MemoryEngine()
    with Store(engine) as store:
        store.append(Noted("x"))
        engine.epoch = 2
        done = store.decide(take, Seat("a"))
        assert done.receipt is not None
        assert done.receipt.epoch == 2


def soon(true: Callable[[], Any], seconds: float = 60.0) -> bool:
    """Return whether something becomes true within a time, in seconds."""
    ends = time.monotonic() + seconds
    while not true():
        if time.monotonic() > ends:
            return False
        time.sleep(0.01)
    return True
