"""Detects exceptions that a signal handler raised during a call of user code, which did not cause them.

Knows: the installed signal handlers, tracebacks. Does not know: what was called.
"""

from __future__ import annotations

import signal
from types import CodeType
from typing import Any


def is_from_handler(error: BaseException) -> bool:
    """Whether a signal handler that is installed now raised this exception, wherever it interrupted the program."""
    codes = {code for each in signal.valid_signals() if (code := _code_of(signal.getsignal(each))) is not None}
    trace = error.__traceback__
    while codes and trace is not None:
        if trace.tb_frame.f_code in codes:
            return True
        trace = trace.tb_next
    return False


def _code_of(handler: Any) -> CodeType | None:
    """Return the code of a handler (a function, method or callable object); None if it is not written in Python."""
    for function in (handler, getattr(handler, "func", None), type(handler).__call__):  # a partial has a `func`
        code = getattr(getattr(function, "__func__", function), "__code__", None)
        if isinstance(code, CodeType):
            return code
    return None
