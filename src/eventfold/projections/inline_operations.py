"""Read models that every append keeps up, as the desk handles them: named at the store, exchanged, let go of.

Knows: where they are enrolled, what may not be done to them. Does not know: how they are folded, how a turn is taken.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import cast

from eventfold.concurrency import run
from eventfold.errors import InvalidProjection
from eventfold.log.context import Log
from eventfold.ports.inline import InlineRegistration
from eventfold.ports.target import Checkpoint, InlineTarget, PartitionKey, PendingCommand, ProjectionRecord, Target
from eventfold.projections import inline_admin
from eventfold.projections.definition import ProjectionDefinition
from eventfold.projections.inline import LocalInlineProjector
from eventfold.projections.lease_holders import new_holder_id
from eventfold.projections.runner import catch_up, worker_context
from eventfold.projections.worker import PartitionWorker

NAP = 0.01  # seconds between looks at a backfill that somebody else does


def inline_projector(log: Log, target: Target, plans: Sequence[ProjectionDefinition]) -> LocalInlineProjector:
    """What an engine folds these with. Raises NotSupported, InvalidProjection."""
    inline_admin.refuse_engine(log.engine)
    folder = LocalInlineProjector(log.engine, log.registry, _host(target))
    for plan in plans:
        inline_admin.refuse_definition(plan)
        folder.add(plan)
    return folder


def registered_by_name(log: Log) -> dict[str, InlineRegistration]:
    """Those that every append keeps up, by name."""
    return {each.name: each for each in run(log.engine.inlined())}


def unregistered(log: Log, plans: Sequence[ProjectionDefinition]) -> list[ProjectionDefinition]:
    """Those that are not enrolled yet, or with other code than this."""
    entries = registered_by_name(log)
    return [plan for plan in plans if not inline_admin.is_registered_as(entries.get(plan.name), plan)]


def register_inline(
    log: Log, target: Target, plan: ProjectionDefinition, known: ProjectionRecord, lease: float
) -> bool:
    """Fold what is there already, then have every append keep it up. False where it stopped or is paused.

    The long part is done while others append, by whoever holds the lease; only the rest in a turn of the writer.
    """
    work = PartitionWorker(
        plan, worker_context(log, target, lease), PartitionKey(plan.name, known.live), new_holder_id()
    )
    while (state := catch_up(work, 0.0)) == "held":
        if inline_admin.is_registered_as(registered_by_name(log).get(plan.name), plan):
            return True
        (held,) = target.checkpoints(plan.name, known.live)
        if held.position >= run(log.engine.head()).position or inline_admin.is_inline([held]):
            break
        time.sleep(NAP)
    if state in ("stopped", "paused"):
        return False
    run(inline_admin.enrol(log, _host(target), plan, known))
    return True


def switch(
    log: Log, target: Target, plan: ProjectionDefinition, new: ProjectionRecord, command: PendingCommand
) -> None:
    """Let readers and appends go over to what was built, between two appends. Raises CheckpointChanged."""
    run(inline_admin.switch(log, _host(target), plan, new, command))


def release_inline(log: Log, target: Target, known: ProjectionRecord) -> None:
    """Have appends keep it up no longer, if they do."""
    if known.name in registered_by_name(log) or inline_admin.is_inline(target.checkpoints(known.name, known.live)):
        run(inline_admin.release_inline(log, _host(target), known))


def accept(log: Log, plan: ProjectionDefinition) -> None:
    """Let appends go on with this code."""
    if plan.name in registered_by_name(log):
        run(inline_admin.accept(log, plan))


def refuse_operation(act: str, known: ProjectionRecord, held: Sequence[Checkpoint]) -> None:
    """Raises InvalidProjection on what makes no sense where every append keeps a read model up."""
    if inline_admin.is_inline(held):
        now = {
            "paused": "let go of it instead: eventfold projections forget {0}.",
            "rolled back": "build it with the code of before, and switch: eventfold projections rebuild {0} --switch.",
        }[act]
        raise InvalidProjection(
            f"{known.name} is kept within every append, so it cannot be {act}.",
            now[0].upper() + now[1:].format(known.name),
            projection=known.name,
        )


def _host(target: Target) -> InlineTarget:
    return cast("InlineTarget", target)
