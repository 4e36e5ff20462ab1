"""Running coroutines without an event loop: in the calling thread, or in a thread of their own.

Knows: that a coroutine that never suspends needs no loop; threads. Does not know: what a coroutine does.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from eventfold.concurrency.waiting import Promise
from eventfold.core.mutex import Mutex
from eventfold.errors import StoreClosed

T = TypeVar("T")
R = TypeVar("R")


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends, in the caller's thread: one `send(None)`, about 1 µs."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    coroutine.close()
    raise RuntimeError("an engine that declared suspends=False suspended; use it from AsyncStore")


def start_in_thread(work: Coroutine[Any, Any, T]) -> Callable[[], T]:
    """Start a coroutine in a new thread. Returns a function that waits for its result, or raises its error."""
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
    """Run a blocking call without blocking the event loop."""
    import asyncio  # here, so that sync users never load it: it is half of what an import costs

    return await asyncio.to_thread(work, *args, **named)


def refuse_after_fork(process: int) -> None:
    """Raise StoreClosed in a forked child: the threads and locks that it inherits are dead, and would never answer."""
    if os.getpid() != process:
        raise StoreClosed(
            "This store was opened before this process was forked.",
            "Open a new one in the child; what the parent has open cannot be shared.",
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


def with_jitter(seconds: float) -> float:
    """A random time that is `seconds` on average, so that rivals do not wake together."""
    return random.uniform(0.0, 2 * seconds)  # noqa: S311 (not a secret)
