"""Brings one partition up to a position in the calling thread, and builds the errors for one that does not get there.

Knows: leases of other runners, how long to wait for them. Does not know: which partitions there are, its callers.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from eventfold.concurrency import run, start_in_thread
from eventfold.errors import ProjectionBehind
from eventfold.log.context import Log
from eventfold.ports.target import Checkpoint, PartitionKey, Target
from eventfold.projections.definition import ProjectionDefinition
from eventfold.projections.failures import paused_error, stopped_error
from eventfold.projections.generations import require_checkpoint, require_record
from eventfold.projections.joint_commit import JointCommits
from eventfold.projections.leases import LeaseHeartbeat, is_dead_holder, new_holder_id
from eventfold.projections.observer import Observer
from eventfold.projections.partition_lease import WorkerContext
from eventfold.projections.status import status_of
from eventfold.projections.verify import Progress
from eventfold.projections.worker import PartitionWorker, StepResult

CATCH_UP_TIMEOUT_S = 30.0  # seconds to wait for another runner that holds the lease


def wall_clock() -> int:
    """Return the time in µs since 1970 UTC."""
    return time.time_ns() // 1000


def worker_context(
    log: Log,
    target: Target,
    lease: float,
    joint: JointCommits | None = None,
    clock: Callable[[], int] = wall_clock,
    observer: Observer | None = None,
) -> WorkerContext:
    """Return the context for workers in the calling thread. `lease`: seconds; `clock`: µs since 1970 UTC."""
    # Signal handlers run in the main thread only. In any other thread, also a BaseException is raised by user code.
    catches = Exception if threading.current_thread() is threading.main_thread() else BaseException
    return WorkerContext(
        log,
        target,
        time.perf_counter,
        is_dead_holder,
        lease,
        quiet_page=getattr(target, "quiet_page_events", 0),
        start_in_thread=start_in_thread,
        catches=catches,
        joint=joint,
        wall_clock=clock,
        observer=observer,
    )


def catch_up(
    worker: PartitionWorker,
    patience: float,
    progress: Callable[[int], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> StepResult | None:
    """Work in the calling thread until there is nothing to do. Return the last result; None if `stop` ended it.

    Calls `progress` with the position after each step. Waits up to `patience` seconds for a lease that another runner
    holds. Releases its own lease at the end.
    """
    waited, heartbeat = 0.0, LeaseHeartbeat(worker.context.target, worker.context.lease)
    try:
        while not stop():
            with heartbeat.during(worker.lease):
                state = run(worker.step())
            if progress is not None and worker.lease.checkpoint is not None:
                progress(worker.lease.checkpoint.position)
            if state is StepResult.LEASE_HELD_ELSEWHERE and waited < patience:
                time.sleep(0.01)
                waited += 0.01
            elif state is not StepResult.PROGRESSED:
                return state
        return None
    finally:
        heartbeat.stop()
        worker.release()


def catch_up_partition(
    log: Log,
    definition: ProjectionDefinition,
    target: Target,
    partition_key: PartitionKey,
    head: int,
    *,
    lease: float,
    timeout: float,
    progress: Progress | None = None,
    clock: Callable[[], int] = wall_clock,
    observer: Observer | None = None,
) -> None:
    """Bring a partition up to the position `head`, or wait `timeout` seconds for the runner that has its lease.

    Raises ProjectionStopped, ProjectionBehind.
    """
    context = worker_context(log, target, lease, clock=clock, observer=observer)
    worker = PartitionWorker(definition, context, partition_key, new_holder_id())
    ends = time.monotonic() + timeout

    def tell(position: int) -> None:
        if progress is not None:
            progress(position, head)

    while catch_up(worker, 0.02, tell) is StepResult.LEASE_HELD_ELSEWHERE:
        checkpoint = require_checkpoint(target, partition_key)
        if checkpoint.position >= head and not target.delivery_lag(partition_key.name, partition_key.generation):
            return  # its runner has caught up
        if checkpoint.stopped:
            raise stopped_error(partition_key.name, checkpoint)
        if time.monotonic() > ends:
            raise behind_error(log, target, partition_key.name, checkpoint, head, timeout)
    refuse_stopped(target, partition_key)


def refuse_stopped(target: Target, partition_key: PartitionKey) -> None:
    """Raise ProjectionStopped where a partition stopped at an event or its projection is paused."""
    checkpoint = require_checkpoint(target, partition_key)
    if checkpoint.stopped:
        raise stopped_error(partition_key.name, checkpoint)
    record = require_record(target, partition_key.name)
    if record.paused:
        raise paused_error(partition_key.name, record.paused)


def behind_error(
    log: Log, target: Target, name: str, checkpoint: Checkpoint, wanted: int, timeout: float
) -> ProjectionBehind:
    """Return the error for a projection that did not reach the position `wanted` in `timeout` seconds, and why."""
    record = target.record(name)
    sentence = run(status_of(log, target, record, target.now())).sentence if record is not None else ""
    remedy = "Allow more time (timeout=…), or see eventfold projections status STORE."
    end = run(log.engine.head()).position
    if end < wanted:
        sentence = f"The log ends at position {end}. {sentence}"
        remedy = "Wait for the position of a receipt of this store (receipt.last), or for none: the end of the log."
    return ProjectionBehind(
        f"{name} reached position {checkpoint.position} and not {wanted} within {timeout:g} s. {sentence}".rstrip(),
        remedy,
        projection=name,
        position=checkpoint.position,
        wanted=wanted,
        head=end,
    )
