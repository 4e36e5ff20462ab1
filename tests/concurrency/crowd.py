"""Threads and processes that start together, end in time, and hand back what they raised.

Knows: time limits. Does not know: stores.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

TIMEOUT_S = 60.0  # seconds after which a thread or process counts as hung
ROOT = Path(__file__).parents[2]


def together(calls: Sequence[Callable[[], Any]], timeout: float = TIMEOUT_S) -> list[Any]:
    """Call all of them at once, each in a thread. Returns their results, or what they raised, in order.

    Raises AssertionError if one of them does not end in time.
    """
    results: list[Any] = [None] * len(calls)
    start = threading.Barrier(len(calls))

    def run(number: int, call: Callable[[], Any]) -> None:
        try:
            start.wait(timeout)
            results[number] = call()
        except BaseException as error:  # noqa: BLE001 (handed back to the test)
            results[number] = error

    threads = [threading.Thread(target=run, args=each, daemon=True) for each in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout)
    assert not [thread for thread in threads if thread.is_alive()], "a thread hangs"
    return results


def fine(results: Sequence[Any]) -> Sequence[Any]:
    """Return the results; raise the first error among them instead, if there is one."""
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


class Worker:
    """Another process that runs one function of `tests.concurrency.workers` and prints its result as JSON."""

    def __init__(self, function: str, *arguments: Any) -> None:
        command = [sys.executable, "-m", "tests.concurrency.workers", function, json.dumps(arguments)]
        environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ready(self) -> None:
        """Wait until it has loaded everything it needs."""
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def go(self) -> None:
        """Let it begin."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def result(self, timeout: float = TIMEOUT_S) -> Any:
        """Return what the function returned. Raises AssertionError if it failed or did not end in time."""
        try:
            out, err = self._process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise AssertionError("a process hangs") from None
        assert self._process.returncode == 0, err
        return json.loads(out)


def processes(function: str, count: int, *arguments: Any) -> list[Any]:
    """Run a worker function in several processes, with the process's number as first argument. Returns the results."""
    workers = [Worker(function, number, *arguments) for number in range(count)]
    start(*workers)
    return [worker.result() for worker in workers]


def start(*workers: Worker) -> None:
    """Let several begin at once, as soon as all are ready."""
    for worker in workers:
        worker.ready()
    for worker in workers:
        worker.go()
