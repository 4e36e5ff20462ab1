"""Generations of a projection: registering it, beginning another beside it, accepting changed code.

A log that was copied or restored into another epoch has events that were dealt with already. A target that was with it
from the beginning, or was given the progress of the store before it, has a record that says so; without it effects,
processes and followers do not start. Knows: what must be true before each step. Does not know: how events are folded,
who runs what.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from eventfold.core.event import declaration_of, stored_names_of
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

KNOWN = "$progress"  # the record of a target that knows all progress there is; no projection can be called so
keeps_progress = ("effects", "follower")  # the kinds of what cannot be built again from the log


def tables_of(definition: ProjectionDefinition) -> dict[str, Table | str]:
    """The tables of a definition, by name."""
    return dict(definition.tables) if definition.rows is None else {definition.rows.table.name: definition.rows.table}


async def register(definition: ProjectionDefinition, log: Log, target: Target) -> ProjectionRecord:
    """Make a projection known and its tables ready, once. Raises ProjectionChanged if its code is another now."""
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
    if record.kind == "follower":
        raise InvalidProjection(
            f"{definition.name} is the name of a follower of this store.",
            f"Give one of them another name, or give the follower up: eventfold projections remove {definition.name}.",
            projection=definition.name,
        )
    live = target.checkpoints(definition.name, record.live)[0]
    if definition.is_code_of(live.fingerprint):
        refuse_outdated(definition, target, record.live)
        if record.code != definition.code:  # the same class, moved: found by its name at its new place from now on
            with target.control(definition.name) as tx:
                if tx.record() == record:
                    tx.save_record(msgspec.structs.replace(record, code=definition.code))
        if live.fingerprint != definition.fingerprint:
            _adopt_fingerprint(definition, target)
        return record
    if record.kind != definition.kind or record.code != definition.code:
        raise InvalidProjection(
            f"{definition.name} is kept by {record.code}, and {definition.code} has the same name and is not the same.",
            f"Give one of them another name (name=…); if it was moved and changed, build it anew: "
            f"eventfold projections rebuild {definition.code} --switch.",
            projection=definition.name,
        )
    raise ProjectionChanged(
        f"The code of {definition.name} is not the code its rows were made by (fingerprint {live.fingerprint} then, "
        f"{definition.fingerprint} now).",
        (
            f"Rebuild it beside the old rows: eventfold projections rebuild {definition.name} (with --switch, "
            f"readers see the new rows); or, if the old rows are right: eventfold projections accept {definition.name}."
            if definition.kind != "effects"
            else "Effects are not done again, so say that it may go on: "
            f"eventfold projections accept {definition.name}."
        ),
        projection=definition.name,
        was=live.fingerprint,
        fingerprint=definition.fingerprint,
    )


def _adopt_fingerprint(definition: ProjectionDefinition, target: Target) -> None:
    """Keep today's fingerprint of the same code in place of that of an older release."""
    with target.control(definition.name) as tx:
        for checkpoint in tx.checkpoints():
            if checkpoint.fingerprint != definition.fingerprint and definition.is_code_of(checkpoint.fingerprint):
                tx.update_checkpoint(checkpoint.place, fingerprint=definition.fingerprint)


def is_outdated(definition: ProjectionDefinition, target: Target, generation: int) -> bool:
    """Whether the rows of a generation were made by a release that told keys apart by their text."""
    return definition.rows is not None and target.outdated(generation_table(definition.rows.table, generation))


def refuse_outdated(definition: ProjectionDefinition, target: Target, generation: int) -> None:
    """Raises ProjectionChanged where rows were made by a release that told decimals and moments apart by their text."""
    if is_outdated(definition, target, generation):
        raise ProjectionChanged(
            f"The rows of {definition.name} were made by an older eventfold, which compared the decimals and moments "
            "of keys and indexes by their text: 1.0 and 1.00 were two keys.",
            f"Rebuild it once: eventfold projections rebuild {definition.name} --switch.",
            projection=definition.name,
        )


async def first_checkpoints(definition: ProjectionDefinition, log: Log, start: int) -> list[Checkpoint]:
    """The checkpoints of a projection that begins behind a position. Raises CursorMismatch beyond the log's end."""
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
    written = [found.type for found in await log.engine.types()]
    for each in definition.events:
        names = stored_names_of(each)  # with aliases and older classes, of which one that is written is enough
        if not names or not {*names}.isdisjoint(written):
            continue
        wanted = declaration_of(each).type
        near = difflib.get_close_matches(wanted, written, 3)
        if near:
            warnings.warn(
                f"{definition.name} takes {wanted}, which nothing has written yet; the log has {', '.join(near)}.",
                stacklevel=2,
            )


async def begin(
    definition: ProjectionDefinition,
    log: Log,
    target: Target,
    until: int | None,
    command: Callable[[int], PendingCommand],
) -> int:
    """The generation to build: the one left off by an earlier rebuild of the same code, or a new one.

    With `until` it is one of the past, which never goes live. `command` is noted where anything changed. Raises
    UnknownProjection, CheckpointChanged.
    """
    require_record(target, definition.name)
    if definition.kind == "effects":
        raise InvalidProjection(
            f"{definition.name} has effects, and they are not done again.", "Rebuild read models only."
        )
    with target.control(definition.name) as tx:
        record, every = tx.record(), tx.checkpoints()
        if record is None:
            raise CheckpointChanged
        left = [each for each in every if each.place.generation == record.building] if until is None else []
        if await goes_on(definition, log, target, left):
            stopped = [each.place for each in left if each.stopped]
            for place in stopped:
                tx.update_checkpoint(place, stopped="")  # to ask again is to try again
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
    """Whether a rebuild goes on with what an earlier one left: the same code, of this log."""
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
    """Raises UnknownProjection where there is no such generation among the checkpoints of all."""
    kept = list(dict.fromkeys(each.place.generation for each in checkpoints))
    if generation not in kept:
        raise UnknownProjection(
            f"{name} has no generation {generation}: it has {', '.join(map(str, kept))}.",
            f"See eventfold projections show {name}.",
            projection=name,
            generation=generation,
        )


async def refuse_other_tables(
    definition: ProjectionDefinition, log: Log, target: Target, checkpoints: list[Checkpoint]
) -> int:
    """Refuse to go on with rows that cannot be right for code that has changed. Raises ProjectionChanged.

    Returns the position through which the judgement holds: the old code may still be moving on.
    """
    through, was, position = FOREVER, checkpoints[0], max(each.position for each in checkpoints)
    refuse_outdated(definition, target, was.place.generation)
    old = decode(was.query, Query)
    if was.partitions != definition.partitions:
        what = f"it is split into {definition.partitions}, and its rows were made in {was.partitions}"
    elif was.fingerprint.partition("-")[0] != definition.fingerprint.partition("-")[0]:
        what = "its tables are declared otherwise than when they were made"
    elif definition.kind != "effects" and (through := await _same_through(log, old, definition.query, position)) < 0:
        what = f"up to position {position:,} there are events that the old code took and the new does not, or not yet"
    else:
        return through
    now = f"Build it anew and switch to it: eventfold projections rebuild {definition.name} --switch."
    if definition.kind == "effects":
        now = (
            f"Give its progress up (eventfold projections remove {definition.name}); "
            "it begins again where its class says."
        )
    raise ProjectionChanged(
        f"The rows of {definition.name} cannot be accepted as they are: {what}.", now, projection=definition.name
    )


async def _same_through(log: Log, old: Query, new: Query, position: int) -> int:
    """Through which position two questions have had the same events: the log's end, else `position`, or -1: neither."""
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
    """Whether checkpoints are of the code that they were judged to be of, and no further than was judged."""

    def facts(checkpoints: Sequence[Checkpoint]) -> list[tuple[Any, ...]]:
        return [(each.place, each.fingerprint, each.query, each.partitions) for each in checkpoints]

    return facts(judged) == facts(now) and max(each.position for each in now) <= through


def after_switch(record: ProjectionRecord) -> ProjectionRecord:
    """What is known after a switch. Raises UnknownProjection where nothing is built."""
    if record.building is None:
        raise UnknownProjection(
            f"Nothing is built beside {record.name}.",
            f"Build it: eventfold projections rebuild {record.name}.",
            projection=record.name,
        )
    return msgspec.structs.replace(record, live=record.building, previous=record.live, building=None)


def after_rollback(record: ProjectionRecord) -> ProjectionRecord:
    """What is known after a rollback; the present generation is kept, for another change of mind."""
    if record.previous is None:
        raise UnknownProjection(
            f"{record.name} has no generation to go back to.",
            "Nothing was switched since it was made.",
            projection=record.name,
        )
    return msgspec.structs.replace(record, live=record.previous, previous=record.live)


def require_record(target: Target, name: str) -> ProjectionRecord:
    """What is known about a projection. Raises UnknownProjection, with near matches."""
    record = target.record(name)
    if record is None:
        names = {each.name.casefold(): each.name for each in target.records()}
        near = difflib.get_close_matches(name.casefold(), list(names), 1)
        some = (
            f" It keeps {', '.join([*names.values()][:5])}{' and others' if len(names) > 5 else ''}." if names else ""
        )
        raise UnknownProjection(
            f"{target.address} keeps no projection {name!r}." + (f" Did you mean {names[near[0]]}?" if near else some),
            "List the names: eventfold projections list. A new one gets there by store.project(…) or eventfold run.",
            projection=name,
        )
    return record


def require_checkpoint(target: Target, place: PartitionKey) -> Checkpoint:
    """The checkpoint of a partition. Raises UnknownProjection where there is none any more."""
    checkpoint = target.checkpoint(place)
    if checkpoint is None:
        raise UnknownProjection(
            f"Generation {place.generation} of {place.name} is no longer kept in {target.address}.",
            "Ask for the one that is: eventfold projections show.",
            projection=place.name,
        )
    return checkpoint


def known_record() -> ProjectionRecord:
    """The record that says it."""
    return ProjectionRecord(name=KNOWN, kind="progress", code="", live=1)


async def refuse_unknown_progress(log: Log, target: Target, name: str, kind: str, code: str = "") -> None:
    """Refuse to let an effect, a process or a follower begin where it may have been at work before.

    Raises ProgressUnknown: the store is not in its first epoch, and the target knows nothing of before it.
    """
    if kind not in keeps_progress or target.record(KNOWN) is not None:
        return
    if log.engine.epoch > 1 and (await log.engine.head()).position:
        if any(each.kind in keeps_progress for each in target.records()):
            return
        raise ProgressUnknown(
            f"{name} has no progress here, and the store is in epoch {log.engine.epoch}: it took over another store's "
            "history or was restored, so that all this may have been done already.",
            (
                f"Say behind which position it begins: eventfold projections begin {code or name} --at POSITION (0: "
                "all is done again)."
                if kind == "effects"
                else "Follow it after a cursor, which says where it begins: after=store.cursor(POSITION)."
            ),
            projection=name,
            epoch=log.engine.epoch,
        )
    with target.control(KNOWN) as tx:
        if tx.record() is None:
            tx.save_record(known_record())
