"""A mutual exclusion that no exception can leave locked, at whichever instruction it is raised.

A signal handler may raise between taking a `threading.Lock` and the `try` that releases it, or between the end of a
`with` block and the call that leaves it. So the lock here is a `contextvars.Context`: entering and leaving it happen
within one call of the interpreter, which leaves it however the call made inside ends.
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
    """Calls made through it never overlap, whichever threads make them. Not reentrant.

    For Python functions: a built-in function that raises RuntimeError would be taken for a mutex in use. A short
    section may be interrupted half way, so each must leave what it protects in a state that the next one can use.
    """

    __slots__ = ("_context",)

    def __init__(self) -> None:
        self._context = Context()

    def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `work`, which sees no context variables of the caller's. Waits without limit, in the calling thread."""
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
        """The same for work that calls code of the user's: it sees the caller's context variables (a copy)."""
        return self.run(copy_context().run, work, *args, **kwargs)

    def attempt(self, work: Callable[[*Ts], object], *args: *Ts) -> bool:
        """Call `work` as `run_user_code` does, if no other call is under way: whether it was called."""
        try:
            self._context.run(copy_context().run, work, *args)
        except RuntimeError as error:
            if not _is_in_use(error):
                raise
            return False
        return True


def _is_in_use(error: RuntimeError) -> bool:
    """Whether the interpreter refused to enter: it raises in our frame, anything else in a frame below it."""
    trace = error.__traceback__
    return type(error) is RuntimeError and trace is not None and trace.tb_next is None
