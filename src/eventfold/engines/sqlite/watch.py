"""Room: noticing commits: our own at once, those of other processes by asking SQLite every few milliseconds.

While nothing happens it waits for the system to tell that the log was written to, where the system does (Linux).
Knows: `PRAGMA data_version`, which changes when another connection has committed. Does not know: followers.

Room: being told by Linux that a file was written to, so that whoever waits for that need not keep asking.

Knows: inotify, which Python lacks and the C library has; nothing is opened. Does not know: SQLite, what was written.
A hint and no more: where nobody tells, or it is told too early, asking now and then must do.
"""

from __future__ import annotations

import ctypes
import os
import select
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import apsw

from eventfold.concurrency.waiting import Flag
from eventfold.concurrency.watchers import call_all
from eventfold.core.mutex import Mutex
from eventfold.engines.sqlite.file import File
from eventfold.errors import EventfoldError

IN_MODIFY = 2  # IN_MODIFY


class FileNotifier:
    """Waits until one file is written to. `wake` from any thread; waiting and closing are for one."""

    def __init__(self, path: str) -> None:
        """Raises OSError where the system does not tell: it is not Linux, or too many files are watched already."""
        if sys.platform != "linux":
            raise OSError("only Linux tells")
        libc = ctypes.CDLL(None, use_errno=True)
        self._inotify = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._inotify < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        if libc.inotify_add_watch(self._inotify, os.fsencode(path), IN_MODIFY) < 0:
            os.close(self._inotify)
            raise OSError(ctypes.get_errno(), "inotify_add_watch")
        self._wake_event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._mutex = Mutex()
        self._closed = False
        self._poll = select.poll()
        for each in (self._inotify, self._wake_event):
            self._poll.register(each, select.POLLIN)

    def wait(self, seconds: float) -> bool:
        """Whether the file was written to since the last wait; at the latest when the time is over, or on `wake`."""
        self._poll.poll(seconds * 1000)
        with suppress(BlockingIOError):
            return bool(os.read(self._inotify, 65_536))
        return False

    def wake(self) -> None:
        """End a wait, this one or the next."""
        if sys.platform == "linux":
            self._mutex.run(self._wake)

    def _wake(self) -> None:
        if sys.platform == "linux" and not self._closed:
            os.eventfd_write(self._wake_event, 1)

    def close(self) -> None:
        """Let go of both descriptors."""
        self._mutex.run(self._close)

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            os.close(self._inotify)
            os.close(self._wake_event)

    def __del__(self) -> None:
        if hasattr(self, "_woken") and hasattr(self, "_closed"):  # no thread came to wait, and to close it
            self._close()


def open_notifier(path: str) -> FileNotifier | None:
    """A notice of a file, or None where the system does not tell."""
    try:
        return FileNotifier(path)
    except (OSError, AttributeError):
        return None


POLL_INTERVAL_S = 0.004  # seconds: p50 of 2 ms to notice another process, while there is traffic
SLOW_POLL_INTERVAL_S = (
    0.008  # seconds, once nothing has come for LONG, where nobody tells: p50 of 4 ms, at half the cost
)
NOTIFIER_TIMEOUT_S = 0.1  # seconds, where the system tells, should it ever not
NOTIFIER_AFTER_S, SLOW_POLL_AFTER_S = (
    0.05,
    2.0,
)  # seconds without a change: a commit follows soon on the write that is told of, if not at once
ERROR_RETRY_INTERVAL_S = 0.25  # seconds between looks while the file cannot be asked
IDLE_THREAD_S = 0.25  # seconds the thread stays when nobody follows: one follower after the other needs no thread each
PRESENCE_CHECK_INTERVAL_S = 0.5  # seconds: how often to look whether the file was replaced


class Watch:
    """Rings bells. One thread for all of an engine's followers: it stays a moment for the next one."""

    def __init__(self, file: File) -> None:
        self._file = file
        self._callbacks: list[Callable[[], None]] = []
        self._mutex = Mutex()
        self._stop = Flag()
        self._thread: threading.Thread | None = None
        self._notifier: FileNotifier | None = None

    def notify(self) -> None:
        """Something was committed by this engine."""
        call_all(tuple(self._callbacks))

    def add(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Ring this bell from now on; returns how to stop."""
        self._mutex.run(self._add, callback)
        return lambda: self._mutex.run(self._remove, callback)

    def _add(self, callback: Callable[[], None]) -> None:
        self._callbacks.append(callback)
        if self._thread is None:
            self._stop.set()  # of a thread that was started when an exception fell, before it could be kept
            self._stop, self._notifier = Flag(), open_notifier(self._file.real_path + "-wal")
            run, name = self._run, "eventfold-watch"
            thread = threading.Thread(target=run, args=(self._stop, self._notifier), name=name, daemon=True)
            thread.start()
            self._thread = thread  # only now: an interrupt in between leaves nothing that cannot be joined

    def _remove(self, callback: Callable[[], None]) -> None:
        if callback in self._callbacks:
            self._callbacks.remove(callback)

    def _end_unused(self, stop: Flag) -> bool:
        """End the thread that this flag stops, unless somebody follows again."""
        if self._callbacks and self._stop is stop:
            return False
        stop.set()
        if self._stop is stop:
            self._thread = None
        return True

    def close(self) -> None:
        """Stop the thread, and wait for it."""
        thread = self._mutex.run(self._end)
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=10)

    def _end(self) -> threading.Thread | None:
        self._stop.set()
        if self._notifier is not None:
            self._notifier.wake()
        ended, self._thread = self._thread, None
        return ended

    def _run(self, stop: Flag, notifier: FileNotifier | None) -> None:
        """Poll until told to stop. While the file cannot be asked, whoever looks is to find out why, and is rung."""
        pause = 0.0
        while not stop.wait(pause):
            try:
                self._poll(stop, notifier)
                pause = 0.0
            except (EventfoldError, apsw.Error):
                self.notify()
                pause = ERROR_RETRY_INTERVAL_S
        if notifier is not None:
            notifier.close()

    def _poll(self, stop: Flag, notifier: FileNotifier | None) -> None:
        connection = self._file.reader()
        try:
            seen, changed = -1, time.monotonic()
            looked = now = used = changed
            while not self._file.pool.is_paused:
                if notifier is not None and now - changed > NOTIFIER_AFTER_S:
                    if notifier.wait(NOTIFIER_TIMEOUT_S):
                        changed = time.monotonic()  # the commit comes after what is written of it
                else:
                    stop.wait(POLL_INTERVAL_S if now - changed < SLOW_POLL_AFTER_S else SLOW_POLL_INTERVAL_S)
                if stop.is_set():
                    break
                now = time.monotonic()
                used = now if self._callbacks else used
                if now - used > IDLE_THREAD_S and self._mutex.run(self._end_unused, stop):
                    break
                version = connection.pragma("data_version")
                if now - looked > PRESENCE_CHECK_INTERVAL_S:
                    looked = now
                    if not self._file.is_in_place():
                        self._file.check()
                if version != seen:
                    seen, changed = version, now
                    self.notify()
        except BaseException:
            self._file.pool.discard(connection)
            raise
        self._file.pool.return_reader(connection)
