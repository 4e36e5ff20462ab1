"""The states of stores as scrapes see them: read in the background, and waited for 250 ms at most (the first 2 s).

A scraper comes at regular intervals. So the state is read shortly before it is expected, and waits for it: under load
a thread that reads waits for the interpreter at each of its statements, which would be the time of a scrape.
Knows: threads, clocks, when a state is too old. Does not know: what a state is, how it is shown.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from eventfold.errors import EventfoldError
from eventfold.monitoring.exposition import lines_of
from eventfold.monitoring.recorder import Recorder
from eventfold.monitoring.state import Sample, StateReader
from eventfold.projections.admin import ProjectionAdmin

KEEP_S, WAIT_S = 1.0, 0.25
FIRST_WAIT_S = 2.0  # for the first state, which opens what is needed to read it
AHEAD_S = 0.7  # before an expected scrape the state is read; with the time that it takes, less than KEEP_S
EXPECTED_S = (1.0, 300.0)  # between two scrapes, at least and at most, for a third to be expected
SMALL = 500  # series, whose lines are written in some milliseconds
log = logging.getLogger("eventfold.monitoring")


class StateNow(NamedTuple):
    """The state as it is known: `is_late`: it could not be read, or not in time. `seconds`: how long reading took.

    `lines`: the samples as text, by metric, where they are written in the background too.
    """

    samples: Sequence[Sample]
    is_late: bool
    seconds: float
    lines: Mapping[str, bytes] = {}


class BoundedState:
    """The state of one store, read again after `keep_s`; a caller waits `wait_s` at most and then gets the last one.

    `read` may take longer: it goes on, and later callers get what it read. Safe under threads.
    """

    def __init__(
        self,
        read: Callable[[], Sequence[Sample]],
        keep_s: float = KEEP_S,
        wait_s: float = WAIT_S,
        write: Callable[[Sequence[Sample]], Mapping[str, bytes]] = lambda _samples: {},
    ) -> None:
        self._read, self._keep_s, self._wait_s, self._write = read, keep_s, wait_s, write
        self._mutex = threading.Lock()
        self._running: threading.Event | None = None  # set when the reading that goes on has ended
        self._process = 0  # in which it goes on
        self.error: EventfoldError | None = None  # why the state could not be read the last time
        self._last: StateNow = StateNow((), True, 0.0)
        self._read_at = -keep_s
        self.was_read = False  # at least once, successfully or not

    def now(self, wait_s: float | None = None) -> StateNow:
        """Return the state. `wait_s`: seconds to wait at most, instead of the usual ones."""
        return self.wait_for(self.begin(), wait_s)

    def wait_for(self, running: threading.Event | None, wait_s: float | None = None) -> StateNow:
        """Return the state when what `begin` returned has ended; nothing more is read, however old it is by then."""
        if running is None or running.wait(self._wait_s if wait_s is None else wait_s):
            return self._last
        return self._last._replace(is_late=True)

    def is_known(self) -> bool:
        """Whether the state is not too old, so that `now` does not wait."""
        return time.monotonic() - self._read_at < self._keep_s

    def begin(self, ahead_s: float = 0.0) -> threading.Event | None:
        """Begin to read the state if it is too old, or will be in `ahead_s` seconds.

        Returns the event that is set at the end; None if nothing is read.
        """
        with self._mutex:
            if self._running is not None and self._process != os.getpid():
                self._running = None  # this process was forked while it went on: its thread is not here
            if self._running is None and time.monotonic() - self._read_at >= self._keep_s - ahead_s:
                self._running, self._process = threading.Event(), os.getpid()
                threading.Thread(
                    target=self._renew, args=(self._running,), name="eventfold-metrics", daemon=True
                ).start()
            return self._running

    def _renew(self, ended: threading.Event) -> None:
        started = time.monotonic()
        found: StateNow | None = None
        refused: EventfoldError | None = None
        try:
            samples = self._read()
            found = StateNow(samples, False, time.monotonic() - started, self._write(samples))
        except EventfoldError as error:
            refused = error
            log.warning("The state of a store cannot be read for its metrics: %s", error.what)
        except Exception as error:
            log.error("Reading the state of a store for its metrics failed.", exc_info=error)
        finally:
            with self._mutex:
                self._last = found or StateNow((), True, time.monotonic() - started)
                self.error = refused
                self._read_at = time.monotonic()
                self._running, self.was_read = None, True
            ended.set()


class Measured:
    """One store of a collection: its name, its recorder if it is measured, and its state.

    `writes`: the state is written as text in the background, when it is read.
    """

    def __init__(
        self, name: str, recorder: Recorder | None, admin: Callable[[], ProjectionAdmin], *, writes: bool = False
    ) -> None:
        self.name, self.recorder, self._admin = name, recorder, admin
        self._reader: StateReader | None = None
        write = partial(lines_of, name) if writes else None
        self.state = BoundedState(self._read) if write is None else BoundedState(self._read, write=write)

    def _read(self) -> Sequence[Sample]:
        admin = self._admin()
        if self._reader is None:
            self._reader = StateReader(admin)
        return self._reader.read()


class Scrapes:
    """The stores of a collection, whose states are read for each scrape, and ahead of the next one."""

    def __init__(self, stores: Sequence[Measured]) -> None:
        self.stores = stores
        self._mutex = threading.Lock()
        self._last = 0.0
        self._timer: threading.Timer | None = None

    def states(self, stores: Sequence[Measured] | None = None) -> list[tuple[Measured, StateNow]]:
        """Return these stores, by default all, with their states: waiting for all takes no longer than for one."""
        shown = self.stores if stores is None else stores
        begun = [(each, each.state.begin()) for each in shown]
        ends = time.monotonic() + (WAIT_S if all(each.state.was_read for each in shown) else FIRST_WAIT_S)
        found = [(each, each.state.wait_for(read, max(0.0, ends - time.monotonic()))) for each, read in begun]
        self._expect_next()
        return found

    def is_small(self, stores: Sequence[Measured]) -> bool:
        """Whether the states of these stores are known, and so little was recorded that a thread would take longer."""
        recorded = sum(each.recorder.series for each in stores if each.recorder is not None)
        return recorded <= SMALL and all(each.state.is_known() for each in stores)

    def _expect_next(self) -> None:
        """Read the states again shortly before the next scrape, which comes after the time between the last two."""
        with self._mutex:
            now = time.monotonic()
            pause, self._last = now - self._last, now
            if self._timer is not None:
                self._timer.cancel()
            self._timer = None
            if EXPECTED_S[0] <= pause <= EXPECTED_S[1]:
                self._timer = threading.Timer(pause - AHEAD_S, self._begin)
                self._timer.daemon = True
                self._timer.start()

    def _begin(self) -> None:
        for each in self.stores:
            each.state.begin(AHEAD_S)

    def close(self) -> None:
        """Expect no further scrape."""
        with self._mutex:
            if self._timer is not None:
                self._timer.cancel()
            self._timer, self._last = None, 0.0
