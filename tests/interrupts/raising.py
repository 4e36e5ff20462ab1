"""Raises an exception at one chosen instruction of eventfold's own code, as a signal handler might.

Knows: `sys.settrace`. Does not know: what is run, what must hold afterwards.
"""

from __future__ import annotations

import gc
import opcode
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import eventfold

PACKAGE = str(Path(eventfold.__file__).parent)
YIELD = opcode.opmap["YIELD_VALUE"]
UNTRACED = f"{PACKAGE}/testing"


class Raiser:
    """Counts the instructions of the package that the calling thread reaches, calls and returns included.

    At the instruction numbered `at` (from 1) it raises `error`; with 0 it only counts. `places` are the files of all
    counted instructions.
    """

    def __init__(self, at: int, error: type[BaseException] = KeyboardInterrupt) -> None:
        self.at, self.error = at, error
        self.count = 0
        self.raised = False
        self.where = ""
        self.places: list[str] = []

    def _enter(self, frame: FrameType, event: str, arg: Any) -> Any:
        name = frame.f_code.co_filename
        if not name.startswith(PACKAGE) or name.startswith(UNTRACED):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        self._step(frame, event)
        return self._inside

    def _inside(self, frame: FrameType, event: str, arg: Any) -> Any:
        # Raising where a generator yields would end it without its handlers, which only tracing can do.
        gives = event == "return" and frame.f_code.co_code[max(frame.f_lasti, 0)] == YIELD
        if event != "exception" and not gives:
            self._step(frame, event)
        return self._inside

    def _step(self, frame: FrameType, event: str) -> None:
        self.count += 1
        if not self.at:
            self.places.append(frame.f_code.co_filename[len(PACKAGE) + 1 :])
        elif self.count == self.at:
            self.raised = True
            self.where = (
                f"{frame.f_code.co_filename[len(PACKAGE) + 1 :]}:{frame.f_lineno} {frame.f_code.co_name} {event}"
            )
            raise self.error

    def run(self, work: Callable[[], Any]) -> Any:
        """Call `work`. Returns its result, or the error that ended it."""
        before = sys.gettrace()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # coroutines that were never awaited, connections that were never closed
            enabled = gc.isenabled()
            gc.disable()  # a finaliser in between would be counted once and not again
            sys.settrace(self._enter)
            try:
                return work()
            except (self.error, Exception) as error:  # noqa: BLE001 (returned to the test)
                return error.with_traceback(None)
            finally:
                sys.settrace(before)
                if enabled:
                    gc.enable()
