"""A DuckDB file, held only while it is worked with: DuckDB lets one process at a time have it open.

It is opened when somebody needs it, kept for the moment in which they probably need it again, and let go of, so that an
analyst, a command or another runner gets in. Under steady work it is let go of every few seconds all the same.
Knows: duckdb's connections, threads, whose turn it is. Does not know: statements.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from pathlib import Path

import duckdb

from eventfold.errors import TargetUnavailable

LOCK_TIMEOUT_S = 20.0  # seconds to wait for a file that another process has open
IDLE_TIMEOUT_S = 0.25  # seconds a file stays open that nobody uses
MAX_HOLD_S = 5.0  # seconds after which it is let go of though it is used all the time
PAUSE_AFTER_HOLD_S = 0.1  # … for this long
RETRY_INTERVAL_S = 0.02
FILE_MAGIC = (8, b"DUCK")  # what stands where in every DuckDB file


_open_files: dict[str, SharedDuckDb] = {}
_open_files_lock = threading.Lock()


def open_shared(path: str) -> SharedDuckDb:
    """The file at a path: one for all who use it in this process. To be `shut` as often as it was asked for."""
    with _open_files_lock:
        found = SharedDuckDb(path) if path == ":memory:" else _open_files.setdefault(path, SharedDuckDb(path))
        found.references += 1
        return found


class SharedDuckDb:
    """One file (or memory, which is never let go of), for all threads of this process.

    `turn` is for whoever writes: of two transactions that change one row at once DuckDB refuses the later, at best.
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
        """A connection of one's own. Raises duckdb.Error, TargetUnavailable."""
        with self._lock:
            if self._connection is None:
                self._connection = self._open()
                self._opened_at = time.monotonic()
            self._connections_in_use += 1
            return self._connection.cursor()

    def release(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Done with it."""
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
        """One user less; the last one closes it."""
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
        ends = time.monotonic() + LOCK_TIMEOUT_S
        while True:
            try:
                return duckdb.connect(self.path)
            except duckdb.IOException as error:
                if "lock" not in str(error).lower() or time.monotonic() > ends:
                    raise
                time.sleep(RETRY_INTERVAL_S)

    def _check_header(self) -> None:
        """DuckDB would fetch what reads other kinds of files from the net."""
        with suppress(FileNotFoundError, IsADirectoryError, PermissionError, NotADirectoryError):
            with Path(self.path).open("rb") as begins:
                found = begins.read(FILE_MAGIC[0] + len(FILE_MAGIC[1]))
            if found and found[FILE_MAGIC[0] :] != FILE_MAGIC[1]:
                raise TargetUnavailable(
                    f"{self.path} is no DuckDB file.", "Give the rows a file of their own.", address=self.path
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
                return  # whoever gives it back looks again
            if idle >= IDLE_TIMEOUT_S:
                self._close_file()
            else:
                self._schedule_idle_check(IDLE_TIMEOUT_S - idle)

    def _close_file(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def parse_lock_holder(message: str) -> str:
    """Who has the file, as DuckDB says it: "process 12 (python3)"."""
    _, found, rest = message.partition("(PID ")
    number = rest.partition(")")[0]
    if not found or not number.isdecimal():
        return "another process"
    with suppress(OSError):
        return f"process {number} ({Path(f'/proc/{number}/comm').read_text().strip()})"
    return "this process" if number == str(os.getpid()) else f"process {number}"
