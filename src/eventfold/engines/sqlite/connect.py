"""Room: opening a store file: recognising it, creating it, the settings that make it durable, staying alive.

Knows: files, pragmas, forks. Does not know: events. The file is never opened outside SQLite: closing such a
descriptor would drop SQLite's locks for the whole process, and acknowledged commits with them.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import sys
import time
from collections import deque
from typing import Any

import apsw

from eventfold.engines.sqlite.faults import translated
from eventfold.engines.sqlite.schema import APPLICATION_ID, CREATE, LAYOUT
from eventfold.errors import NotAStore, StoreClosed, StoreDamaged, StoreNotFound, StoreReadOnly, StoreVersionMismatch

# Whether SQLite has the fix for the WAL-reset bug (sqlite.org/wal.html#walresetbug) does not matter here:
# checkpoints run under the writer's lock only. Writers in other programs are not ours to hold back.
_forks = 0
_inherited: list[Any] = []  # connections of a parent process: closing them in the child would break the parent's locks
_open: set[File] = set()


class File:
    """A store file opened by this process: its connections, and whether it is still the file that was opened."""

    def __init__(self, path: str, *, readonly: bool, full: bool, timeout: float) -> None:
        self.path = os.path.abspath(path)
        self.readonly, self._full, self._timeout = readonly, full, timeout
        self._forks = _forks
        self._idle: deque[apsw.Connection] = deque()
        self._all: list[apsw.Connection] = []
        self._closed = False
        self._identity: tuple[int, int] | None = None
        self._wal_identity: tuple[int, int] | None = None
        self.damage: StoreDamaged | None = None

    def open(self, create: bool) -> tuple[str, int]:
        """Recognise or create the store. Returns its id and epoch. Raises the errors that `Store` documents."""
        self._check_path(create)
        connection = self._connect(create)
        try:
            fresh = self._recognise(connection, create)
            if fresh:
                _create(connection)
            store_id, epoch = connection.execute("SELECT id, epoch FROM store").fetchone()
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)
        self._all.append(connection)
        self._identity = _identity(self.path)
        _open.add(self)
        return store_id, epoch

    def _check_path(self, create: bool) -> None:
        if os.path.isdir(self.path):
            raise NotAStore(f"{self.path} is a folder.", "Give the path of a file in it, for example store.db.", path=self.path)
        if not os.path.exists(self.path):
            if not create or self.readonly:
                raise StoreNotFound(
                    f"There is no store at {self.path}.", f"Check the path, or create one: eventfold init {self.path}.", path=self.path
                )
            if not os.path.isdir(os.path.dirname(self.path)):
                raise StoreNotFound(
                    f"The folder of {self.path} does not exist.", "Create the folder first.", path=self.path
                )

    def _recognise(self, connection: apsw.Connection, create: bool) -> bool:
        """Whether the file is new. Raises NotAStore or StoreVersionMismatch if it is someone else's."""
        application = connection.pragma("application_id")
        layout = connection.pragma("user_version")
        if application == APPLICATION_ID and layout == LAYOUT:
            return False
        if application == APPLICATION_ID and layout > LAYOUT:
            raise StoreVersionMismatch(
                f"{self.path} has layout {layout}, and this eventfold knows layouts up to {LAYOUT}.",
                "Upgrade eventfold: pip install -U eventfold.",
                path=self.path,
                layout=layout,
            )
        if application == 0 and layout == 0 and not connection.execute("SELECT 1 FROM sqlite_schema").fetchone():
            if create and not self.readonly:
                return True
            raise NotAStore(f"{self.path} is an empty file.", f"Create a store in it: eventfold init {self.path}.", path=self.path)
        raise NotAStore(
            f"{self.path} is an SQLite database of another program.", "Give the store a file of its own.", path=self.path
        )

    def _connect(self, create: bool = False) -> apsw.Connection:
        flags = apsw.SQLITE_OPEN_READONLY if self.readonly else apsw.SQLITE_OPEN_READWRITE
        if create and not self.readonly:
            flags |= apsw.SQLITE_OPEN_CREATE
        connection = apsw.Connection(self.path, flags=flags, statementcachesize=200)
        try:
            self._configure(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _configure(self, connection: apsw.Connection) -> None:
        connection.set_busy_timeout(int(self._timeout * 1000))
        # Closing must neither checkpoint outside the writer's lock nor unlink a WAL someone still writes to.
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        keep = ctypes.c_int(1)
        connection.file_control("main", apsw.SQLITE_FCNTL_PERSIST_WAL, ctypes.addressof(keep))
        if not self.readonly and not connection.readonly("main"):
            # Only a store, or nothing yet, is switched to WAL: another program's file is left as it is.
            if connection.pragma("application_id") in (0, APPLICATION_ID) and connection.pragma("journal_mode") != "wal":
                if connection.pragma("application_id") or not connection.execute("SELECT 1 FROM sqlite_schema").fetchone():
                    connection.pragma("journal_mode", "wal")
        connection.wal_autocheckpoint(0)
        connection.pragma("synchronous", "full" if self._full else "normal")
        connection.pragma("cache_size", -16_000)  # KiB
        connection.pragma("temp_store", "memory")
        if sys.platform == "darwin":
            connection.pragma("fullfsync", 1)  # there, a plain fsync leaves data in the drive's cache
        connection.pragma("busy_timeout", int(self._timeout * 1000))

    def reader(self) -> apsw.Connection:
        """A connection for the caller alone, to be given back by `done`."""
        self.check()
        try:
            return self._idle.pop()
        except IndexError:
            connection = self._connect()
            self._all.append(connection)
            return connection

    def done(self, connection: apsw.Connection) -> None:
        """Give a reader back."""
        self._idle.append(connection)

    def writer(self) -> apsw.Connection:
        """A new connection for the writer. Raises StoreReadOnly if the file cannot be written."""
        self.check()
        connection = None if self.readonly else self._connect()
        if connection is None or connection.readonly("main"):
            raise StoreReadOnly(
                f"{self.path} is open for reading only.",
                "Nothing was written: open it without readonly=True, with rights to write the file and its folder.",
                path=self.path,
            )
        self._all.append(connection)
        return connection

    def discard(self, connection: apsw.Connection) -> None:
        """Close a connection that cannot be trusted any more."""
        if connection in self._all:
            self._all.remove(connection)
        connection.close()

    def check(self) -> None:
        """Raise if this file may not be used: closed, inherited over a fork, or no longer the file at its path."""
        if self._forks != _forks:
            raise StoreClosed(
                f"{self.path} was opened before this process was forked.",
                "Open a new Store in the child; the parent's connections cannot be shared.",
                path=self.path,
            )
        if self._closed:
            raise StoreClosed(f"The store {self.path} was closed.", "Open it again.", path=self.path)
        if self.damage is not None:
            raise self.damage

    def in_place(self) -> bool:
        """Whether the path still leads to the file, and the WAL, that this process has open. Two stat calls, 3 µs."""
        if _identity(self.path) != self._identity:
            self.damage = self._gone("was replaced or removed")
            return False
        wal = _identity(self.path + "-wal")
        if wal != self._wal_identity:
            if self._wal_identity is None:
                self._wal_identity = wal
            else:
                self.damage = self._gone("lost its write-ahead log")
                return False
        return True

    def _gone(self, what: str) -> StoreDamaged:
        return StoreDamaged(
            f"{self.path} {what} while this process had it open.",
            "Close the store and open it again; if a backup was put in its place, followers must start from it.",
            path=self.path,
        )

    def close(self) -> None:
        """Close every connection. In a forked child nothing is closed: it is the parent's."""
        _open.discard(self)
        if self._closed or self._forks != _forks:
            return
        self._closed = True
        for connection in self._all:
            connection.close()
        self._all.clear()
        self._idle.clear()


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # stat opens nothing, so no lock is touched
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _create(connection: apsw.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        if not connection.execute("SELECT 1 FROM sqlite_schema").fetchone():  # another process may have been first
            connection.execute(CREATE)
            connection.execute(
                "INSERT INTO store VALUES (1, ?, 1, ?)", (secrets.token_hex(16), time.time_ns() // 1000)
            )
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {LAYOUT}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def backup(source: apsw.Connection, path: str) -> None:
    """Copy a store page by page while it is in use; the copy begins a new epoch, so that cursors are verified."""
    if os.path.exists(path):
        raise NotAStore(f"{path} exists already.", "Give the backup a path of its own.", path=path)
    try:
        target = apsw.Connection(path)
        try:
            with target.backup("main", source, "main") as copying:
                while not copying.done:
                    copying.step(1_000)
            target.pragma("journal_mode", "wal")
            target.execute("UPDATE store SET epoch = epoch + 1")
            target.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        finally:
            target.close()
    except apsw.Error as error:
        raise translated(error, path) from error


def _forked() -> None:
    global _forks
    _forks += 1
    _inherited.extend(_open)
    _open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
