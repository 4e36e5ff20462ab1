"""A target in any SQL database that SQLAlchemy has a dialect for: rows, checkpoints and leases in tables.

On databases where CREATE VIEW commits the transaction, the control tables are written first and the view last. If a
process ends in between, the next process that writes there creates the views of all records again. Knows: Core
statements, transactions; that some databases commit on DDL. Does not know: projections.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import exc

from eventfold.core.table import Column, RowCodec, Table, stored_name
from eventfold.core.tally import Tally
from eventfold.errors import EventfoldError, TargetUnavailable, UnknownProjection
from eventfold.ports.target import (
    Checkpoint,
    CheckpointChanged,
    ParkedEvent,
    PartitionKey,
    PendingCommand,
    ProjectionRecord,
)
from eventfold.selection.conditions import Condition, RowQuery
from eventfold.selection.indexes import serving_index
from eventfold.selection.source import Explanation
from eventfold.targets.sql import control_tables
from eventfold.targets.sql.transaction import lease_lost_error
from eventfold.targets.sqlalchemy import dialects, statements
from eventfold.targets.sqlalchemy.connections import ConnectionPools
from eventfold.targets.sqlalchemy.control_transaction import SqlAlchemyControlTransaction
from eventfold.targets.sqlalchemy.queries import Explain, RowSelect
from eventfold.targets.sqlalchemy.tables import (
    CHECKPOINT,
    COMMAND,
    ENTRY,
    LAYOUT,
    MARK,
    METADATA,
    PROJECTION,
    indexed_table,
    rows_table,
)
from eventfold.targets.sqlalchemy.transaction import SqlAlchemyTransaction, partition_rows, save_checkpoint
from eventfold.targets.sqlalchemy.upgrade import upgrade_tables

MAX_TABLES = 500  # tables whose description is kept

T = TypeVar("T")


class SqlAlchemyTarget:
    """See Target."""

    forwards = False
    creates_indexes = True

    def __init__(self, url: sa.URL) -> None:
        self.address = url.render_as_string(hide_password=True)
        self._connections = ConnectionPools(url)
        self._dialect = self._connections.default_pool.dialect
        self._ready = False
        self._selects: dict[int, tuple[Table, RowSelect]] = {}

    # Connections

    @contextmanager
    def _connect(
        self, write: bool = False, schema_lock: bool = False, runs_user_code: bool = False
    ) -> Generator[sa.Connection]:
        """A connection, in a transaction if `write`, with the lock on schema changes if `schema_lock`."""
        try:
            with self._connections.connect(runs_user_code) as connection:
                if write:
                    self._ensure_tables(connection)
                    with self._transaction(connection, schema_lock):
                        yield connection
                else:
                    yield connection
        except exc.SQLAlchemyError as error:
            raise dialects.translate_error(error, self.address) from error

    def _read_with_retry(self, work: Callable[[sa.Connection], T]) -> T:
        """Run a read; repeat it once over a new connection if the pooled one turns out to be disconnected."""
        try:
            with self._connect() as connection:
                return work(connection)
        except EventfoldError as error:
            if not getattr(error.__cause__, "connection_invalidated", False):
                raise
        with self._connect() as connection:
            return work(connection)

    @contextmanager
    def _transaction(self, connection: sa.Connection, schema_lock: bool) -> Generator[None]:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        try:
            if schema_lock:
                dialects.lock_schema_changes(connection)
            yield
            connection.commit()
        except BaseException:
            try:
                connection.rollback()
            except exc.SQLAlchemyError:  # raise the first exception, not this one; it may be from a signal handler
                connection.invalidate()
            raise
        finally:
            if schema_lock:
                dialects.unlock_schema_changes(connection)

    def _ensure_tables(self, connection: sa.Connection) -> None:
        if self._ready:
            return
        layout = self._read_layout(connection)
        connection.rollback()
        if layout < control_tables.LAYOUT:
            with self._transaction(connection, schema_lock=True):
                layout = self._read_layout(connection)
                if layout == 1:
                    upgrade_tables(connection)
                if layout < control_tables.LAYOUT:
                    METADATA.create_all(connection)
                    connection.execute(sa.delete(LAYOUT))
                    connection.execute(sa.insert(LAYOUT).values(layout=control_tables.LAYOUT))
        elif connection.dialect.name in dialects.COMMITS_ON_DDL:
            with self._transaction(connection, schema_lock=True):
                for row in connection.execute(sa.select(PROJECTION)).all():
                    record = control_tables.record_from_row(tuple(row))
                    for name in record.tables:
                        statements.create_view(connection, name, stored_name(name, record.live))
        self._ready = True

    def _read_layout(self, connection: sa.Connection) -> int:
        """The layout of the control tables; 0 if there are none. Raises TargetUnavailable on a later layout."""
        inspector = sa.inspect(connection)
        layout: int | None = None
        if inspector.has_table(LAYOUT.name):
            layout = connection.execute(sa.select(sa.func.max(LAYOUT.c.layout))).scalar()
        if layout is None:  # layout 1, or tables whose creation was interrupted and continues
            return int(inspector.has_table(MARK.name))
        control_tables.refuse_layout(self.address, layout)
        return layout

    def _query(self, statement: sa.Select[Any]) -> list[tuple[Any, ...]]:
        """Run a query without creating the control tables: if there are none, no rows are stored."""
        if not self._ready:
            layout = self._read_with_retry(self._read_layout)
            if not layout:
                return []
            if layout < control_tables.LAYOUT:
                with self._connect(write=True):  # brings them to this layout
                    pass
        return self._read_with_retry(lambda connection: [tuple(row) for row in connection.execute(statement)])

    # Projections

    def record(self, name: str) -> ProjectionRecord | None:
        """See the port."""
        rows = self._query(sa.select(PROJECTION).where(PROJECTION.c.name == name))
        return control_tables.record_from_row(rows[0]) if rows else None

    def records(self) -> list[ProjectionRecord]:
        """See the port."""
        rows = self._query(sa.select(PROJECTION).order_by(PROJECTION.c.name))
        return [control_tables.record_from_row(row) for row in rows if not row[0].startswith("$")]

    @contextmanager
    def control(self, name: str) -> Generator[SqlAlchemyControlTransaction]:
        """See the port."""
        try:
            with self._connect(write=True, schema_lock=True) as connection:
                tx = SqlAlchemyControlTransaction(connection, name, self.address)
                yield tx
                tx.apply_schema_changes()
        except TargetUnavailable as error:
            if dialects.is_conflict(error.__cause__):
                raise CheckpointChanged from error
            raise

    def bind(self, name: str, rows: RowCodec) -> None:
        """Do nothing: rows are not forwarded."""

    def withdraw(self, name: str, generation: int | None, store: str) -> None:
        """Do nothing: rows are stored here only."""

    def pending_commands(self, store: str) -> list[PendingCommand]:
        """See the port."""
        every = [control_tables.command_from_row(row) for row in self._query(sa.select(COMMAND).order_by(COMMAND.c.id))]
        return [command for command in every if command.store == store]

    def remove_command(self, command: PendingCommand) -> None:
        """See the port."""
        with self._connect(write=True) as connection:
            connection.execute(sa.delete(COMMAND).where(COMMAND.c.id == command.id))

    # Checkpoints

    def checkpoint(self, key: PartitionKey) -> Checkpoint | None:
        """See the port."""
        return next((each for each in self.checkpoints(key.name, key.generation) if each.place == key), None)

    def checkpoints(self, name: str, generation: int | None = None) -> list[Checkpoint]:
        """See the port."""
        return control_tables.complete_checkpoints(self._checkpoints, self.record, name, generation)

    def _checkpoints(self, name: str, generation: int | None) -> list[Checkpoint]:
        select = sa.select(CHECKPOINT).where(CHECKPOINT.c.name == name)
        if generation is not None:
            select = select.where(CHECKPOINT.c.generation == generation)
        ordered = select.order_by(CHECKPOINT.c.generation, CHECKPOINT.c.part)
        return [control_tables.checkpoint_from_row(row) for row in self._query(ordered)]

    def live_checkpoints(self) -> list[Checkpoint]:
        """See the port."""
        live = (PROJECTION.c.name == CHECKPOINT.c.name) & (PROJECTION.c.live == CHECKPOINT.c.generation)
        select = sa.select(CHECKPOINT).where(sa.exists().where(live))
        rows = self._query(select.order_by(CHECKPOINT.c.name, CHECKPOINT.c.generation, CHECKPOINT.c.part))
        return [control_tables.checkpoint_from_row(row) for row in rows]

    def parked(self, key: PartitionKey) -> list[ParkedEvent]:
        """See the port."""
        rows = self._query(sa.select(ENTRY).where(partition_rows(ENTRY, key)).order_by(ENTRY.c.position))
        return [control_tables.parked_from_row(key, row[3:]) for row in rows]

    def live_parked(self) -> list[tuple[PartitionKey, ParkedEvent]]:
        """See the port."""
        live = (PROJECTION.c.name == ENTRY.c.name) & (PROJECTION.c.live == ENTRY.c.generation)
        select = sa.select(ENTRY).where(sa.exists().where(live))
        rows = self._query(select.order_by(ENTRY.c.name, ENTRY.c.generation, ENTRY.c.part, ENTRY.c.position))
        keys = [PartitionKey(*row[:3]) for row in rows]
        return [(key, control_tables.parked_from_row(key, row[3:])) for key, row in zip(keys, rows, strict=True)]

    def ledger_marks(self, key: PartitionKey) -> list[tuple[int, Tally]]:
        """See the port."""
        rows = self._query(sa.select(MARK).where(partition_rows(MARK, key)).order_by(MARK.c.position))
        return [control_tables.mark_from_row(key, row[3:]) for row in rows]

    # Leases

    def claim(self, key: PartitionKey, holder: str, seconds: float, take_over_from: str = "") -> Checkpoint | None:
        """See the port."""
        with self._connect(write=True) as connection:
            checkpoint = self._lock_checkpoint(connection, key)
            if checkpoint is None:
                raise UnknownProjection(
                    f"Generation {key.generation} of {key.name} no longer exists in {self.address}.",
                    f"See which generations exist: eventfold projections show STORE {key.name}.",
                    projection=key.name,
                )
            new = control_tables.claim_lease(checkpoint, holder, dialects.now(connection), seconds, take_over_from)
            return None if new is None else save_checkpoint(connection, new)

    def renew_lease(self, checkpoint: Checkpoint, seconds: float, progress: bool = True) -> int:
        """See the port."""
        with self._connect(write=True) as connection:
            current = self._lock_checkpoint(connection, checkpoint.place)
            if current is None or current.token != checkpoint.token:
                raise lease_lost_error(checkpoint)
            save_checkpoint(
                connection, control_tables.renew_lease(current, dialects.now(connection), seconds, progress)
            )
            return current.revision

    def release(self, checkpoint: Checkpoint) -> None:
        """See the port."""
        with self._connect(write=True) as connection:
            current = self._lock_checkpoint(connection, checkpoint.place)
            if current is not None and current.token == checkpoint.token:
                save_checkpoint(connection, control_tables.release_lease(current))

    def _lock_checkpoint(self, connection: sa.Connection, key: PartitionKey) -> Checkpoint | None:
        select = sa.select(CHECKPOINT).where(partition_rows(CHECKPOINT, key)).with_for_update()
        row = connection.execute(select.with_hint(CHECKPOINT, "WITH (UPDLOCK, ROWLOCK)", "mssql")).first()
        return None if row is None else control_tables.checkpoint_from_row(tuple(row))

    # Rows

    @contextmanager
    def transaction(self, key: PartitionKey) -> Generator[SqlAlchemyTransaction]:
        """See the port."""
        with self._connect(write=True, runs_user_code=True) as connection:
            yield SqlAlchemyTransaction(connection, key, self.address)

    def load(self, table: Table, keys: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
        """See the port."""
        own = rows_table(table, self._dialect)

        def load(connection: sa.Connection) -> list[tuple[Any, ...]]:
            with dialects.translate_value_errors():
                return [row for each in statements.select_by_keys(connection, own, keys) for row in each]

        return self._read_with_retry(load)

    def find(self, table: Table, query: RowQuery) -> list[tuple[Any, ...]]:
        """See the port."""
        width = len(table.columns)
        return [row[:width] for row in self._answer(self._rows(table).find(query))]

    def count(self, table: Table, condition: Condition) -> int:
        """See the port."""
        return int(self._answer(self._rows(table).count(condition))[0][0])

    def count_by(self, table: Table, condition: Condition, column: Column) -> list[tuple[Any, int]]:
        """See the port."""
        return [(value, int(count)) for value, count in self._answer(self._rows(table).count_by(condition, column))]

    def total(self, table: Table, condition: Condition, column: Column) -> Any:
        """See the port."""
        rows = self._rows(table)
        return rows.add_up(column, self._answer(rows.total(condition, column)))

    def explain(self, table: Table, query: RowQuery) -> Explanation:
        """See the port."""
        statement = self._rows(table).find(query)
        plan = self._answer(Explain(statement))
        lines = [" ".join("-" if each is None else str(each) for each in row) for row in plan]
        index = serving_index(indexed_table(table, self._dialect.name), query.condition, query.order)
        return Explanation(index, str(statement.compile(dialect=self._dialect)), tuple(lines))

    def _rows(self, table: Table) -> RowSelect:
        known = self._selects.get(id(table))
        if known is None or known[0] is not table:
            if len(self._selects) >= MAX_TABLES:
                self._selects.clear()
            known = table, RowSelect(rows_table(table, self._dialect), self._dialect.name, table.indexes)
            self._selects[id(table)] = known
        return known[1]

    def _answer(self, statement: sa.Executable) -> list[tuple[Any, ...]]:
        def answer(connection: sa.Connection) -> list[tuple[Any, ...]]:
            with dialects.translate_value_errors():
                return [tuple(row) for row in connection.execute(statement)]

        return self._read_with_retry(answer)

    def scan(self, table: Table) -> Iterator[list[tuple[Any, ...]]]:
        """See the port."""
        own, after = rows_table(table, self._dialect), ()
        while True:
            with self._connect() as connection:
                page = [tuple(row) for row in connection.execute(statements.select_next_page(own, after))]
            if page:
                yield page
                after = page[-1][: len(table.key)]
            if len(page) < statements.PAGE:
                return

    def now(self) -> int:
        """See the port."""
        return self._read_with_retry(dialects.now)

    def outdated(self, table: Table) -> bool:
        """Return False: every release created tables with this layout."""
        return False

    def dump(self, name: str, generation: int) -> Iterator[tuple[Any, ...]]:
        """See the port."""
        with self._connect() as connection:
            rows = statements.select_all(connection, stored_name(name, generation))
        yield from rows

    def delivery_lag(self, name: str, generation: int) -> str:
        """Return "": readers see rows as soon as they are committed."""
        return ""

    def lock_holder(self) -> str:
        """Return "": SQLAlchemy has no portable query for lock holders."""
        return ""

    def close(self) -> None:
        """See the port."""
        self._ready = False
        self._connections.close()
