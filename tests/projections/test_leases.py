"""Room: several runners: one lease, a fencing token, and what happens to a runner that was away too long."""

from __future__ import annotations

import threading
import time
from itertools import pairwise
from typing import Any

import pytest

import eventfold as ef
from eventfold.bridge import aside, run
from eventfold.errors import LeaseLost
from eventfold.flow.fold import Reading
from eventfold.flow.project import Means, Work
from eventfold.projection import plan_of
from eventfold.running.desk import Desk
from eventfold.running.share import Share
from eventfold.target import Advance, Place
from eventfold.targets.alchemy import dialects
from tests.projections.flights import CarrierMonth, Departed, Split, flights, folded, proved, rows


def work(store: ef.Store, holder: str, lease: float, page: int = 20) -> Work:
    """A worker of our own on CarrierMonth, driven step by step."""
    desk = Desk(store._log)  # pyright: ignore[reportPrivateUsage]
    means = Means(
        desk.log, store.projections.target(CarrierMonth), time.perf_counter, lease=lease, page=page, aside=aside
    )
    return Work(plan_of(CarrierMonth), means, Place("carrier_month", 1), holder)


def test_one_lease_has_one_holder(store: ef.Store) -> None:
    """While one works, the other is told that it is held; given back, it goes on exactly there."""
    store.project(CarrierMonth)
    store.extend(flights(100), batch=5)
    first, second = work(store, "first", 10), work(store, "second", 10)
    assert run(first.step()) == "worked"
    assert run(second.step()) == "held"
    first.release()
    assert run(second.step()) == "worked"
    while run(second.step()) == "worked":
        continue
    second.release()
    assert rows(store) == folded(flights(100))
    assert proved(store)


def test_a_runner_whose_clock_stood_still_is_fenced_off(store: ef.Store) -> None:
    """It folded a page, stalled past its lease, and wakes up: another has the token, so nothing of it is written."""
    store.project(CarrierMonth)
    store.extend(flights(200), batch=5)
    stalled, other = work(store, "stalled", 0.05), work(store, "other", 10)
    assert run(stalled.step()) == "worked"
    time.sleep(0.1)  # the lease runs out by the target's clock, which the stalled one does not look at
    assert run(other.step()) == "worked"
    assert stalled.held is not None
    assert run(stalled.step()) == "held"  # it read, folded and tried to commit with the old token
    assert stalled.held is None
    while run(other.step()) == "worked":
        assert run(stalled.step()) == "held"
    other.release()
    assert rows(store) == folded(flights(200))
    assert proved(store)


def test_the_fence_is_in_the_target(store: ef.Store) -> None:
    """A commit with an old token is refused by the database, whatever its holder believes."""
    store.project(CarrierMonth)
    target = store.projections.target(CarrierMonth)
    place = Place("carrier_month", 1)
    old = target.claim(place, "old", 0.0)
    assert old is not None
    time.sleep(0.01)
    new = target.claim(place, "new", 10)
    assert new is not None
    assert new.token > old.token
    step = Advance(position=0, event_id="", epoch=1, seen=old.seen, handled=old.handled)
    with pytest.raises(LeaseLost), target.writing(place) as tx:
        tx.advance(old, step)
    with pytest.raises(LeaseLost):
        target.beat(old, 10)
    target.release(old)  # not ours any more: nothing happens
    assert target.claim(place, "third", 10) is None
    target.release(new)


def test_runners_that_fight_for_short_leases_skip_and_repeat_nothing(shared_url: str) -> None:
    """Three workers with leases shorter than their pages, stealing from each other all the time: the fold is exact."""
    with ef.Store(shared_url) as store:
        store.project(CarrierMonth)
        store.extend(flights(1_500), batch=5)
        ends = time.monotonic() + 90
        lost = [0, 0, 0]

        def fight(number: int) -> None:
            with ef.Store(shared_url) as mine:
                mine_work = work(mine, f"w{number}", 0.004, page=15)
                while time.monotonic() < ends:
                    state = run(mine_work.step())
                    if state == "held":
                        lost[number] += 1
                        time.sleep(0.003)
                    elif state == "idle":
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


def test_partitions_are_shared_between_runners(shared_url: str) -> None:
    """Two runners of one split projection share its partitions; one stops, the other takes over what it held."""
    with ef.Store(shared_url) as store, ef.Store(shared_url) as other:
        store.extend(flights(300))
        first = store.run(Split)
        second = other.run(Split)
        try:
            store.append(*flights(50, 300))
            store.wait(Split, timeout=60)
            first.stop()
            other.append(*flights(50, 350))
            other.wait(Split, timeout=60)
        finally:
            first.stop()
            second.stop()
        assert not first.failed
        assert not second.failed
        assert rows(store, Split) == folded(flights(400))
        proofs = store.projections.verify(Split)
        assert all(proof.proved for proof in proofs)


def test_project_waits_for_a_runner_that_holds_the_lease(shared_url: str) -> None:
    """`store.project` beside a runner leaves the work to it and returns when it is done."""
    with ef.Store(shared_url) as store, ef.Store(shared_url) as running, running.run(CarrierMonth):
        for number in range(5):
            store.append(*flights(10, number * 10))
            store.project(CarrierMonth)
            assert rows(store) == folded(flights(number * 10 + 10))


def test_a_runner_that_comes_later_is_given_its_share(shared_url: str) -> None:
    """One has every partition of a split projection; another comes, and soon each has two; then the first one ends."""

    class Quarters(CarrierMonth, name="quarters", partitions=4):
        pass

    def holders(store: ef.Store) -> list[int]:
        held = [each.holder for each in store.projections.checkpoints(Quarters)]
        return sorted(held.count(each) for each in {*held} - {""})

    def until(store: ef.Store, wanted: list[int]) -> None:
        ends = time.monotonic() + 60
        while holders(store) != wanted:
            assert time.monotonic() < ends, holders(store)
            time.sleep(0.01)

    with ef.Store(shared_url) as store, ef.Store(shared_url) as other:
        store.extend(flights(500), batch=5)
        desks = [Desk(each._log, lease=0.6) for each in (store, other)]  # pyright: ignore[reportPrivateUsage]
        runner = desks[0].run(Quarters)
        until(store, [4])
        with desks[1].run(Quarters) as second:
            until(store, [2, 2])
            store.extend(flights(500, 500), batch=5)
            store.wait(Quarters, timeout=60)
            runner.stop()
            until(store, [4])
            store.append(*flights(50, 1_000))
            store.wait(Quarters, timeout=60)
            assert not runner.failed
            assert not second.failed
        for desk in desks:
            desk.close()
        assert rows(store, Quarters) == folded(flights(1_050))
        assert all(proof.proved for proof in store.projections.verify(Quarters))


def test_what_is_offered_and_not_taken_is_offered_more_seldom() -> None:
    """A runner that is alone loses little by its offers: later ones are up to a minute of looks apart."""
    now = 0.0
    share, offers = Share(4, "me", 1.0, lambda: now), list[float]()
    for partition in range(4):
        share.has(partition, held=True)
    while now < 300:
        now += 0.25
        if share.lets_go(3, lambda: ["me", "me", "me", "me"]):
            offers.append(now)
            assert not share.may_take(3)
            assert share.may_take(2)
            share.has(3, held=True)
    assert [round(later - earlier) for earlier, later in pairwise(offers)][:6] == [6, 12, 24, 48, 60, 60]


def test_whoever_has_too_much_lets_go_of_it_one_by_one() -> None:
    """Five partitions and two runners: three are as many as one may keep."""
    now = 0.0
    share = Share(5, "me", 1.0, lambda: now)
    for partition in range(5):
        share.has(partition, held=True)
    gone: list[int] = []
    for step in range(1, 8):
        now = step * 1.0
        gone += [each for each in range(4, -1, -1) if share.lets_go(each, lambda: ["me", "you", ""])][:1]
    assert gone[:2] == [4, 3]


class Time:
    """One clock for a target and its workers, which the test moves. It stands still otherwise."""

    def __init__(self, target: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 1_000.0
        clock = target.driver if hasattr(target, "driver") else dialects  # of SQLAlchemy's targets
        monkeypatch.setattr(clock, "now", lambda _connection: int(self.seconds * 1e6))

    def __call__(self) -> float:
        return self.seconds


def worker(store: ef.Store, kept: Any, time: Time, holder: str) -> Work:
    """A worker with a lease of three seconds of that time, on one event after the other."""
    means = Means(store.projections.log, store.projections.target(kept), time, lease=3.0, page=1)
    return Work(plan_of(kept), means, Place(plan_of(kept).name, 1), holder)


class Sends(ef.Subscription, name="lease_sends", start="beginning"):
    """Something done outside."""

    def send(self, recorded: ef.Recorded[Departed]) -> None:
        """Note it."""
        SENT.append(recorded.position)


SENT: list[int] = []


def test_a_worker_that_always_has_work_keeps_its_lease(store: ef.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """It never waits, so it never gives a sign of life while it waits: its steps renew the lease."""
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
            assert run(busy.step()) == "worked"
            time.seconds += 1.0
            assert run(other.step()) == "held"
        busy.release()
    assert sorted(set(SENT)) == SENT


@pytest.mark.parametrize("taken", [True, False], ids=["taken over", "free"])
def test_no_effect_is_begun_when_the_lease_may_have_ended(
    store: ef.Store, monkeypatch: pytest.MonkeyPatch, taken: bool
) -> None:
    """A worker that stood still after it had read an event makes sure of its lease first: another may be at it."""
    SENT.clear()
    store.project(Sends)
    store.append(Departed("a", 1, 1))
    time = Time(store.projections.target(Sends), monkeypatch)
    stalled, other = worker(store, Sends, time, "stalled"), worker(store, Sends, time, "other")
    real, left = Reading.items, [1]

    def items(self: Any, *given: Any) -> Any:
        if left and left.pop():
            time.seconds += 10.0
            if taken:
                assert run(other.step()) == "worked"
                assert SENT == [1]
        return real(self, *given)

    monkeypatch.setattr(Reading, "items", items)
    assert run(stalled.step()) == ("held" if taken else "worked")
    assert SENT == [1]
    (stalled, other)[taken].release()
