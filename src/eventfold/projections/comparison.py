"""Compares rows: of two generations with each other, and live rows with rows folded again from the log.

Knows: generations, workers, how to fold into a generation that is dropped afterwards. Does not know: terminals, SQL.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from typing import Any

import msgspec

from eventfold.concurrency import run
from eventfold.core.counted import count_of, each_of
from eventfold.core.table import Column, Table, generation_table
from eventfold.core.tally import MODULUS
from eventfold.core.value_order import canonical
from eventfold.errors import EventfoldError, ProjectionError
from eventfold.log.context import Log
from eventfold.log.cursors import cursor_at
from eventfold.ports.target import (
    Checkpoint,
    ParkedEvent,
    PartitionKey,
    ProjectionRecord,
    Target,
)
from eventfold.projections.catch_up import catch_up, worker_context
from eventfold.projections.definition import ProjectionDefinition
from eventfold.projections.failures import marks_of, stopped_error
from eventfold.projections.generations import require_record, tables_of
from eventfold.projections.leases import new_holder_id
from eventfold.projections.worker import PartitionWorker

MAX_ROUNDS = 5  # how often the comparison is repeated because the live rows advanced meanwhile
LEASE_TIMEOUT_S = 30.0  # how long to wait for a lease
MAX_DIFFERENCES = 20  # differences that a comparison lists; it counts all of them


class Difference(msgspec.Struct, frozen=True):
    """A row that differs between two generations: as tuples, None where it does not exist."""

    table: str
    key: tuple[Any, ...]
    before: tuple[Any, ...] | None
    after: tuple[Any, ...] | None


class Comparison(msgspec.Struct, frozen=True):
    """The comparison of two generations, in order: positions, numbers of rows, digests, the first 20 differences.

    `left_out`: columns that one of the two does not have, since its code had no such field; they are not compared.
    """

    name: str
    generations: tuple[int, int]
    positions: tuple[int, int]
    rows: tuple[int, int]
    digests: tuple[str, str]
    different: int
    differences: tuple[Difference, ...]
    left_out: tuple[str, ...] = ()

    @property
    def equal(self) -> bool:
        """Whether every row is the same, as far as both generations have its columns."""
        return self.different == 0


def compare(definition: ProjectionDefinition, target: Target, generations: tuple[int, int]) -> Comparison:
    """Compare two generations, row by row; if one of them was folded with fewer fields, without these columns."""
    table = None if definition.rows is None else definition.rows.table
    try:
        return _compare(definition, table, target, generations)
    except EventfoldError:
        shared = None if table is None else _shared_columns(table, target, generations)
        if shared is None or shared == table:  # it was not refused for columns that it does not have
            raise
        return _compare(definition, shared, target, generations)


def _shared_columns(table: Table, target: Target, generations: tuple[int, int]) -> Table | None:
    """Return the table with those columns that both generations have; None if not even the keys can be read."""

    def can_read(columns: Sequence[Column]) -> bool:
        part = msgspec.structs.replace(table, columns=tuple(columns), indexes=())
        try:
            for generation in generations:
                next(iter(target.scan(generation_table(part, generation))), None)
        except EventfoldError:
            return False
        return True

    key = [column for column in table.columns if column.name in table.key]
    if not can_read(key):
        return None
    others = [column for column in table.columns if column.name not in table.key and can_read([*key, column])]
    return msgspec.structs.replace(table, columns=(*key, *others), indexes=())


def _compare(
    definition: ProjectionDefinition, table: Table | None, target: Target, generations: tuple[int, int]
) -> Comparison:
    counts, sums, different = [0, 0], [0, 0], 0
    differences: list[Difference] = []
    for difference in _pairs(definition, table, target, generations):
        for side, row in enumerate((difference.before, difference.after)):
            if row is not None:
                counts[side] += 1
                sums[side] = (sums[side] + _row_hash(row)) % MODULUS
        if difference.before != difference.after:
            different += 1
            if len(differences) < MAX_DIFFERENCES:
                differences.append(difference)
    a, b = (min(c.position for c in target.checkpoints(definition.name, generation)) for generation in generations)
    return Comparison(
        definition.name,
        generations,
        (a, b),
        (counts[0], counts[1]),
        (f"{sums[0]:032x}", f"{sums[1]:032x}"),
        different,
        tuple(differences),
        () if table is None or definition.rows is None else _missing(definition.rows.table, table),
    )


def _missing(table: Table, shared: Table) -> tuple[str, ...]:
    return tuple(name for name in table.fields if name not in shared.fields)


def _row_hash(row: tuple[Any, ...]) -> int:
    """Return a hash that is the same for rows with equal values, such as the decimals 1.0 and 1.00."""
    return int.from_bytes(blake2b(repr(tuple(map(canonical, row))).encode(), digest_size=16).digest())


def _pairs(
    definition: ProjectionDefinition, table: Table | None, target: Target, generations: tuple[int, int]
) -> Iterator[Difference]:
    if table is not None:
        yield from _merge_rows(
            table, *(_rows_in_order(target, generation_table(table, generation)) for generation in generations)
        )
        return
    for name in definition.tables:
        before, after = (Counter(target.dump(name, generation)) for generation in generations)
        for row in {**before, **after}:
            for number in range(max(before[row], after[row])):
                yield Difference(name, row, row if number < before[row] else None, row if number < after[row] else None)


def _rows_in_order(target: Target, table: Table) -> Iterator[tuple[Any, ...]]:
    for page in target.scan(table):
        yield from page


def _merge_rows(
    table: Table, before: Iterator[tuple[Any, ...]], after: Iterator[tuple[Any, ...]]
) -> Iterator[Difference]:
    """Merge two iterators of rows that are sorted by key.

    The order is the database's, so a row of one side is kept in memory until the other side has its key or ends.
    """
    size = len(table.key)
    waiting: tuple[dict[Any, Any], dict[Any, Any]] = ({}, {})
    while True:
        rows = (next(before, None), next(after, None))
        if rows == (None, None):
            break
        for side, row in enumerate(rows):
            if row is None:
                continue
            other = waiting[1 - side].pop(row[:size], None)
            if other is None:
                waiting[side][row[:size]] = row
            else:
                pair = (row, other) if side == 0 else (other, row)
                yield Difference(table.name, row[:size], *pair)
    for key, row in waiting[0].items():
        yield Difference(table.name, key, row, None)
    for key, row in waiting[1].items():
        yield Difference(table.name, key, None, row)


class RowProof(msgspec.Struct, frozen=True):
    """The result of folding rows again: the number of live rows, of different rows, the first 20 differences.

    `position`: how far both were folded, inclusive; `generation`: the live one; `verdict`: one sentence. A row that is
    missing on one side is a difference whose `before` (the live row) or `after` (as folded again) is None.
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
    """One comparison of a read model's live rows with rows folded again from the log."""

    def __init__(self, definition: ProjectionDefinition, target: Target, log: Log, lease: float) -> None:
        self._definition, self._target, self._log, self._lease = definition, target, log, lease

    def compare(self, progress: Callable[[int, int], None]) -> RowProof:
        """Fold and compare. `progress` is called with (position, last position). The scratch rows are dropped."""
        definition, target = self._definition, self._target
        record = require_record(target, definition.name)
        live = self._live(record.live)
        if not definition.is_code_of(live[0].fingerprint):
            return self._unproved(live, "Its code has changed since its rows were folded, so it would fold other rows.")
        left_out: dict[PartitionKey, list[ParkedEvent]] = {}
        scratch: int | None = None
        try:
            for _ in range(MAX_ROUNDS):
                entries = {checkpoint.place: target.parked(checkpoint.place) for checkpoint in live}
                if entries != left_out:  # in the first round, and after an event was retried, skipped or parked
                    scratch = self._begin(record, live, entries, scratch)
                    left_out = entries
                assert scratch is not None
                last = max(checkpoint.position for checkpoint in live)
                for checkpoint in live:
                    with target.control(definition.name) as tx:
                        tx.update_checkpoint(_partition_key(checkpoint, scratch), until=checkpoint.position)
                    self._fold(_partition_key(checkpoint, scratch), last, progress)
                comparison = compare(definition, target, (record.live, scratch))
                before, live = live, self._live(record.live)
                if list(map(_version, live)) == list(map(_version, before)):
                    return _proof(comparison, last)
            pause = f"eventfold projections pause STORE {definition.name}"
            why = f"Its rows changed during each of {MAX_ROUNDS} comparisons: pause it ({pause})."
            return self._unproved(live, why)
        finally:
            if scratch is not None:
                with target.control(definition.name) as tx:
                    tx.drop(scratch, record.tables)

    def _begin(
        self,
        record: ProjectionRecord,
        live: Sequence[Checkpoint],
        entries: dict[PartitionKey, list[ParkedEvent]],
        scratch: int | None,
    ) -> int:
        """Create the scratch generation, in place of an earlier one; return its number.

        Parked and skipped events are in no live row, so they are skipped in the scratch generation, too.
        """
        with self._target.control(record.name) as tx:
            now = tx.record()
            if now is None or now.live != record.live:
                raise self._changed()
            if scratch is None:
                scratch = 1 + max(each.place.generation for each in tx.checkpoints())
            else:
                tx.drop(scratch, record.tables)
            tx.create(
                now, tables_of(self._definition), [run(self._checkpoint(checkpoint, scratch)) for checkpoint in live]
            )
            for checkpoint in live:
                skipped = [msgspec.structs.replace(each, state="skipped") for each in entries[checkpoint.place]]
                if skipped:
                    tx.save_parked(_partition_key(checkpoint, scratch), skipped)
        return scratch

    def _changed(self) -> ProjectionError:
        return ProjectionError(
            f"Another command changed {self._definition.name} while its rows were compared.",
            "Compare them again.",
            projection=self._definition.name,
        )

    def _fold(self, partition_key: PartitionKey, last: int, progress: Callable[[int, int], None]) -> None:
        worker = PartitionWorker(
            self._definition, worker_context(self._log, self._target, self._lease), partition_key, new_holder_id()
        )
        catch_up(worker, LEASE_TIMEOUT_S, lambda position: progress(position, last))
        (checkpoint,) = (each for each in self._live(partition_key.generation) if each.place == partition_key)
        if checkpoint.stopped:
            raise stopped_error(partition_key.name, checkpoint)

    def _live(self, generation: int) -> list[Checkpoint]:
        checkpoints = self._target.checkpoints(self._definition.name, generation)
        if not checkpoints:
            raise self._changed()
        return checkpoints

    async def _checkpoint(self, checkpoint: Checkpoint, scratch: int) -> Checkpoint:
        """Return the first checkpoint of a scratch partition, at the start position of the live one."""
        start = marks_of(self._target, checkpoint.place)[0][0]
        cursor = await cursor_at(self._log, start)
        return Checkpoint(
            place=_partition_key(checkpoint, scratch),
            store=cursor.store,
            epoch=cursor.epoch,
            position=cursor.position,
            event_id=cursor.event_id,
            query=checkpoint.query,
            fingerprint=checkpoint.fingerprint,
            partitions=checkpoint.partitions,
            until=checkpoint.position,
        )

    def _unproved(self, live: Sequence[Checkpoint], why: str) -> RowProof:
        position = max(checkpoint.position for checkpoint in live)
        return RowProof(self._definition.name, live[0].place.generation, position, 0, 0, (), False, why)


def _version(checkpoint: Checkpoint) -> tuple[int, int, int]:
    return checkpoint.place.partition, checkpoint.position, checkpoint.revision


def _proof(comparison: Comparison, position: int) -> RowProof:
    count, different = comparison.rows[0], comparison.different
    verdict = f"{each_of(count, 'row')} equals the row folded again."
    if different:
        verdict = f"{different:,} of {count_of(max(comparison.rows), 'row')} differ from rows folded again."
    name, generation = comparison.name, comparison.generations[0]
    return RowProof(name, generation, position, count, different, comparison.differences, not different, verdict)


def _partition_key(checkpoint: Checkpoint, generation: int) -> PartitionKey:
    return PartitionKey(checkpoint.place.name, generation, checkpoint.place.partition)
