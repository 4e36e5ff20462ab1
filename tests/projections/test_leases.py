"""Several runners: one lease, a fencing token, and a runner that did not renew its lease in time."""

from __future__ import annotations

import threading
import time
from itertools import pairwise
from typing import Any

import pytest

import eventfold as ef
from eventfold.concurrency import run
from eventfold.errors import UnknownProjection
from eventfold.ports.target import PartitionKey
from eventfold.projections import projection_definition
from eventfold.projections.leases import PartitionAssignment
from eventfold.projections.page import PageDecoder
from eventfold.projections.partition_lease import WorkerContext
from eventfold.projections.worker import PartitionWorker, StepResult
from eventfold.targets.sqlalchemy import dialects
from eventfold.testing.conformance.target.leases import worker_of
from tests.projections.flights import CarrierMonth, Departed, flights, folded, proved, rows


def work(store: ef.Store, holder: str, lease: float, page: int = 20) -> PartitionWorker:
    """Return a worker on CarrierMonth that the test drives step by step."""
    return worker_of(store, CarrierMonth, holder, lease, page)


def test_runners_that_fight_for_short_leases_skip_and_repeat_nothing(shared_url: str) -> None:
    """Three workers with leases shorter than their pages take over from each other all the time: the fold is exact."""
    with ef.Store(shared_url) as store:
        store.project(CarrierMonth)
        store.extend(flights(1_500), batch=5)
        ends = time.monotonic() + 20
        lost = [0, 0, 0]

        def fight(number: int) -> None:
            with ef.Store(shared_url) as mine:
                mine_work = work(mine, f"w{number}", 0.004, page=15)
                while time.monotonic() < ends:
                    state = run(mine_work.step())
                    if state == StepResult.LEASE_HELD_ELSEWHERE:
                        lost[number] += 1
                        time.sleep(0.003)
                    elif state == StepResult.IDLE:
                        return
                    else:
                        time.sleep(0.002 * number)

        threads = [threading.Thread(target=fight, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert rows(store) == folded(flights(1_500))
        assert proved(store)


def test_a_worker_without_a_lease_whose_generation_was_dropped_meanwhile_is_superseded(shared_url: str) -> None:
    """A second runner that waits for the lease continues with the live generation, after two switches in between."""
    with ef.Store(shared_url) as store:
        store.append(*flights(20))
        store.project(CarrierMonth)
        first, second = work(store, "first", 60.0), work(store, "second", 60.0)
        run(first.step())
        assert run(second.step()) is StepResult.LEASE_HELD_ELSEWHERE
        first.release()
        for _ in range(2):
            store.projections.rebuild(CarrierMonth)
            store.projections.switch(CarrierMonth)
        assert run(second.step()) is StepResult.SUPERSEDED
        store.projections.remove(CarrierMonth)
        with pytest.raises(UnknownProjection):
            run(second.step())


def test_what_is_offered_and_not_taken_is_offered_more_seldom() -> None:
    """A runner without peers loses little by its offers: later ones are up to a minute of checks apart."""
    now = 0.0
    share, offers = PartitionAssignment(4, "me", 1.0, lambda: now), list[float]()
    for partition in range(4):
        share.note_held(partition, held=True)
    while now < 300:
        now += 0.25
        if share.should_release(3, lambda: ["me", "me", "me", "me"]):
            offers.append(now)
            assert not share.may_claim(3)
            assert share.may_claim(2)
            share.note_held(3, held=True)
    assert [round(later - earlier) for earlier, later in pairwise(offers)][:6] == [6, 12, 24, 48, 60, 60]


def test_a_runner_with_too_many_partitions_releases_them_one_by_one() -> None:
    """Five partitions and two runners: each may keep at most three."""
    now = 0.0
    share = PartitionAssignment(5, "me", 1.0, lambda: now)
    for partition in range(5):
        share.note_held(partition, held=True)
    gone: list[int] = []
    for step in range(1, 8):
        now = step * 1.0
        gone += [each for each in range(4, -1, -1) if share.should_release(each, lambda: ["me", "you", ""])][:1]
    assert gone[:2] == [4, 3]


class Time:
    """One clock for a target and its workers, which only the test moves."""

    def __init__(self, target: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 1_000.0
        clock = target.driver if hasattr(target, "driver") else dialects  # for SQLAlchemy's targets
        monkeypatch.setattr(clock, "now", lambda _connection: int(self.seconds * 1e6))

    def __call__(self) -> float:
        return self.seconds


def worker(store: ef.Store, kept: Any, time: Time, holder: str) -> PartitionWorker:
    """Return a worker with a lease of three seconds of that clock, with one event per page."""
    means = WorkerContext(store.projections.log, store.projections.target(kept), time, lease=3.0, page=1)
    return PartitionWorker(
        projection_definition(kept), means, PartitionKey(projection_definition(kept).name, 1), holder
    )


class Sends(ef.Subscription, name="lease_sends", start="beginning"):
    """A subscription with an effect."""

    def send(self, recorded: ef.Recorded[Departed]) -> None:
        """Record the call."""
        SENT.append(recorded.position)


SENT: list[int] = []


def test_a_worker_that_always_has_work_keeps_its_lease(store: ef.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """It never waits, so it never renews its lease while waiting: its steps renew it."""
    SENT.clear()
    for kept in (CarrierMonth, Sends):
        store.project(kept)
        if kept is CarrierMonth:
            store.extend(flights(60), batch=1)
    store.projections.begin(Sends, 0)
    SENT.clear()
    time = Time(store.projections.target(CarrierMonth), monkeypatch)
    for kept in (CarrierMonth, Sends):
        busy, other = worker(store, kept, time, "busy"), worker(store, kept, time, "other")
        for _ in range(10):
            assert run(busy.step()) == StepResult.PROGRESSED
            time.seconds += 1.0
            assert run(other.step()) == StepResult.LEASE_HELD_ELSEWHERE
        busy.release()
    assert sorted(set(SENT)) == SENT


@pytest.mark.parametrize("taken", [True, False], ids=["taken over", "free"])
def test_no_effect_is_begun_when_the_lease_may_have_ended(
    store: ef.Store, monkeypatch: pytest.MonkeyPatch, taken: bool
) -> None:
    """A worker that was suspended after it read an event renews its lease first: another may handle the event."""
    SENT.clear()
    store.project(Sends)
    store.append(Departed("a", 1, 1))
    time = Time(store.projections.target(Sends), monkeypatch)
    stalled, other = worker(store, Sends, time, "stalled"), worker(store, Sends, time, "other")
    real, left = PageDecoder.items, [1]

    def items(self: Any, *given: Any) -> Any:
        if left and left.pop():
            time.seconds += 10.0
            if taken:
                assert run(other.step()) == StepResult.PROGRESSED
                assert SENT == [1]
        return real(self, *given)

    monkeypatch.setattr(PageDecoder, "items", items)
    assert run(stalled.step()) == (StepResult.LEASE_HELD_ELSEWHERE if taken else StepResult.PROGRESSED)
    assert SENT == [1]
    (stalled, other)[taken].release()
