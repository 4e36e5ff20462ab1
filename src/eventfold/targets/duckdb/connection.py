"""Room: a DuckDB file, held only while it is worked with: DuckDB lets one process at a time have it open.

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

PATIENCE = 20.0  # seconds to wait for a file that another process has open
IDLE = 0.25  # seconds a file stays open that nobody uses
HOLD = 5.0  # seconds after which it is let go of though it is used all the time
REST = 0.1  # … for this long
NAP = 0.02
BEGINNING = (8, b"DUCK")  # what stands where in every DuckDB file


_all: dict[str, Opened] = {}
_making = threading.Lock()


def opened(path: str) -> Opened:
    """The file at a path: one for all who use it in this process. To be `shut` as often as it was asked for."""
    with _making:
        found = Opened(path) if path == ":memory:" else _all.setdefault(path, Opened(path))
        found.shares += 1
        return found


class Opened:
    """One file (or memory, which is never let go of), for all threads of this process.

    `turn` is for whoever writes: of two transactions that change one row at once DuckDB refuses the later, at best.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.turn = threading.RLock()
        self.shares = 0
        self._in_memory = path == ":memory:"
        self._lock = threading.RLock()
        self._one: duckdb.DuckDBPyConnection | None = None
        self._users = 0
        self._since = self._given = self._rest_until = 0.0
        self._timer: threading.Timer | None = None

    def take(self) -> duckdb.DuckDBPyConnection:
        """A connection of one's own. Raises duckdb.Error, TargetUnavailable."""
        with self._lock:
            if self._one is None:
                self._one = self._open()
                self._since = time.monotonic()
            self._users += 1
            return self._one.cursor()

    def give(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Done with it."""
        connection.close()
        with self._lock:
            self._users -= 1
            self._given = time.monotonic()
            if self._users or self._in_memory or self._one is None:
                return
            if self._given - self._since > HOLD:
                self._let_go()
                self._rest_until = time.monotonic() + REST
            elif self._timer is None:
                self._watch(IDLE)

    def shut(self) -> None:
        """One user less; the last one closes it."""
        with _making:
            self.shares -= 1
            if self.shares:
                return
            _all.pop(self.path, None)
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._let_go()

    def _open(self) -> duckdb.DuckDBPyConnection:
        time.sleep(max(0.0, self._rest_until - time.monotonic()))
        if not self._in_memory:
            self._recognise()
        ends = time.monotonic() + PATIENCE
        while True:
            try:
                return duckdb.connect(self.path)
            except duckdb.IOException as error:
                if "lock" not in str(error).lower() or time.monotonic() > ends:
                    raise
                time.sleep(NAP)

    def _recognise(self) -> None:
        """DuckDB would fetch what reads other kinds of files from the net."""
        with suppress(FileNotFoundError, IsADirectoryError, PermissionError, NotADirectoryError):
            with Path(self.path).open("rb") as begins:
                found = begins.read(BEGINNING[0] + len(BEGINNING[1]))
            if found and found[BEGINNING[0] :] != BEGINNING[1]:
                raise TargetUnavailable(
                    f"{self.path} is no DuckDB file.", "Give the rows a file of their own.", address=self.path
                )

    def _watch(self, seconds: float) -> None:
        self._timer = threading.Timer(seconds, self._look)
        self._timer.daemon = True
        self._timer.start()

    def _look(self) -> None:
        with self._lock:
            self._timer = None
            idle = time.monotonic() - self._given
            if self._one is None or self._users:
                return  # whoever gives it back looks again
            if idle >= IDLE:
                self._let_go()
            else:
                self._watch(IDLE - idle)

    def _let_go(self) -> None:
        if self._one is not None:
            self._one.close()
            self._one = None


def holder_in(message: str) -> str:
    """Who has the file, as DuckDB says it: "process 12 (python3)"."""
    _, found, rest = message.partition("(PID ")
    number = rest.partition(")")[0]
    if not found or not number.isdecimal():
        return "another process"
    with suppress(OSError):
        return f"process {number} ({Path(f'/proc/{number}/comm').read_text().strip()})"
    return "this process" if number == str(os.getpid()) else f"process {number}"
