"""Operations on projections: pause, resume, retry, skip, accept, begin, remove.

Each is one transaction of the target, which decides by what it reads there, and is recorded in the log afterwards. An
operation that changes nothing is not recorded.
Knows: parked events, which events wait for them. Does not know: how events are folded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date

import msgspec

from eventfold.concurrency import run
from eventfold.errors import EventNotParked, InvalidProjection, LeaseHeld, ProjectionDamaged
from eventfold.log.cursors import check_position
from eventfold.log.read import resolve_position
from eventfold.ports.target import (
    ELSEWHERE,
    Checkpoint,
    CheckpointChanged,
    ControlTransaction,
    ParkedEvent,
    PartitionKey,
    ProjectionRecord,
    Target,
)
from eventfold.projections import generations, inline_admin
from eventfold.projections.catalog import Named, ProjectionCatalog
from eventfold.projections.commands import OperatorCommands
from eventfold.projections.failures import NO_EVENT, entries_of, incomplete_error, is_complete, with_later_ones
from eventfold.projections.generations import (
    is_same_code,
    refuse_other_tables,
    refuse_unknown,
    require_record,
    tables_of,
)
from eventfold.projections.leases import is_dead_holder


class ProjectionOperations:
    """The operations of one caller on the projections of a catalog. See ProjectionAdmin for each."""

    def __init__(self, catalog: ProjectionCatalog, commands: OperatorCommands) -> None:
        self._catalog, self._commands, self._log = catalog, commands, catalog.log

    def pause(self, projection: Named, because: str) -> None:
        """Pause a projection in all processes until it is resumed."""
        name, target = self._catalog.find(projection)
        if not because.strip():
            raise InvalidProjection("The pause has no reason.", "Give one, which the status shows: --because ….")

        def attempt() -> None:
            require_record(target, name)
            with target.control(name) as tx:
                record = _record(tx)
                inline_admin.refuse_operation("paused", record, tx.checkpoints(record.live))
                if record.paused != because:
                    tx.save_record(msgspec.structs.replace(record, paused=because))
                    self._commands.save(tx, name, "pause", record.live, because=because)

        self._commands.carry_out(target, name, attempt)

    def resume(self, projection: Named) -> None:
        """Resume a projection after a pause, or try again the event at which it stopped."""
        name, target = self._catalog.find(projection)

        def attempt() -> None:
            require_record(target, name)
            with target.control(name) as tx:
                record = _record(tx)
                stopped = [each.place for each in tx.checkpoints(record.live) if each.stopped]
                for partition_key in stopped:
                    tx.update_checkpoint(partition_key, stopped="")
                if record.paused:
                    tx.save_record(msgspec.structs.replace(record, paused=""))
                if stopped or record.paused:
                    self._commands.save(tx, name, "resume", record.live)

        self._commands.carry_out(target, name, attempt)

    def parked(self, projection: Named, generation: int | None = None) -> list[ParkedEvent]:
        """Return the parked, due and skipped events of a generation (by default the live one), in order of position."""
        name, target = self._catalog.find(projection)
        record = require_record(target, name)
        if generation is not None:
            refuse_unknown(target.checkpoints(name), name, generation)
        checkpoints = target.checkpoints(name, generation or record.live)
        return sorted((e for each in checkpoints for e in entries_of(target, each)), key=lambda e: e.position)

    def retry(self, projection: Named, position: int | None = None) -> int:
        """Mark parked events due for a retry, one or all, and later ones of their keys; return how many."""
        name, target = self._catalog.find(projection)
        if position is not None:
            check_position(position, "position")

        def attempt() -> int:
            require_record(target, name)
            with target.control(name) as tx:
                record = _record(tx)
                parked = {each.place: _entries(tx, each) for each in tx.checkpoints(record.live)}
                positions: list[int] = []
                count = 0
                for partition_key, entries in parked.items():
                    chosen = [e for e in entries if e.state == "parked" and position in (None, e.position)]
                    if chosen:
                        due = with_later_ones(entries, chosen)
                        tx.save_parked(partition_key, [msgspec.structs.replace(entry, state="due") for entry in due])
                        positions += [entry.position for entry in chosen]
                        count += len(due)
                if positions:
                    self._commands.save(tx, name, "retry", record.live, positions=positions)
                elif position is not None:
                    raise _not_parked(name, position, tx.checkpoints(record.live), parked)
                return count

        return self._commands.carry_out(target, name, attempt)

    def skip(self, projection: Named, position: int, because: str) -> None:
        """Skip one event for good: a parked one, or the one at which the projection stopped."""
        name, target = self._catalog.find(projection)
        if not because.strip():
            raise InvalidProjection("The skip has no reason.", "Give one, which the log records: --because ….")
        identity = (run(self._log.engine.event_id(check_position(position, "position"))) or b"").hex()

        def attempt() -> None:
            require_record(target, name)
            with target.control(name) as tx:
                record = _record(tx)
                generations = [record.live] if record.building is None else [record.live, record.building]
                skipped = [
                    _skip(tx, checkpoint, position, identity, because)
                    for generation in generations
                    for checkpoint in tx.checkpoints(generation)
                ]
                if not any(skipped):  # several partitions have it parked, if its key could not be read
                    checkpoints = tx.checkpoints(record.live)
                    parked = {each.place: _entries(tx, each) for each in checkpoints}
                    raise _not_parked(name, position, checkpoints, parked)
                facts = {"position": position, "because": because, "event_id": identity}
                self._commands.save(tx, name, "skip", record.live, **facts)

        self._commands.carry_out(target, name, attempt)

    def accept(self, projection: Named) -> None:
        """Say that the rows are right as they are, though the code has changed."""
        definition = self._catalog.definition_of(projection)
        target, query = self._catalog.target_of(definition), msgspec.json.encode(definition.query).decode()

        def attempt() -> None:
            record = require_record(target, definition.name)
            checked = target.checkpoints(definition.name, record.live)
            through = run(refuse_other_tables(definition, self._log, target, checked))
            with target.control(definition.name) as tx:
                now, checkpoints = _record(tx), tx.checkpoints(record.live)
                if now.live != record.live or not is_same_code(checked, checkpoints, through):
                    raise CheckpointChanged
                others = [
                    each.place
                    for each in checkpoints
                    if (each.fingerprint, each.query) != (definition.fingerprint, query)
                ]
                for partition_key in others:
                    tx.update_checkpoint(partition_key, fingerprint=definition.fingerprint, query=query)
                if others:
                    self._commands.save(tx, definition.name, "accept", record.live, fingerprint=definition.fingerprint)
            inline_admin.accept(self._log, definition)

        self._commands.carry_out(target, definition.name, attempt)

    def begin(self, projection: Named, at: int | date) -> int:
        """Continue an effect, process or subscription after a position (or moment, or day); return the position."""
        definition = self._catalog.definition_of(projection)
        if definition.kind != "effects":
            raise InvalidProjection(
                f"{definition.name} is a read model, which always starts at the first event.",
                f"Rebuild it: eventfold projections rebuild STORE {definition.name}.",
                projection=definition.name,
            )
        target = self._catalog.target_of(definition)
        position = run(resolve_position(self._log, at))
        first_checkpoints = run(generations.first_checkpoints(definition, self._log, position))

        def attempt() -> int:
            with target.control(definition.name) as tx:
                record, checkpoints = tx.record(), tx.checkpoints()
                if record is not None and record.kind != definition.kind:
                    raise InvalidProjection(
                        f"{definition.name} is registered already, as {record.kind}.",
                        "Give one of them another name (name=…).",
                    )
                _refuse_busy(checkpoints, tx.now())
                token = max((each.token for each in checkpoints), default=0) + 1
                if record is not None:
                    tx.forget(record.tables)
                new = ProjectionRecord(name=definition.name, kind=definition.kind, code=definition.code, live=1)
                tx.create(new, {}, [msgspec.structs.replace(each, token=token) for each in first_checkpoints])
                self._commands.save(tx, definition.name, "begin", 1, position=position)
            return position

        return self._commands.carry_out(target, definition.name, attempt)

    def remove(self, projection: Named) -> int:
        """Remove a follower's progress, or all generations of a read model with their rows; return its position."""
        try:
            name, target = self._catalog.find(projection)
        except ProjectionDamaged:  # the record in the store's own database is damaged
            name, target = str(projection), self._catalog.target_at()

        def attempt() -> int:
            inline_admin.release_inline(self._log, target, require_record(target, name))
            _refuse_busy(target.checkpoints(name), target.now())
            target.withdraw(name, None, self._log.engine.store_id)
            with target.control(name) as tx:
                record, checkpoints = _record(tx), tx.checkpoints()
                _refuse_busy(checkpoints, tx.now())
                position = min(
                    (each.position for each in checkpoints if each.place.generation == record.live), default=0
                )
                tx.forget(record.tables)
                self._commands.save(tx, name, "forget", record.live, position=position)
            return position

        try:
            position = self._commands.carry_out(target, name, attempt)
        except ProjectionDamaged as error:
            if error.fields.get("table") == "eventfold_command":
                raise
            position = self._commands.carry_out(target, name, lambda: self._forget_damaged(target, projection, name))
        self._forget_note(name)
        return position

    def _forget_damaged(self, target: Target, projection: Named, name: str) -> int:
        """Remove a projection whose records are damaged, without checking its lease, which may be damaged, too."""
        target.withdraw(name, None, self._log.engine.store_id)
        with target.control(name) as tx:
            tables = tx.written_tables()
            if not isinstance(projection, str):
                tables = list(dict.fromkeys([*tables, *tables_of(self._catalog.definition_of(projection))]))
            tx.forget(tables)
            self._commands.save(tx, name, "forget", 0, position=0, damaged=True)
        return 0

    def _forget_note(self, name: str) -> None:
        """Remove the note in the store's own database that a projection is in another one."""
        own = self._catalog.own_target()
        if own is not None and own.record(name) is not None:
            with own.control(name) as tx:
                record = tx.record()
                if record is not None and record.kind == ELSEWHERE:
                    tx.forget(record.tables)


def _record(tx: ControlTransaction) -> ProjectionRecord:
    """Return the record of a projection that existed a moment ago. Raises CheckpointChanged if it is gone."""
    record = tx.record()
    if record is None:
        raise CheckpointChanged
    return record


def _entries(tx: ControlTransaction, checkpoint: Checkpoint) -> list[ParkedEvent]:
    """Return the parked events of a checkpoint. Raises ProjectionDamaged where some are missing."""
    entries = tx.parked(checkpoint.place)
    if not is_complete(checkpoint, entries):
        raise incomplete_error(checkpoint)
    return entries


def _not_parked(
    name: str, position: int, checkpoints: list[Checkpoint], entries: Mapping[PartitionKey, Sequence[ParkedEvent]]
) -> EventNotParked:
    """Return the error for an event that cannot be retried or skipped since it is not parked, and its state instead."""
    entry = next((each for some in entries.values() for each in some if each.position == position), None)
    reached = min((each.position for each in checkpoints), default=0)
    if entry is not None and entry.state == "due":
        state, what = "due", "another command has marked it for a retry, and its runner has not retried it yet"
    elif entry is not None:
        state, what = "skipped", f"it was skipped ({entry.because.rstrip('.')})"
    elif position <= reached:
        state, what = (
            "handled",
            "it was handled, also if by a retry, or its type is not handled here",
        )
    else:
        state, what = "ahead", f"it has only reached position {reached:,}"
    return EventNotParked(
        f"{name} has not parked event {position}: {what}.",
        f"List its parked events: eventfold projections parked STORE {name}. List its operations: eventfold read STORE "
        f"--tag '$projection:{name}'.",
        projection=name,
        position=position,
        state=state,
    )


def _skip(tx: ControlTransaction, checkpoint: Checkpoint, position: int, identity: str, because: str) -> bool:
    """Skip an event in one partition and mark those that wait for it due.

    Returns False where the event is neither parked or due there, nor the one at which it stopped.
    """
    entries = {entry.position: entry for entry in _entries(tx, checkpoint)}
    entry = entries.get(position)
    if _stops(checkpoint, position):
        entry = entry or ParkedEvent(position, identity, msgspec.json.decode(checkpoint.stopped)["type"], "", "skipped")
        tx.update_checkpoint(checkpoint.place, stopped="")
    elif entry is None or entry.state == "skipped":
        return False
    later = [each for each in entries.values() if each.position > position]
    behind = [each for each in with_later_ones(later, [entry]) if each.position > position]
    skipped = msgspec.structs.replace(entry, state="skipped", because=because)
    tx.save_parked(checkpoint.place, [skipped, *(msgspec.structs.replace(each, state="due") for each in behind)])
    return True


def _refuse_busy(checkpoints: list[Checkpoint], now: int) -> None:
    """Raise LeaseHeld where a live holder has a lease of any of these. `now` in µs since 1970 UTC."""
    busy = next((each for each in checkpoints if each.holder and each.expires > now), None)
    if busy is not None and not is_dead_holder(busy.holder):
        raise LeaseHeld(
            f"{busy.holder} is working on {busy.place.name}.",
            "Stop that process first; if it was killed, its lease expires within seconds.",
            projection=busy.place.name,
            holder=busy.holder,
        )


def _stops(checkpoint: Checkpoint, position: int) -> bool:
    return (
        position != NO_EVENT
        and bool(checkpoint.stopped)
        and msgspec.json.decode(checkpoint.stopped)["position"] == position
    )
