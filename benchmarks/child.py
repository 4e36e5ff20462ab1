"""Measurements in other processes: appenders on one file, a follower, an import, an open store.

Knows: how to start such a process and receive its results. Does not know: figures. Processes are spawned, not
forked (a store does not survive a fork), and waited for.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

TIMEOUT_S = 60.0  # seconds a child may take to answer
SPAWN = multiprocessing.get_context("spawn")


class Child:
    """A function running in a process of its own, at the other end of a pipe."""

    def __init__(self, function: Callable[..., None], *arguments: Any) -> None:
        self.pipe, theirs = SPAWN.Pipe()
        self.process = SPAWN.Process(target=function, args=(theirs, *arguments), daemon=True)
        self.process.start()
        theirs.close()

    def answer(self, patience: float = TIMEOUT_S) -> Any:
        """Return what the process sends next. Raises RuntimeError if it ended, or took too long."""
        if not self.pipe.poll(patience):
            raise RuntimeError("a benchmark's child process did not answer")
        try:
            return self.pipe.recv()
        except EOFError as error:
            raise RuntimeError("a benchmark's child process ended early") from error

    def send(self, word: Any) -> None:
        """Send something to the process."""
        self.pipe.send(word)

    def end(self) -> None:
        """Wait for the process; kill it if it does not end."""
        self.process.join(10)
        if self.process.is_alive():
            self.process.kill()
            self.process.join(10)
        self.pipe.close()


def appenders(path: str, stored: int, count: int, seconds: float, threads: int = 1) -> list[tuple[float, float]]:
    """Append to one store from several processes. Returns each one's events/s and longest wait (ms, one thread)."""
    append = partial(_append, threads=threads) if threads > 1 else _append
    children = [Child(append, path, stored, seconds) for _ in range(count)]
    try:
        for child in children:
            child.answer()
        start = time.time() + 0.1
        for child in children:
            child.send(start)
        return [child.answer() for child in children]
    finally:
        for child in children:
            child.end()


def _append(pipe: Connection, path: str, stored: int, seconds: float, threads: int = 1) -> None:
    from benchmarks.measure import rate_of_threads
    from benchmarks.subject import Eventfold

    contender = Eventfold(Path(), stored, url=path, drawn=20_000)
    call = contender.caller()
    call()
    pipe.send("ready")
    time.sleep(max(0.0, pipe.recv() - time.time()))
    if threads > 1:
        reached, longest = rate_of_threads([contender.caller() for _ in range(threads)], seconds), 0.0
    else:
        reached, longest = _alone(call, seconds)
    contender.close()
    pipe.send((reached, longest))


def _alone(call: Callable[[], Any], seconds: float) -> tuple[float, float]:
    clock = time.perf_counter
    done, longest, before = 0, 0.0, clock()
    start, end = before, before + seconds
    while before < end:
        call()
        now = clock()
        longest, before, done = max(longest, now - before), now, done + 1
    return done / (before - start), longest * 1000


def follower(pipe: Connection, path: str, after: int, wanted: int) -> None:
    """Follow a file: report when caught up, then send the monotonic ns at which each of `wanted` events came."""
    import eventfold as ef
    from benchmarks import subject  # declares the event class

    with ef.Store(path) as store, store.follow(ef.Query.of(types=subject.TYPE), after=after) as following:
        seen: list[int] = []
        if after:
            next(iter(store.read(after=after - 1)))  # an index of its own has caught up once it has this event
        pipe.send("ready")
        for recorded in following:
            seen.append(time.monotonic_ns())
            del recorded
            if len(seen) >= wanted:
                break
        pipe.send(seen)


def idle_follower(pipe: Connection, path: str, after: int, seconds: float) -> None:
    """Follow a file that no process writes to; send the share of a core that it took."""
    import threading

    import eventfold as ef
    from benchmarks import subject  # declares the event class

    with ef.Store(path) as store, store.follow(ef.Query.of(types=subject.TYPE), after=after) as following:
        thread = threading.Thread(target=lambda: list(following), daemon=True)
        thread.start()
        time.sleep(0.5)
        cpu, start = time.process_time(), time.perf_counter()
        time.sleep(seconds)
        share = (time.process_time() - cpu) / (time.perf_counter() - start)
        following.close()
        thread.join(5)
    pipe.send(share)


def program(code: str, cache: Path, *arguments: str) -> tuple[float, str]:
    """Run a line of Python in a fresh interpreter. Returns milliseconds of wall time, and its output.

    Compiled modules are stored in `cache`, so that only the first run compiles, as after an installation.
    """
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(cache)
    command = [sys.executable, "-c", code, *arguments]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, env=environment, check=False)
    elapsed = (time.perf_counter() - start) * 1000
    if done.returncode:
        raise RuntimeError(f"a benchmark's child process failed: {done.stderr.strip()[-300:]}")
    return elapsed, done.stdout.strip()
