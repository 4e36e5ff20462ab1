"""Differences between databases that SQLAlchemy does not hide: upserts, locks, clocks, error codes.

Knows: dialects by name. Does not know: projections, transactions (ports/target.py does).
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.dialects import mysql, postgresql, sqlite

from eventfold.core.value_order import FUNCTIONS, TEXT_ORDER
from eventfold.engines.sqlite.schema import APPLICATION_ID
from eventfold.errors import EventfoldError, TargetUnavailable
from eventfold.ports.target import RowRefused

LOCK_TIMEOUT_S = 30
CLOCK_SQL = {
    "postgresql": "SELECT CAST(extract(epoch from clock_timestamp()) * 1000000 AS BIGINT)",
    "mysql": "SELECT CAST(unix_timestamp(sysdate(6)) * 1000000 AS SIGNED)",
    "mariadb": "SELECT CAST(unix_timestamp(sysdate(6)) * 1000000 AS SIGNED)",
    "mssql": "SELECT DATEDIFF_BIG(microsecond, '1970-01-01', SYSUTCDATETIME())",
}
SERVERS = ("postgresql", "mysql", "mariadb", "mssql", "oracle")
COMMITS_ON_DDL = ("mysql", "mariadb", "oracle")  # CREATE TABLE commits the transaction there
# Error numbers of MySQL and MariaDB for a row with invalid values, which SQLAlchemy classifies as OperationalError.
ROW_ERROR_NUMBERS = frozenset({1048, 1264, 1265, 1292, 1364, 1366, 1367, 1406, 1411, 3140, 4025})
PERMISSION_ERROR_NUMBERS = frozenset({1044, 1045, 1142, 1143, 1227, 1290, 1792, 1836})
DISK_FULL_ERROR_NUMBERS = frozenset({1021, 1114, 28})


def configure_connections(engine: sa.Engine) -> None:
    """Configure every new connection of the engine: its transactions, time zone and strictness.

    A connection to a store's own SQLite file raises TargetUnavailable.
    """
    name = engine.dialect.name

    def connected(connection: Any, _record: Any) -> None:
        if name == "sqlite":
            connection.isolation_level = None  # the target itself executes BEGIN
        cursor = connection.cursor()
        if name == "sqlite":
            if cursor.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID:
                connection.close()
                raise TargetUnavailable(
                    "The file is an eventfold store, whose rows only the store itself writes.",
                    "Omit target=, or name another file.",
                )
            cursor.execute("PRAGMA journal_mode = WAL")
            cursor.execute("PRAGMA synchronous = NORMAL")
            for kind, order in TEXT_ORDER.items():
                connection.create_function(FUNCTIONS[kind], 1, order, deterministic=True)
        elif name in ("mysql", "mariadb"):
            cursor.execute("SET SESSION sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES,NO_ZERO_DATE')")
            cursor.execute("SET SESSION time_zone = '+00:00'")
        elif name == "postgresql":
            cursor.execute("SET TIME ZONE 'UTC'")
            connection.commit()
        cursor.close()

    event.listen(engine, "connect", connected)


def engine_options(url: sa.URL) -> dict[str, Any]:
    """The options of `sa.create_engine` for a database."""
    match url.get_backend_name():
        case "sqlite":
            return {"connect_args": {"timeout": LOCK_TIMEOUT_S}}
        case name if name in SERVERS:
            return {"isolation_level": "READ COMMITTED", "pool_pre_ping": True, "pool_recycle": 3600}
        case _:
            return {}


def upsert_statement(table: sa.Table, name: str) -> sa.Executable | None:
    """The statement that inserts or replaces a whole row; None if the dialect has none: then delete and insert."""
    own = list(table.primary_key)
    key = [column.key for column in own]
    rest = [column.key for column in table.columns if column.key not in key]
    if name in ("mysql", "mariadb"):
        replacing = mysql.insert(table)
        return replacing.on_duplicate_key_update({each: replacing.inserted[each] for each in rest or key[:1]})
    if name in ("sqlite", "postgresql"):
        insert = (sqlite if name == "sqlite" else postgresql).insert(table)
        if not rest:
            return insert.on_conflict_do_nothing(index_elements=own)
        return insert.on_conflict_do_update(index_elements=own, set_={each: insert.excluded[each] for each in rest})
    return None


def lock_schema_changes(connection: sa.Connection) -> None:
    """Lock against other transactions that create or replace tables. Raises TargetUnavailable after LOCK_TIMEOUT_S."""
    match connection.dialect.name:
        case "postgresql":
            connection.exec_driver_sql(
                "SELECT pg_advisory_xact_lock(hashtextextended('eventfold targets ' || current_schema(), 0))"
            )
        case "mysql" | "mariadb":
            sql = sa.text("SELECT get_lock(concat('eventfold.', left(database(), 50)), :patience)")
            if connection.execute(sql, {"patience": LOCK_TIMEOUT_S}).scalar() != 1:
                raise TargetUnavailable(
                    f"Another process has locked the schema for {LOCK_TIMEOUT_S} s, to create or replace tables.",
                    "A runner retries.",
                )
        case "mssql":
            connection.exec_driver_sql(
                "EXEC sp_getapplock @Resource = 'eventfold', @LockMode = 'Exclusive', @LockOwner = 'Transaction'"
            )
        case _:
            return  # the database has one writer at a time, or no advisory locks


def unlock_schema_changes(connection: sa.Connection) -> None:
    """Release the lock on databases where the end of the transaction does not release it."""
    if connection.dialect.name in ("mysql", "mariadb") and not connection.invalidated and not connection.closed:
        connection.execute(sa.text("SELECT release_lock(concat('eventfold.', left(database(), 50)))"))
        connection.commit()


def now(connection: sa.Connection) -> int:
    """The time of the database's clock, in µs since 1970 UTC; for a file or an unknown database, of this machine's."""
    sql = CLOCK_SQL.get(connection.dialect.name)
    return time.time_ns() // 1000 if sql is None else int(connection.exec_driver_sql(sql).scalar_one())


def is_row_error(error: exc.SQLAlchemyError) -> bool:
    """Whether the database rejected the values of a row."""
    if isinstance(error, exc.DBAPIError):
        if error.connection_invalidated:
            return False
        if isinstance(error, exc.DataError | exc.IntegrityError):
            return True
        number = _error_number(error)
        if number in PERMISSION_ERROR_NUMBERS:
            return False
        return isinstance(error, exc.ProgrammingError) or number in ROW_ERROR_NUMBERS
    return isinstance(error, exc.StatementError)  # raised in Python, before the row was sent


@contextmanager
def translate_value_errors() -> Generator[None]:
    """Raise RowRefused for a key or filter with a value that the column's type cannot have."""
    try:
        yield
    except exc.SQLAlchemyError as error:
        value_rejected = isinstance(error, exc.DataError) or (
            isinstance(error, exc.StatementError) and not isinstance(error, exc.DBAPIError)
        )
        if value_rejected:
            raise RowRefused(str(getattr(error, "orig", error))) from error
        raise


def _error_number(error: exc.DBAPIError) -> int:
    arguments: Any = getattr(error.orig, "args", ())
    return arguments[0] if arguments and isinstance(arguments[0], int) else 0


def translate_error(error: exc.SQLAlchemyError, address: str) -> EventfoldError:
    """TargetUnavailable, with the database's message and a remedy for the kind of error."""
    origin = error.orig if isinstance(error, exc.DBAPIError) else error
    arguments: Any = getattr(origin, "args", ())
    detail = str(arguments[1] if len(arguments) > 1 else origin).strip().split("\n")[0].rstrip(".")
    number = _error_number(error) if isinstance(error, exc.DBAPIError) else 0
    state = getattr(origin, "sqlstate", None) or ""
    words = detail.lower()
    if number in PERMISSION_ERROR_NUMBERS or state in ("25006", "42501") or "readonly" in words or "read-only" in words:
        remedy = "Grant the user the right to write there, or name another database (target=…)."
    elif number in DISK_FULL_ERROR_NUMBERS or state == "53100" or " is full" in words:
        remedy = "Free disk space. A runner then continues from its checkpoint."
    elif isinstance(error, exc.ProgrammingError | exc.NotSupportedError | exc.CompileError):
        remedy = "Check the SQL, and the tables it names."
    else:
        remedy = "Check that the database is running. A runner retries until it answers; other calls do not."
    return TargetUnavailable(f"{address} failed: {detail}.", remedy, address=address, detail=detail)


def is_conflict(error: BaseException | None) -> bool:
    """Whether the database rolled back the transaction in favour of a concurrent one: it may be repeated."""
    if not isinstance(error, exc.DBAPIError):
        return False
    return _error_number(error) in (1205, 1213) or getattr(error.orig, "sqlstate", None) in ("40P01", "40001")
