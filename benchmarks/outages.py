"""Outages: eight writers append without a pause in their attempts, and the longest gap between two acknowledgements.

Knows: the public calls of a store, monotonic time, which all processes of a machine share. Does not know: what fails.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import eventfold as ef

WRITERS = 8
PACE_S = 0.002  # between two appends of one writer: the gap is the outage, not a queue of appends
WAIT_S = 120.0


class Ordered(ef.Event, type="availability.ordered"):
    """An event of about 200 bytes."""

    customer: ef.Tag
    note: str = "x" * 120


class Writers:
    """Eight threads that append to one store. `times`: when each append was acknowledged."""

    def __init__(self, store: ef.Store) -> None:
        self.times: list[float] = []
        self.failed: list[str] = []
        self._store, self._stop = store, threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(n,), daemon=True) for n in range(WRITERS)]
        for thread in self._threads:
            thread.start()

    def _write(self, number: int) -> None:
        while not self._stop.is_set():
            try:
                self._store.append(Ordered(f"c-{number}"))
            except ef.EventfoldError as error:
                self.failed.append(f"{error.code}: {error}")
            else:
                self.times.append(time.monotonic())
            time.sleep(PACE_S)

    def await_appends(self, number: int = 200) -> None:
        """Wait until so many more appends were acknowledged."""
        have = len(self.times)
        await_true(lambda: len(self.times) >= have + number, "appends")

    def gap_over(self, fault: Callable[[], object], more: int = 200) -> float:
        """Run the fault under load, and return the longest time, in s, without an acknowledgement."""
        self.await_appends()
        began = time.monotonic()
        fault()
        self.await_appends(more)
        times = sorted(self.times)
        return max(b - a for a, b in pairwise(times) if b >= began)

    def stop(self) -> None:
        """Stop the threads."""
        self._stop.set()
        for thread in self._threads:
            thread.join(WAIT_S)


class Application:
    """A process that appends to a file and prints when each append was acknowledged."""

    def __init__(self, path: Path) -> None:
        command = [sys.executable, "-c", f"from benchmarks.outages import append_for_ever as a; a({str(path)!r})"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.times: list[float] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.endswith("\n"):
                self.times.append(float(line))

    def await_appends(self, number: int) -> None:
        """Wait until so many appends were acknowledged."""
        await_true(lambda: len(self.times) >= number, "appends of a process")

    def kill(self) -> None:
        """Send kill -9, and read what it had printed."""
        self.process.kill()
        self.process.wait(WAIT_S)
        self._reader.join(WAIT_S)


def append_for_ever(path: str) -> None:
    """Append in eight threads, and print the time of each acknowledgement."""
    with ef.Store(path) as store:
        writers, printed = Writers(store), 0
        while True:
            found = writers.times[printed:]
            printed += len(found)
            if found:
                print("\n".join(map(repr, found)), flush=True)
            time.sleep(0.001)


def await_true(true: Callable[[], Any], what: str) -> None:
    """Wait until something is true. Raises TimeoutError."""
    ends = time.monotonic() + WAIT_S
    while not true():
        if time.monotonic() > ends:
            raise TimeoutError(f"waited {WAIT_S:g} s for {what}")
        time.sleep(0.001)


def fill(store: ef.Store, events: int) -> None:
    """Append so many events."""
    store.extend(Ordered(f"c-{number % 1000}") for number in range(events))


def throughput(store: ef.Store, seconds: float = 4.0) -> float:
    """Appends/s of eight writers that do not pause, one event each."""
    counts, stop = [0] * WRITERS, time.monotonic() + seconds

    def work(number: int) -> None:
        while time.monotonic() < stop:
            store.append(Ordered(f"c-{number}"))
            counts[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(WRITERS)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.monotonic() - began)
