"""Room: the queue of writers. Processes that share a file take turns by flock, in a file of its own.

SQLite's own busy handler lets one of two writers starve (1,757 commits/s against 1); a blocking flock is fair.
The lock is never on the store file itself: closing any descriptor of that would drop SQLite's own locks.
The file also holds a note: the last event that was acknowledged, so that a log that lost its end is noticed.
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
POLL_INTERVAL_S = 0.25  # a caller that waits relies on no single wake-up


class WriterLock:
    """Held around every write transaction and checkpoint. Not reentrant; one per store file and opener."""

    def __init__(self, path: str, timeout: float) -> None:
        self._store_path, self.path = path, path + ".lock"
        self._directory = DirectoryStamp(os.path.dirname(os.path.abspath(self.path)))
        self._timeout = timeout
        self._file: int | None = None
        self._waiter: _Waiter | None = None  # of an acquire that gave up: still in the kernel's queue

    def acquire(self, timeout: float | None = None) -> None:
        """Take the lock, within `timeout` seconds, by default the store's. Raises StoreBusy, holding nothing."""
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
            if self._waiter.done:  # it came, and went again, before we asked
                return self.acquire(timeout)
            raise StoreBusy(
                f"Another process has been writing for {seconds:g} s without a pause ({self.path}).",
                "Nothing was written: find that process, or allow more time (timeout=…).",
                path=self.path,
                timeout=seconds,
            )

    def release(self) -> None:
        """Let the next writer in. Harmless where it is not held."""
        if self._waiter is not None:
            self._waiter.cancel()
        if fcntl is not None and self._file is not None:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def is_held(self) -> bool:
        """Whether it is held, here or in another process."""
        if fcntl is None:
            return False
        try:
            file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # no one has written yet
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
        except OSError:
            return True
        finally:
            os.close(file)

    def write_note(self, text: str) -> None:
        """Leave a line for whoever opens the store next. Only while the lock is held; not synced."""
        if self._file is not None:
            try:
                os.pwrite(self._file, f"{text}\n".encode(), 0)
            except OSError:  # no room: the note before it stays true, it only says less
                return

    def read_note(self) -> str:
        """The line that was left last, or nothing. Raises StoreUnavailable if it is there and cannot be read."""
        if fcntl is None:
            return ""
        try:
            file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                line, end, _ = os.pread(file, MAX_NOTE_BYTES, 0).partition(b"\n")
                return line.decode("ascii", "replace") if end else ""  # half a note is none
            finally:
                os.close(file)
        except (FileNotFoundError, PermissionError):
            return ""
        except OSError as error:  # without the note a log that lost its end would pass for whole
            raise translate_errno(error.errno or 0, self.path) from error

    def close(self) -> None:
        """Give up the file. A thread that still waits for the lock closes it when its turn comes."""
        if self._file is not None and (self._waiter is None or not self._waiter.defer_close()):
            os.close(self._file)
        self._file = self._waiter = None

    __del__ = close

    def close_unless_waiting(self) -> None:
        """Give up the file until the lock is needed again, unless a thread waits for it. Only where it is not held."""
        if self._waiter is None:
            self.close()

    def abandon_after_fork(self) -> None:
        """In a forked child: let go of the parent's descriptor, so that the lock ends with the parent."""
        if self._file is not None:
            os.close(self._file)
        self._file = self._waiter = None

    def _open(self) -> int:
        if self._file is not None:
            mark = self._directory.current()
            if self._directory.is_unchanged(mark):
                return self._file
            if os.fstat(self._file).st_nlink:
                self._directory.remember(mark)
                return self._file
            os.close(self._file)  # someone has removed it: others queue at another file now
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
        """Whoever may write the store may queue for it: the same rights, and from root the same owner."""
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
    """One who waits for the lock. `given`: it came for this one."""

    def __init__(self) -> None:
        self.granted = False


class _Waiter:
    """A blocking flock in a thread, since it queues fairly and cannot time out.

    Whoever gives up leaves it in the queue, for the next to wait in; if the lock comes when nobody wants it, it is
    given back. Who wants it is an entry of a deque, taken out in a single step: of a lock that comes and a caller that
    gives up, exactly one does that.
    """

    def __init__(self, file: int) -> None:
        self._file = file
        self._requests: deque[_Request] = deque(
            (_Request(),)
        )  # before the thread is there: it would give the lock back
        self._to_close: deque[int] = deque((file,))  # taken out by the one that closes it
        self._close = False
        self._waiters = Waiters()
        self.done = False
        threading.Thread(target=self._run, name="eventfold-flock", daemon=True).start()

    def wait(self, timeout: float) -> bool:
        """Whether the lock came within `timeout` seconds."""
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
            if self._end_request(request):  # interrupted as it came
                self._unlock()
            raise
        return self._end_request(request)

    def cancel(self) -> None:
        """Nobody wants it: whoever did has given up, or was ended by an exception before it could."""
        self._requests.clear()

    def _is_done(self) -> bool:
        return self.done

    def _end_request(self, request: _Request) -> bool:
        """Whether the lock has come for this one; it does not from here on."""
        try:
            self._requests.remove(request)
        except ValueError:  # the thread has taken it out, and is about to say so
            while not self.done:
                time.sleep(0)
            return request.granted
        return False

    def defer_close(self) -> bool:
        """Whether the thread will close the file, since it is still in use there."""
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
