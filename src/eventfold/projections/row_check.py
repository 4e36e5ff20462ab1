"""Rows compared with the log: a read model is folded again into a scratch generation, and every row is compared.

Knows: generations, workers. Does not know: terminals, SQL.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from eventfold.concurrency import run
from eventfold.errors import ProjectionError
from eventfold.log.context import Log
from eventfold.log.cursors import cursor_at
from eventfold.ports.target import Checkpoint, ParkedEvent, PartitionKey, ProjectionRecord, Target
from eventfold.projections import generations
from eventfold.projections.definition import ProjectionDefinition
from eventfold.projections.generations import Comparison, Difference, require_record, tables_of
from eventfold.projections.lease_holders import new_holder_id
from eventfold.projections.runner import catch_up, worker_context
from eventfold.projections.stop_reason import marks_of, stopped_error
from eventfold.projections.worker import PartitionWorker

ROUNDS = 5  # times the scratch rows follow live rows that advance while they are compared
HELD_TIMEOUT_S = 30.0


class RowProof(msgspec.Struct, frozen=True):
    """What was found when rows were folded again: how many there are, how many differ, the first differences.

    `position` is how far both were folded, inclusive; `generation` the one that readers see. A row that is missing
    on one side is a difference whose `before` (as readers see it) or `after` (as folded again) is None.
    """

    name: str
    generation: int
    position: int
    rows: int
    different: int
    differences: tuple[Difference, ...]
    proved: bool
    verdict: str


class RowCheck:
    """One comparison of a read model's live rows with rows folded from the log just now."""

    def __init__(self, plan: ProjectionDefinition, target: Target, log: Log, lease: float) -> None:
        self._plan, self._target, self._log, self._lease = plan, target, log, lease

    def compare(self, progress: Callable[[int, int], None]) -> RowProof:
        """Fold and compare. `progress` is called with (position, last position). The scratch rows are dropped."""
        plan, target = self._plan, self._target
        known = require_record(target, plan.name)
        live = self._live(known.live)
        if not plan.is_code_of(live[0].fingerprint):
            return self._unproved(live, "Its code is not the code its rows were made by, so it would fold other rows.")
        left_out: dict[PartitionKey, list[ParkedEvent]] = {}
        scratch: int | None = None
        try:
            for _ in range(ROUNDS):
                entries = {held.place: target.entries(held.place) for held in live}
                if entries != left_out:  # at first; and where an event was retried, skipped or parked meanwhile
                    scratch = self._begin(known, live, entries, scratch)
                    left_out = entries
                assert scratch is not None
                last = max(held.position for held in live)
                for held in live:
                    with target.control(plan.name) as tx:
                        tx.update_checkpoint(_place(held, scratch), until=held.position)
                    self._fold(_place(held, scratch), last, progress)
                found = generations.compare(plan, target, (known.live, scratch))
                before, live = live, self._live(known.live)
                if list(map(_version, live)) == list(map(_version, before)):
                    return _proof(found, last)
            why = f"Its rows changed during each of {ROUNDS} comparisons: pause it first (eventfold projections pause)."
            return self._unproved(live, why)
        finally:
            if scratch is not None:
                with target.control(plan.name) as tx:
                    tx.drop(scratch, known.tables)

    def _begin(
        self,
        known: ProjectionRecord,
        live: Sequence[Checkpoint],
        entries: dict[PartitionKey, list[ParkedEvent]],
        scratch: int | None,
    ) -> int:
        """Create the scratch generation, in place of an earlier one; returns its number.

        What is parked or skipped is in no row, so it is left out there, too.
        """
        with self._target.control(known.name) as tx:
            now = tx.record()
            if now is None or now.live != known.live:
                raise self._changed()
            if scratch is None:
                scratch = 1 + max(each.place.generation for each in tx.checkpoints())
            else:
                tx.drop(scratch, known.tables)
            tx.create(now, tables_of(self._plan), [run(self._checkpoint(held, scratch)) for held in live])
            for held in live:
                skipped = [msgspec.structs.replace(each, state="skipped") for each in entries[held.place]]
                if skipped:
                    tx.save_parked(_place(held, scratch), skipped)
        return scratch

    def _changed(self) -> ProjectionError:
        return ProjectionError(
            f"{self._plan.name} was changed by another command while its rows were compared.",
            "Compare them again.",
            projection=self._plan.name,
        )

    def _fold(self, place: PartitionKey, last: int, progress: Callable[[int, int], None]) -> None:
        work = PartitionWorker(self._plan, worker_context(self._log, self._target, self._lease), place, new_holder_id())
        catch_up(work, HELD_TIMEOUT_S, lambda position: progress(position, last))
        (held,) = (each for each in self._live(place.generation) if each.place == place)
        if held.stopped:
            raise stopped_error(place.name, held)

    def _live(self, generation: int) -> list[Checkpoint]:
        found = self._target.checkpoints(self._plan.name, generation)
        if not found:
            raise self._changed()
        return found

    async def _checkpoint(self, held: Checkpoint, scratch: int) -> Checkpoint:
        """Where the scratch rows of one partition begin, which is where the live ones began."""
        start = marks_of(self._target, held.place)[0][0]
        cursor = await cursor_at(self._log, start)
        return Checkpoint(
            place=_place(held, scratch),
            store=cursor.store,
            epoch=cursor.epoch,
            position=cursor.position,
            event_id=cursor.event_id,
            query=held.query,
            fingerprint=held.fingerprint,
            partitions=held.partitions,
            until=held.position,
        )

    def _unproved(self, live: Sequence[Checkpoint], why: str) -> RowProof:
        position = max(held.position for held in live)
        return RowProof(self._plan.name, live[0].place.generation, position, 0, 0, (), False, why)


def _version(held: Checkpoint) -> tuple[int, int, int]:
    return held.place.partition, held.position, held.revision


def _proof(found: Comparison, position: int) -> RowProof:
    count, different = found.rows[0], found.different
    verdict = f"Each of {count:,} rows is what the log folds to."
    if different:
        verdict = f"{different:,} of {max(found.rows):,} rows are not what the log folds to."
    name, generation = found.name, found.generations[0]
    return RowProof(name, generation, position, count, different, found.differences, not different, verdict)


def _place(held: Checkpoint, generation: int) -> PartitionKey:
    return PartitionKey(held.place.name, generation, held.place.partition)
