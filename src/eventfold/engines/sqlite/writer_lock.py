"""The writer lock: processes that share a file take turns to write, by flock on a separate file.

SQLite's own busy handler can starve one of two writers (1,757 commits/s against 1); a blocking flock is fair.
The lock is never on the store file itself: closing any descriptor of that file would drop SQLite's own locks.
The lock file also contains a note of the last acknowledged event, so that a log that lost its end is detected.
Knows: files and threads. Does not know: SQL.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from contextlib import suppress

from eventfold.concurrency.waiting import Waiters
from eventfold.engines.sqlite.errors import translate_errno
from eventfold.engines.sqlite.file_replacement import DirectoryStamp
from eventfold.engines.sqlite.open_files import retry_with_free_descriptors
from eventfold.errors import StoreBusy, StoreUnavailable

try:
    import fcntl
except ImportError:  # Windows: SQLite's own locking alone, correct and less fair; no notes
    fcntl = None  # type: ignore[assignment]

MAX_NOTE_BYTES = 256
POLL_INTERVAL_S = 0.25  # a waiting caller does not depend on a single wake-up
PATIENCE_S = 0.02  # the time for which a caller that can wait lets others acquire the lock first
FIRST_RETRY_S, LAST_RETRY_S = 0.0005, 0.002


class WriterLock:
    """Held around every write transaction and checkpoint. Not reentrant; one per store file and opener."""

    def __init__(self, path: str, timeout: float) -> None:
        self._store_path, self.path = path, path + ".lock"
        self._directory = DirectoryStamp(os.path.dirname(os.path.abspath(self.path)))
        self._timeout = timeout
        self._file: int | None = None
        self._waiter: _Waiter | None = None  # of an acquire that timed out: still in the kernel's queue

    def acquire(self, timeout: float | None = None) -> None:
        """Acquire the lock within `timeout` seconds, by default the store's timeout. Raises StoreBusy."""
        if fcntl is None:
            return
        seconds = self._timeout if timeout is None else timeout
        if self._waiter is None or self._waiter.done:
            self._waiter, file = None, self._open()
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                self._waiter = _Waiter(file)
            except OSError as error:
                raise self._lock_error(error) from error
        if not self._waiter.wait(seconds):
            if self._waiter.done:  # it was granted and released before this call
                return self.acquire(timeout)
            raise StoreBusy(
                f"Another process has been writing for {seconds:g} s without a pause ({self.path}).",
                "Nothing was written: find that process, or allow more time (timeout=…).",
                path=self.path,
                timeout=seconds,
            )

    def acquire_after_others(self, patience: float = PATIENCE_S) -> None:
        """Acquire the lock while no caller of another opener waits for it; after `patience` seconds queue with them.

        A waiting caller is woken when the lock is released, and then nearly always comes before one that tries again
        after a pause. So callers of `acquire` do not wait for this one, except in the middle of its own turn.
        Raises StoreBusy.
        """
        if fcntl is None:
            return
        ends, pause = time.monotonic() + patience, FIRST_RETRY_S
        while self._waiter is None or self._waiter.done:
            self._waiter, file = None, self._open()
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() + pause > ends:
                    break
            except OSError as error:
                raise self._lock_error(error) from error
            time.sleep(pause)
            pause = min(2 * pause, LAST_RETRY_S)
        self.acquire()

    def try_acquire(self) -> bool:
        """Acquire the lock if it is free, without a place in the queue. Returns whether it was acquired."""
        if fcntl is None:
            return True
        if self._waiter is not None and not self._waiter.done:
            return False
        self._waiter, file = None, self._open()
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def release(self) -> None:
        """Release the lock, if it is held."""
        if self._waiter is not None:
            self._waiter.cancel()
        if fcntl is not None and self._file is not None:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def is_held(self) -> bool:
        """Whether any process, also this one, holds the lock."""
        if fcntl is None:
            return False
        try:
            file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # no writer has created it yet
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
        except OSError:
            return True
        finally:
            os.close(file)

    def write_note(self, text: str) -> None:
        """Write the note, one line. Only while the lock is held; not synced."""
        if self._file is not None:
            try:
                os.pwrite(self._file, f"{text}\n".encode(), 0)
            except OSError:  # no space: the earlier note is still true, only older
                return

    def read_note(self) -> str:
        """The last note, or an empty string. Raises StoreUnavailable if it exists and cannot be read."""
        if fcntl is None:
            return ""
        try:
            file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                line, end, _ = os.pread(file, MAX_NOTE_BYTES, 0).partition(b"\n")
                return line.decode("ascii", "replace") if end else ""  # an incomplete note is ignored
            finally:
                os.close(file)
        except (FileNotFoundError, PermissionError):
            return ""
        except OSError as error:  # without the note a log that lost its end would not be detected
            raise translate_errno(error.errno or 0, self.path) from error

    def close(self) -> None:
        """Close the file. A thread that still waits for the lock closes it when the lock is granted."""
        if self._file is not None and (self._waiter is None or not self._waiter.defer_close()):
            os.close(self._file)
        self._file = self._waiter = None

    __del__ = close

    def close_unless_waiting(self) -> None:
        """Close the file until the lock is needed again, unless a thread waits for it. Only while it is not held."""
        if self._waiter is None:
            self.close()

    def abandon_after_fork(self) -> None:
        """In a forked child: close the parent's descriptor, so that the lock ends with the parent."""
        if self._file is not None:
            os.close(self._file)
        self._file = self._waiter = None

    def _open(self) -> int:
        if self._file is not None:
            mark = self._directory.current()
            if mark is not None and mark == self._directory.remembered:
                return self._file
            if os.fstat(self._file).st_nlink:
                self._directory.remember(mark)
                return self._file
            os.close(self._file)  # it was removed: other processes lock a new file
            self._file = None
        try:
            try:
                self._file = retry_with_free_descriptors(lambda: os.open(self.path, os.O_RDWR | os.O_CLOEXEC))
            except FileNotFoundError:
                self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
                self._copy_permissions(self._file)
        except OSError as error:
            raise translate_errno(error.errno or 0, self.path) from error
        return self._file

    def _copy_permissions(self, file: int) -> None:
        """Give the lock file the permissions of the store, and as root its owner: all its writers need the lock."""
        store = os.stat(self._store_path)
        os.fchmod(file, store.st_mode & 0o666)
        if os.geteuid() == 0:
            os.fchown(file, store.st_uid, store.st_gid)

    def _lock_error(self, error: OSError) -> StoreUnavailable:
        return StoreUnavailable(
            f"The lock file {self.path} cannot be locked ({error.strerror}).",
            "Nothing was written: keep the store on a local file system.",
            path=self.path,
        )


class _Request:
    """A caller that waits for the lock. `granted`: the lock was acquired for this caller."""

    def __init__(self) -> None:
        self.granted = False


class _Waiter:
    """A blocking flock in a thread, since it queues fairly and cannot time out.

    After a timeout the thread stays in the kernel's queue, for the next caller; if the lock is granted when no caller
    waits, it is released. A waiting caller is an entry of a deque, removed in one operation: by the thread that
    acquires the lock or by the caller that gives up, never by both.
    """

    def __init__(self, file: int) -> None:
        self._file = file
        self._requests: deque[_Request] = deque((_Request(),))  # before the thread starts, or it would release the lock
        self._to_close: deque[int] = deque((file,))  # removed by whichever thread closes it
        self._close = False
        self._waiters = Waiters()
        self.done = False
        threading.Thread(target=self._run, name="eventfold-flock", daemon=True).start()

    def wait(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds. Returns whether the lock was acquired."""
        end = time.monotonic() + timeout
        try:
            request = self._requests[0]
        except IndexError:
            request = _Request()
            self._requests.append(request)
        try:
            while not self.done and (left := end - time.monotonic()) > 0:
                self._waiters.wait(self._is_done, min(left, POLL_INTERVAL_S))
        except BaseException:
            if self._end_request(request):  # interrupted while the lock was granted
                self._unlock()
            raise
        return self._end_request(request)

    def cancel(self) -> None:
        """Remove the waiting callers: they timed out, or an exception ended them."""
        self._requests.clear()

    def _is_done(self) -> bool:
        return self.done

    def _end_request(self, request: _Request) -> bool:
        """Withdraw a request. Returns whether the lock was already acquired for it."""
        try:
            self._requests.remove(request)
        except ValueError:  # the thread has removed it, and sets `granted` next
            while not self.done:
                time.sleep(0)
            return request.granted
        return False

    def defer_close(self) -> bool:
        """Let the thread close the file when it is done. Returns False if it is done and the caller must close it."""
        self._close = True
        if not self.done:
            return True
        try:
            self._to_close.pop()
        except IndexError:
            return True
        return False

    def _run(self) -> None:
        assert fcntl is not None
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            self._requests.popleft().granted = True
        except IndexError:
            self._unlock()
        self.done = True
        self._waiters.wake()
        if self._close:
            with suppress(IndexError):
                os.close(self._to_close.pop())

    def _unlock(self) -> None:
        assert fcntl is not None
        fcntl.flock(self._file, fcntl.LOCK_UN)
