"""Detects commits: those of this engine at once, those of other processes by polling SQLite every few milliseconds.

While nothing happens, the thread waits for the operating system to report a write to the WAL (inotify, Linux only).
That is only a hint: where no notification comes, or it comes too early, polling finds the commit.
Knows: `PRAGMA data_version`, which changes when another connection has committed; inotify, by ctypes. Does not know:
followers, what was written.
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
from eventfold.concurrency.wakeup import call_all
from eventfold.core.mutex import Mutex
from eventfold.engines.sqlite.file import File
from eventfold.errors import EventfoldError

IN_MODIFY = 2  # of <sys/inotify.h>


class FileNotifier:
    """Waits until one file is written to. `wake` may be called by any thread, `wait` and `close` by one."""

    def __init__(self, path: str) -> None:
        """Raises OSError without inotify: on other systems than Linux, or if too many files are watched."""
        if sys.platform != "linux":
            raise OSError("inotify exists on Linux only")
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
        """Wait for a write, `wake`, or the timeout. Returns whether the file was written to since the last wait."""
        self._poll.poll(seconds * 1000)
        with suppress(BlockingIOError):
            return bool(os.read(self._inotify, 65_536))
        return False

    def wake(self) -> None:
        """End the current wait, or the next one."""
        if sys.platform == "linux":
            self._mutex.run(self._wake)

    def _wake(self) -> None:
        if sys.platform == "linux" and not self._closed:
            os.eventfd_write(self._wake_event, 1)

    def close(self) -> None:
        """Close both descriptors."""
        self._mutex.run(self._close)

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            os.close(self._inotify)
            os.close(self._wake_event)

    def __del__(self) -> None:
        if hasattr(self, "_wake_event") and hasattr(self, "_closed"):  # the thread that closes it was never started
            self._close()


def open_notifier(path: str) -> FileNotifier | None:
    """A notifier for a file, or None where inotify is not available."""
    try:
        return FileNotifier(path)
    except (OSError, AttributeError):
        return None


POLL_INTERVAL_S = 0.004  # under load: median 2 ms to detect a commit of another process
SLOW_POLL_INTERVAL_S = 0.008  # after SLOW_POLL_AFTER_S, without inotify: median 4 ms, half the cost
NOTIFIER_TIMEOUT_S = 0.1  # with inotify, in case a notification is lost
NOTIFIER_AFTER_S = 0.05  # after the last change: a commit follows a reported write soon, if not at once
SLOW_POLL_AFTER_S = 2.0  # after the last change
ERROR_RETRY_INTERVAL_S = 0.25  # while the file cannot be read
IDLE_THREAD_S = 0.25  # without followers the thread ends after this time: the next follower may reuse it
PRESENCE_CHECK_INTERVAL_S = 0.5  # how often to check whether the file was replaced


class Watch:
    """Calls callbacks after commits. One thread serves all followers of an engine."""

    def __init__(self, file: File) -> None:
        self._file = file
        self._callbacks: list[Callable[[], None]] = []
        self._mutex = Mutex()
        self._stop = Flag()
        self._thread: threading.Thread | None = None
        self._notifier: FileNotifier | None = None

    def notify(self) -> None:
        """Call all callbacks, after a commit of this engine."""
        if self._callbacks:
            call_all(tuple(self._callbacks))

    def add(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` after each commit. Returns a function that removes it."""
        self._mutex.run(self._add, callback)
        return lambda: self._mutex.run(self._remove, callback)

    def _add(self, callback: Callable[[], None]) -> None:
        self._callbacks.append(callback)
        if self._thread is None:
            self._stop.set()  # ends a thread that an interrupted call started and did not record
            self._stop, self._notifier = Flag(), open_notifier(self._file.real_path + "-wal")
            run, name = self._run, "eventfold-watch"
            thread = threading.Thread(target=run, args=(self._stop, self._notifier), name=name, daemon=True)
            thread.start()
            self._thread = thread  # after start: a recorded thread can always be joined

    def _remove(self, callback: Callable[[], None]) -> None:
        if callback in self._callbacks:
            self._callbacks.remove(callback)

    def _end_unused(self, stop: Flag) -> bool:
        """End the thread that this flag stops, unless a new follower has come."""
        if self._callbacks and self._stop is stop:
            return False
        stop.set()
        if self._stop is stop:
            self._thread = None
        return True

    def close(self) -> None:
        """Stop the thread and wait for its end."""
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
        """Poll until stopped. While the file cannot be read, notify followers: their own read reports the error."""
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
                        changed = time.monotonic()  # the commit follows the write
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
                    if not self._file.presence.is_in_place():
                        self._file.check()
                if version != seen:
                    seen, changed = version, now
                    self.notify()
        except BaseException:
            self._file.pool.discard(connection)
            raise
        self._file.pool.return_reader(connection)
