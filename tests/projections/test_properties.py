"""Any batching, any interruption, any partitioning gives the rows of the plain fold."""

from __future__ import annotations

import time

from hypothesis import given, settings
from hypothesis import strategies as st

import eventfold as ef
from eventfold.concurrency import run, start_in_thread
from eventfold.ports.target import PartitionKey
from eventfold.projections import projection_definition
from eventfold.projections.leases import is_dead_holder
from eventfold.projections.partition_lease import WorkerContext
from eventfold.projections.worker import PartitionWorker
from tests.projections.flights import CarrierMonth, Split, flights, folded, proved, rows

sizes = st.lists(st.integers(1, 40), min_size=1, max_size=6)
turns = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 30), st.integers(1, 4), st.booleans()), max_size=12)


@settings(max_examples=40)
@given(appends=sizes, turns=turns, later=sizes, split=st.booleans())
def test_any_way_of_working_gives_the_plain_fold(
    appends: list[int], turns: list[tuple[int, int, int, bool]], later: list[int], split: bool
) -> None:
    """Workers of any page size take any number of steps on any partition, and release the lease or end without that."""
    projection = Split if split else CarrierMonth
    with ef.Store("memory:") as store:
        count = 0
        for size in appends:
            store.append(*flights(size, count))
            count += size
        store.project(projection)
        for size in later:
            store.append(*flights(size, count))
            count += size
        target = store.projections.target(projection)
        plan = projection_definition(projection)
        for number, (partition, page, steps, polite) in enumerate(turns):
            means = WorkerContext(
                store.projections.log,
                target,
                time.perf_counter,
                is_dead_holder,
                lease=0.0,
                page=page,
                start_in_thread=start_in_thread,
            )
            place = PartitionKey(plan.name, 1, partition if split else 0)
            worker = PartitionWorker(plan, means, place, f"w{number}")
            for _ in range(steps):
                run(worker.step())
            if polite:
                worker.release()
        store.project(projection)
        assert rows(store, projection) == folded(flights(count))
        assert proved(store)
