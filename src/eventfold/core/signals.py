"""Exceptions that a signal handler raises within a call of a user's class: they are no fault of that class.

Knows: which handlers are installed, and what a traceback tells. Does not know: what was called.
"""

from __future__ import annotations

import signal
from types import CodeType
from typing import Any


def is_from_handler(error: BaseException) -> bool:
    """Whether a signal handler that is installed now has raised this, wherever it interrupted the program."""
    codes = {code for each in signal.valid_signals() if (code := _code_of(signal.getsignal(each))) is not None}
    trace = error.__traceback__
    while codes and trace is not None:
        if trace.tb_frame.f_code in codes:
            return True
        trace = trace.tb_next
    return False


def _code_of(handler: Any) -> CodeType | None:
    """The code of a handler: a function, a method, or an object that is called; None for what is not Python."""
    for function in (handler, getattr(handler, "func", None), type(handler).__call__):  # a partial has a `func`
        code = getattr(getattr(function, "__func__", function), "__code__", None)
        if isinstance(code, CodeType):
            return code
    return None
