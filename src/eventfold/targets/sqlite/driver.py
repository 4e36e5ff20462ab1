"""Rows in a SQLite file: the store's own, another one, or memory.

In the store's own file every transaction takes the writers' turn (the same lock as appends) and is kept short;
its commits are not fsynced one by one, since rows and checkpoint are lost or kept together and what is lost is folded
again. Knows: apsw, files. Does not know: projections.
"""

from __future__ import annotations

import os
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
from eventfold.targets.sql.driver import Parameters, damaged_text_error
from eventfold.targets.sql.statements import quote_identifier
from eventfold.targets.sqlite.statements import add_functions, order_column_name

LOCK_TIMEOUT_S = 30.0  # seconds to wait for the writers' turn
MAX_TRANSACTION_S = 0.05  # seconds a transaction of handlers may keep appenders of the same file waiting
WRITE_LOCK_BYTE = "120"  # the byte of the -shm file that SQLite locks for whoever writes
MAX_ROWS_PER_STATEMENT = 500  # rows written by one statement
MAX_STATEMENT_CHARS = 15_000  # characters of one: the driver keeps none prepared that is longer than 16,384
CHECKPOINT_PAGES = 4_000  # 16 MB of WAL


def _to_text(value: Any) -> Any:
    return None if value is None else str(value)


def _to_iso(value: Any) -> Any:
    return None if value is None else value.isoformat()


class SqliteDriver:
    """See driver.Driver. Exact kinds that SQLite has no type for are kept as text: decimals, moments, dates, UUIDs."""

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
    row_lock_clause = ""  # whoever writes is alone already

    def __init__(self, path: str) -> None:
        in_memory = path == ":memory:"
        self.path = path if in_memory else os.path.abspath(path)
        self.address = f"sqlite:{self.path}"
        self._file: File | None = None
        # The writers' lock is for processes; this one is for our threads. It knows which thread has it, at any moment.
        self._writer_lock: Any = threading.RLock()
        self._began_at = 0.0
        self._open_lock = threading.Lock()
        self._prepared: WeakSet[apsw.Connection] = WeakSet()
        self._inspected = False  # whether the path leads to a store is known
        self._guard, self._real_path, self._next_link_check = FileGuard(), self.path, 0.0
        self._immutable = False  # whether the file is closed, in a place where nothing can be written
        self._own_connections: Any = (
            SharedConnection(self._connect, _close_connection, _rollback_if_open)
            if in_memory
            else ConnectionPool(self._connect, _close_connection)
        )

    def acquire(self, write: bool, runs_user_code: bool) -> apsw.Connection | Loan[apsw.Connection]:
        """From the store file's own pool, or one of this driver's own."""
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
        """It is one; of what is in memory, that of the turn."""
        if isinstance(lent, Loan):
            assert lent.connection is not None
            return lent.connection
        return lent

    def release(self, lent: Any, write: bool, broken: bool) -> None:
        """Back to where it came from. The turn that an exception kept `begin` from giving back goes with it."""
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
                real = os.path.realpath(self.path)
                guard = FileGuard()
                try:
                    guard.acquire(real, create=True)
                    guard.lock_shared_early()
                    self._immutable = guard.is_wal_mode and is_readable_without_locks(real)
                    if _is_store(real, self._immutable):
                        self._file = File(self.path, readonly=False, full_sync=False, timeout=LOCK_TIMEOUT_S)
                        self._file.open(create=False)
                        guard.release()
                except OSError as error:
                    raise translate_errno(error.errno or 0, self.path) from error
                except BaseException:
                    guard.release()
                    self._file = None
                    raise
                self._guard, self._real_path = guard, real
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
            connection.close(force=True)  # at once: as long as it is there it holds its lock
            raise
        return connection

    def close(self) -> None:
        """Close everything. Nothing is checkpointed here: the log belongs to whoever writes next."""
        self._own_connections.close()
        self._guard.release()
        if self._file is not None:
            self._file.close()
        self._file, self._inspected = None, self.path == ":memory:"

    def quote_relation(self, name: str) -> str:
        """Quoted."""
        return quote_identifier(name)

    def quote_column(self, name: str) -> str:
        """Quoted."""
        return quote_identifier(name)

    def adapt_sql(self, text: str) -> str:
        """As it is."""
        return text

    def execute(self, connection: apsw.Connection, sql: str, parameters: Parameters = ()) -> list[tuple[Any, ...]]:
        """One statement."""
        return connection.execute(sql, parameters).fetchall()

    def executemany(self, connection: apsw.Connection, sql: str, parameters: Iterable[Parameters]) -> None:
        """One statement, many times."""
        connection.executemany(sql, parameters)

    def upsert(self, connection: apsw.Connection, statement: str, table: Table, rows: Sequence[Sequence[Any]]) -> None:
        """In the order of the key: neighbours then share the pages they are put on.

        Many rows a statement: other threads may run while SQLite is at one, and it is said when to go on only once.
        """
        ordered = sorted(rows, key=itemgetter(slice(len(table.key))))
        width = len(rows[0])  # the table's columns, and those that statements.py adds
        at_once = max(1, min(MAX_ROWS_PER_STATEMENT, MAX_STATEMENT_CHARS // (2 * width + 2)))
        rest = len(ordered) % at_once
        if len(ordered) > rest:
            head, one, tail = statement.partition(f"({','.join('?' * width)})")
            many = f"{head}{','.join([one] * at_once)}{tail}"
            for first in range(rest, len(ordered), at_once):
                connection.execute(many, list(chain.from_iterable(ordered[first : first + at_once])))
        connection.executemany(statement, ordered[:rest])

    def begin(self, connection: apsw.Connection) -> None:
        """Take the writers' turn, then the write lock."""
        if self._file is not None:
            self._writer_lock.acquire()
        try:
            if self._file is not None:
                self._file.lock.acquire()
            connection.execute("BEGIN IMMEDIATE")
        except BaseException:
            self._release_writer_lock()
            raise
        self._began_at = time.monotonic()

    def prepare_foreign_connection(self, connection: apsw.Connection) -> None:
        """It does."""

    def lock_schema_changes(self, connection: apsw.Connection) -> None:
        """Whoever writes is alone already."""

    def commit(self, connection: apsw.Connection) -> None:
        """Commit, and move the WAL into the file when it has grown, still in turn."""
        try:
            connection.execute("COMMIT")
            file = self._file
            if file is not None and not file.is_in_place() and file.damage is not None:
                raise file.damage
            if file is not None and file.wal_pages >= CHECKPOINT_PAGES:
                connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except BaseException as error:
            record_errno(error, connection)
            if connection.in_transaction:
                with suppress(apsw.Error):  # the error before it is the one to be raised; the connection is closed
                    connection.execute("ROLLBACK")
            raise
        finally:
            self._release_writer_lock()

    def rollback(self, connection: apsw.Connection) -> None:
        """Roll back and let the next writer in."""
        try:
            if connection.in_transaction:
                with suppress(apsw.Error):  # as above
                    connection.execute("ROLLBACK")
        finally:
            self._release_writer_lock()

    def _release_writer_lock(self) -> None:
        if self._file is not None:
            self._file.lock.release()
            if self._writer_lock._is_owned():
                self._writer_lock.release()

    def allow_full_scan(self, connection: apsw.Connection) -> AbstractContextManager[object]:
        """Nothing to be set."""
        return nullcontext()

    def now(self, connection: apsw.Connection) -> int:
        """This machine's clock: a SQLite file is not shared between machines."""
        return time.time_ns() // 1000

    def is_disconnect(self, connection: Any, error: BaseException) -> bool:
        """A file does not hang up."""
        return False

    def should_yield(self) -> bool:
        """In the store's own file: after a twentieth of a second."""
        return self._file is not None and time.monotonic() - self._began_at > MAX_TRANSACTION_S

    def key_condition(self, columns: Sequence[tuple[str, ColumnKind]], count: int) -> str:
        """A list of row values, answered from the primary key."""
        if len(columns) == 1:
            return f"{columns[0][0]} IN ({','.join('?' * count)})"
        one = f"({','.join('?' * len(columns))})"
        return f"({','.join(name for name, _ in columns)}) IN (VALUES {','.join([one] * count)})"

    def has_relation(self, connection: apsw.Connection, name: str) -> bool:
        """Whether anything of this name is there, whatever its case."""
        return bool(connection.execute("SELECT 1 FROM sqlite_schema WHERE lower(name) = lower(?)", (name,)).fetchall())

    def view_columns(self, connection: apsw.Connection, name: str) -> str:
        """Those of the row; not those that are only sorted by (see statements.py)."""
        found = [row[0] for row in connection.execute("SELECT name FROM pragma_table_info(?)", (name,))]
        second = {order_column_name(each) for each in found}
        return ", ".join(quote_identifier(each) for each in found if each not in second) or "*"

    def count_columns(self, connection: apsw.Connection, name: str) -> int:
        """By the table's own description."""
        return connection.execute("SELECT count(*) FROM pragma_table_info(?)", (name,)).fetchone()[0]  # type: ignore[index]

    def translate_error(self, error: BaseException) -> EventfoldError:
        """TargetUnavailable, with what to do about it."""
        match error:
            case EventfoldError():
                what, remedy = error.what, error.remedy
            case apsw.BusyError() | apsw.LockedError():
                what = f"{self.path} is locked by another program{self._describe_holder()}."
                remedy = "It is tried again; end that program, or its transaction."
            case apsw.CantOpenError() | apsw.IOError() | apsw.NoMemError():
                said = translate_error(error, self.path)
                what, remedy = said.what, said.remedy
            case apsw.ReadOnlyError() | apsw.PermissionsError() | apsw.AuthError():
                what = f"{self.path} cannot be written to ({error})."
                remedy = "Check the path, and the rights of the file and its folder."
            case apsw.FullError():
                what, remedy = (
                    f"There is no room for {self.path}: the disk is full.",
                    "Make room; it goes on where it was.",
                )
            case apsw.NotADBError():
                what, remedy = f"{self.path} is no SQLite file.", "Give the rows a file of their own."
            case UnicodeDecodeError():
                return damaged_text_error(self.address, error)
            case _:
                what = f"SQLite refused: {error} ({type(error).__name__})."
                remedy = "Look at the SQL, and at the tables it names."
        return TargetUnavailable(what, remedy, address=self.address, detail=str(error))

    def lock_holder(self) -> str:
        """The process that others wait for, where Linux tells: a writer in turn, or a program that takes no turns."""
        turn = _find_lock(f"{self.path}.lock", "FLOCK")
        writing = _find_lock(f"{self.path}-shm", "POSIX", WRITE_LOCK_BYTE)
        if writing.holder and turn.holder and writing.holder != turn.holder:
            return _describe_process(writing.holder)
        return _describe_process(turn.holder) if turn.waiting else ""

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
    """End the transaction of a call that could not end it itself."""
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def _close_connection(connection: apsw.Connection) -> None:
    with suppress(apsw.Error):  # what was committed does not depend on how a connection ends
        connection.close(force=True)


class _FileLock(NamedTuple):
    holder: str  # its process id, or ""
    waiting: bool


def _find_lock(path: str, kind: str, first: str = "0") -> _FileLock:
    """Who has a lock on a file, and whether others wait for it; nobody, where the system does not tell."""
    try:
        inode = os.stat(path).st_ino
        lines = [line.split() for line in Path("/proc/locks").read_text("ascii").splitlines()]
    except OSError:
        return _FileLock("", False)
    for words in lines:
        mine = words[1] == kind and words[3] == "WRITE" and words[5].endswith(f":{inode}") and words[6] == first
        if mine:
            return _FileLock(words[4], any(each[0] == words[0] and each[1] == "->" for each in lines))
    return _FileLock("", False)


def _describe_process(number: str) -> str:
    try:
        return f"process {number} ({Path(f'/proc/{number}/comm').read_text().strip()})"
    except OSError:
        return f"process {number}"
