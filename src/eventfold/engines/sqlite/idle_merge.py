"""Merges the rest of the tail while a process appends nothing, in a daemon thread that ends when nothing is left.

Each slice is a call of the writer, short and with a pause after it, so an append waits for one slice at most.
The thread keeps no store open: it knows the writer by a weak reference. A forked child has no such thread, and may not
use the stores of its parent.
Knows: threads, pauses. Does not know: what a slice is (index_merging.py).
"""

from __future__ import annotations

import atexit
import threading
from contextlib import suppress
from enum import Enum, auto
from typing import Protocol
from weakref import WeakSet, ref

import apsw

from eventfold.errors import EventfoldError

IDLE_S = 0.075  # without an append of this process
PAUSE_S = 0.003  # between slices, so that an append that waits for the writer is next: it tries every 2 ms
MIN_EVENTS = 256  # a shorter tail is left in memory: another process reads it in a millisecond
STOP_TIMEOUT_S = 1.0


class IdleStep(Enum):
    """How an attempt to merge a slice ended."""

    MERGED = auto()  # and more may be left
    WAITS = auto()  # another process is active
    FAILED = auto()  # the connection may not be used any more
    ENDS = auto()  # nothing is left for this process


class MergingWriter(Protocol):
    """A writer as this module sees it."""

    @property
    def appended(self) -> int:
        """How many events this process has appended."""
        ...

    def merge_idle(self) -> IdleStep:
        """Merge a slice, unless another process is active. Raises the errors of an append."""
        ...


class IdleMerge:
    """The thread of one writer, which runs while its tail is long."""

    def __init__(self, writer: MergingWriter) -> None:
        self._writer = ref(writer)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.is_running = False  # set by the thread; if True, `begin` need not be called

    def begin(self) -> None:
        """Start the thread, unless it runs."""
        if self._stop.is_set() or (self._thread is not None and self._thread.is_alive()):
            return
        self._thread = threading.Thread(
            target=self._run, args=(self._writer, self._stop), name="eventfold-merge", daemon=True
        )
        with suppress(RuntimeError):  # no thread can be started: appends and `close` merge
            self._thread.start()
            _running.add(self)

    def stop(self) -> None:
        """Let the thread end after its slice; it is not started again."""
        self._stop.set()
        thread = self._thread
        if thread is not None and thread.is_alive() and thread is not threading.current_thread():
            thread.join(STOP_TIMEOUT_S)

    def _run(self, known: ref[MergingWriter], stop: threading.Event) -> None:
        self.is_running = True
        try:
            _merge(known, stop)
        finally:
            self.is_running = False


def _merge(known: ref[MergingWriter], stop: threading.Event) -> None:
    seen = -1
    while not stop.wait(IDLE_S):
        writer = known()
        if writer is None:
            return
        step = IdleStep.WAITS
        while writer.appended == seen and not stop.is_set():
            try:
                step = writer.merge_idle()
            except (EventfoldError, apsw.Error):  # also once the store is closed; the user's next call raises its error
                return
            if step is not IdleStep.MERGED or stop.wait(PAUSE_S):
                break
        if step in (IdleStep.ENDS, IdleStep.FAILED):
            return
        seen = writer.appended
        del writer


_running: WeakSet[IdleMerge] = WeakSet()


def _stop_all() -> None:
    """No thread is within SQLite while the interpreter ends."""
    for each in tuple(_running):
        each.stop()


atexit.register(_stop_all)
