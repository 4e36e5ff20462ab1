"""Rebuilds: a new generation is built beside the live one, compared, switched to, rolled back or discarded.

Knows: the order of these steps, live, previous and new generations. Does not know: how events are folded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import date

import msgspec

from eventfold.concurrency import run
from eventfold.errors import CursorMismatch, InvalidProjection, LeaseHeld, UnknownProjection
from eventfold.log.read import resolve_position
from eventfold.ports.target import Checkpoint, CheckpointChanged, PartitionKey, PendingCommand, ProjectionRecord, Target
from eventfold.projections import generations, inline_admin
from eventfold.projections.catalog import Named, ProjectionCatalog
from eventfold.projections.catch_up import (
    CATCH_UP_TIMEOUT_S,
    catch_up,
    catch_up_partition,
    refuse_stopped,
    worker_context,
)
from eventfold.projections.commands import OperatorCommands
from eventfold.projections.comparison import Comparison, compare
from eventfold.projections.definition import ProjectionDefinition
from eventfold.projections.generations import require_checkpoint, require_record
from eventfold.projections.inline_admin import is_inline
from eventfold.projections.leases import new_holder_id
from eventfold.projections.verify import Progress
from eventfold.projections.worker import PartitionWorker, StepResult


class ProjectionRebuilds:
    """One caller's operations on the generations of a catalog's projections. See ProjectionAdmin for each."""

    def __init__(self, catalog: ProjectionCatalog, commands: OperatorCommands) -> None:
        self._catalog, self._commands, self._log = catalog, commands, catalog.log

    def rebuild(
        self,
        projection: Named,
        *,
        at: int | date | None = None,
        progress: Callable[[int, int], None] | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> int:
        """Build a new generation beside the live one; return its number."""
        definition = self._catalog.definition_of(projection)
        target = self._catalog.target_of(definition)
        until = None if at is None else run(resolve_position(self._log, at))

        def command(generation: int) -> PendingCommand:
            return self._commands.prepare(definition.name, "rebuild", generation, until=until)

        building = require_record(target, definition.name).building
        left = [] if building is None or until is not None else target.checkpoints(definition.name, building)
        if left and not run(generations.goes_on(definition, self._log, target, left)):
            target.withdraw(definition.name, building, left[0].store)
        generation = self._commands.carry_out(
            target, definition.name, lambda: run(generations.begin(definition, self._log, target, until, command))
        )
        self._build(definition, target, generation, until, progress, stop)
        return generation

    def _build(
        self,
        definition: ProjectionDefinition,
        target: Target,
        generation: int,
        until: int | None,
        progress: Progress | None,
        stop: Callable[[], bool],
    ) -> None:
        head = until if until is not None else run(self._log.engine.head()).position
        for partition in range(definition.partitions):
            partition_key = PartitionKey(definition.name, generation, partition)
            worker = PartitionWorker(
                definition, worker_context(self._log, target, self._catalog.lease), partition_key, new_holder_id()
            )

            def tell(position: int, done: int = partition) -> None:
                if progress is not None:
                    progress(done * head + position, definition.partitions * head)

            state = catch_up(worker, CATCH_UP_TIMEOUT_S, tell, stop)
            refuse_stopped(target, partition_key)
            if state is StepResult.LEASE_HELD_ELSEWHERE:
                self._refuse_unfinished(target, partition_key, head)

    def _refuse_unfinished(self, target: Target, partition_key: PartitionKey, head: int) -> None:
        """Raise LeaseHeld if another runner has not finished the rebuild."""
        checkpoint = require_checkpoint(target, partition_key)
        if checkpoint.position < head:
            raise LeaseHeld(
                f"{checkpoint.holder} is building generation {partition_key.generation} of {partition_key.name}, and "
                f"has reached position {checkpoint.position} of {head}.",
                "Wait until that process has finished, or stop it; then try again.",
                projection=partition_key.name,
                holder=checkpoint.holder,
                position=checkpoint.position,
            )

    def compare(self, projection: Named, generation: int | None = None) -> Comparison:
        """Compare the live generation with another (by default the one being built, else the previous one)."""
        definition = self._catalog.definition_of(projection)
        target = self._catalog.target_of(definition)
        record = require_record(target, definition.name)
        other = generation or record.building or record.previous
        if other is None:
            raise UnknownProjection(
                f"{definition.name} has only one generation, so there is nothing to compare it with.",
                f"Build another: eventfold projections rebuild STORE {definition.name}.",
            )
        generations.refuse_unknown(target.checkpoints(definition.name), definition.name, other)
        head = run(self._log.engine.head()).position
        for checkpoint in (
            *target.checkpoints(definition.name, record.live),
            *target.checkpoints(definition.name, other),
        ):
            # Rows at different positions would differ for that reason alone. A generation of other code can only be
            # advanced by its own runner.
            stands = (
                checkpoint.until is not None
                or record.previous == checkpoint.place.generation
                or is_inline([checkpoint])
            )
            stands = stands or generations.is_outdated(definition, target, checkpoint.place.generation)
            if definition.is_code_of(checkpoint.fingerprint) and not stands:
                with suppress(CursorMismatch):  # of a restored log: compare it at its position
                    catch_up_partition(
                        self._log,
                        definition,
                        target,
                        checkpoint.place,
                        head,
                        lease=self._catalog.lease,
                        timeout=CATCH_UP_TIMEOUT_S,
                    )
        return compare(definition, target, (record.live, other))

    def switch(self, projection: Named) -> ProjectionRecord:
        """Make the generation being built live: catch it up, then switch in one small transaction."""
        definition = self._catalog.definition_of(projection)
        target = self._catalog.target_of(definition)

        def attempt() -> ProjectionRecord:
            record = require_record(target, definition.name)
            if record.building is not None:
                self.rebuild(projection)
            new = generations.after_switch(require_record(target, definition.name))
            if new.live != record.building:  # another process began another generation meanwhile
                raise CheckpointChanged
            checkpoints = target.checkpoints(definition.name, record.live)
            command = self._commands.prepare(definition.name, "switch", new.live)
            if is_inline(checkpoints):
                inline_admin.switch(self._log, target, definition, new, command)
                self._drop_unused(target, definition.name, record.previous)
                return new
            if record.previous is not None:
                target.withdraw(definition.name, record.previous, checkpoints[0].store)
            with target.control(definition.name) as tx:
                if (
                    (now := tx.record()) is None
                    or generations.after_switch(now) != new
                    or now.previous != record.previous
                ):
                    raise CheckpointChanged
                if now.previous is not None:
                    tx.drop(now.previous, now.tables)
                tx.save_record(new)
                tx.save_command(command)
            return new

        return self._commands.carry_out(target, definition.name, attempt)

    @staticmethod
    def _drop_unused(target: Target, name: str, generation: int | None) -> None:
        """Drop a generation that is neither live, nor the previous one, nor being built."""
        if generation is not None:
            with target.control(name) as tx:
                record = tx.record()
                if record is not None and generation not in (record.live, record.previous, record.building):
                    tx.drop(generation, record.tables)

    def rollback(self, projection: Named) -> ProjectionRecord:
        """Make the previous generation live again. A runner with its code continues at its checkpoint."""
        name, target = self._catalog.find(projection)

        def attempt() -> ProjectionRecord:
            require_record(target, name)
            with target.control(name) as tx:
                if (record := tx.record()) is None:
                    raise CheckpointChanged
                inline_admin.refuse_operation("rolled back", record, tx.checkpoints(record.live))
                new = generations.after_rollback(record)
                tx.save_record(new)
                self._commands.save(tx, name, "rollback", new.live)
                return new

        return self._commands.carry_out(target, name, attempt)

    def discard(self, projection: Named, generation: int | None = None) -> None:
        """Drop the generation being built, or one that was built as of a moment in the past."""
        name, target = self._catalog.find(projection)

        def chosen(record: ProjectionRecord, checkpoints: Sequence[Checkpoint]) -> int:
            dropped = generations.after_switch(record).live if generation is None else generation
            if dropped in (record.live, record.previous):
                raise InvalidProjection(
                    f"Generation {dropped} of {name} is the live or the previous one.",
                    "Leave it: a later switch drops it.",
                )
            generations.refuse_unknown(checkpoints, name, dropped)
            return dropped

        def attempt() -> None:
            dropped = chosen(require_record(target, name), target.checkpoints(name))
            target.withdraw(name, dropped, self._log.engine.store_id)
            with target.control(name) as tx:
                if (record := tx.record()) is None or chosen(record, tx.checkpoints()) != dropped:
                    raise CheckpointChanged
                tx.drop(dropped, record.tables)
                if dropped == record.building:
                    tx.save_record(msgspec.structs.replace(record, building=None))
                self._commands.save(tx, name, "discard", dropped)

        self._commands.carry_out(target, name, attempt)
