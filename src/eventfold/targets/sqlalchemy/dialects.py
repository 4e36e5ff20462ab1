"""What else differs between the databases that SQLAlchemy speaks to: upserts, locks, clocks, what went wrong.

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

LOCK_TIMEOUT_S = 30  # seconds to wait for a lock
CLOCK_SQL = {
    "postgresql": "SELECT CAST(extract(epoch from clock_timestamp()) * 1000000 AS BIGINT)",
    "mysql": "SELECT CAST(unix_timestamp(sysdate(6)) * 1000000 AS SIGNED)",
    "mariadb": "SELECT CAST(unix_timestamp(sysdate(6)) * 1000000 AS SIGNED)",
    "mssql": "SELECT DATEDIFF_BIG(microsecond, '1970-01-01', SYSUTCDATETIME())",
}
SERVERS = ("postgresql", "mysql", "mariadb", "mssql", "oracle")
COMMITS_ON_DDL = ("mysql", "mariadb", "oracle")  # making a table commits there, and cannot be rolled back
# What MySQL and MariaDB say of a row that does not fit, and SQLAlchemy files under the server's own troubles.
ROW_ERROR_NUMBERS = frozenset({1048, 1264, 1265, 1292, 1364, 1366, 1367, 1406, 1411, 3140, 4025})
PERMISSION_ERROR_NUMBERS = frozenset({1044, 1045, 1142, 1143, 1227, 1290, 1792, 1836})
DISK_FULL_ERROR_NUMBERS = frozenset({1021, 1114, 28})


def configure_connections(engine: sa.Engine) -> None:
    """What every new connection is told first."""
    name = engine.dialect.name

    def connected(connection: Any, _record: Any) -> None:
        if name == "sqlite":
            connection.isolation_level = None  # transactions begin where we say so
        cursor = connection.cursor()
        if name == "sqlite":
            if cursor.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID:
                connection.close()
                raise TargetUnavailable(
                    "The file is an eventfold store, and its rows are written by the store itself.",
                    "Leave target= away, or name another file.",
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
    """What an engine is made with."""
    match url.get_backend_name():
        case "sqlite":
            return {"connect_args": {"timeout": LOCK_TIMEOUT_S}}
        case name if name in SERVERS:
            return {"isolation_level": "READ COMMITTED", "pool_pre_ping": True, "pool_recycle": 3600}
        case _:
            return {}


def upsert_statement(table: sa.Table, name: str) -> sa.Executable | None:
    """The statement that writes a row, whole; None where the dialect has none: then it is deleted and inserted."""
    own = list(table.primary_key)
    key = [column.key for column in own]
    rest = [column.key for column in table.columns if column.key not in key]
    if name in ("mysql", "mariadb"):
        made = mysql.insert(table)
        return made.on_duplicate_key_update({each: made.inserted[each] for each in rest or key[:1]})
    if name in ("sqlite", "postgresql"):
        found = (sqlite if name == "sqlite" else postgresql).insert(table)
        if not rest:
            return found.on_conflict_do_nothing(index_elements=own)
        return found.on_conflict_do_update(index_elements=own, set_={each: found.excluded[each] for each in rest})
    return None


def lock_schema_changes(connection: sa.Connection) -> None:
    """Be the only one who makes or exchanges tables."""
    match connection.dialect.name:
        case "postgresql":
            connection.exec_driver_sql(
                "SELECT pg_advisory_xact_lock(hashtextextended('eventfold targets ' || current_schema(), 0))"
            )
        case "mysql" | "mariadb":
            sql = sa.text("SELECT get_lock(concat('eventfold.', left(database(), 50)), :patience)")
            if connection.execute(sql, {"patience": LOCK_TIMEOUT_S}).scalar() != 1:
                raise TargetUnavailable(
                    f"Somebody else has been making tables there for {LOCK_TIMEOUT_S} s.", "It is tried again."
                )
        case "mssql":
            connection.exec_driver_sql(
                "EXEC sp_getapplock @Resource = 'eventfold', @LockMode = 'Exclusive', @LockOwner = 'Transaction'"
            )
        case _:
            return  # one writer at a time, or no such lock


def unlock_schema_changes(connection: sa.Connection) -> None:
    """Let the next one in, where the end of the transaction does not."""
    if connection.dialect.name in ("mysql", "mariadb") and not connection.invalidated and not connection.closed:
        connection.execute(sa.text("SELECT release_lock(concat('eventfold.', left(database(), 50)))"))
        connection.commit()


def now(connection: sa.Connection) -> int:
    """The database's clock, in µs since 1970 UTC; of a file, or an unknown database: this machine's."""
    sql = CLOCK_SQL.get(connection.dialect.name)
    return time.time_ns() // 1000 if sql is None else int(connection.exec_driver_sql(sql).scalar_one())


def is_row_error(error: exc.SQLAlchemyError) -> bool:
    """Whether a database refused a row as it is."""
    if isinstance(error, exc.DBAPIError):
        if error.connection_invalidated:
            return False
        if isinstance(error, exc.DataError | exc.IntegrityError):
            return True
        number = _error_number(error)
        if number in PERMISSION_ERROR_NUMBERS:
            return False
        return isinstance(error, exc.ProgrammingError) or number in ROW_ERROR_NUMBERS
    return isinstance(error, exc.StatementError)  # it never left Python


@contextmanager
def translate_value_errors() -> Generator[None]:
    """Raises RowRefused on a key or a filter that cannot be what a column holds."""
    try:
        yield
    except exc.SQLAlchemyError as error:
        at_fault = isinstance(error, exc.DataError) or (
            isinstance(error, exc.StatementError) and not isinstance(error, exc.DBAPIError)
        )
        if at_fault:
            raise RowRefused(str(getattr(error, "orig", error))) from error
        raise


def _error_number(error: exc.DBAPIError) -> int:
    arguments: Any = getattr(error.orig, "args", ())
    return arguments[0] if arguments and isinstance(arguments[0], int) else 0


def translate_error(error: exc.SQLAlchemyError, address: str) -> EventfoldError:
    """TargetUnavailable, with the database's words."""
    origin = error.orig if isinstance(error, exc.DBAPIError) else error
    arguments: Any = getattr(origin, "args", ())
    said = str(arguments[1] if len(arguments) > 1 else origin).strip().split("\n")[0].rstrip(".")
    number = _error_number(error) if isinstance(error, exc.DBAPIError) else 0
    state = getattr(origin, "sqlstate", None) or ""
    words = said.lower()
    if number in PERMISSION_ERROR_NUMBERS or state in ("25006", "42501") or "readonly" in words or "read-only" in words:
        now_what = "Grant the user the right to write there, or name another database (target=…)."
    elif number in DISK_FULL_ERROR_NUMBERS or state == "53100" or " is full" in words:
        now_what = "Make room; it goes on where it was."
    elif isinstance(error, exc.ProgrammingError | exc.NotSupportedError | exc.CompileError):
        now_what = "Look at the SQL, and at the tables it names."
    else:
        now_what = "A runner tries again until the database answers, other calls do not; see whether it is up."
    return TargetUnavailable(f"{address} could not do it: {said}.", now_what, address=address, detail=said)


def is_conflict(error: BaseException | None) -> bool:
    """Whether a database ended a transaction for the sake of another: it may begin again."""
    if not isinstance(error, exc.DBAPIError):
        return False
    return _error_number(error) in (1205, 1213) or getattr(error.orig, "sqlstate", None) in ("40P01", "40001")
