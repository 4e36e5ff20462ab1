"""The transaction of an operator's command over SQLAlchemy: it reads control tables under locks and changes them.

On databases where DDL commits the transaction, control tables are written first, and tables and views are created
after that. Knows: Core statements, locks. Does not know: what a command decides, when it commits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import sqlalchemy as sa

from eventfold.core.table import Table, stored_name
from eventfold.ports.target import (
    Checkpoint,
    CheckpointChanged,
    ParkedEvent,
    PartitionKey,
    PendingCommand,
    ProjectionRecord,
)
from eventfold.targets.sql import control_tables
from eventfold.targets.sql.control_transaction import table_exists_error
from eventfold.targets.sql.statements import shorten_name
from eventfold.targets.sqlalchemy import dialects, statements
from eventfold.targets.sqlalchemy.tables import CHECKPOINT, COMMAND, ENTRY, MARK, MAX_TABLE_NAME_BYTES, PROJECTION
from eventfold.targets.sqlalchemy.transaction import partition_rows, save_checkpoint, save_parked


class SqlAlchemyControlTransaction:
    """See ControlTransaction."""

    def __init__(self, connection: sa.Connection, name: str, address: str) -> None:
        self._connection, self._name, self._address = connection, name, address
        self._schema_changes: list[Callable[[], None]] = []  # of tables and views

    def now(self) -> int:
        """See the port."""
        return dialects.now(self._connection)

    def record(self) -> ProjectionRecord | None:
        """See the port."""
        rows = self._select_locked(PROJECTION, sa.select(PROJECTION).where(PROJECTION.c.name == self._name))
        return control_tables.record_from_row(rows[0]) if rows else None

    def checkpoints(self, generation: int | None = None) -> list[Checkpoint]:
        """See the port."""
        select = sa.select(CHECKPOINT).where(CHECKPOINT.c.name == self._name)
        if generation is not None:
            select = select.where(CHECKPOINT.c.generation == generation)
        ordered = select.order_by(CHECKPOINT.c.generation, CHECKPOINT.c.part)
        checkpoints = [control_tables.checkpoint_from_row(row) for row in self._select_locked(CHECKPOINT, ordered)]
        control_tables.refuse_partial(checkpoints, self._name)
        return checkpoints

    def parked(self, key: PartitionKey) -> list[ParkedEvent]:
        """See the port."""
        select = sa.select(ENTRY).where(partition_rows(ENTRY, key)).order_by(ENTRY.c.position)
        return [control_tables.parked_from_row(key, row[3:]) for row in self._select_locked(ENTRY, select)]

    def _select_locked(self, table: sa.Table, select: sa.Select[Any]) -> list[tuple[Any, ...]]:
        """Run a query; lock its rows until the transaction ends.

        A locking read returns current rows, even on a database whose transactions otherwise read a snapshot.
        """
        locking = select.with_for_update().with_hint(table, "WITH (UPDLOCK, ROWLOCK)", "mssql")
        return [tuple(row) for row in self._connection.execute(locking)]

    def create(
        self, projection: ProjectionRecord, tables: Mapping[str, Table | str], checkpoints: Sequence[Checkpoint]
    ) -> None:
        """See the port."""
        generation, connection, existing = checkpoints[0].place.generation, self._connection, self.record()
        if existing and generation in (existing.live, existing.building):
            raise CheckpointChanged
        if existing is None and self.checkpoints(generation):
            raise control_tables.damaged_row_error("eventfold_projection", self._name)
        for name, table in tables.items():
            if not existing and sa.inspect(connection).has_table(shorten_name(name, MAX_TABLE_NAME_BYTES)):
                raise table_exists_error(self._address, name)
            statements.create_table(connection, table, name, generation)
        self._delete_rows(generation)  # of an attempt to create this generation that was interrupted
        for each in checkpoints:
            connection.execute(sa.insert(CHECKPOINT).values(control_tables.checkpoint_row(each)))
            connection.execute(sa.insert(MARK).values(control_tables.mark_row(each.place, each.position, each.seen)))
        self.save_record(projection)

    def save_record(self, projection: ProjectionRecord) -> None:
        """See the port."""
        p, existing = projection, self.record()
        self._connection.execute(sa.delete(PROJECTION).where(PROJECTION.c.name == p.name))
        self._connection.execute(sa.insert(PROJECTION).values(control_tables.record_row(p)))
        self._bump_revisions()
        if existing is None or (existing.live, existing.tables) != (p.live, p.tables):
            for name in p.tables:
                self._schema_changes.append(
                    partial(statements.create_view, self._connection, name, stored_name(name, p.live))
                )

    def _bump_revisions(self) -> None:
        for each in self.checkpoints():
            save_checkpoint(self._connection, control_tables.change_checkpoint(each, {}))

    def update_checkpoint(self, key: PartitionKey, **fields: Any) -> None:
        """See the port."""
        for each in self.checkpoints(key.generation):
            if each.place == key:
                save_checkpoint(self._connection, control_tables.change_checkpoint(each, fields))

    def save_parked(self, key: PartitionKey, entries: Sequence[ParkedEvent]) -> None:
        """See the port."""
        self._bump_revisions()
        save_parked(self._connection, key, entries)

    def drop(self, generation: int, tables: Sequence[str]) -> None:
        """See the port."""
        self._delete_rows(generation)
        self._drop_tables(tables, [generation])

    def written_tables(self) -> list[str]:
        """See the port."""
        row = self._connection.execute(sa.select(PROJECTION.c.tables).where(PROJECTION.c.name == self._name)).first()
        return control_tables.parse_table_names(row[0]) if row else []

    def forget(self, tables: Sequence[str]) -> None:
        """See the port."""
        select = sa.select(CHECKPOINT.c.generation).where(CHECKPOINT.c.name == self._name).distinct()
        generations = [row[0] for row in self._connection.execute(select)]
        self._delete_rows(None)
        self._connection.execute(sa.delete(PROJECTION).where(PROJECTION.c.name == self._name))
        for each in tables:
            self._schema_changes.append(partial(statements.drop_view, self._connection, each))
        self._drop_tables(tables, generations)

    def _delete_rows(self, generation: int | None) -> None:
        for table in (CHECKPOINT, ENTRY, MARK):
            delete = sa.delete(table).where(table.c.name == self._name)
            self._connection.execute(delete if generation is None else delete.where(table.c.generation == generation))

    def _drop_tables(self, tables: Sequence[str], generations: Sequence[int]) -> None:
        for table in tables:
            for generation in generations:
                self._schema_changes.append(
                    partial(statements.drop_table, self._connection, stored_name(table, generation))
                )

    def save_command(self, command: PendingCommand) -> None:
        """See the port."""
        self._connection.execute(sa.insert(COMMAND).values(control_tables.command_row(command)))

    def apply_schema_changes(self) -> None:
        """Create and drop the requested views and tables, as the last step of the transaction."""
        while self._schema_changes:
            self._schema_changes.pop(0)()
