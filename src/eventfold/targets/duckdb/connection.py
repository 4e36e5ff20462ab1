"""A DuckDB file that is open only while it is used: DuckDB allows one process at a time to have a file open.

The file is opened on first use, stays open for IDLE_TIMEOUT_S after the last use, and is then closed, so that an
analyst, a command or another runner can open it. Under continuous use it is closed for a moment every MAX_HOLD_S.
Knows: duckdb's connections, threads. Does not know: statements.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from pathlib import Path

import duckdb

from eventfold.errors import TargetUnavailable

LOCK_TIMEOUT_S = 20.0  # to wait for a file that another process has open
IDLE_TIMEOUT_S = 0.25  # after which an unused file is closed
MAX_HOLD_S = 5.0  # after which a file is closed even if it is used continuously
PAUSE_AFTER_HOLD_S = 0.1  # for which it stays closed then
RETRY_INTERVAL_S = 0.02
FILE_MAGIC = (8, b"DUCK")  # the offset and the bytes by which a DuckDB file is recognized


_open_files: dict[str, SharedDuckDb] = {}
_open_files_lock = threading.Lock()


def open_shared(path: str) -> SharedDuckDb:
    """Return the file at a path, shared by all its users in this process. Each call needs one call of `close`."""
    with _open_files_lock:
        file = SharedDuckDb(path) if path == ":memory:" else _open_files.setdefault(path, SharedDuckDb(path))
        file.references += 1
        return file


class SharedDuckDb:
    """One file, for all threads of this process; or an in-memory database, which stays open.

    Writers hold `write_lock`: at best, DuckDB rejects the later of two concurrent transactions that change one row.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.write_lock = threading.RLock()
        self.references = 0
        self._in_memory = path == ":memory:"
        self._lock = threading.RLock()
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._connections_in_use = 0
        self._opened_at = self._released_at = self._paused_until = 0.0
        self._timer: threading.Timer | None = None

    def acquire(self) -> duckdb.DuckDBPyConnection:
        """Return a connection for the caller alone. Raises duckdb.Error, TargetUnavailable."""
        with self._lock:
            if self._connection is None:
                self._connection = self._open()
                self._opened_at = time.monotonic()
            self._connections_in_use += 1
            return self._connection.cursor()

    def release(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Close the connection, and the file too if it was open for too long; else check later if it is idle."""
        connection.close()
        with self._lock:
            self._connections_in_use -= 1
            self._released_at = time.monotonic()
            if self._connections_in_use or self._in_memory or self._connection is None:
                return
            if self._released_at - self._opened_at > MAX_HOLD_S:
                self._close_file()
                self._paused_until = time.monotonic() + PAUSE_AFTER_HOLD_S
            elif self._timer is None:
                self._schedule_idle_check(IDLE_TIMEOUT_S)

    def close(self) -> None:
        """Remove one reference; close the file with the last one."""
        with _open_files_lock:
            self.references -= 1
            if self.references:
                return
            _open_files.pop(self.path, None)
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._close_file()

    def _open(self) -> duckdb.DuckDBPyConnection:
        time.sleep(max(0.0, self._paused_until - time.monotonic()))
        if not self._in_memory:
            self._check_header()
        deadline = time.monotonic() + LOCK_TIMEOUT_S
        while True:
            try:
                return duckdb.connect(self.path)
            except duckdb.IOException as error:
                if "lock" not in str(error).lower() or time.monotonic() > deadline:
                    raise
                time.sleep(RETRY_INTERVAL_S)

    def _check_header(self) -> None:
        """Raise TargetUnavailable for a file of another kind: DuckDB would download an extension to read it."""
        with suppress(FileNotFoundError, IsADirectoryError, PermissionError, NotADirectoryError):
            with Path(self.path).open("rb") as file:
                header = file.read(FILE_MAGIC[0] + len(FILE_MAGIC[1]))
            if header and header[FILE_MAGIC[0] :] != FILE_MAGIC[1]:
                raise TargetUnavailable(
                    f"{self.path} is not a DuckDB file.", "Name another file for the rows.", address=self.path
                )

    def _schedule_idle_check(self, seconds: float) -> None:
        self._timer = threading.Timer(seconds, self._close_if_idle)
        self._timer.daemon = True
        self._timer.start()

    def _close_if_idle(self) -> None:
        with self._lock:
            self._timer = None
            idle = time.monotonic() - self._released_at
            if self._connection is None or self._connections_in_use:
                return  # `release` schedules the next check
            if idle >= IDLE_TIMEOUT_S:
                self._close_file()
            else:
                self._schedule_idle_check(IDLE_TIMEOUT_S - idle)

    def _close_file(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def parse_lock_holder(message: str) -> str:
    """Describe the process that has the file open, by DuckDB's error message: "process 12 (python3)"."""
    _, marker, rest = message.partition("(PID ")
    number = rest.partition(")")[0]
    if not marker or not number.isdecimal():
        return "another process"
    with suppress(OSError):
        return f"process {number} ({Path(f'/proc/{number}/comm').read_text().strip()})"
    return "this process" if number == str(os.getpid()) else f"process {number}"
