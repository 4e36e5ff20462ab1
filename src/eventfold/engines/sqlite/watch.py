"""Room: noticing commits: our own at once, those of other processes by asking SQLite every few milliseconds.

While nothing happens it waits for the system to tell that the log was written to, where the system does (Linux).
Knows: `PRAGMA data_version`, which changes when another connection has committed. Does not know: followers.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import apsw

from eventfold.concurrency.waiting import Flag
from eventfold.concurrency.watchers import call_all
from eventfold.core.mutex import Mutex
from eventfold.engines.sqlite.connect import File
from eventfold.engines.sqlite.notice import Notice, notice_of
from eventfold.errors import EventfoldError

POLL = 0.004  # seconds: p50 of 2 ms to notice another process, while there is traffic
SLOW = 0.008  # seconds, once nothing has come for LONG, where nobody tells: p50 of 4 ms, at half the cost
SELDOM = 0.1  # seconds, where the system tells, should it ever not
QUIET, LONG = 0.05, 2.0  # seconds without a change: a commit follows soon on the write that is told of, if not at once
TROUBLED = 0.25  # seconds between looks while the file cannot be asked
LINGER = 0.25  # seconds the thread stays when nobody follows: one follower after the other needs no thread each
STAT_EVERY = 0.5  # seconds: how often to look whether the file was replaced


class Watch:
    """Rings bells. One thread for all of an engine's followers: it stays a moment for the next one."""

    def __init__(self, file: File) -> None:
        self._file = file
        self._bells: list[Callable[[], None]] = []
        self._mutex = Mutex()
        self._stop = Flag()
        self._thread: threading.Thread | None = None
        self._notice: Notice | None = None

    def ring(self) -> None:
        """Something was committed by this engine."""
        call_all(tuple(self._bells))

    def add(self, bell: Callable[[], None]) -> Callable[[], None]:
        """Ring this bell from now on; returns how to stop."""
        self._mutex.run(self._add, bell)
        return lambda: self._mutex.run(self._remove, bell)

    def _add(self, bell: Callable[[], None]) -> None:
        self._bells.append(bell)
        if self._thread is None:
            self._stop.set()  # of a thread that was started when an exception fell, before it could be kept
            self._stop, self._notice = Flag(), notice_of(self._file.real + "-wal")
            run, name = self._run, "eventfold-watch"
            thread = threading.Thread(target=run, args=(self._stop, self._notice), name=name, daemon=True)
            thread.start()
            self._thread = thread  # only now: an interrupt in between leaves nothing that cannot be joined

    def _remove(self, bell: Callable[[], None]) -> None:
        if bell in self._bells:
            self._bells.remove(bell)

    def _end_unused(self, stop: Flag) -> bool:
        """End the thread that this flag stops, unless somebody follows again."""
        if self._bells and self._stop is stop:
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
        if self._notice is not None:
            self._notice.wake()
        ended, self._thread = self._thread, None
        return ended

    def _run(self, stop: Flag, notice: Notice | None) -> None:
        """Poll until told to stop. While the file cannot be asked, whoever looks is to find out why, and is rung."""
        pause = 0.0
        while not stop.wait(pause):
            try:
                self._poll(stop, notice)
                pause = 0.0
            except (EventfoldError, apsw.Error):
                self.ring()
                pause = TROUBLED
        if notice is not None:
            notice.close()

    def _poll(self, stop: Flag, notice: Notice | None) -> None:
        connection = self._file.reader()
        try:
            seen, changed = -1, time.monotonic()
            looked = now = used = changed
            while not self._file.pool.paused:
                if notice is not None and now - changed > QUIET:
                    if notice.wait(SELDOM):
                        changed = time.monotonic()  # the commit comes after what is written of it
                else:
                    stop.wait(POLL if now - changed < LONG else SLOW)
                if stop.is_set():
                    break
                now = time.monotonic()
                used = now if self._bells else used
                if now - used > LINGER and self._mutex.run(self._end_unused, stop):
                    break
                version = connection.pragma("data_version")
                if now - looked > STAT_EVERY:
                    looked = now
                    if not self._file.in_place():
                        self._file.check()
                if version != seen:
                    seen, changed = version, now
                    self.ring()
        except BaseException:
            self._file.pool.discard(connection)
            raise
        self._file.pool.done(connection)
