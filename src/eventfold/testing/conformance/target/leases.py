"""Leases: one holder, a fencing token, and a worker that stalls longer than its lease."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

import eventfold as ef
from eventfold.concurrency import run, start_in_thread
from eventfold.errors import LeaseLost
from eventfold.ports.target import CheckpointUpdate, PartitionKey
from eventfold.projections import projection_definition
from eventfold.projections.partition_lease import WorkerContext
from eventfold.projections.worker import PartitionWorker, StepResult
from eventfold.testing.conformance.target.flights import CarrierMonth, Split, flights, folded, proved, rows

KEY = PartitionKey("conformance_carrier_month", 1)


def worker_of(
    store: ef.Store, projection: type[ef.Projection], holder: str, lease: float, page: int = 20
) -> PartitionWorker:
    """A worker on the first generation of a projection in one partition, driven step by step."""
    context = WorkerContext(
        store.projections.log,
        store.projections.target(projection),
        time.perf_counter,
        lease=lease,
        page=page,
        start_in_thread=start_in_thread,
    )
    definition = projection_definition(projection)
    return PartitionWorker(definition, context, PartitionKey(definition.name, 1), holder)


def work(store: ef.Store, holder: str, lease: float, page: int = 20) -> PartitionWorker:
    """A worker on CarrierMonth, driven step by step."""
    return worker_of(store, CarrierMonth, holder, lease, page)


def test_one_lease_has_one_holder(store: ef.Store) -> None:
    """While one worker has the lease, another finds it held; after the release it continues at the checkpoint."""
    store.project(CarrierMonth)
    store.extend(flights(100), batch=5)
    first, second = work(store, "first", 10), work(store, "second", 10)
    assert run(first.step()) == StepResult.PROGRESSED
    assert run(second.step()) == StepResult.LEASE_HELD_ELSEWHERE
    first.release()
    assert run(second.step()) == StepResult.PROGRESSED
    while run(second.step()) == StepResult.PROGRESSED:
        continue
    second.release()
    assert rows(store) == folded(flights(100))
    assert proved(store)


def test_a_stalled_runner_is_fenced_off(store: ef.Store) -> None:
    """A runner that folded a page and stalled past its lease writes nothing of it: another has the token."""
    store.project(CarrierMonth)
    store.extend(flights(200), batch=5)
    stalled, other = work(store, "stalled", 0.05), work(store, "other", 10)
    assert run(stalled.step()) == StepResult.PROGRESSED
    time.sleep(0.1)  # the lease expires by the target's clock, which the stalled worker does not read
    assert run(other.step()) == StepResult.PROGRESSED
    assert stalled.checkpoint is not None
    assert run(stalled.step()) == StepResult.LEASE_HELD_ELSEWHERE  # it folded, and tried to commit with the old token
    assert stalled.checkpoint is None
    while run(other.step()) == StepResult.PROGRESSED:
        assert run(stalled.step()) == StepResult.LEASE_HELD_ELSEWHERE
    other.release()
    assert rows(store) == folded(flights(200))
    assert proved(store)


def test_the_fence_is_in_the_target(store: ef.Store) -> None:
    """The database refuses a commit with an old token, whatever state its worker has."""
    store.project(CarrierMonth)
    target = store.projections.target(CarrierMonth)
    place = KEY
    old = target.claim(place, "old", 0.0)
    assert old is not None
    time.sleep(0.01)
    new = target.claim(place, "new", 10)
    assert new is not None
    assert new.token > old.token
    step = CheckpointUpdate(position=0, event_id="", epoch=1, seen=old.seen, handled=old.handled)
    with pytest.raises(LeaseLost), target.transaction(place) as tx:
        tx.advance(old, step)
    with pytest.raises(LeaseLost):
        target.renew_lease(old, 10)
    target.release(old)  # the lease is another worker's now: nothing happens
    assert target.claim(place, "third", 10) is None
    target.release(new)


def test_partitions_are_shared_between_runners(open_store: Callable[[], ef.Store]) -> None:
    """Two runners of one split projection share its partitions; when one stops, the other claims the rest."""
    with open_store() as store, open_store() as other:
        store.extend(flights(300))
        first = store.run(Split)
        second = other.run(Split)
        try:
            store.append(*flights(50, 300))
            store.wait(Split, timeout=20)
            first.stop()
            other.append(*flights(50, 350))
            other.wait(Split, timeout=20)
        finally:
            first.stop()
            second.stop()
        assert not first.failed
        assert not second.failed
        assert rows(store, Split) == folded(flights(400))
        proofs = store.projections.verify(Split)
        assert all(proof.proved for proof in proofs)


def test_project_waits_for_a_runner_that_holds_the_lease(open_store: Callable[[], ef.Store]) -> None:
    """`store.project` beside a runner leaves the work to it and returns when it is done."""
    with open_store() as store, open_store() as running, running.run(CarrierMonth):
        for number in range(5):
            store.append(*flights(10, number * 10))
            store.project(CarrierMonth)
            assert rows(store) == folded(flights(number * 10 + 10))


def test_a_later_runner_gets_its_share_of_the_partitions(open_store: Callable[[], ef.Store]) -> None:
    """One runner has all four partitions; with a second runner each has two; then the first one ends."""

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

    with open_store() as store, open_store() as other:
        store.extend(flights(500), batch=5)
        for each in (store, other):
            each.projections.catalog.lease = 0.6
        runner = store.run(Quarters)
        until(store, [4])
        with other.run(Quarters) as second:
            until(store, [2, 2])
            store.extend(flights(500, 500), batch=5)
            store.wait(Quarters, timeout=60)
            runner.stop()
            until(store, [4])
            store.append(*flights(50, 1_000))
            store.wait(Quarters, timeout=60)
            assert not runner.failed
            assert not second.failed
        assert rows(store, Quarters) == folded(flights(1_050))
        assert all(proof.proved for proof in store.projections.verify(Quarters))
