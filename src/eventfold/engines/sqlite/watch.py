"""Room: noticing commits: our own at once, those of other processes by asking SQLite every few milliseconds.

Knows: `PRAGMA data_version`, which changes when another connection has committed. Does not know: followers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import apsw

from eventfold.engines.sqlite.connect import File
from eventfold.errors import EventfoldError

POLL = 0.004  # seconds: p50 of 2 ms to notice another process, while there is traffic
SLOW = 0.008  # seconds, once nothing has come for QUIET polls: p50 of 4 ms, at half the cost
QUIET = 500
TROUBLED = 0.25  # seconds between looks while the file cannot be asked
STAT_EVERY = 100  # polls: how often to look whether the file was replaced


class Watch:
    """Rings bells. One thread for all of an engine's followers, there while there are any."""

    def __init__(self, file: File) -> None:
        self._file = file
        self._bells: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def ring(self) -> None:
        """Something was committed by this engine."""
        for bell in tuple(self._bells):
            bell()

    def add(self, bell: Callable[[], None]) -> Callable[[], None]:
        """Ring this bell from now on; returns how to stop."""
        with self._lock:
            self._bells.append(bell)
            if self._thread is None:
                self._stop = threading.Event()
                run, name = self._run, "eventfold-watch"
                thread = threading.Thread(target=run, args=(self._stop,), name=name, daemon=True)
                thread.start()
                self._thread = thread  # only now: an interrupt in between leaves nothing that cannot be joined

        def stop() -> None:
            with self._lock:
                if bell in self._bells:
                    self._bells.remove(bell)
                if not self._bells:
                    self._end()

        return stop

    def close(self) -> None:
        """Stop the thread, and wait for it."""
        with self._lock:
            thread = self._end()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=10)

    def _end(self) -> threading.Thread | None:
        self._stop.set()
        ended, self._thread = self._thread, None
        return ended

    def _run(self, stop: threading.Event) -> None:
        """Poll until told to stop. While the file cannot be asked, whoever looks is to find out why, and is rung."""
        pause = 0.0
        while not stop.wait(pause):
            try:
                self._poll(stop)
                pause = 0.0
            except (EventfoldError, apsw.Error):
                self.ring()
                pause = TROUBLED

    def _poll(self, stop: threading.Event) -> None:
        connection = self._file.reader()
        try:
            turns, changed, seen = 0, 0, -1
            while not self._file.pool.paused and not stop.wait(POLL if turns - changed < QUIET else SLOW):
                turns += 1
                version = connection.pragma("data_version")
                if turns % STAT_EVERY == 0 and not self._file.in_place():
                    self._file.check()
                if version != seen:
                    seen, changed = version, turns
                    self.ring()
        except BaseException:
            self._file.pool.discard(connection)
            raise
        self._file.pool.done(connection)
