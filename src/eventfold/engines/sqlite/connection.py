"""The settings of connections to store files, and connections to files that can be read without locks.

The latter are closed databases in directories where this process cannot create files. SQLite cannot open a database in
WAL mode if its -wal and -shm files are missing and cannot be created: on a read-only mount, or in a directory of
another user. If the WAL is empty, the database file itself is complete.
Knows: pragmas, which files are beside a database, permissions. Does not know: events.
"""

from __future__ import annotations

import ctypes
import os
import sys
from urllib.parse import quote

import apsw

from eventfold.engines.sqlite.errors import connect
from eventfold.errors import StoreReadOnly

# SQLite's mutex of a connection, which each column of each row acquires, costs a quarter of the time of a read. The
# pool lends a connection for reading to one thread at a time, so no other thread can wait for it.
READER_FLAGS = apsw.SQLITE_OPEN_NOMUTEX
IMMUTABLE_FLAGS = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI


def configure(connection: apsw.Connection, *, timeout: float, full_sync: bool) -> None:
    """Set what each connection to a store file needs. `timeout`: to wait for locks, in seconds."""
    set_busy_timeout(connection, timeout)
    # Closing must not checkpoint outside the writer lock, nor remove a WAL that another process writes to.
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    keep = ctypes.c_int(1)
    connection.file_control("main", apsw.SQLITE_FCNTL_PERSIST_WAL, ctypes.addressof(keep))
    connection.wal_autocheckpoint(0)
    connection.pragma("synchronous", "full" if full_sync else "normal")
    connection.pragma("cache_size", -16_000)  # KiB
    connection.pragma("temp_store", "memory")
    if sys.platform == "darwin":
        connection.pragma("fullfsync", 1)  # on macOS a plain fsync leaves data in the drive's cache


def set_busy_timeout(connection: apsw.Connection, seconds: float) -> None:
    """Let a connection wait this long for locks of other programs."""
    connection.set_busy_timeout(int(seconds * 1000))


def is_readable_without_locks(path: str) -> bool:
    """Whether a database in WAL mode is complete without its WAL, and this process may not create files beside it.

    False also if SQLite can open it normally, with locks: it then sees what other processes write. Raises
    StoreReadOnly if the database is incomplete and cannot be opened normally.
    """
    folder = os.path.dirname(path) or "."
    if os.access(folder, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        return False
    log, index = size_of(f"{path}-wal"), size_of(f"{path}-shm")
    if not log:
        return log is None or index is None
    if index is not None:
        return False
    raise StoreReadOnly(
        f"{path} has events in its write-ahead log, whose index (-shm) is not there and cannot be made in {folder}.",
        "Copy the file and its log (-wal) to a folder that can be written to, and open it there.",
        path=path,
    )


def connect_immutable(path: str, more_flags: int = 0) -> apsw.Connection:
    """Open a connection that reads a file as immutable, without locks."""
    return connect(immutable_uri(path), flags=IMMUTABLE_FLAGS | more_flags, statementcachesize=200)


def immutable_uri(path: str) -> str:
    """The URI by which SQLite opens a file as immutable."""
    return f"file:{quote(os.fsencode(path))}?immutable=1"


def size_of(path: str) -> int | None:
    """The size of a file in bytes, or None if there is none."""
    try:
        return os.stat(path).st_size
    except OSError:
        return None
