"""Room: rows in a SQLite file: the store's own, another one, or memory.

In the store's own file every transaction takes the writers' turn (the same lock as appends) and is kept short;
its commits are not fsynced one by one, since rows and checkpoint are lost or kept together and what is lost is folded
again. Knows: apsw, files. Does not know: projections.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import apsw

from eventfold.engines.sqlite.connect import File
from eventfold.engines.sqlite.lock import WriterLock
from eventfold.engines.sqlite.schema import APPLICATION_ID
from eventfold.errors import EventfoldError, StoreUnavailable, TargetUnavailable
from eventfold.projection.columns import Convert, Kind
from eventfold.targets.driver import Parameters

PATIENCE = 30.0  # seconds to wait for the writers' turn
SLICE = 0.05  # seconds a transaction of handlers may keep appenders of the same file waiting
CHECKPOINT_PAGES = 4_000  # 16 MB of WAL


def _text(value: Any) -> Any:
    return None if value is None else str(value)


def _iso(value: Any) -> Any:
    return None if value is None else value.isoformat()


class SqliteDriver:
    """See driver.Driver. Exact kinds that SQLite has no type for are kept as text: decimals, moments, dates, UUIDs."""

    types: Mapping[Kind, str] = {
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
    pack: Mapping[Kind, Convert] = {"decimal": _text, "moment": _iso, "date": _iso, "uuid": _text}
    unpack: Mapping[Kind, Convert] = {
        "bool": lambda v: None if v is None else bool(v),
        "decimal": lambda v: None if v is None else Decimal(v),
        "moment": lambda v: None if v is None else datetime.fromisoformat(v),
        "date": lambda v: None if v is None else date.fromisoformat(v),
        "uuid": lambda v: None if v is None else UUID(v),
    }
    errors: tuple[type[BaseException], ...] = (apsw.Error, StoreUnavailable)
    refusals: tuple[type[BaseException], ...] = (
        apsw.ConstraintError,
        apsw.MismatchError,
        apsw.TooBigError,
        apsw.RangeError,
    )
    table_end = "STRICT, WITHOUT ROWID"

    def __init__(self, path: str, clock: Callable[[], int] | None = None) -> None:
        self.shared = path == ":memory:"
        self.path = path if self.shared else os.path.abspath(path)
        self.address = f"sqlite:{self.path}"
        self._clock = clock or (lambda: time.time_ns() // 1000)
        self._file: File | None = None
        self._held = threading.local()
        self._locks: dict[int, WriterLock] = {}
        self._wal: dict[int, int] = {}
        self._opening = threading.Lock()

    def connect(self) -> apsw.Connection:
        """A new connection, with the same settings as the log's where the file is a store."""
        if self.shared:
            return apsw.Connection(":memory:")
        with self._opening:
            is_store = self._file is not None or self._is_store()
            if is_store and self._file is None:
                self._file = File(self.path, readonly=False, full=False, timeout=PATIENCE)
                self._file.open(create=False)
        if self._file is not None:
            connection = self._file.writer()
            self._locks[id(connection)] = WriterLock(self.path, PATIENCE)
            connection.set_wal_hook(self._grown)
        else:
            connection = apsw.Connection(self.path)
            connection.set_busy_timeout(int(PATIENCE * 1000))
            if connection.pragma("journal_mode") != "wal":
                connection.pragma("journal_mode", "wal")
            connection.pragma("synchronous", "normal")
        connection.pragma("cache_size", -16_000)  # KiB
        return connection

    def _is_store(self) -> bool:
        if not os.path.exists(self.path):
            return False
        connection = apsw.Connection(self.path, flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            return connection.pragma("application_id") == APPLICATION_ID
        finally:
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            connection.close()

    def _grown(self, connection: apsw.Connection, _name: str, pages: int) -> int:
        self._wal[id(connection)] = pages
        return apsw.SQLITE_OK

    def close(self, connection: apsw.Connection) -> None:
        """Close a connection; nothing is checkpointed outside the writers' lock."""
        lock = self._locks.pop(id(connection), None)
        if lock is not None:
            lock.close()
        if self._file is not None:
            self._file.discard(connection)
        else:
            connection.close()

    def shut(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def sql(self, text: str) -> str:
        """As it is."""
        return text

    def execute(self, connection: apsw.Connection, sql: str, parameters: Parameters = ()) -> list[tuple[Any, ...]]:
        """One statement."""
        return connection.execute(sql, parameters).fetchall()

    def executemany(self, connection: apsw.Connection, sql: str, parameters: Iterable[Parameters]) -> None:
        """One statement, many times."""
        connection.executemany(sql, parameters)

    def begin(self, connection: apsw.Connection) -> None:
        """Take the writers' turn, then the write lock."""
        if self._file is not None:
            self._file.check()
        lock = self._locks.get(id(connection))
        if lock is not None:
            lock.acquire()
        try:
            connection.execute("BEGIN IMMEDIATE")
        except BaseException:
            if lock is not None:
                lock.release()
            raise
        self._held.since = time.monotonic()

    def exclusive(self, connection: apsw.Connection) -> None:
        """Whoever writes is alone already."""

    def commit(self, connection: apsw.Connection) -> None:
        """Commit, and move the WAL into the file when it has grown, still in turn."""
        try:
            connection.execute("COMMIT")
            if self._wal.get(id(connection), 0) >= CHECKPOINT_PAGES:
                self._wal[id(connection)] = 0
                connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        finally:
            self._release(connection)

    def rollback(self, connection: apsw.Connection) -> None:
        """Roll back and let the next writer in."""
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        finally:
            self._release(connection)

    def _release(self, connection: apsw.Connection) -> None:
        if connection.in_transaction:  # a failed COMMIT: the turn is over all the same
            connection.execute("ROLLBACK")
        lock = self._locks.get(id(connection))
        if lock is not None:
            lock.release()

    def now(self, connection: apsw.Connection) -> int:
        """This machine's clock: a SQLite file is not shared between machines."""
        return self._clock()

    def overdue(self) -> bool:
        """In the store's own file: after a twentieth of a second."""
        return self._file is not None and time.monotonic() - self._held.since > SLICE

    def keys(self, columns: Sequence[tuple[str, Kind]], count: int) -> str:
        """A list of row values, answered from the primary key."""
        if len(columns) == 1:
            return f"{columns[0][0]} IN ({','.join('?' * count)})"
        one = f"({','.join('?' * len(columns))})"
        return f"({','.join(name for name, _ in columns)}) IN (VALUES {','.join([one] * count)})"

    def exists(self, connection: apsw.Connection, name: str) -> bool:
        """Whether anything of this name is there, whatever its case."""
        return bool(connection.execute("SELECT 1 FROM sqlite_schema WHERE lower(name) = lower(?)", (name,)).fetchall())

    def width(self, connection: apsw.Connection, name: str) -> int:
        """By the table's own description."""
        return connection.execute("SELECT count(*) FROM pragma_table_info(?)", (name,)).fetchone()[0]  # type: ignore[index]

    def translated(self, error: BaseException) -> EventfoldError:
        """TargetUnavailable, with what to do about it."""
        match error:
            case EventfoldError():
                what, now = error.what, error.now
            case apsw.BusyError() | apsw.LockedError():
                what = f"{self.path} is locked by another program{self._by()}."
                now = "It is tried again; end that program, or its transaction."
            case apsw.ReadOnlyError() | apsw.PermissionsError() | apsw.CantOpenError() | apsw.AuthError():
                what = f"{self.path} cannot be written to ({error})."
                now = "Check the path, and the rights of the file and its folder."
            case apsw.FullError():
                what, now = (
                    f"There is no room for {self.path}: the disk is full.",
                    "Make room; it goes on where it was.",
                )
            case apsw.NotADBError():
                what, now = f"{self.path} is no SQLite file.", "Give the rows a file of their own."
            case _:
                what = f"SQLite refused: {error} ({type(error).__name__})."
                now = "Look at the SQL, and at the tables it names."
        return TargetUnavailable(what, now, address=self.address, detail=str(error))

    def blocker(self) -> str:
        """The process that holds the writers' lock, where Linux tells."""
        return self._by().strip()

    def _by(self) -> str:
        try:
            inode = os.stat(f"{self.path}.lock").st_ino
            for line in Path("/proc/locks").read_text("ascii").splitlines():
                words = line.split()
                if "->" not in words and words[1] == "FLOCK" and words[5].endswith(f":{inode}"):
                    return f" (process {words[4]})"
        except (OSError, IndexError):
            return ""
        return ""
