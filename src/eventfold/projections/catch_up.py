"""Catching up in the calling thread: one partition to a position, and the errors where it does not come that far.

Knows: leases of other runners, how long to wait for them. Does not know: which partitions there are, who asks.
"""

from __future__ import annotations

import time

from eventfold.concurrency import run
from eventfold.errors import ProjectionBehind
from eventfold.log.context import Log
from eventfold.ports.target import Checkpoint, PartitionKey, Target
from eventfold.projections.definition import ProjectionDefinition
from eventfold.projections.generations import require_record
from eventfold.projections.lease_holders import new_holder_id
from eventfold.projections.runner import catch_up, worker_context
from eventfold.projections.status import status_of
from eventfold.projections.stop_reason import paused_error, stopped_error
from eventfold.projections.verify import Progress
from eventfold.projections.worker import PartitionWorker

CATCH_UP_TIMEOUT_S = 30.0  # seconds to wait for a runner elsewhere that holds the lease


def catch_up_partition(
    log: Log,
    plan: ProjectionDefinition,
    target: Target,
    place: PartitionKey,
    head: int,
    *,
    lease: float,
    timeout: float,
    progress: Progress | None = None,
) -> None:
    """Bring a partition up to the position `head`, or wait `timeout` seconds for the runner that holds it.

    Raises ProjectionStopped, ProjectionBehind.
    """
    work = PartitionWorker(plan, worker_context(log, target, lease), place, new_holder_id())
    ends = time.monotonic() + timeout

    def tell(position: int) -> None:
        if progress is not None:
            progress(position, head)

    while catch_up(work, 0.02, tell) == "held":
        held = next(c for c in target.checkpoints(place.name, place.generation) if c.place == place)
        if held.position >= head and not target.delivery_lag(place.name, place.generation):
            return  # its runner has done it
        if held.stopped:
            raise stopped_error(place.name, held)
        if time.monotonic() > ends:
            raise behind_error(log, target, place.name, held, head, timeout)
    refuse_stopped(target, place)


def refuse_stopped(target: Target, place: PartitionKey) -> None:
    """Raises ProjectionStopped where a partition stopped at an event or its projection is paused."""
    held = next(c for c in target.checkpoints(place.name, place.generation) if c.place == place)
    if held.stopped:
        raise stopped_error(place.name, held)
    known = require_record(target, place.name)
    if known.paused:
        raise paused_error(place.name, known.paused)


def behind_error(
    log: Log, target: Target, name: str, held: Checkpoint, wanted: int, timeout: float
) -> ProjectionBehind:
    """The error for a projection that did not come to a position in time, with the reason."""
    known = target.registered(name)
    sentence = run(status_of(log, target, known, target.now())).sentence if known is not None else ""
    return ProjectionBehind(
        f"{name} has come to position {held.position} and not to {wanted} within {timeout:g} s. {sentence}",
        "Allow more time (timeout=…), or see eventfold projections status.",
        projection=name,
        position=held.position,
        wanted=wanted,
    )
