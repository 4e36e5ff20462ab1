"""Another process that runs code on request, line by line, so that a test orders the steps of two processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]

LISTEN = """
import json, os, sqlite3, sys, threading, time, traceback
import eventfold as ef
from tests.engines.sqlite.noted import *
for line in sys.stdin:
    code = json.loads(line)
    try:
        if isinstance(code, list):
            (code,) = code
            print("begun", flush=True)
        try:
            result = eval(compile(code, "<sent>", "eval"), globals())
        except SyntaxError:
            result = exec(compile(code, "<sent>", "exec"), globals())
        answer = {"result": result if isinstance(result, (str, int, float, list, dict)) else None}
    except BaseException as error:
        answer = {"error": type(error).__name__, "text": str(error), "trace": traceback.format_exc()}
    print(json.dumps(answer), flush=True)
"""


class Other:
    """A process that runs the code it is sent: `other("store = ef.Store('x.db')")`. It ends with the test."""

    def __init__(self, *prefix: str, **environment: str) -> None:
        self._process = subprocess.Popen(
            [*prefix, sys.executable, "-c", LISTEN],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        self.pid = self._process.pid

    def start(self, code: str) -> None:
        """Send code to the process without waiting for the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(code) + "\n")
        self._process.stdin.flush()

    def begin(self, code: str) -> None:
        """Send code and return once it has started to run: a later signal meets this code, not a step before it."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps([code]) + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "begun\n"

    def answer(self) -> Any:
        """Return the result of the oldest unanswered code. Raises AssertionError if that code failed."""
        found = self.outcome()
        assert "error" not in found, found["trace"]
        return found["result"]

    def outcome(self) -> dict[str, Any]:
        """Return the same, with a failure as a value: its `error` and `text`."""
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def __call__(self, code: str) -> Any:
        """Run code and wait for the answer: the value of an expression, or None."""
        self.start(code)
        return self.answer()

    def signal(self, number: int) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def end(self) -> int:
        """End the process without closing anything but its standard streams. Returns its exit status."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        status = self._process.wait(60)
        self._process.stdout.close()
        return status

    def kill(self) -> None:
        """Kill the process if it still runs."""
        if self._process.poll() is None:
            self.signal(signal.SIGKILL)
            self._process.wait(60)
        for stream in (self._process.stdin, self._process.stdout):
            with suppress(BrokenPipeError):  # code that was sent and that the process never reads
                if stream is not None:
                    stream.close()
