"""Generations of a projection: registering it, beginning another beside it, accepting changed code.

A log that was copied or restored into another epoch has events that were handled already. A target that has belonged to
the store from the beginning, or that got the progress of the original, has a record that says so; without it effects,
processes and followers do not start.
Knows: the preconditions of each step. Does not know: how events are folded, runners.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from eventfold.core.counted import count_of
from eventfold.core.event import declaration_of, known_names, stored_names_of
from eventfold.core.json_values import decode
from eventfold.core.query import Cursor, Query
from eventfold.core.table import Table, generation_table
from eventfold.errors import CursorMismatch, InvalidProjection, ProgressUnknown, ProjectionChanged, UnknownProjection
from eventfold.log.context import Log
from eventfold.log.cursors import cursor_at, verify
from eventfold.ports.target import (
    FOREVER,
    Checkpoint,
    CheckpointChanged,
    PartitionKey,
    PendingCommand,
    ProjectionRecord,
    Target,
)
from eventfold.projections.definition import ProjectionDefinition

COMPLETE_PROGRESS = (
    "$progress"  # the record of a target that has all progress of its store; not a valid name of a projection
)
keeps_progress = ("effects", "follower", "consumer")  # the kinds whose progress cannot be rebuilt from the log


def tables_of(definition: ProjectionDefinition) -> dict[str, Table | str]:
    """Return the tables of a definition, by name."""
    return dict(definition.tables) if definition.rows is None else {definition.rows.table.name: definition.rows.table}


async def register(definition: ProjectionDefinition, log: Log, target: Target) -> ProjectionRecord:
    """Register a projection and create its tables, once; return its record.

    Raises ProjectionChanged if its code has changed, InvalidProjection if its name is in use, ProgressUnknown.
    """
    record = target.record(definition.name)
    if record is None:
        await refuse_unknown_progress(log, target, definition.name, definition.kind, definition.code)
        await _warn_of_unwritten(definition, log)
        new = ProjectionRecord(
            name=definition.name,
            kind=definition.kind,
            code=definition.code,
            live=1,
            tables=tuple(tables_of(definition)),
        )
        start = (await log.engine.head()).position if definition.start == "now" else 0
        checkpoints = await first_checkpoints(definition, log, start)
        with target.control(definition.name) as tx:
            record = tx.record()
            if record is None:  # else another process was first
                record = new
                tx.create(new, tables_of(definition), checkpoints)
    if record.kind in ("follower", "consumer"):
        raise InvalidProjection(
            f"{definition.name} is the name of a {record.kind} of this store.",
            f"Give one of them another name, or remove that one: eventfold projections remove STORE {definition.name}.",
            projection=definition.name,
        )
    live = target.checkpoints(definition.name, record.live)[0]
    if definition.is_code_of(live.fingerprint):
        refuse_outdated(definition, target, record.live)
        if record.code != definition.code:  # the same class in another module: record the new address
            with target.control(definition.name) as tx:
                if tx.record() == record:
                    tx.save_record(msgspec.structs.replace(record, code=definition.code))
        if live.fingerprint != definition.fingerprint:
            _adopt_fingerprint(definition, target)
        return record
    if record.kind != definition.kind or record.code != definition.code:
        raise InvalidProjection(
            f"The name {definition.name} belongs to {record.code}, and {definition.code} is another class.",
            f"Give one of them another name (name=…); if the class was moved and changed, rebuild it: "
            f"eventfold projections rebuild STORE {definition.code} --switch.",
            projection=definition.name,
        )
    raise _changed_error(definition, live.fingerprint)


def _changed_error(definition: ProjectionDefinition, was: str) -> ProjectionChanged:
    """Return the error for a projection whose rows have the fingerprint `was`, of other code."""
    remedy = (
        f"Rebuild it beside the old rows: eventfold projections rebuild STORE {definition.name} (with --switch, "
        "readers see the new rows); or, if the old rows are right: "
        f"eventfold projections accept STORE {definition.name}."
    )
    if definition.kind == "effects":
        remedy = (
            "Effects are not repeated, so accept the new code to let it continue: "
            f"eventfold projections accept STORE {definition.name}."
        )
    return ProjectionChanged(
        f"The code of {definition.name} has changed since it handled its events (fingerprint {was} then, "
        f"{definition.fingerprint} now).",
        remedy,
        projection=definition.name,
        was=was,
        fingerprint=definition.fingerprint,
    )


def _adopt_fingerprint(definition: ProjectionDefinition, target: Target) -> None:
    """Replace the fingerprint by an older release with today's fingerprint of the same code."""
    with target.control(definition.name) as tx:
        for checkpoint in tx.checkpoints():
            if checkpoint.fingerprint != definition.fingerprint and definition.is_code_of(checkpoint.fingerprint):
                tx.update_checkpoint(checkpoint.place, fingerprint=definition.fingerprint)


def is_outdated(definition: ProjectionDefinition, target: Target, generation: int) -> bool:
    """Whether the rows of a generation are of a release that compared keys by their text."""
    return definition.rows is not None and target.outdated(generation_table(definition.rows.table, generation))


def refuse_outdated(definition: ProjectionDefinition, target: Target, generation: int) -> None:
    """Raise ProjectionChanged where rows are of a release that compared decimals and moments by text."""
    if is_outdated(definition, target, generation):
        raise ProjectionChanged(
            f"The rows of {definition.name} are of an older eventfold, which compared the decimals and moments of keys "
            "and indexes by their text: 1.0 and 1.00 were two keys.",
            f"Rebuild it once: eventfold projections rebuild STORE {definition.name} --switch.",
            projection=definition.name,
        )


async def first_checkpoints(definition: ProjectionDefinition, log: Log, start: int) -> list[Checkpoint]:
    """Return the checkpoints of a projection that starts after a position. Raises CursorMismatch beyond the head."""
    return await _checkpoints(definition, log, 1, start, None)


async def _checkpoints(
    definition: ProjectionDefinition, log: Log, generation: int, start: int, until: int | None
) -> list[Checkpoint]:
    cursor = await cursor_at(log, start)
    return [
        Checkpoint(
            place=PartitionKey(definition.name, generation, partition),
            store=cursor.store,
            epoch=cursor.epoch,
            position=cursor.position,
            event_id=cursor.event_id,
            query=msgspec.json.encode(definition.query).decode(),
            fingerprint=definition.fingerprint,
            partitions=definition.partitions,
            until=until,
        )
        for partition in range(definition.partitions)
    ]


async def _warn_of_unwritten(definition: ProjectionDefinition, log: Log) -> None:
    """Warn of an event class whose events the log has under another name, as after a change of its name.

    A type that some class here declares is another event: that it alone was written so far is usual.
    """
    log_types = [found.type for found in await log.engine.types()]
    unclaimed = sorted({*log_types}.difference(known_names()))
    for each in definition.events:
        names = stored_names_of(each)  # with aliases and older classes: it is enough if the log has one of them
        if not names or not {*names}.isdisjoint(log_types) or names[0].startswith("$"):
            continue  # `$…`: eventfold writes it when there is one
        type_name = declaration_of(each).type
        near = difflib.get_close_matches(type_name, unclaimed, 3)
        if near:
            warnings.warn(
                f"{definition.name} handles {type_name}, which the log does not have; it has {', '.join(near)}.",
                stacklevel=2,
            )


async def begin(
    definition: ProjectionDefinition,
    log: Log,
    target: Target,
    until: int | None,
    command: Callable[[int], PendingCommand],
) -> int:
    """Return the generation to build: that of an interrupted rebuild of the same code, or a new one.

    With `until` it ends at that position, inclusive, and never goes live. `command(generation)` is saved if anything
    changed. Raises UnknownProjection, CheckpointChanged, InvalidProjection for effects.
    """
    require_record(target, definition.name)
    if definition.kind == "effects":
        raise InvalidProjection(f"{definition.name} has effects, which are not repeated.", "Rebuild read models only.")
    with target.control(definition.name) as tx:
        record, every = tx.record(), tx.checkpoints()
        if record is None:
            raise CheckpointChanged
        left = [each for each in every if each.place.generation == record.building] if until is None else []
        if await goes_on(definition, log, target, left):
            stopped = [each.place for each in left if each.stopped]
            for partition_key in stopped:
                tx.update_checkpoint(partition_key, stopped="")  # a repeated rebuild tries the failed event again
            if stopped:
                tx.save_command(command(left[0].place.generation))
            return left[0].place.generation
        generation = 1 + max((each.place.generation for each in every), default=0)
        if until is None:
            if record.building is not None:
                tx.drop(record.building, record.tables)
            record = msgspec.structs.replace(record, building=generation, code=definition.code, kind=definition.kind)
        tx.create(record, tables_of(definition), await _checkpoints(definition, log, generation, 0, until))
        tx.save_command(command(generation))
        return generation


async def goes_on(definition: ProjectionDefinition, log: Log, target: Target, left: Sequence[Checkpoint]) -> bool:
    """Whether a rebuild can continue an interrupted one: it has the same code and is of this log."""
    if (
        not left
        or not definition.is_code_of(left[0].fingerprint)
        or is_outdated(definition, target, left[0].place.generation)
    ):
        return False
    return await _of_this_log(log, left)


async def _of_this_log(log: Log, checkpoints: Sequence[Checkpoint]) -> bool:
    try:
        for each in checkpoints:
            await verify(log, Cursor(each.store, each.epoch, each.position, each.event_id))
    except CursorMismatch:
        return False
    return True


def refuse_unknown(checkpoints: Sequence[Checkpoint], name: str, generation: int) -> None:
    """Raise UnknownProjection where a generation is not among all checkpoints of a projection."""
    generations = list(dict.fromkeys(each.place.generation for each in checkpoints))
    if generation not in generations:
        raise UnknownProjection(
            f"{name} has no generation {generation}: it has {', '.join(map(str, generations))}.",
            f"See eventfold projections show STORE {name}.",
            projection=name,
            generation=generation,
        )


def is_same_declaration(fingerprint: str, other: str) -> bool:
    """Whether two fingerprints are of code with the same tables."""
    return fingerprint.partition("-")[0] == other.partition("-")[0]


async def refuse_other_tables(
    definition: ProjectionDefinition, log: Log, target: Target, checkpoints: list[Checkpoint]
) -> int:
    """Raise ProjectionChanged where existing rows cannot be right for the changed code.

    Returns the position up to which that was checked, inclusive: a runner with the old code may go further.
    """
    through, was, position = FOREVER, checkpoints[0], max(each.position for each in checkpoints)
    refuse_outdated(definition, target, was.place.generation)
    old = decode(was.query, Query)
    if was.partitions != definition.partitions:
        now = count_of(definition.partitions, "partition")
        what = f"it has {now} now, but its rows were written with {was.partitions}"
    elif not is_same_declaration(was.fingerprint, definition.fingerprint):
        what = "the declaration of its tables has changed"
    elif definition.kind != "effects" and (through := await _same_through(log, old, definition.query, position)) < 0:
        what = f"up to position {position:,} there are events that only one of the old and the new code handles"
    else:
        return through
    now = f"Rebuild it and switch: eventfold projections rebuild STORE {definition.name} --switch."
    if definition.kind == "effects":
        now = (
            f"Remove its progress (eventfold projections remove STORE {definition.name}); "
            "then it starts where its class declares."
        )
    raise ProjectionChanged(
        f"The rows of {definition.name} cannot be accepted as they are: {what}.", now, projection=definition.name
    )


async def _same_through(log: Log, old: Query, new: Query, position: int) -> int:
    """Return the position up to which two queries match the same events: the head, else `position`, else -1.

    FOREVER for equal queries.
    """
    if old == new:
        return FOREVER
    both = Query.any_of([*old.items, *new.items]) if old.items and new.items else Query()
    head = (await log.engine.head()).position
    for end in (max(head, position), position):
        counts = [await log.engine.count(each, 0, end) for each in (old, new, both)]
        if len(set(counts)) == 1:
            return end
    return -1


def is_same_code(judged: Sequence[Checkpoint], now: Sequence[Checkpoint], through: int) -> bool:
    """Whether checkpoints are unchanged since they were `judged`, and not beyond the position `through`."""

    def facts(checkpoints: Sequence[Checkpoint]) -> list[tuple[Any, ...]]:
        return [(each.place, each.fingerprint, each.query, each.partitions) for each in checkpoints]

    return facts(judged) == facts(now) and max(each.position for each in now) <= through


def after_switch(record: ProjectionRecord) -> ProjectionRecord:
    """Return the record after a switch. Raises UnknownProjection where no generation is being built."""
    if record.building is None:
        raise UnknownProjection(
            f"No new generation of {record.name} is being built.",
            f"Build one: eventfold projections rebuild STORE {record.name}.",
            projection=record.name,
        )
    return msgspec.structs.replace(record, live=record.building, previous=record.live, building=None)


def after_rollback(record: ProjectionRecord) -> ProjectionRecord:
    """Return the record after a rollback. The former live generation becomes the previous one."""
    if record.previous is None:
        raise UnknownProjection(
            f"{record.name} has no previous generation to roll back to.",
            "Rebuild it instead: only a switch leaves a previous generation.",
            projection=record.name,
        )
    return msgspec.structs.replace(record, live=record.previous, previous=record.live)


def require_record(target: Target, name: str) -> ProjectionRecord:
    """Return the record of a projection. Raises UnknownProjection, with a similar name if there is one."""
    record = target.record(name)
    if record is None:
        names = {each.name.casefold(): each.name for each in target.records()}
        near = difflib.get_close_matches(name.casefold(), list(names), 1)
        some = f" It has {', '.join([*names.values()][:5])}{' and others' if len(names) > 5 else ''}." if names else ""
        raise UnknownProjection(
            f"This store has no projection {name!r}." + (f" Did you mean {names[near[0]]}?" if near else some),
            "List the names: eventfold projections list STORE. Register a new one: store.project(…) or "
            "eventfold run STORE MODULE:NAME.",
            projection=name,
            address=target.address,
        )
    return record


def require_checkpoint(target: Target, partition_key: PartitionKey) -> Checkpoint:
    """Return the checkpoint of a partition. Raises UnknownProjection where its generation was dropped."""
    checkpoint = target.checkpoint(partition_key)
    if checkpoint is None:
        raise UnknownProjection(
            f"Generation {partition_key.generation} of {partition_key.name} was dropped from {target.address}.",
            f"List its generations: eventfold projections show STORE {partition_key.name}.",
            projection=partition_key.name,
        )
    return checkpoint


def complete_progress_record() -> ProjectionRecord:
    """Return the record which says that a target has all progress of its store."""
    return ProjectionRecord(name=COMPLETE_PROGRESS, kind="progress", code="", live=1)


async def refuse_unknown_progress(log: Log, target: Target, name: str, kind: str, code: str = "") -> None:
    """Refuse to start an effect, a process or a follower that may have handled events of this log before.

    Raises ProgressUnknown where the store is not in its first epoch and the target has no progress of earlier epochs.
    """
    if kind not in keeps_progress or target.record(COMPLETE_PROGRESS) is not None:
        return
    if log.engine.epoch > 1 and (await log.engine.head()).position:
        if any(each.kind in keeps_progress for each in target.records()):
            return
        raise ProgressUnknown(
            f"{name} has no progress here, but the store is in epoch {log.engine.epoch}: it took over another store's "
            "history or was restored, so the events may have been handled already.",
            (
                "Choose the position after which it starts: "
                f"eventfold projections begin STORE {code or name} --at POSITION (0: all events are handled again)."
                if kind == "effects"
                else "Follow after a cursor, where it starts: after=store.cursor(POSITION)."
            ),
            projection=name,
            epoch=log.engine.epoch,
        )
    with target.control(COMPLETE_PROGRESS) as tx:
        if tx.record() is None:
            tx.save_record(complete_progress_record())
