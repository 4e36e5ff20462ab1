"""Administration of inline read models, which every append updates: register, switch generations, release.

The last step of each runs in an exclusive transaction of the engine, during which no process appends: it folds the
events that are not folded yet, and the same commit makes the change visible to every writer.
Knows: the order of these steps, the operations that inline read models refuse. Does not know: how events are folded,
how the engine excludes appends.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import cast

import msgspec

from eventfold.concurrency import run
from eventfold.core.envelope import new_id
from eventfold.core.query import Cursor
from eventfold.errors import InvalidProjection, UnknownProjection
from eventfold.log.context import Log
from eventfold.log.cursors import verify
from eventfold.ports.inline import ExclusiveTransaction, InlineRegistration
from eventfold.ports.services import require
from eventfold.ports.target import (
    INLINE,
    Checkpoint,
    CheckpointChanged,
    InlineTarget,
    PartitionKey,
    PendingCommand,
    ProjectionRecord,
    Target,
)
from eventfold.projections.catch_up import catch_up, worker_context
from eventfold.projections.definition import ProjectionDefinition
from eventfold.projections.generations import after_switch
from eventfold.projections.inline import (
    InlineBatch,
    InlineModel,
    LocalInlineProjector,
    group_by_append,
    refuse_lost_history,
    types_of,
)
from eventfold.projections.leases import new_holder_id
from eventfold.projections.worker import PartitionWorker, StepResult

POLL_S = 0.01  # seconds between two checks of a backfill by another process


def inline_projector(log: Log, target: Target, definitions: Sequence[ProjectionDefinition]) -> LocalInlineProjector:
    """Return a projector for these definitions, for an engine. Raises NotSupported, InvalidProjection."""
    require(log.engine, "inline")
    projector = LocalInlineProjector(log.engine, log.registry, _host(target))
    for definition in definitions:
        refuse_definition(definition)
        projector.add(definition)
    return projector


def registered_by_name(log: Log) -> dict[str, InlineRegistration]:
    """Return the registrations of all inline read models of the store, by name."""
    inline = log.engine.services.inline
    return {} if inline is None else {each.name: each for each in run(inline.registrations())}


def unregistered(log: Log, definitions: Sequence[ProjectionDefinition]) -> list[ProjectionDefinition]:
    """Return the definitions that are not registered, or registered with other code."""
    entries = registered_by_name(log)
    return [definition for definition in definitions if not is_registered_as(entries.get(definition.name), definition)]


def register_inline(
    log: Log, target: Target, definition: ProjectionDefinition, record: ProjectionRecord, lease: float
) -> bool:
    """Fold the existing events, then register it with every append. Returns False where it stopped or is paused.

    Most events are folded by the holder of the lease while other processes append; only the last ones are folded in the
    exclusive transaction.
    """
    worker = PartitionWorker(
        definition, worker_context(log, target, lease), PartitionKey(definition.name, record.live), new_holder_id()
    )
    while (state := catch_up(worker, 0.0)) is StepResult.LEASE_HELD_ELSEWHERE:
        if is_registered_as(registered_by_name(log).get(definition.name), definition):
            return True
        (checkpoint,) = target.checkpoints(definition.name, record.live)
        if checkpoint.position >= run(log.engine.head()).position or is_inline([checkpoint]):
            break
        time.sleep(POLL_S)
    if state in (StepResult.STOPPED, StepResult.PAUSED):
        return False
    run(_enrol(log, _host(target), definition, record))
    return True


def switch(
    log: Log, target: Target, definition: ProjectionDefinition, new: ProjectionRecord, command: PendingCommand
) -> None:
    """Make the built generation live for readers and appends, between two appends. Raises CheckpointChanged."""
    run(_switch(log, _host(target), definition, new, command))


def release_inline(log: Log, target: Target, record: ProjectionRecord) -> None:
    """Unregister an inline read model, so that appends no longer update it; else do nothing."""
    if record.name in registered_by_name(log) or is_inline(target.checkpoints(record.name, record.live)):
        run(_release_inline(log, _host(target), record))


def accept(log: Log, definition: ProjectionDefinition) -> None:
    """Register an inline read model with this code, if it is one."""
    if definition.name in registered_by_name(log):
        run(_accept(log, definition))


def refuse_operation(act: str, record: ProjectionRecord, checkpoints: Sequence[Checkpoint]) -> None:
    """Raise InvalidProjection for an operation that an inline read model does not allow."""
    if is_inline(checkpoints):
        now = {
            "paused": "remove it instead: eventfold projections remove STORE {0}.",
            "rolled back": "rebuild it with the old code and switch: eventfold projections rebuild STORE {0} --switch.",
        }[act]
        raise InvalidProjection(
            f"{record.name} is updated by every append (inline), so it cannot be {act}.",
            now[0].upper() + now[1:].format(record.name),
            projection=record.name,
        )


def _host(target: Target) -> InlineTarget:
    return cast("InlineTarget", target)


def refuse_definition(definition: ProjectionDefinition) -> None:
    """Raise InvalidProjection for a definition that cannot be inline."""
    if definition.kind == "effects":
        what, remedy = "is a subscription, and effects cannot be undone", "Run it: store.run(…)."
    elif definition.watch is not None:
        what, remedy = "is an alert, which appends facts itself", "Run it: store.run(…)."
    elif definition.target is not None:
        what, remedy = "is in another database than the log", "Remove target=."
    elif definition.on_error == "park" or definition.partitions > 1:
        what = "parks failing events" if definition.on_error == "park" else "has partitions"
        remedy = "Remove on_error= and partitions=: an event that it cannot handle is not appended."
    elif not types_of(definition):
        what, remedy = "handles events of every type", "Name the event classes that it handles."
    elif definition.start != "beginning":
        what, remedy = "does not start at the beginning", "Remove start=."
    else:
        return
    raise InvalidProjection(
        f"{definition.name} cannot be updated by appends (inline): it {what}.", remedy, projection=definition.name
    )


def is_inline(checkpoints: Sequence[Checkpoint]) -> bool:
    """Whether these are checkpoints of an inline read model, which every append updates."""
    return any(each.holder == INLINE for each in checkpoints)


async def _enrol(log: Log, host: InlineTarget, definition: ProjectionDefinition, record: ProjectionRecord) -> None:
    """Register the live generation with every append. Raises InlineFailed, CursorMismatch, CheckpointChanged."""
    await require(log.engine, "inline").exclusive(partial(_enrol_now, log, host, definition, record.live))


async def _switch(
    log: Log, host: InlineTarget, definition: ProjectionDefinition, new: ProjectionRecord, command: PendingCommand
) -> None:
    """Replace the live generation, which appends update, by the one that was built, between two appends.

    Raises CheckpointChanged where the resulting record would not be `new`.
    """

    async def exchanged(turn: ExclusiveTransaction) -> None:
        tx = host.controlled(turn.connection, definition.name)
        old = tx.record()
        if old is None or after_switch(old) != new:
            raise CheckpointChanged
        host.joined(turn.connection, PartitionKey(definition.name, old.live)).release_inline()
        tx.save_record(new)
        tx.save_command(command)
        await _enrol_now(log, host, definition, new.live, turn)

    await require(log.engine, "inline").exclusive(exchanged)


async def _enrol_now(
    log: Log, host: InlineTarget, definition: ProjectionDefinition, generation: int, turn: ExclusiveTransaction
) -> None:
    entry = InlineRegistration(
        definition.name, definition.fingerprint, types_of(definition), f"{generation} {new_id().hex()}"
    )
    model = InlineModel(definition, entry.incarnation, log.registry)
    record = host.controlled(turn.connection, definition.name).record()
    if record is not None and record.live != generation:
        raise CheckpointChanged  # it was switched meanwhile
    joined = host.joined(turn.connection, model.partition_key)
    checkpoint = joined.acquire_inline()
    if checkpoint is None:
        raise UnknownProjection(
            f"Generation {generation} of {definition.name} was dropped.",
            f"Rebuild it: eventfold projections rebuild STORE {definition.name} --switch.",
            projection=definition.name,
        )
    await verify(log, Cursor(checkpoint.store, checkpoint.epoch, checkpoint.position, checkpoint.event_id))
    model.begin(joined, warm=False)
    refuse_lost_history(model, turn.head)
    batch, after = InlineBatch(None, [model], log.engine.epoch), checkpoint.position
    while after < turn.head:
        page = await turn.read(definition.query, after)
        for events in group_by_append(page.events):
            error = batch.fold(events, at_once=True)
            if error is not None:
                raise error
        batch.write()
        after = page.scanned
    await turn.register(entry)


async def _release_inline(log: Log, host: InlineTarget, record: ProjectionRecord) -> None:
    """Unregister it: it becomes an ordinary read model, with its checkpoint at the log's head."""

    async def dismissed(turn: ExclusiveTransaction) -> None:
        await turn.unregister(record.name)
        now = host.controlled(turn.connection, record.name).record() or record
        host.joined(turn.connection, PartitionKey(record.name, now.live)).release_inline()

    await require(log.engine, "inline").exclusive(dismissed)


async def _accept(log: Log, definition: ProjectionDefinition) -> None:
    """Register the new code: processes with it update the read model from now on, those with the old code do not."""

    async def accepted(turn: ExclusiveTransaction) -> None:
        for each in turn.registrations:
            if each.name == definition.name:
                await turn.register(
                    msgspec.structs.replace(each, code=definition.fingerprint, types=types_of(definition))
                )

    await require(log.engine, "inline").exclusive(accepted)


def is_registered_as(entry: InlineRegistration | None, definition: ProjectionDefinition) -> bool:
    """Whether a registration has the code and the event types of a definition."""
    return entry is not None and (entry.code, entry.types) == (definition.fingerprint, types_of(definition))
