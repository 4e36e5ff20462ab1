"""Rows in a SQLite file: the store's own, another one, or memory.

In the store's own file every transaction takes the writer lock (the same lock as appends) and is short. Its commits are
not fsynced one by one: a crash loses rows and checkpoint together, and lost events are folded again. Knows: apsw,
files. Does not know: projections.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import date, datetime
from decimal import Decimal
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID
from weakref import WeakSet

import apsw

from eventfold.core.table import ColumnKind, Convert, Table
from eventfold.engines.sqlite.connection import connect_immutable, is_readable_without_locks
from eventfold.engines.sqlite.errors import connect, record_errno, translate_errno, translate_error
from eventfold.engines.sqlite.file import PRESENCE_CHECK_INTERVAL_S, File
from eventfold.engines.sqlite.file_guards import FileGuard, refuse_links
from eventfold.engines.sqlite.schema import APPLICATION_ID
from eventfold.errors import EventfoldError, StoreUnavailable, TargetUnavailable
from eventfold.targets.sql.connections import ConnectionPool, Loan, SharedConnection
from eventfold.targets.sql.driver import MISSING_COLUMN_REMEDY, Parameters, damaged_text_error
from eventfold.targets.sql.statements import quote_identifier
from eventfold.targets.sqlite.statements import add_functions, order_column_name

LOCK_TIMEOUT_S = 30.0  # to wait for the writer lock
MAX_TRANSACTION_S = 0.05  # the time for which a transaction of handlers may block appends to the same file
WRITE_LOCK_BYTE = "120"  # the byte of the -shm file that SQLite locks for a writer
MAX_ROWS_PER_STATEMENT = 500
MAX_STATEMENT_CHARS = 15_000  # apsw does not cache prepared statements longer than 16,384
CHECKPOINT_PAGES = 4_000  # 16 MB of WAL
_MISSING_COLUMN = re.compile(r'no such column: "?([^"\s]+)')


def _to_text(value: Any) -> Any:
    return None if value is None else str(value)


def _to_iso(value: Any) -> Any:
    return None if value is None else value.isoformat()


class SqliteDriver:
    """See driver.Driver. Decimals, moments, dates and UUIDs are stored as text: SQLite has no exact type for them."""

    column_types: Mapping[ColumnKind, str] = {
        "text": "TEXT",
        "int": "INTEGER",
        "float": "REAL",
        "bool": "INTEGER",
        "bytes": "BLOB",
        "decimal": "TEXT",
        "moment": "TEXT",
        "date": "TEXT",
        "uuid": "TEXT",
        "json": "TEXT",
    }
    encoders: Mapping[ColumnKind, Convert] = {"decimal": _to_text, "moment": _to_iso, "date": _to_iso, "uuid": _to_text}
    decoders: Mapping[ColumnKind, Convert] = {
        "bool": lambda v: None if v is None else bool(v),
        "decimal": lambda v: None if v is None else Decimal(v),
        "moment": lambda v: None if v is None else datetime.fromisoformat(v),
        "date": lambda v: None if v is None else date.fromisoformat(v),
        "uuid": lambda v: None if v is None else UUID(v),
    }
    errors: tuple[type[BaseException], ...] = (apsw.Error, StoreUnavailable, UnicodeDecodeError)
    row_errors: tuple[type[BaseException], ...] = (
        apsw.ConstraintError,
        apsw.MismatchError,
        apsw.TooBigError,
        apsw.RangeError,
    )
    value_errors: tuple[type[BaseException], ...] = (apsw.MismatchError, apsw.TooBigError, apsw.RangeError)
    max_name_bytes: int | None = None
    table_suffix = "STRICT, WITHOUT ROWID"
    row_lock_clause = ""  # a transaction that writes excludes all other writers
    quiet_page_events = 6_000  # 8 ms: adjacent rows share pages, each of which is written once for each commit
    inserts_new_rows = True
    releases_interpreter = False  # apsw releases it at each step, and has to reacquire it from the other thread

    def __init__(self, path: str) -> None:
        in_memory = path == ":memory:"
        self.path = path if in_memory else os.path.abspath(path)
        self.address = f"sqlite:{self.path}"
        self._file: File | None = None
        # The file's writer lock is between processes; this one is between threads, and knows which thread has it.
        self._writer_lock: Any = threading.RLock()
        self._began_at = 0.0
        self._open_lock = threading.Lock()
        self._prepared: WeakSet[apsw.Connection] = WeakSet()
        self._inspected = False  # whether `_inspect_path` has found out if the path leads to a store
        self._guard, self._real_path, self._next_link_check = FileGuard(), self.path, 0.0
        self._immutable = False  # whether no process has the file open, and its folder is not writable
        self._own_connections: Any = (
            SharedConnection(self._connect, _close_connection, _rollback_if_open)
            if in_memory
            else ConnectionPool(self._connect, _close_connection)
        )

    def acquire(self, write: bool, runs_user_code: bool) -> apsw.Connection | Loan[apsw.Connection]:
        """See Driver. The connection is of the store file's pool, or of this driver's own."""
        if not self._inspected:
            self._inspect_path()
        if self._file is None:
            if write and time.monotonic() > self._next_link_check:
                refuse_links(self._real_path)
                self._next_link_check = time.monotonic() + PRESENCE_CHECK_INTERVAL_S
            return self._own_connections.acquire()
        connection = self._file.writer() if write else self._file.reader()
        if connection not in self._prepared:
            add_functions(connection)
            self._prepared.add(connection)
        return connection

    def connection(self, lent: apsw.Connection | Loan[apsw.Connection]) -> apsw.Connection:
        """See Driver. For an in-memory database: the loan's connection."""
        if isinstance(lent, Loan):
            assert lent.connection is not None
            return lent.connection
        return lent

    def release(self, lent: Any, write: bool, broken: bool) -> None:
        """See Driver. Also releases the writer lock if an exception kept `begin` from releasing it."""
        if self._file is None:
            self._own_connections.release(lent, broken)
        elif broken:
            self._file.pool.discard(lent)
        elif write:
            self._file.pool.return_writer(lent)
        else:
            self._file.pool.return_reader(lent)
        if write and self._writer_lock._is_owned():
            self._release_writer_lock()

    def _inspect_path(self) -> None:
        with self._open_lock:
            if not self._inspected and self.path != ":memory:":
                real_path = os.path.realpath(self.path)
                guard = FileGuard()
                try:
                    guard.acquire(real_path, create=True)
                    guard.lock_shared_early()
                    self._immutable = guard.is_wal_mode and is_readable_without_locks(real_path)
                    if _is_store(real_path, self._immutable):
                        self._file = File(self.path, readonly=False, full_sync=False, timeout=LOCK_TIMEOUT_S)
                        self._file.open(create=False)
                        guard.release()
                except OSError as error:
                    raise translate_errno(error.errno or 0, self.path) from error
                except BaseException:
                    guard.release()
                    self._file = None
                    raise
                self._guard, self._real_path = guard, real_path
            self._inspected = True

    def _connect(self) -> apsw.Connection:
        if self._immutable:
            connection = connect_immutable(self._real_path)
            add_functions(connection)
            return connection
        connection = connect(self.path)
        try:
            self._guard.write_entry_mark()
            connection.set_busy_timeout(int(LOCK_TIMEOUT_S * 1000))
            if self.path != ":memory:" and connection.pragma("journal_mode") != "wal":
                connection.pragma("journal_mode", "wal")
            self._guard.lock_shared()
            connection.pragma("synchronous", "normal")
            connection.pragma("cache_size", -16_000)  # KiB
            add_functions(connection)
        except BaseException as error:
            record_errno(error, connection)
            connection.close(force=True)  # not later by garbage collection: until then it holds its lock
            raise
        return connection

    def close(self) -> None:
        """Close everything, without checkpointing the WAL: the next writer does that."""
        self._own_connections.close()
        self._guard.release()
        if self._file is not None:
            self._file.close()
        self._file, self._inspected = None, self.path == ":memory:"

    def quote_relation(self, name: str) -> str:
        """See Driver."""
        return quote_identifier(name)

    def quote_column(self, name: str) -> str:
        """See Driver."""
        return quote_identifier(name)

    def adapt_sql(self, text: str) -> str:
        """Return the SQL unchanged: apsw's parameter mark is `?`."""
        return text

    def execute(self, connection: apsw.Connection, sql: str, parameters: Parameters = ()) -> list[tuple[Any, ...]]:
        """See Driver."""
        return connection.execute(sql, parameters).fetchall()

    def update_row(self, connection: apsw.Connection, sql: str, parameters: Parameters) -> bool:
        """See Driver."""
        return bool(self.execute(connection, sql, parameters))

    def executemany(self, connection: apsw.Connection, sql: str, parameters: Iterable[Parameters]) -> None:
        """See Driver."""
        connection.executemany(sql, parameters)

    def upsert(self, connection: apsw.Connection, statement: str, table: Table, rows: Sequence[Sequence[Any]]) -> None:
        """See Driver. Rows are written in the order of the key, so that adjacent rows share pages.

        One statement writes many rows: apsw releases the GIL during each statement, and has to reacquire it once only.
        Their numbers are few, so that each statement stays prepared.
        """
        if len(rows) == 1:
            connection.execute(statement, rows[0])
            return
        ordered = sorted(rows, key=itemgetter(*range(len(table.key))))
        width = len(rows[0])  # the table's columns, and the order columns that statements.py adds
        one = f"({','.join('?' * width)})"
        head, _, tail = statement.partition(one)
        most = max(1, min(MAX_ROWS_PER_STATEMENT, MAX_STATEMENT_CHARS // (len(one) + 1)))
        values, first = list(chain.from_iterable(ordered)), 0
        while rest := len(ordered) - first:
            count = most if rest >= most else 1 << rest.bit_length() - 1
            sql = f"{head}{','.join([one] * count)}{tail}"
            connection.execute(sql, values[first * width : (first + count) * width])
            first += count

    def begin(self, connection: apsw.Connection) -> None:
        """Take the file's writer lock, then SQLite's write lock. Appends that wait for the file are written first."""
        if self._file is not None:
            self._writer_lock.acquire()
        try:
            if self._file is not None:
                self._file.lock.acquire_after_others()
            connection.execute("BEGIN IMMEDIATE")
        except BaseException:
            self._release_writer_lock()
            raise
        self._began_at = time.monotonic()

    def prepare_foreign_connection(self, connection: apsw.Connection) -> None:
        """Do nothing: the engine's connections read values as this driver's do."""

    def lock_schema_changes(self, connection: apsw.Connection) -> None:
        """Do nothing: a transaction that writes excludes all other writers."""

    def begin_rows(self, connection: apsw.Connection, several: bool) -> None:
        """Do nothing: no commit of rows waits for the disk, and there are no locks on rows or tables."""

    def commit(self, connection: apsw.Connection) -> None:
        """Commit, and checkpoint a WAL that has grown long, before the writer lock is released."""
        try:
            connection.execute("COMMIT")
            file = self._file
            if file is not None and not file.presence.is_in_place() and file.presence.damage is not None:
                raise file.presence.damage
            if file is not None and file.wal_pages >= CHECKPOINT_PAGES:
                connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except BaseException as error:
            record_errno(error, connection)
            if connection.in_transaction:
                with suppress(apsw.Error):  # raise the first error, not this one; the connection will be closed
                    connection.execute("ROLLBACK")
            raise
        finally:
            self._release_writer_lock()

    def rollback(self, connection: apsw.Connection) -> None:
        """Roll back, and release the writer lock."""
        try:
            if connection.in_transaction:
                with suppress(apsw.Error):  # see `commit`
                    connection.execute("ROLLBACK")
        finally:
            self._release_writer_lock()

    def _release_writer_lock(self) -> None:
        if self._file is not None:
            self._file.lock.release()
            if self._writer_lock._is_owned():
                self._writer_lock.release()

    def allow_full_scan(self, connection: apsw.Connection) -> AbstractContextManager[object]:
        """Do nothing: no setting restricts full scans."""
        return nullcontext()

    def now(self, connection: apsw.Connection) -> int:
        """Return the time of this machine's clock: a SQLite file is not shared between machines."""
        return time.time_ns() // 1000

    def is_disconnect(self, connection: Any, error: BaseException) -> bool:
        """Return False: a file does not disconnect."""
        return False

    def should_yield(self) -> bool:
        """Whether a transaction in the store's own file has lasted more than MAX_TRANSACTION_S."""
        return self._file is not None and time.monotonic() - self._began_at > MAX_TRANSACTION_S

    def key_condition(self, columns: Sequence[tuple[str, ColumnKind]], count: int) -> str:
        """See Driver: a list of row values, which SQLite looks up by the primary key."""
        if len(columns) == 1:
            return f"{columns[0][0]} IN ({','.join('?' * count)})"
        one = f"({','.join('?' * len(columns))})"
        return f"({','.join(name for name, _ in columns)}) IN (VALUES {','.join([one] * count)})"

    def has_relation(self, connection: apsw.Connection, name: str) -> bool:
        """Whether the schema has anything of this name, compared without case."""
        return bool(connection.execute("SELECT 1 FROM sqlite_schema WHERE lower(name) = lower(?)", (name,)).fetchall())

    def view_columns(self, connection: apsw.Connection, name: str) -> str:
        """The columns of the fields, without the order columns (see statements.py)."""
        names = [row[0] for row in connection.execute("SELECT name FROM pragma_table_info(?)", (name,))]
        second = {order_column_name(each) for each in names}
        return ", ".join(quote_identifier(each) for each in names if each not in second) or "*"

    def count_columns(self, connection: apsw.Connection, name: str) -> int:
        """See Driver."""
        return connection.execute("SELECT count(*) FROM pragma_table_info(?)", (name,)).fetchone()[0]  # type: ignore[index]

    def translate_error(self, error: BaseException) -> EventfoldError:
        """See Driver: TargetUnavailable, with a remedy for the kind of error."""
        match error:
            case EventfoldError():
                what, remedy = error.what, error.remedy
            case apsw.BusyError() | apsw.LockedError():
                what = f"{self.path} is locked by another program{self._describe_holder()}."
                remedy = "A runner retries. End that program, or its transaction."
            case apsw.CantOpenError() | apsw.IOError() | apsw.NoMemError():
                translated = translate_error(error, self.path)
                what, remedy = translated.what, translated.remedy
            case apsw.ReadOnlyError() | apsw.PermissionsError() | apsw.AuthError():
                what = f"{self.path} cannot be written to ({error})."
                remedy = "Check the path, and the permissions of the file and its folder."
            case apsw.FullError():
                what = f"{self.path} cannot grow: the disk is full."
                remedy = "Free disk space. A runner then continues from its checkpoint."
            case apsw.NotADBError():
                what, remedy = f"{self.path} is not a SQLite file.", "Name another file for the rows."
            case UnicodeDecodeError():
                return damaged_text_error(self.address, error)
            case apsw.SQLError() if (column := _MISSING_COLUMN.search(str(error))) is not None:
                what, remedy = f"The rows have no column {column[1]}.", MISSING_COLUMN_REMEDY
            case _:
                what = f"SQLite refused: {error} ({type(error).__name__})."
                remedy = "Check the SQL, and the tables it names."
        return TargetUnavailable(what, remedy, address=self.address, detail=str(error))

    def lock_holder(self) -> str:
        """See the port: the holder of the writer lock, or a program that writes without taking it. Linux only."""
        writer_lock = _find_lock(f"{self.path}.lock", "FLOCK")
        write_lock = _find_lock(f"{self.path}-shm", "POSIX", WRITE_LOCK_BYTE)
        if write_lock.holder and writer_lock.holder and write_lock.holder != writer_lock.holder:
            return _describe_process(write_lock.holder)
        return _describe_process(writer_lock.holder) if writer_lock.waiting else ""

    def _describe_holder(self) -> str:
        holder = (
            _find_lock(f"{self.path}-shm", "POSIX", WRITE_LOCK_BYTE).holder
            or _find_lock(f"{self.path}.lock", "FLOCK").holder
        )
        return f" ({_describe_process(holder)})" if holder and holder != str(os.getpid()) else ""


def _is_store(path: str, immutable: bool) -> bool:
    probe = connect_immutable(path) if immutable else connect(path, flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        probe.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        return probe.pragma("application_id") == APPLICATION_ID
    except BaseException as error:
        record_errno(error, probe)
        raise
    finally:
        _close_connection(probe)


def _rollback_if_open(connection: apsw.Connection) -> None:
    """Roll back the transaction of a call that an exception kept from ending it."""
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def _close_connection(connection: apsw.Connection) -> None:
    with suppress(apsw.Error):  # committed data does not depend on how a connection is closed
        connection.close(force=True)


class _FileLock(NamedTuple):
    holder: str  # the id of the process that holds the lock, or ""
    waiting: bool


def _find_lock(path: str, kind: str, first: str = "0") -> _FileLock:
    """The holder of a lock on a file, and whether others wait for it; ("", False) if the system does not report locks.

    `kind` and `first`, the lock's first byte, are as in /proc/locks.
    """
    try:
        inode = os.stat(path).st_ino
        lines = [line.split() for line in Path("/proc/locks").read_text("ascii").splitlines()]
    except OSError:
        return _FileLock("", False)
    for words in lines:
        matches = words[1] == kind and words[3] == "WRITE" and words[5].endswith(f":{inode}") and words[6] == first
        if matches:
            return _FileLock(words[4], any(each[0] == words[0] and each[1] == "->" for each in lines))
    return _FileLock("", False)


def _describe_process(number: str) -> str:
    try:
        return f"process {number} ({Path(f'/proc/{number}/comm').read_text().strip()})"
    except OSError:
        return f"process {number}"
