"""The outbox table `eventfold_sending`: for each partition the last batch, until the sink has it, and its number.

Knows: the table's SQL, how rows become a batch. Does not know: when a batch is sent, sinks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from eventfold.core.envelope import from_micros
from eventfold.core.table import Table
from eventfold.ports.sink import Batch
from eventfold.ports.target import Checkpoint
from eventfold.targets.sql import control_tables
from eventfold.targets.sql.target import SqlTarget

NAME = "eventfold_sending"
CREATE_TABLE = f"""CREATE TABLE IF NOT EXISTS {NAME} (
    name TEXT NOT NULL, generation BIGINT NOT NULL, part BIGINT NOT NULL, number BIGINT NOT NULL,
    body TEXT NOT NULL, said TEXT NOT NULL, checksum BIGINT, PRIMARY KEY (name, generation, part))"""
COLUMNS = "name, generation, part, number, body, said, checksum"
UPSERT_ROW = f"""INSERT INTO {NAME} ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (name, generation, part) DO UPDATE SET number = excluded.number, body = excluded.body,
    said = excluded.said, checksum = excluded.checksum"""  # noqa: S608
SELECT_ROW = f"SELECT {COLUMNS} FROM {NAME} WHERE {control_tables.WHERE_PARTITION}"  # noqa: S608
INSERT_ROW = f"""INSERT INTO {NAME} ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (name, generation, part) DO NOTHING"""  # noqa: S608
UPDATE_ROW = f"""UPDATE {NAME} SET body = ?, said = ?, checksum = ?
    WHERE {control_tables.WHERE_PARTITION} AND number = ?"""  # noqa: S608
SELECT_UNSENT = f"SELECT {COLUMNS} FROM {NAME} WHERE name = ? AND generation = ? AND body <> '' ORDER BY said DESC"  # noqa: S608
DELETE_GENERATION = f"DELETE FROM {NAME} WHERE name = ? AND generation = ?"  # noqa: S608
DELETE_ALL = f"DELETE FROM {NAME} WHERE name = ?"  # noqa: S608

Key = tuple[str, int, int]  # name, generation, partition


class LastBatch(msgspec.Struct, frozen=True):
    """The last batch of a partition: its number; its JSON until the sink has accepted it, then ""; the last error."""

    number: int = 0
    body: str = ""
    error: str = ""


class OutboxTable:
    """The outbox table in the database of a SQL target. It is created by the first call that writes."""

    def __init__(self, database: SqlTarget) -> None:
        self._database = database
        self._exists = False

    def create(self) -> None:
        """Create the table if it does not exist."""
        if not self._exists:
            self._database.ensure_table(NAME, CREATE_TABLE)
            self._exists = True

    def find(self, key: Key) -> LastBatch | None:
        """The last batch of a partition, if there is one."""
        rows = self._database.query(SELECT_ROW, key) if self._check_exists() else []
        return _from_row(rows[0]) if rows else None

    def find_unsent(self, name: str, generation: int) -> LastBatch | None:
        """A batch of the generation that the sink has not accepted yet; preferably one with an error."""
        rows = self._database.query(SELECT_UNSENT, (name, generation)) if self._check_exists() else []
        return _from_row(rows[0]) if rows else None

    def add(self, key: Key, number: int) -> None:
        """Save the first batch number of a partition, unless it has one."""
        self._write(INSERT_ROW, _row(key, LastBatch(number)))

    def save_number(self, key: Key, number: int) -> None:
        """Save the batch number of a partition."""
        self._write(UPSERT_ROW, _row(key, LastBatch(number)))

    def update(self, key: Key, batch: LastBatch) -> None:
        """Save the outcome of sending the batch of this number, if no later batch has replaced it."""
        *_, body, error, checksum = _row(key, batch)
        self._write(UPDATE_ROW, (body, error, checksum, *key, batch.number))

    def _write(self, sql: str, parameters: Sequence[Any]) -> None:
        self.create()
        with self._database.connect(write=True) as connection:
            self._database.execute(connection, sql, parameters)

    def _check_exists(self) -> bool:
        if not self._exists:
            self._exists = self._database.has_table(NAME)
        return self._exists

    # Within a transaction of the target: call `create` before it begins

    def find_within(self, connection: Any, key: Key) -> LastBatch | None:
        """See find."""
        rows = self._database.execute(connection, SELECT_ROW, key)
        return _from_row(rows[0]) if rows else None

    def save_within(self, connection: Any, key: Key, batch: LastBatch) -> None:
        """Save a batch, in the transaction that writes its rows."""
        self._database.execute(connection, UPSERT_ROW, _row(key, batch))

    def delete_within(self, connection: Any, name: str, generation: int | None) -> None:
        """Delete the batches of a generation; None: of all generations."""
        if generation is None:
            self._database.execute(connection, DELETE_ALL, (name,))
        else:
            self._database.execute(connection, DELETE_GENERATION, (name, generation))


def _row(key: Key, batch: LastBatch) -> tuple[Any, ...]:
    row = (*key, batch.number, batch.body, batch.error)
    return (*row, control_tables.checksum(NAME, *row))


def _from_row(row: Sequence[Any]) -> LastBatch:
    """Read a batch from a row. Raises ProjectionDamaged."""
    if row[-1] != control_tables.checksum(NAME, *row[:-1]):
        raise control_tables.damaged_row_error(NAME, *row[:3])
    return LastBatch(row[3], row[4], row[5])


def build_batch(
    checkpoint: Checkpoint,
    table: Table,
    numbers: tuple[int, int],
    puts: Sequence[Sequence[Any]],
    deletes: Sequence[Sequence[Any]],
    chunk: int = 0,
    more: bool = False,
) -> Batch:
    """Build the batch of a partition's changed rows. `numbers`: its own, and that of the previous batch."""
    return Batch(
        store=checkpoint.store,
        projection=checkpoint.place.name,
        generation=checkpoint.place.generation,
        partition=checkpoint.place.partition,
        number=numbers[0],
        after=numbers[1],
        position=checkpoint.position,
        time=from_micros(checkpoint.at or checkpoint.beat),
        key=table.key,
        puts=list(_rows_as_json(table, puts)),
        deletes=list(_rows_as_json(table, deletes)),
        chunk=chunk,
        more=more,
    )


def _rows_as_json(table: Table, rows: Sequence[Sequence[Any]]) -> Iterator[dict[str, Any]]:
    for row in rows:
        yield {
            column.name: msgspec.Raw(value.encode()) if column.kind == "json" and value is not None else value
            for column, value in zip(table.columns, row, strict=False)  # a key consists of the first columns of a row
        }
