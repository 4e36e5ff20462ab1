"""The index of the write-ahead log (the file -shm), held so that no SQLite library begins it again under another one.

SQLite tells the first that opens the index from the others by a POSIX lock on one of its bytes, and the first one cuts
the file down to nothing. A second SQLite library in the process (pandas, the module `sqlite3`) does not see the locks
of the other, which are the process's own, and drops all of them whenever it closes the file: the next to open it takes
itself for the first, in this process or in another one, and whoever has the index mapped into memory dies of SIGBUS.
A lock of an open file description (Linux) is seen by every library and dropped by none.

Knows: how SQLite opens an index (sqlite.org/src/file/src/os_unix.c, unixLockSharedMemory). Does not know: connections.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress

from eventfold.engines.sqlite import byte_locks

OPENED = 128  # the byte that whoever has the index open holds a shared lock on
CUT_TO = 3  # bytes: the size to which SQLite cuts an index that nobody has open
OPENING_TIMEOUT_S = 1.0  # how long another process may be at cutting it
PAUSE_S = 0.001


def hold_index(database: str) -> int | None:
    """A descriptor that holds the index of a database, taken before SQLite opens it or afterwards; None if it cannot.

    It must stay open as long as this process uses the database: closing it drops the locks of SQLite's own descriptors.
    An index that nobody has open is cut, as by SQLite, and is read from the log again.
    """
    try:
        file, writable = _open(f"{database}-shm", database)
    except OSError:
        return None
    try:
        if _hold(file, writable):
            return file
    except BaseException:
        os.close(file)
        raise
    os.close(file)
    return None


def _open(path: str, database: str) -> tuple[int, bool]:
    """A descriptor of the index, and whether it may be written to. Who may write the database may write its index."""
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC), True
    except FileNotFoundError:
        if not os.access(database, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
            raise  # SQLite could open what is made here for reading only: let it make one itself
        store = os.stat(database)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, store.st_mode & 0o777)
        if os.geteuid() == 0:
            with suppress(OSError):
                os.fchown(file, store.st_uid, store.st_gid)
        return file, True
    except OSError:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC), False


def _hold(file: int, writable: bool) -> bool:
    if not writable and not byte_locks.is_locked(file, OPENED, 1):
        return False  # what is in it may be of a process that died, and cannot be cut: SQLite makes one in memory
    end = time.monotonic() + OPENING_TIMEOUT_S
    while True:
        if writable and byte_locks.lock(file, OPENED, 1, exclusive=True):
            os.ftruncate(file, CUT_TO)
            return byte_locks.lock(file, OPENED, 1)
        if byte_locks.lock(file, OPENED, 1):
            return True
        if time.monotonic() > end:
            return False
        time.sleep(PAUSE_S)
