"""Room: the queue of writers. Processes that share a file take turns by flock, in a file of its own.

SQLite's own busy handler lets one of two writers starve (1,757 commits/s against 1); a blocking flock is fair.
The lock is never on the store file itself: closing any descriptor of that would drop SQLite's own locks.
Knows: files and threads. Does not know: SQL.
"""

from __future__ import annotations

import os
import threading

from eventfold.errors import StoreBusy, StoreReadOnly

try:
    import fcntl
except ImportError:  # Windows: SQLite's own locking alone, correct and less fair
    fcntl = None  # type: ignore[assignment]


class WriterLock:
    """Held around every write transaction and checkpoint. Not reentrant; one per engine."""

    def __init__(self, path: str, timeout: float) -> None:
        self.path = path + ".lock"
        self._timeout = timeout
        self._file: int | None = None
        self._helper: _Waiter | None = None

    def acquire(self) -> None:
        """Take the lock; wait for at most the timeout. Raises StoreBusy, having taken nothing."""
        if fcntl is None:
            return
        if self._file is None:
            self._file = self._open()
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._wait(self._file)

    def release(self) -> None:
        """Let the next writer in."""
        if fcntl is not None and self._file is not None:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Give up the file; a helper still waiting lets go by itself."""
        if self._file is not None and self._helper is None:
            os.close(self._file)
        self._file = None

    def _open(self) -> int:
        try:
            return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise StoreReadOnly(
                f"The lock file {self.path} cannot be written ({error.strerror}).",
                "Nothing was written: check the rights of the folder.",
                path=self.path,
            ) from error

    def _wait(self, file: int) -> None:
        # A blocking flock queues fairly and cannot time out, so a thread waits in it for us.
        waiter = _Waiter(file)
        if not waiter.wait(self._timeout):
            self._file, self._helper = None, waiter  # its descriptor is its own now
            raise StoreBusy(
                f"Another process has been writing for {self._timeout:g} s without a pause ({self.path}).",
                "Nothing was written: find that process, or allow more time (timeout=…).",
                path=self.path,
                timeout=self._timeout,
            )


class _Waiter:
    """One blocking flock in a thread; if nobody wants it any more when it comes, it is released and closed."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._state = threading.Lock()
        self._got = threading.Event()
        self._abandoned = False
        threading.Thread(target=self._run, name="eventfold-flock", daemon=True).start()

    def wait(self, timeout: float) -> bool:
        if self._got.wait(timeout):
            return True
        with self._state:
            self._abandoned = not self._got.is_set()
            return not self._abandoned

    def _run(self) -> None:
        assert fcntl is not None
        fcntl.flock(self._file, fcntl.LOCK_EX)
        with self._state:
            if self._abandoned:
                os.close(self._file)
            else:
                self._got.set()
