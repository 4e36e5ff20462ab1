"""The transaction of an operator's command in a SQL target: it reads control tables under locks and changes them.

Knows: the control tables, in which order rows are locked. Does not know: what a command decides, when it commits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eventfold.core.table import Table, stored_name
from eventfold.errors import TargetUnavailable
from eventfold.ports.target import (
    Checkpoint,
    CheckpointChanged,
    ParkedEvent,
    PartitionKey,
    PendingCommand,
    ProjectionRecord,
)
from eventfold.targets.sql import control_tables
from eventfold.targets.sql.driver import Driver, Parameters
from eventfold.targets.sql.statements import Statements
from eventfold.targets.sql.transaction import save_checkpoint, save_parked


class SqlControlTransaction:
    """See ControlTransaction. A target runs one command at a time: `Driver.lock_schema_changes`."""

    def __init__(self, driver: Driver, connection: Any, name: str, statements: Statements) -> None:
        self._driver, self._name, self._statements = driver, name, statements
        self.connection = connection
        driver.lock_schema_changes(connection)

    def _execute(self, sql: str, parameters: Parameters = ()) -> list[tuple[Any, ...]]:
        return self._driver.execute(self.connection, self._driver.adapt_sql(sql), parameters)

    def now(self) -> int:
        """See the port."""
        return self._driver.now(self.connection)

    def record(self) -> ProjectionRecord | None:
        """See the port."""
        sql = f"SELECT {control_tables.RECORD_COLUMNS} FROM eventfold_projection WHERE name = ?"  # noqa: S608
        rows = self._execute(sql + self._driver.row_lock_clause, (self._name,))
        return control_tables.record_from_row(tuple(rows[0])) if rows else None

    def checkpoints(self, generation: int | None = None) -> list[Checkpoint]:
        """See the port. Rows are locked in the order of their keys."""
        sql = f"SELECT {control_tables.CHECKPOINT_COLUMNS} FROM eventfold_checkpoint WHERE name = ?"  # noqa: S608
        parameters: list[Any] = [self._name]
        if generation is not None:
            sql, parameters = f"{sql} AND generation = ?", [self._name, generation]
        rows = self._execute(f"{sql} ORDER BY generation, part{self._driver.row_lock_clause}", parameters)
        checkpoints = [control_tables.checkpoint_from_row(tuple(row)) for row in rows]
        control_tables.refuse_partial(checkpoints, self._name)
        return checkpoints

    def parked(self, key: PartitionKey) -> list[ParkedEvent]:
        """See the port."""
        return [
            control_tables.parked_from_row(key, row)
            for row in self._execute(control_tables.SELECT_PARKED, control_tables.key_columns(key))
        ]

    def create(
        self, projection: ProjectionRecord, tables: Mapping[str, Table | str], checkpoints: Sequence[Checkpoint]
    ) -> None:
        """See the port."""
        generation, driver, connection = checkpoints[0].place.generation, self._driver, self.connection
        existing = self.record()
        key = control_tables.key_columns(checkpoints[0].place)
        if self._execute(f"SELECT 1 FROM eventfold_checkpoint WHERE {control_tables.WHERE_PARTITION}", key):  # noqa: S608
            raise (
                CheckpointChanged if existing else control_tables.damaged_row_error("eventfold_projection", self._name)
            )
        for name, table in tables.items():
            if existing is None and driver.has_relation(connection, name):
                raise table_exists_error(driver.address, name)
            driver.execute(connection, f"DROP TABLE IF EXISTS {driver.quote_relation(stored_name(name, generation))}")
            for statement in self._statements.create_table_sql(table, name, generation):
                driver.execute(connection, statement)
        for each in checkpoints:
            self._execute(control_tables.INSERT_CHECKPOINT, control_tables.checkpoint_row(each))
            self._execute(control_tables.INSERT_MARK, control_tables.mark_row(each.place, each.position, each.seen))
        self.save_record(projection)

    def save_record(self, projection: ProjectionRecord) -> None:
        """See the port. A view is created again only if it must show another table: a dropped view loses its grants."""
        p, existing = projection, self.record()
        self._execute(control_tables.UPSERT_RECORD, control_tables.record_row(p))
        self._bump_revisions()
        if existing is None or (existing.live, existing.tables) != (p.live, p.tables):
            for name in p.tables:
                table = stored_name(name, p.live)
                columns = self._driver.view_columns(self.connection, table)
                view, own = self._driver.quote_relation(name), self._driver.quote_relation(table)
                self._driver.execute(self.connection, f"DROP VIEW IF EXISTS {view}")
                self._driver.execute(self.connection, f"CREATE VIEW {view} AS SELECT {columns} FROM {own}")  # noqa: S608

    def _bump_revisions(self) -> None:
        for each in self.checkpoints():
            save_checkpoint(self._driver, self.connection, control_tables.change_checkpoint(each, {}))

    def update_checkpoint(self, key: PartitionKey, **fields: Any) -> None:
        """See the port."""
        for each in self.checkpoints(key.generation):
            if each.place == key:
                save_checkpoint(self._driver, self.connection, control_tables.change_checkpoint(each, fields))

    def save_parked(self, key: PartitionKey, entries: Sequence[ParkedEvent]) -> None:
        """See the port."""
        self._bump_revisions()
        save_parked(self._driver, self.connection, key, entries)

    def drop(self, generation: int, tables: Sequence[str]) -> None:
        """See the port. Drops the tables first: a runner that writes to them may wait for rows deleted after that."""
        relation = self._driver.quote_relation
        for table in tables:
            self._driver.execute(self.connection, f"DROP TABLE IF EXISTS {relation(stored_name(table, generation))}")
        for table in control_tables.PARTITION_TABLES:
            self._execute(f"DELETE FROM {table} WHERE name = ? AND generation = ?", (self._name, generation))  # noqa: S608

    def written_tables(self) -> list[str]:
        """See the port."""
        try:
            rows = self._execute("SELECT tables FROM eventfold_projection WHERE name = ?", (self._name,))
        except UnicodeDecodeError:  # the damage is in this column
            return []
        return control_tables.parse_table_names(rows[0][0]) if rows else []

    def forget(self, tables: Sequence[str]) -> None:
        """See the port."""
        rows, relation = self._execute(control_tables.SELECT_GENERATIONS, (self._name,)), self._driver.quote_relation
        for table in tables:
            self._driver.execute(self.connection, f"DROP VIEW IF EXISTS {relation(table)}")
            for (generation,) in rows:
                self._driver.execute(
                    self.connection, f"DROP TABLE IF EXISTS {relation(stored_name(table, generation))}"
                )
        for table in (*control_tables.PARTITION_TABLES, "eventfold_projection"):
            self._execute(f"DELETE FROM {table} WHERE name = ?", (self._name,))  # noqa: S608

    def save_command(self, command: PendingCommand) -> None:
        """See the port."""
        self._execute(control_tables.INSERT_COMMAND, control_tables.command_row(command))


def table_exists_error(address: str, name: str) -> TargetUnavailable:
    """The error for a table that has a projection's name but does not belong to one."""
    return TargetUnavailable(
        f"{address} already has a table {name!r}, and it is not a projection's.",
        "Give the projection another name (name=…), or a separate database (target=…).",
        address=address,
        table=name,
    )
