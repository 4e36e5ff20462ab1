"""An open transaction over SQLAlchemy: the holder of the lease writes rows and advances the checkpoint.

Knows: the fence (token and revision), Core statements. Does not know: how a transaction begins and ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc

from eventfold.core.table import Table
from eventfold.ports.target import (
    Checkpoint,
    CheckpointChanged,
    CheckpointUpdate,
    ParkedEvent,
    PartitionKey,
    RowRefused,
)
from eventfold.targets.sql import control_tables
from eventfold.targets.sql.driver import Parameters
from eventfold.targets.sql.transaction import expand_table_names, lease_lost_error
from eventfold.targets.sqlalchemy import dialects
from eventfold.targets.sqlalchemy.statements import quote_identifier
from eventfold.targets.sqlalchemy.tables import CHECKPOINT, ENTRY, MARK, MAX_TABLE_NAME_BYTES, rows_table


class SqlAlchemyTransaction:
    """See TargetTransaction. `connection` is SQLAlchemy's, and can execute Core constructs.

    SQL text with a sequence of parameters has the driver's own parameter marks; with a mapping, it has `:name` in any
    database.
    """

    def __init__(self, connection: sa.Connection, key: PartitionKey, address: str) -> None:
        self.connection = connection
        self._key, self._address = key, address

    def execute(self, sql: str, parameters: Parameters = ()) -> list[tuple[Any, ...]]:
        """See the port."""
        sql = self._expand_tables(sql)
        if isinstance(parameters, Mapping):
            result = self.connection.execute(sa.text(sql), dict(parameters))
        else:
            result = self.connection.exec_driver_sql(sql, tuple(parameters) or None)
        return [tuple(row) for row in result] if result.returns_rows else []

    def _expand_tables(self, sql: str) -> str:
        return expand_table_names(
            sql, self._key.generation, partial(quote_identifier, self.connection), MAX_TABLE_NAME_BYTES
        )

    def executemany(self, sql: str, parameters: Iterable[Parameters]) -> None:
        """See the port."""
        sql, every = self._expand_tables(sql), list(parameters)
        if every and isinstance(every[0], Mapping):
            self.connection.execute(sa.text(sql), [dict(each) for each in every])  # type: ignore[arg-type]
        elif every:
            self.connection.exec_driver_sql(sql, [tuple(each) for each in every])

    def upsert(self, table: Table, rows: Sequence[Sequence[Any]]) -> None:
        """See the port."""
        if not rows:
            return
        own = rows_table(table, self.connection.dialect)
        statement = dialects.upsert_statement(own, self.connection.dialect.name)
        try:
            if statement is None:
                self.delete(table, [row[: len(table.key)] for row in rows])
                statement = sa.insert(own)
            self.connection.execute(statement, [dict(zip(table.fields, row, strict=True)) for row in rows])
        except exc.SQLAlchemyError as error:
            if dialects.is_row_error(error):
                raise RowRefused(str(getattr(error, "orig", error))) from error
            raise

    def delete(self, table: Table, keys: Sequence[Sequence[Any]]) -> None:
        """See the port."""
        if keys:
            own = rows_table(table, self.connection.dialect)
            marks = [f"key_{number}" for number in range(len(table.key))]
            pairs = zip(table.key, marks, strict=True)
            condition = sa.and_(*(own.c[name] == sa.bindparam(mark, type_=own.c[name].type) for name, mark in pairs))
            rows = [dict(zip(marks, key, strict=True)) for key in keys]
            try:
                self.connection.execute(sa.delete(own).where(condition), rows)
            except exc.SQLAlchemyError as error:
                if dialects.is_row_error(error):
                    raise RowRefused(str(getattr(error, "orig", error))) from error
                raise

    def advance(self, checkpoint: Checkpoint, step: CheckpointUpdate) -> Checkpoint:
        """See the port."""
        connection, key = self.connection, checkpoint.place
        moved = step.applied_to(checkpoint, dialects.now(connection))
        names = (
            "position event_id epoch seen seen_digest handled handled_digest stopped stats at revision checksum".split()
        )
        row = dict(zip(CHECKPOINT.c.keys(), control_tables.checkpoint_row(moved), strict=True))
        fence = (
            partition_rows(CHECKPOINT, key)
            & (CHECKPOINT.c.token == checkpoint.token)
            & (CHECKPOINT.c.revision == checkpoint.revision)
        )
        result = connection.execute(sa.update(CHECKPOINT).where(fence).values({name: row[name] for name in names}))
        if not result.rowcount:
            token = connection.execute(sa.select(CHECKPOINT.c.token).where(partition_rows(CHECKPOINT, key))).scalar()
            if token == checkpoint.token:
                raise CheckpointChanged
            raise lease_lost_error(checkpoint)
        save_parked(connection, key, step.parked)
        if step.settled:
            settled = partition_rows(ENTRY, key) & ENTRY.c.position.in_(step.settled)
            connection.execute(sa.delete(ENTRY).where(settled))
        if step.mark:
            mark = control_tables.mark_row(key, step.position, step.seen)
            same_position = partition_rows(MARK, key) & (MARK.c.position == step.position)
            if connection.execute(sa.select(MARK.c.position).where(same_position)).first() is None:
                connection.execute(sa.insert(MARK).values(mark))
        return moved

    def should_yield(self) -> bool:
        """Return False: no append waits for this database."""
        return False


def partition_rows(table: sa.Table, key: PartitionKey) -> sa.ColumnElement[bool]:
    """The condition for the rows of a partition in a control table."""
    c = table.c
    return sa.and_(c.name == key.name, c.generation == key.generation, c.part == key.partition)


def save_parked(connection: sa.Connection, key: PartitionKey, entries: Sequence[ParkedEvent]) -> None:
    """Add or change parked events."""
    if entries:
        positions = partition_rows(ENTRY, key) & ENTRY.c.position.in_([entry.position for entry in entries])
        connection.execute(sa.delete(ENTRY).where(positions))
        rows = [control_tables.parked_row(key, entry) for entry in entries]
        connection.execute(sa.insert(ENTRY), [dict(zip(ENTRY.c.keys(), row, strict=True)) for row in rows])


def save_checkpoint(connection: sa.Connection, checkpoint: Checkpoint) -> Checkpoint:
    """Write all columns of a checkpoint that this transaction has locked; return it."""
    values = dict(zip(CHECKPOINT.c.keys(), control_tables.checkpoint_row(checkpoint), strict=True))
    connection.execute(sa.update(CHECKPOINT).where(partition_rows(CHECKPOINT, checkpoint.place)).values(values))
    return checkpoint
