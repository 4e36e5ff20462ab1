"""Making a read model one that every append keeps up, exchanging its generation, letting go of it.

All of it happens in a turn of the engine, in which nobody appends: what is not folded yet is folded there, and the same
commit says so to every writer. Knows: the order of these steps. Does not know: how events are folded, who asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import msgspec

from eventfold.core.envelope import new_id
from eventfold.core.query import Cursor
from eventfold.errors import InvalidProjection, NotSupported, UnknownProjection
from eventfold.log.context import Log
from eventfold.log.cursors import verify
from eventfold.ports.engine import Engine, ExclusiveTransaction
from eventfold.ports.inline import InlineRegistration
from eventfold.ports.target import (
    INLINE,
    Checkpoint,
    CheckpointChanged,
    InlineTarget,
    PartitionKey,
    PendingCommand,
    ProjectionRecord,
)
from eventfold.projections.definition import ProjectionDefinition
from eventfold.projections.generations import after_switch
from eventfold.projections.inline import InlineBatch, InlineModel, group_by_append, refuse_lost_history, types_of


def refuse_engine(engine: Engine) -> None:
    """Raises NotSupported where read models cannot be folded within appends."""
    if not engine.capabilities.inline:
        raise NotSupported(
            f"The {engine.name} engine folds no read models within its appends.",
            "Keep the log in a SQLite file or in PostgreSQL for that, or leave inline= away and use store.project(…).",
            engine=engine.name,
            capability="inline",
        )


def refuse_definition(plan: ProjectionDefinition) -> None:
    """Raises InvalidProjection on one that cannot be kept within appends."""
    if plan.kind == "effects":
        what, now = "is a subscription, and effects cannot be taken back", "Run it: store.run(…)."
    elif plan.target is not None:
        what, now = "is kept in another database than the log", "Leave target= away."
    elif plan.on_error == "park" or plan.partitions > 1:
        what = "parks what fails" if plan.on_error == "park" else "is split by key"
        now = "Leave on_error= and partitions= away: an event that it cannot take is not appended."
    elif not types_of(plan):
        what, now = "takes every event there is", "Name the event classes that it takes."
    elif plan.start != "beginning":
        what, now = "does not start at the beginning", "Leave start= away."
    else:
        return
    raise InvalidProjection(f"{plan.name} cannot be kept within appends: it {what}.", now, projection=plan.name)


def is_inline(held: Sequence[Checkpoint]) -> bool:
    """Whether these are checkpoints of a read model that every append keeps up."""
    return any(each.holder == INLINE for each in held)


async def enrol(log: Log, host: InlineTarget, plan: ProjectionDefinition, known: ProjectionRecord) -> None:
    """Let every append update its live generation. Raises InlineFailed, CursorMismatch, CheckpointChanged."""
    await log.engine.in_turn(partial(_enrol, log, host, plan, known.live))


async def switch(
    log: Log, host: InlineTarget, plan: ProjectionDefinition, new: ProjectionRecord, command: PendingCommand
) -> None:
    """Exchange the generation that readers see and appends keep up for the one that was built, between two appends.

    Raises CheckpointChanged where another one would come of it than `new`.
    """

    async def exchanged(turn: ExclusiveTransaction) -> None:
        tx = host.controlled(turn.connection, plan.name)
        old = tx.record()
        if old is None or after_switch(old) != new:
            raise CheckpointChanged
        host.joined(turn.connection, PartitionKey(plan.name, old.live)).release_inline()
        tx.save_record(new)
        tx.save_command(command)
        await _enrol(log, host, plan, new.live, turn)

    await log.engine.in_turn(exchanged)


async def _enrol(
    log: Log, host: InlineTarget, plan: ProjectionDefinition, generation: int, turn: ExclusiveTransaction
) -> None:
    entry = InlineRegistration(plan.name, plan.fingerprint, types_of(plan), f"{generation} {new_id().hex()}")
    kept = InlineModel(plan, entry.incarnation, log.registry)
    known = host.controlled(turn.connection, plan.name).record()
    if known is not None and known.live != generation:
        raise CheckpointChanged  # it was switched meanwhile
    joined = host.joined(turn.connection, kept.place)
    held = joined.acquire_inline()
    if held is None:
        raise UnknownProjection(
            f"Generation {generation} of {plan.name} is no longer kept.", "Build it anew.", projection=plan.name
        )
    await verify(log, Cursor(held.store, held.epoch, held.position, held.event_id))
    kept.begin(joined, warm=False)
    refuse_lost_history(kept, turn.head)
    taking, after = InlineBatch(None, [kept], log.engine.epoch), held.position
    while after < turn.head:
        page = await turn.read(plan.query, after)
        for events in group_by_append(page.events):
            error = taking.take(events, at_once=True)
            if error is not None:
                raise error
        taking.write()
        after = page.scanned
    await turn.enrol(entry)


async def release_inline(log: Log, host: InlineTarget, known: ProjectionRecord) -> None:
    """Have appends keep it up no longer: it is a read model like any other, and stands where the log ends."""

    async def dismissed(turn: ExclusiveTransaction) -> None:
        await turn.dismiss(known.name)
        now = host.controlled(turn.connection, known.name).record() or known
        host.joined(turn.connection, PartitionKey(known.name, now.live)).release_inline()

    await log.engine.in_turn(dismissed)


async def accept(log: Log, plan: ProjectionDefinition) -> None:
    """Let whoever has this code keep it up from now on; those who have the code until now no longer."""

    async def accepted(turn: ExclusiveTransaction) -> None:
        for each in turn.inlined:
            if each.name == plan.name:
                await turn.enrol(msgspec.structs.replace(each, code=plan.fingerprint, types=types_of(plan)))

    await log.engine.in_turn(accepted)


def is_registered_as(entry: InlineRegistration | None, plan: ProjectionDefinition) -> bool:
    """Whether it is enrolled as it is now."""
    return entry is not None and (entry.code, entry.types) == (plan.fingerprint, types_of(plan))
