"""A mutex that no exception can leave locked, at any instruction.

A signal handler may raise between the acquisition of a `threading.Lock` and the `try` that releases it, or between the
end of a `with` block and the call of `__exit__`. So the lock here is a `contextvars.Context`: the interpreter enters
and leaves it within one call, and leaves it however the function inside ends.
Knows: threads. Does not know: what is protected.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import ParamSpec, TypeVar, TypeVarTuple

P = ParamSpec("P")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.000_02, 0.002  # between two attempts to enter


class Mutex:
    """A mutex by which calls of several threads never overlap. Not reentrant.

    For Python functions only: a RuntimeError of a built-in function would be mistaken for a mutex in use. An exception
    may interrupt a function half way, so each must leave the protected data in a state that the next one can use.
    """

    __slots__ = ("_context",)

    def __init__(self) -> None:
        self._context = Context()

    def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `work`, without the caller's context variables. Waits without limit, in the calling thread."""
        try:
            return self._context.run(work, *args, **kwargs)
        except RuntimeError as error:
            if not _is_in_use(error):
                raise
        pause = 0.0
        while True:
            time.sleep(pause)
            try:
                return self._context.run(work, *args, **kwargs)
            except RuntimeError as error:
                if not _is_in_use(error):
                    raise
            pause = min(max(FIRST_PAUSE_S, 2 * pause), LONGEST_PAUSE_S)

    def run_user_code(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `work`, which calls user code, with a copy of the caller's context variables."""
        try:  # as `run` does, without another call on the path of every append
            return self._context.run(copy_context().run, work, *args, **kwargs)
        except RuntimeError as error:
            if not _is_in_use(error):
                raise
        return self.run(copy_context().run, work, *args, **kwargs)

    def attempt(self, work: Callable[[*Ts], T], *args: *Ts) -> T | None:
        """Call `work` as `run_user_code` does and return its result; None if another call is running."""
        try:
            return self._context.run(copy_context().run, work, *args)
        except RuntimeError as error:
            if not _is_in_use(error):
                raise
            return None


def _is_in_use(error: RuntimeError) -> bool:
    """Whether the interpreter refused to enter the context: that raises in this frame, other errors in a deeper one."""
    trace = error.__traceback__
    return type(error) is RuntimeError and trace is not None and trace.tb_next is None
