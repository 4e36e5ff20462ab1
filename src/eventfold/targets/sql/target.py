"""A target in a SQL database: rows, checkpoints and leases in tables, over any driver.

Readers query views. The rows are in tables whose names end with the generation's number, so that switching to another
generation is one small transaction. Knows: tables, views, statements, transactions. Does not know: which database it
is.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import islice
from typing import Any, TypeVar

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
    RowRefused,
)
from eventfold.selection.conditions import Condition, RowQuery
from eventfold.selection.source import Explanation
from eventfold.targets.sql import control_tables
from eventfold.targets.sql.control_transaction import SqlControlTransaction
from eventfold.targets.sql.driver import Driver, Parameters
from eventfold.targets.sql.queries import CompiledQuery, QueryStatements
from eventfold.targets.sql.statements import Statements
from eventfold.targets.sql.transaction import SqlTransaction, lease_lost_error, lock_checkpoint, save_checkpoint
from eventfold.targets.sql.upgrade import upgrade_tables

PAGE = 1_000

T = TypeVar("T")
# A deadlock, or a serialization conflict: the transaction was rolled back and may be repeated.
RETRYABLE_SQLSTATES = ("40P01", "40001")


class SqlTarget:
    """See the port. `connect`, `execute`, `query`, `ensure_table` serve a target that adds a table of its own."""

    forwards = False
    creates_indexes = True
    commits_jointly = True

    def __init__(self, driver: Driver, statements: Statements | None = None) -> None:
        self.driver = self._driver = driver
        self.address = driver.address
        self.releases_interpreter = driver.releases_interpreter
        self.inserts_new_rows, self.quiet_page_events = driver.inserts_new_rows, driver.quiet_page_events
        self._ready = False
        self.statements = self._statements = statements or Statements(driver)
        self._queries = QueryStatements(self._statements)

    # Connections

    @contextmanager
    def connect(self, write: bool = False, runs_user_code: bool = False) -> Generator[Any]:
        """A connection, in a transaction if `write`. Translates the driver's errors. See `Driver.acquire`."""
        driver = self._driver
        try:
            acquired, broken = driver.acquire(write, runs_user_code), True
            try:
                connection = driver.connection(acquired)
                if write:
                    self._ensure_tables(connection)
                    try:
                        driver.begin(connection)  # in the block: an exception right after it must be rolled back too
                        yield connection
                    except BaseException as error:
                        driver.rollback(connection)
                        broken = isinstance(error, driver.errors)
                        raise
                    driver.commit(connection)
                else:
                    yield connection
                broken = False
            finally:
                driver.release(acquired, write, broken)
        except driver.errors as error:
            raise driver.translate_error(error) from error

    def _read_with_retry(self, work: Callable[[Any], T]) -> T:
        """Run a read; repeat it once over a new connection if the pooled one turns out to be disconnected."""
        dead = False
        try:
            with self.connect() as connection:
                try:
                    return work(connection)
                except self._driver.errors as error:
                    dead = self._driver.is_disconnect(connection, error)
                    raise
        except EventfoldError:
            if not dead:
                raise
        with self.connect() as connection:
            return work(connection)

    def _ensure_tables(self, connection: Any) -> None:
        """Create the control tables, or upgrade them to this layout, once."""
        if self._ready:
            return
        if self._read_layout(connection) < control_tables.LAYOUT:
            self._change_schema(connection, self._create_or_upgrade)
        self._ready = True

    def _read_layout(self, connection: Any) -> int:
        """The layout of the control tables; 0 if there are none. Raises TargetUnavailable on a later layout."""
        if not self._driver.has_relation(connection, "eventfold_layout"):
            return int(self._driver.has_relation(connection, "eventfold_mark"))
        rows = self.execute(connection, "SELECT layout FROM eventfold_layout")
        layout = max((row[0] for row in rows), default=control_tables.LAYOUT)
        control_tables.refuse_layout(self.address, layout)
        return layout

    def _create_or_upgrade(self, connection: Any) -> None:
        layout = self._read_layout(connection)
        if layout == 1:
            upgrade_tables(self._driver, connection)
        if layout < control_tables.LAYOUT:
            for statement in control_tables.CREATE_TABLES:
                self.execute(connection, statement)

    def ensure_table(self, name: str, create: str) -> None:
        """Create a further table in this database, by this statement, unless it exists."""
        if not self.has_table(name):
            with self.connect(write=True) as connection:
                self._driver.lock_schema_changes(connection)
                self.execute(connection, create)

    def has_table(self, name: str) -> bool:
        """Whether the database has a table or view of this name."""
        return self._read_with_retry(lambda connection: self._driver.has_relation(connection, name))

    def _change_schema(self, connection: Any, work: Callable[[Any], None]) -> None:
        self._driver.begin(connection)
        try:
            self._driver.lock_schema_changes(connection)
            work(connection)
            self._driver.commit(connection)
        except BaseException:
            self._driver.rollback(connection)
            raise

    def execute(self, connection: Any, sql: str, parameters: Parameters = ()) -> list[tuple[Any, ...]]:
        """Run a statement, with `?` for each parameter, on an acquired connection."""
        return self._driver.execute(connection, self._driver.adapt_sql(sql), parameters)

    def query(self, sql: str, parameters: Parameters = ()) -> list[tuple[Any, ...]]:
        """Run a query without creating the control tables: if there are none, no rows are stored."""
        if not self._ready:
            layout = self._read_with_retry(self._read_layout)
            if not layout:
                return []
            if layout < control_tables.LAYOUT:
                with self.connect(write=True):  # brings them to this layout
                    pass
            self._ready = True
        return self._read_with_retry(lambda connection: self.execute(connection, sql, parameters))

    # Projections

    def record(self, name: str) -> ProjectionRecord | None:
        """See the port."""
        rows = self.query(f"SELECT {control_tables.RECORD_COLUMNS} FROM eventfold_projection WHERE name = ?", (name,))  # noqa: S608
        return control_tables.record_from_row(tuple(rows[0])) if rows else None

    def records(self) -> list[ProjectionRecord]:
        """See the port."""
        return [
            control_tables.record_from_row(tuple(r))
            for r in self.query(f"SELECT {control_tables.RECORD_COLUMNS} FROM eventfold_projection ORDER BY name")  # noqa: S608
            if not r[0].startswith("$")
        ]

    @contextmanager
    def control(self, name: str) -> Generator[SqlControlTransaction]:
        """See the port."""
        try:
            with self.connect(write=True) as connection:
                yield self.controlled(connection, name)
        except TargetUnavailable as error:
            if error.fields.get("sqlstate") in RETRYABLE_SQLSTATES:
                raise CheckpointChanged from error
            raise

    def controlled(self, connection: Any, name: str) -> SqlControlTransaction:
        """See InlineTarget.controlled."""
        self._driver.prepare_foreign_connection(connection)
        return SqlControlTransaction(self._driver, connection, name, self._statements)

    def bind(self, name: str, rows: RowCodec) -> None:
        """Do nothing: rows are not forwarded."""

    def withdraw(self, name: str, generation: int | None, store: str) -> None:
        """Do nothing: rows are stored here only."""

    def pending_commands(self, store: str) -> list[PendingCommand]:
        """See the port."""
        every = [control_tables.command_from_row(row) for row in self.query(control_tables.SELECT_COMMANDS)]
        return [command for command in every if command.store == store]

    def remove_command(self, command: PendingCommand) -> None:
        """See the port."""
        with self.connect(write=True) as connection:
            self.execute(connection, control_tables.DELETE_COMMAND, (command.id,))

    # Checkpoints

    def checkpoint(self, key: PartitionKey) -> Checkpoint | None:
        """See the port."""
        return next((each for each in self.checkpoints(key.name, key.generation) if each.place == key), None)

    def checkpoints(self, name: str, generation: int | None = None) -> list[Checkpoint]:
        """See the port."""
        return control_tables.complete_checkpoints(self._checkpoints, self.record, name, generation)

    def _checkpoints(self, name: str, generation: int | None) -> list[Checkpoint]:
        rows = self.query(control_tables.SELECT_CHECKPOINTS, (name,))
        return [control_tables.checkpoint_from_row(tuple(row)) for row in rows if generation in (None, row[1])]

    def live_checkpoints(self) -> list[Checkpoint]:
        """See the port."""
        rows = self.query(control_tables.SELECT_LIVE_CHECKPOINTS)
        return [control_tables.checkpoint_from_row(tuple(row)) for row in rows]

    def parked(self, key: PartitionKey) -> list[ParkedEvent]:
        """See the port."""
        return [
            control_tables.parked_from_row(key, row)
            for row in self.query(control_tables.SELECT_PARKED, control_tables.key_columns(key))
        ]

    def live_parked(self) -> list[tuple[PartitionKey, ParkedEvent]]:
        """See the port."""
        rows = self.query(control_tables.SELECT_LIVE_PARKED)
        keys = [PartitionKey(*row[:3]) for row in rows]
        return [(key, control_tables.parked_from_row(key, row[3:])) for key, row in zip(keys, rows, strict=True)]

    def ledger_marks(self, key: PartitionKey) -> list[tuple[int, Tally]]:
        """See the port."""
        return [
            control_tables.mark_from_row(key, row)
            for row in self.query(control_tables.SELECT_MARKS, control_tables.key_columns(key))
        ]

    # Leases

    def claim(self, key: PartitionKey, holder: str, seconds: float, take_over_from: str = "") -> Checkpoint | None:
        """See the port."""
        driver = self._driver
        with self.connect(write=True) as connection:
            checkpoint = lock_checkpoint(driver, connection, key)
            if checkpoint is None:
                raise UnknownProjection(
                    f"Generation {key.generation} of {key.name} no longer exists in {self.address}.",
                    f"See which generations exist: eventfold projections show STORE {key.name}.",
                    projection=key.name,
                )
            new = control_tables.claim_lease(checkpoint, holder, driver.now(connection), seconds, take_over_from)
            return None if new is None else save_checkpoint(driver, connection, new)

    def renew_lease(self, checkpoint: Checkpoint, seconds: float, progress: bool = True) -> int:
        """See the port."""
        driver = self._driver
        with self.connect(write=True) as connection:
            current = lock_checkpoint(driver, connection, checkpoint.place)
            if current is None or current.token != checkpoint.token:
                raise lease_lost_error(checkpoint)
            save_checkpoint(
                driver, connection, control_tables.renew_lease(current, driver.now(connection), seconds, progress)
            )
            return current.revision

    def release(self, checkpoint: Checkpoint) -> None:
        """See the port."""
        with self.connect(write=True) as connection:
            current = lock_checkpoint(self._driver, connection, checkpoint.place)
            if current is not None and current.token == checkpoint.token:
                save_checkpoint(self._driver, connection, control_tables.release_lease(current))

    # Rows

    @contextmanager
    def transaction(self, key: PartitionKey) -> Generator[SqlTransaction]:
        """See the port."""
        with self.connect(write=True, runs_user_code=True) as connection:
            yield SqlTransaction(self._driver, connection, key, self._statements)

    @contextmanager
    def joint_transaction(self, several: bool) -> Generator[Callable[[PartitionKey], SqlTransaction]]:
        """Begin one transaction for one partition or several; the function returns it for each of them.

        A crash of the database may undo it as a whole, with the checkpoints: the events are folded again. See Driver
        for `several`.
        """
        # One that may wait long for a lock has a connection that reading the log does not need.
        with self.connect(write=True, runs_user_code=not several) as connection:
            self._driver.begin_rows(connection, several)
            yield lambda key: SqlTransaction(self._driver, connection, key, self._statements)

    def joined(self, connection: Any, key: PartitionKey) -> SqlTransaction:
        """See InlineTarget.joined."""
        self._driver.prepare_foreign_connection(connection)
        return SqlTransaction(self._driver, connection, key, self._statements)

    def load(self, table: Table, keys: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
        """See the port."""

        def load(connection: Any) -> list[tuple[Any, ...]]:
            rows: list[tuple[Any, ...]] = []
            rest = iter(keys)
            try:
                while chunk := list(islice(rest, PAGE)):
                    sql, parameters = self._statements.load_sql(table, chunk)
                    rows += self.execute(connection, sql, parameters)
            except self._driver.value_errors as error:
                raise RowRefused(str(error)) from error
            return rows

        return self._statements.decode_rows(table, self._read_with_retry(load))

    def find(self, table: Table, query: RowQuery) -> list[tuple[Any, ...]]:
        """See the port."""
        rows = self._answer(table, lambda: self._queries.find(table, query))
        width = len(table.columns)
        if rows and len(rows[0]) > width:
            rows = [row[:width] for row in rows]
        return self._statements.decode_rows(table, rows)

    def count(self, table: Table, condition: Condition) -> int:
        """See the port."""
        return int(self._answer(table, lambda: self._queries.count(table, condition))[0][0])

    def count_by(self, table: Table, condition: Condition, column: Column) -> list[tuple[Any, int]]:
        """See the port."""
        rows = self._answer(table, lambda: self._queries.count_by(table, condition, column))
        decode = self._statements.decode_value
        return [(None if value is None else decode(column, value), int(count)) for value, count in rows]

    def total(self, table: Table, condition: Condition, column: Column) -> Any:
        """See the port."""
        rows = self._answer(table, lambda: self._queries.total(table, condition, column))
        return self._statements.total(column, rows)

    def explain(self, table: Table, query: RowQuery) -> Explanation:
        """See the port."""

        def explain(connection: Any) -> Explanation:
            self._statements.is_outdated(connection, table)
            compiled, parameters = self._queries.find(table, query)
            with nullcontext() if compiled.index else self._driver.allow_full_scan(connection):
                plan = self.execute(connection, f"{self._statements.explain} {compiled.sql}", parameters)
            lines = [line for row in plan for line in str(row[-1]).splitlines()]
            return Explanation(compiled.index, compiled.sql, tuple(lines))

        return self._read_with_retry(explain)

    def _answer(self, table: Table, compile: Callable[[], tuple[CompiledQuery, list[Any]]]) -> list[tuple[Any, ...]]:
        """Run a query for rows; `compile` is called when it is known which layout the table has."""

        def answer(connection: Any) -> list[tuple[Any, ...]]:
            self._statements.is_outdated(connection, table)
            compiled, parameters = compile()
            try:
                with nullcontext() if compiled.index else self._driver.allow_full_scan(connection):
                    return self.execute(connection, compiled.sql, parameters)
            except self._driver.value_errors as error:
                raise RowRefused(str(error)) from error

        return self._read_with_retry(answer)

    def scan(self, table: Table) -> Iterator[list[tuple[Any, ...]]]:
        """See the port."""
        after: tuple[Any, ...] = ()

        def next_page(connection: Any) -> list[tuple[Any, ...]]:
            self._statements.is_outdated(connection, table)
            return self.execute(connection, self._statements.scan_sql(table, bool(after), PAGE), after)

        while True:
            page = self._read_with_retry(next_page)
            if page:
                yield self._statements.decode_rows(table, page)
                after = self._statements.scan_cursor(table, page[-1])
            if len(page) < PAGE:
                return

    def outdated(self, table: Table) -> bool:
        """See the port."""
        return self._read_with_retry(lambda connection: self._statements.is_outdated(connection, table))

    def dump(self, name: str, generation: int) -> Iterator[tuple[Any, ...]]:
        """See the port."""

        def select_all(connection: Any) -> list[tuple[Any, ...]]:
            table = stored_name(name, generation)
            width, own = self._driver.count_columns(connection, table), self._driver.quote_relation(table)
            order = ", ".join(str(n) for n in range(1, width + 1))
            with self._driver.allow_full_scan(connection):
                return self.execute(connection, f"SELECT * FROM {own} ORDER BY {order}")  # noqa: S608

        yield from self._read_with_retry(select_all)

    def now(self) -> int:
        """See the port."""
        return self._read_with_retry(self._driver.now)

    def delivery_lag(self, name: str, generation: int) -> str:
        """Return "": readers see rows as soon as they are committed."""
        return ""

    def lock_holder(self) -> str:
        """See the port."""
        return self._driver.lock_holder()

    def close(self) -> None:
        """See the port."""
        self._ready = False
        self._driver.close()
