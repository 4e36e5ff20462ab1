"""Transactions of a target with an outbox: the batch is saved in the transaction that writes its rows.

Knows: which rows changed, which generation the sink has to show. Does not know: when a batch is sent, sinks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from eventfold.core.table import Table
from eventfold.errors import InvalidProjection, TargetUnavailable
from eventfold.ports.target import (
    FORWARDED,
    Checkpoint,
    CheckpointUpdate,
    ParkedEvent,
    PartitionKey,
    PendingCommand,
    ProjectionRecord,
)
from eventfold.targets.outbox.table import LastBatch, OutboxTable, build_batch
from eventfold.targets.sql.control_tables import key_columns
from eventfold.targets.sql.control_transaction import SqlControlTransaction
from eventfold.targets.sql.driver import Parameters
from eventfold.targets.sql.transaction import SqlTransaction


class OutboxTransaction:
    """See TargetTransaction. `unsent` is the batch to send after the commit, with its checkpoint."""

    def __init__(self, transaction: SqlTransaction, outbox: OutboxTable) -> None:
        self.connection = transaction.connection
        self.unsent: tuple[Checkpoint, LastBatch] | None = None
        self._transaction, self._outbox = transaction, outbox
        self._table: Table | None = None  # the table that was changed; a projection with a sink has one
        self._puts: list[Sequence[Any]] = []
        self._deletes: list[Sequence[Any]] = []

    def execute(self, sql: str, parameters: Parameters = ()) -> list[tuple[Any, ...]]:
        """See the port."""
        return self._transaction.execute(sql, parameters)

    def executemany(self, sql: str, parameters: Iterable[Parameters]) -> None:
        """See the port."""
        self._transaction.executemany(sql, parameters)

    def upsert(self, table: Table, rows: Sequence[Sequence[Any]]) -> None:
        """See the port."""
        self._transaction.upsert(table, rows)
        if rows:
            self._table = self._table or table
            self._puts.extend(rows)

    def delete(self, table: Table, keys: Sequence[Sequence[Any]]) -> None:
        """See the port."""
        self._transaction.delete(table, keys)
        if keys:
            self._table = self._table or table
            self._deletes.extend(keys)

    def advance(self, checkpoint: Checkpoint, step: CheckpointUpdate) -> Checkpoint:
        """See the port."""
        moved = self._transaction.advance(checkpoint, step)
        if self._table is not None:
            key = key_columns(checkpoint.place)
            last = self._outbox.find_within(self.connection, key) or LastBatch()
            if last.body:
                raise TargetUnavailable(
                    f"A batch of {checkpoint.place.name} must be sent before the next one is saved.",
                    "A runner retries once it is sent.",
                )
            # The number is a time, so it exceeds all numbers that were sent, even if the outbox has lost the last one.
            number = max(moved.at, last.number + 1)
            batch = build_batch(moved, self._table, (number, last.number), self._puts, self._deletes)
            saved = LastBatch(number, msgspec.json.encode(batch).decode())
            self._outbox.save_within(self.connection, key, saved)
            self.unsent = (moved, saved)
        return moved

    def should_yield(self) -> bool:
        """See the port."""
        return self._transaction.should_yield()


class OutboxControlTransaction:
    """See ControlTransaction. Records projections under the kind FORWARDED; drops batches with their generation."""

    def __init__(self, transaction: SqlControlTransaction, outbox: OutboxTable, name: str, address: str) -> None:
        self._transaction, self._outbox, self._name, self._address = transaction, outbox, name, address
        self.generation_to_show: tuple[int, str] | None = None  # the generation for readers, and the id of its store

    def now(self) -> int:
        """See the port."""
        return self._transaction.now()

    def record(self) -> ProjectionRecord | None:
        """See the port."""
        return as_rows(self._transaction.record())

    def checkpoints(self, generation: int | None = None) -> list[Checkpoint]:
        """See the port."""
        return self._transaction.checkpoints(generation)

    def parked(self, key: PartitionKey) -> list[ParkedEvent]:
        """See the port."""
        return self._transaction.parked(key)

    def create(
        self, projection: ProjectionRecord, tables: Mapping[str, Table | str], checkpoints: Sequence[Checkpoint]
    ) -> None:
        """See the port. Raises InvalidProjection if the projection has no rows with a key."""
        if projection.kind != "rows":
            raise InvalidProjection(
                f"{projection.name} has no rows by key, and nothing else can be sent to {self._address}.",
                "Derive it from ef.Projection, or name a database as its target.",
                projection=projection.name,
            )
        self._transaction.create(_as_forwarded(projection), tables, checkpoints)
        self.generation_to_show = None  # the worker that claims a partition sends the generation to show

    def save_record(self, projection: ProjectionRecord) -> None:
        """See the port."""
        self._transaction.save_record(_as_forwarded(projection))
        checkpoints = self.checkpoints(projection.live)
        self.generation_to_show = (projection.live, checkpoints[0].store) if checkpoints else None

    def update_checkpoint(self, key: PartitionKey, **fields: Any) -> None:
        """See the port."""
        self._transaction.update_checkpoint(key, **fields)

    def save_parked(self, key: PartitionKey, entries: Sequence[ParkedEvent]) -> None:
        """See the port."""
        self._transaction.save_parked(key, entries)

    def drop(self, generation: int, tables: Sequence[str]) -> None:
        """See the port."""
        self._transaction.drop(generation, tables)
        self._outbox.delete_within(self._transaction.connection, self._name, generation)

    def written_tables(self) -> list[str]:
        """See the port."""
        return self._transaction.written_tables()

    def forget(self, tables: Sequence[str]) -> None:
        """See the port."""
        self._transaction.forget(tables)
        self._outbox.delete_within(self._transaction.connection, self._name, None)

    def save_command(self, command: PendingCommand) -> None:
        """See the port."""
        self._transaction.save_command(command)


def as_rows(record: ProjectionRecord | None) -> ProjectionRecord | None:
    """The record with the kind "rows" in place of FORWARDED, as readers of records expect it."""
    return record if record is None or record.kind != FORWARDED else msgspec.structs.replace(record, kind="rows")


def _as_forwarded(record: ProjectionRecord) -> ProjectionRecord:
    return record if record.kind != "rows" else msgspec.structs.replace(record, kind=FORWARDED)
