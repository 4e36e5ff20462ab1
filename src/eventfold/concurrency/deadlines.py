"""Calls of code that may hang: they are waited for until a deadline, or until the caller's runner is stopped.

Knows: threads, and which flag stops the work of the current thread. Does not know: what is called.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Protocol, TypeVar

T = TypeVar("T")
STOP_GRACE_S = 1.0  # a call that has begun may take as long after its runner was stopped
POLL_S = 0.05


class Stopped(Exception):
    """The runner was stopped before the call has ended."""


class StopFlag(Protocol):
    """What a runner sets when it is stopped."""

    def is_set(self) -> bool:
        """Whether it was stopped."""
        ...


_local = threading.local()


@contextmanager
def stopped_by(flag: StopFlag) -> Generator[None]:
    """Within it, `run_within` in this thread ends soon after the flag is set."""
    before, _local.flag = getattr(_local, "flag", None), flag
    try:
        yield
    finally:
        _local.flag = before


def run_within(seconds: float | None, work: Callable[[], T], abandon: Callable[[], object] = lambda: None) -> T:
    """Call `work` in a thread of its own, and return or raise what it does.

    Raises TimeoutError after so many seconds (None: never), and Stopped a second after the runner of the calling thread
    was stopped. The call is then left to itself; `abandon` may end it.
    """
    flag: StopFlag | None = getattr(_local, "flag", None)
    if flag is not None and flag.is_set():
        raise Stopped
    found: list[T] = []
    failed: list[BaseException] = []
    context = contextvars.copy_context()

    def call() -> None:
        try:
            found.append(context.run(work))
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=call, name="eventfold-call", daemon=True)
    thread.start()
    ends: float = float("inf") if seconds is None else time.monotonic() + seconds
    reason: type[Exception] = TimeoutError
    while thread.is_alive() and (left := ends - time.monotonic()) > 0:
        if reason is TimeoutError and flag is not None and flag.is_set():
            reason, ends = Stopped, min(ends, time.monotonic() + STOP_GRACE_S)
        thread.join(min(POLL_S, left))
    if found:
        return found[0]
    if failed:
        raise failed[0]
    abandon()
    raise reason
