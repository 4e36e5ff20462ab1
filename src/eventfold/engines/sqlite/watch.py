"""Room: noticing commits: our own at once, those of other processes by asking SQLite every few milliseconds.

Knows: `PRAGMA data_version`, which changes when another connection has committed. Does not know: followers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import apsw

from eventfold.engines.sqlite.connect import File
from eventfold.errors import EventfoldError

POLL = 0.004  # seconds: p50 of 2 ms to notice another process, at well below 1 % of a core
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
                self._thread = threading.Thread(target=self._poll, args=(self._stop,), name="eventfold-watch", daemon=True)
                self._thread.start()

        def stop() -> None:
            with self._lock:
                if bell in self._bells:
                    self._bells.remove(bell)
                if not self._bells:
                    self._end()

        return stop

    def close(self) -> None:
        """Stop the thread; followers are rung a last time and find the store closed."""
        with self._lock:
            self._end()
        self.ring()

    def _end(self) -> None:
        self._stop.set()
        self._thread = None

    def _poll(self, stop: threading.Event) -> None:
        try:
            connection = self._file.reader()
        except (EventfoldError, apsw.Error):
            self.ring()  # whoever looks now is told why
            return
        turns, seen = 0, -1
        while not stop.wait(POLL):
            turns += 1
            try:
                version = connection.execute("PRAGMA data_version").fetchone()[0]
                changed = version != seen or (turns % STAT_EVERY == 0 and not self._file.in_place())
            except apsw.Error:  # closed under us, or the disk is gone: a follower that looks is told
                self.ring()
                return
            seen = version
            if changed:
                self.ring()
        self._file.done(connection)
