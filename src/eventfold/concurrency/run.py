"""Running coroutines without an event loop: in the calling thread, or in a thread of their own.

A coroutine that never suspends needs no event loop.
Knows: threads. Does not know: what a coroutine does.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from eventfold.concurrency.waiting import Promise
from eventfold.core.backoff import with_jitter
from eventfold.core.mutex import Mutex
from eventfold.errors import StoreClosed

T = TypeVar("T")
R = TypeVar("R")


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends in the calling thread, by one `send(None)` (about 1 µs). Returns its result.

    Raises RuntimeError if it suspends.
    """
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    coroutine.close()
    raise RuntimeError("an engine that declared suspends=False suspended; use it from AsyncStore")


def start_in_thread(work: Coroutine[Any, Any, T]) -> Callable[[], T]:
    """Start a coroutine in a new thread. Returns a function that waits for its result or raises its error."""
    results: list[T] = []
    errors: list[BaseException] = []

    def target() -> None:
        try:
            results.append(run(work))
        except BaseException as error:  # raised in the thread that waits for the result
            errors.append(error)

    thread = threading.Thread(target=target, name="eventfold-ahead", daemon=True)
    thread.start()

    def result() -> T:
        thread.join()
        if errors:
            raise errors[0]
        return results[0]

    return result


async def in_thread(work: Callable[..., R], *args: Any, **named: Any) -> R:
    """Run a blocking call in a thread, without blocking the event loop. Returns its result."""
    import asyncio  # here, so that sync users never load it: it takes half of the time of an import

    return await asyncio.to_thread(work, *args, **named)


_current = os.getpid()  # kept, since each question is a system call


def _note_fork() -> None:
    global _current
    _current = os.getpid()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


def refuse_after_fork(process: int) -> None:
    """Raise StoreClosed in a forked child process: the threads that it inherits from `process` do not run there."""
    if _current != process:
        raise StoreClosed(
            "This store was opened before this process was forked.",
            "Open a new store in the child process: it cannot share the parent's connections and files.",
        )


class ThreadRuntime:
    """How callers that block their thread sleep, wait and exclude each other. See log.context.Runtime."""

    promise = Promise
    mutex = Mutex

    async def sleep(self, seconds: float, *, jitter: bool = False) -> None:
        """Pause the calling thread."""
        time.sleep(with_jitter(seconds) if jitter else seconds)

    async def wait(self, promise: Promise, /) -> None:
        """Wait in the calling thread."""
        promise.wait()
