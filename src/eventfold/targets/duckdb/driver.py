"""Driver and statements for DuckDB.

DuckDB is made for queries over many rows: pages of rows are written and looked up as arrays, and only the key has an
index, since DuckDB scans whole columns. Knows: duckdb. Does not know: projections.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, cast

import duckdb
import msgspec

from eventfold.core.table import Column, ColumnKind, Convert, Table
from eventfold.errors import EventfoldError, TargetUnavailable
from eventfold.targets.duckdb.connection import open_shared, parse_lock_holder
from eventfold.targets.sql.driver import Parameters
from eventfold.targets.sql.statements import Statements, quote_identifier

DECIMAL_DIGITS, DECIMAL_SCALE = 38, 10  # of a decimal column: digits in all, digits after the point
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
WRITE_STATEMENTS = ("INSERT", "UPDATE", "DELETE", "MERGE")


def _check_decimal(value: Any) -> Any:
    """Return a decimal that the column stores exactly; raise ValueError for others, which DuckDB would round."""
    if value is None:
        return None
    if not isinstance(value, Decimal) or not value.is_finite():
        raise ValueError(f"{value!r} cannot be stored in a decimal column")
    shortest = value.normalize() if len(value.as_tuple().digits) <= 28 else value
    exponent = cast("int", shortest.as_tuple().exponent)
    if value and (-exponent > DECIMAL_SCALE or shortest.adjusted() >= DECIMAL_DIGITS - DECIMAL_SCALE):
        raise ValueError(
            f"{value} has more than {DECIMAL_DIGITS - DECIMAL_SCALE} digits before or {DECIMAL_SCALE} after the point"
        )
    return value


def _strip_zeros(value: Any) -> Any:
    """Remove the trailing zeros that the column's fixed scale added."""
    return None if value is None else Decimal(f"{value:f}".rstrip("0").rstrip("."))


def _to_utc(value: Any) -> Any:
    if value is None:
        return None
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _require_type(kind: type) -> Convert:
    """Return an encoder that raises TypeError on other types: DuckDB would round 1.5 to 2 and write 5 as '5'."""

    def encode(value: Any) -> Any:
        if value is not None and not isinstance(value, kind):
            raise TypeError(f"{value!r} is not {kind.__name__}")
        return value

    return encode


class DuckDbDriver:
    """See driver.Driver."""

    column_types: Mapping[ColumnKind, str] = {
        "text": "VARCHAR",
        "int": "BIGINT",
        "float": "DOUBLE",
        "bool": "BOOLEAN",
        "bytes": "BLOB",
        "decimal": f"DECIMAL({DECIMAL_DIGITS},{DECIMAL_SCALE})",
        "moment": "TIMESTAMPTZ",
        "date": "DATE",
        "uuid": "UUID",
        "json": "JSON",
    }
    encoders: Mapping[ColumnKind, Convert] = {
        "decimal": _check_decimal,
        "moment": _to_utc,
        "int": _require_type(int),
        "text": _require_type(str),
        "bool": _require_type(bool),
    }
    decoders: Mapping[ColumnKind, Convert] = {
        "moment": lambda micros: None if micros is None else EPOCH + timedelta(microseconds=micros),
        "decimal": _strip_zeros,
    }
    errors: tuple[type[BaseException], ...] = (duckdb.Error,)
    row_errors: tuple[type[BaseException], ...] = (
        duckdb.ConstraintException,
        duckdb.ConversionException,
        duckdb.OutOfRangeException,
        duckdb.BinderException,
        duckdb.InvalidInputException,
    )
    value_errors: tuple[type[BaseException], ...] = (
        duckdb.ConversionException,
        duckdb.OutOfRangeException,
        duckdb.InvalidInputException,
    )
    table_suffix = ""
    max_name_bytes: int | None = None
    row_lock_clause = ""  # a transaction that writes excludes all other writers
    quiet_page_events = 0
    inserts_new_rows = False
    releases_interpreter = True

    def __init__(self, path: str) -> None:
        self.path = path if path == ":memory:" else os.path.abspath(path)
        self.address = f"duckdb:{self.path}"
        self._file = open_shared(self.path)
        self._closed = False

    def acquire(self, write: bool, runs_user_code: bool) -> duckdb.DuckDBPyConnection:
        """See Driver. A writer waits for the other writers of this process."""
        if write:
            self._file.write_lock.acquire()
        try:
            return self._file.acquire()
        except BaseException:
            if write:
                self._file.write_lock.release()
            raise

    def connection(self, lent: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
        """Return the argument: it is a connection."""
        return lent

    def release(self, lent: duckdb.DuckDBPyConnection, write: bool, broken: bool) -> None:
        """See Driver."""
        try:
            self._file.release(lent)
        finally:
            if write:
                self._file.write_lock.release()

    def close(self) -> None:
        """Release the file; the last user closes it."""
        if not self._closed:
            self._closed = True
            self._file.close()

    def prepare_foreign_connection(self, connection: Any) -> None:
        """Do nothing: no engine has connections to DuckDB."""

    def quote_relation(self, name: str) -> str:
        """See Driver."""
        return quote_identifier(name)

    def quote_column(self, name: str) -> str:
        """See Driver."""
        return quote_identifier(name)

    def adapt_sql(self, text: str) -> str:
        """Return the SQL unchanged: DuckDB's parameter mark is `?`."""
        return text

    def execute(
        self, connection: duckdb.DuckDBPyConnection, sql: str, parameters: Parameters = ()
    ) -> list[tuple[Any, ...]]:
        """See Driver. The count of changed rows, DuckDB's result of a writing statement, is not returned as a row."""
        values: Any = parameters
        result = connection.execute(sql, values) if values else connection.execute(sql)
        rows: list[tuple[Any, ...]] = result.fetchall()
        counts = sql.lstrip()[:6].upper() in WRITE_STATEMENTS and [c[0] for c in connection.description or ()] == [
            "Count"
        ]
        return [] if counts else rows

    def update_row(self, connection: duckdb.DuckDBPyConnection, sql: str, parameters: Parameters) -> bool:
        """See Driver."""
        return bool(self.execute(connection, sql, parameters))

    def executemany(self, connection: duckdb.DuckDBPyConnection, sql: str, parameters: Iterable[Parameters]) -> None:
        """See Driver."""
        every: Any = list(parameters)
        if every:
            connection.executemany(sql, every)

    def upsert(
        self, connection: duckdb.DuckDBPyConnection, statement: str, table: Table, rows: Sequence[Sequence[Any]]
    ) -> None:
        """See Driver: one statement with an array of values for each column."""
        arrays = ", ".join(f"unnest(?::{self.column_types[column.kind]}[])" for column in table.columns)
        head, _, tail = statement.partition(" VALUES ")
        sql = f"{head} SELECT {arrays} {tail[tail.index('ON CONFLICT') :]}"  # noqa: S608
        connection.execute(sql, [list(values) for values in zip(*rows, strict=True)])

    def begin(self, connection: duckdb.DuckDBPyConnection) -> None:
        """See Driver."""
        connection.execute("BEGIN TRANSACTION")

    def lock_schema_changes(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Do nothing: writers exclude each other, in this process by `write_lock`, between processes by the file."""

    def begin_rows(self, connection: duckdb.DuckDBPyConnection, several: bool) -> None:
        """Do nothing: DuckDB always waits for the disk."""

    def commit(self, connection: duckdb.DuckDBPyConnection) -> None:
        """See Driver."""
        connection.execute("COMMIT")

    def rollback(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Roll back; a transaction whose commit failed is rolled back already."""
        try:
            connection.execute("ROLLBACK")
        except duckdb.TransactionException:
            return

    def allow_full_scan(self, connection: duckdb.DuckDBPyConnection) -> AbstractContextManager[object]:
        """Do nothing: no setting restricts full scans."""
        return nullcontext()

    def now(self, connection: duckdb.DuckDBPyConnection) -> int:
        """Return the time of this machine's clock: a DuckDB file is not shared between machines."""
        return time.time_ns() // 1000

    def is_disconnect(self, connection: Any, error: BaseException) -> bool:
        """Return False: a file does not disconnect."""
        return False

    def should_yield(self) -> bool:
        """Return False: no append waits for this database."""
        return False

    def key_condition(self, columns: Sequence[tuple[str, ColumnKind]], count: int) -> str:
        """See Driver: one array parameter for each column of the key."""
        arrays = ", ".join(f"unnest(?::{self.column_types[kind]}[])" for _, kind in columns)
        names = ", ".join(name for name, _ in columns)
        return f"({names}) IN (SELECT {arrays})"  # noqa: S608

    def has_relation(self, connection: duckdb.DuckDBPyConnection, name: str) -> bool:
        """Whether there is a table or view of this name, compared without case."""
        sql = "SELECT 1 FROM information_schema.tables WHERE lower(table_name) = lower(?)"
        return bool(connection.execute(sql, [name]).fetchall())

    def view_columns(self, connection: duckdb.DuckDBPyConnection, name: str) -> str:
        """See Driver: all columns."""
        return "*"

    def count_columns(self, connection: duckdb.DuckDBPyConnection, name: str) -> int:
        """See Driver."""
        sql = "SELECT count(*) FROM information_schema.columns WHERE table_name = ?"
        return int(connection.execute(sql, [name]).fetchall()[0][0])

    def translate_error(self, error: BaseException) -> EventfoldError:
        """See Driver: TargetUnavailable, with a remedy for the kind of error."""
        detail = str(error).strip().split("\n")[0].removesuffix(".")
        words = detail.lower()
        if "conflicting lock" in words or "could not set lock" in words:
            what = f"{self.path} is held by {parse_lock_holder(str(error))}, and DuckDB allows one process at a time."
            remedy = "A runner retries. End that program, or have it close the file."
        elif "different configuration" in words:
            what = f"{self.path} is open in this process with other settings."
            remedy = "Close that connection, or open it with DuckDB's default settings."
        elif "no space" in words or "not enough space" in words or "out of disk" in words:
            what = f"{self.path} cannot grow: the disk is full."
            remedy = "Free disk space. A runner then continues from its checkpoint."
        elif isinstance(error, duckdb.IOException):
            what = f"{self.path} cannot be used ({detail})."
            remedy = "Check the path, and the permissions of the file and its folder."
        else:
            what, remedy = f"DuckDB refused: {detail}.", "Check the SQL, and the tables it names."
        return TargetUnavailable(what, remedy, address=self.address, detail=detail)

    def lock_holder(self) -> str:
        """Return "": the error of a process that waits for the file names the holder already."""
        return ""


class DuckDbStatements(Statements):
    """See Statements: variants that DuckDB runs faster, or without an extension."""

    def create_table_sql(self, table: Table | str, name: str, generation: int) -> Iterator[str]:
        """See Statements. Only the key is indexed: DuckDB scans whole columns, and changes of indexed rows are slow."""
        yield next(super().create_table_sql(table, name, generation))

    def indexed_table(self, table: Table) -> Table:
        """See Statements: without its indexes."""
        return msgspec.structs.replace(table, indexes=())

    def selected_columns(self, table: Table) -> str:
        """See Statements. Moments are read as µs: duckdb needs another package to convert them to Python's type."""
        return ", ".join(
            f"epoch_us({quote_identifier(c.name)}) AS {quote_identifier(c.name)}"
            if c.kind == "moment"
            else quote_identifier(c.name)
            for c in table.columns
        )

    def shown_column(self, column: Column) -> str:
        """See Statements. Moments are read as µs."""
        own = quote_identifier(column.name)
        return f"epoch_us({own})" if column.kind == "moment" else own

    def load_sql(self, table: Table, keys: Sequence[Sequence[Any]]) -> tuple[str, list[Any]]:
        """See Statements. The parameters are an array for each column of the key."""
        sql, _ = super().load_sql(table, keys)
        return sql, [list(values) for values in zip(*self.encode_keys(table, keys), strict=True)]

    def scan_sql(self, table: Table, further: bool, page: int) -> str:
        """See Statements."""
        kinds = {column.name: column.kind for column in table.columns}
        key = ", ".join(
            f"epoch_us({quote_identifier(k)})" if kinds[k] == "moment" else quote_identifier(k) for k in table.key
        )
        after = f"WHERE ({key}) > ({','.join('?' * len(table.key))})" if further else ""
        order = self.column_list(table.key)
        own = quote_identifier(table.name)
        return f"SELECT {self.selected_columns(table)} FROM {own} {after} ORDER BY {order} LIMIT {page}"  # noqa: S608
