"""Running a coroutine for a caller that cannot await, and a blocking call for one that must not block.

Knows: that a coroutine which never suspends needs no loop. Does not know: what it does.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

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


def refuse_after_fork(process: int) -> None:
    """The threads and locks that a forked child inherits are dead: nobody would ever answer there."""
    if os.getpid() != process:
        raise StoreClosed(
            "This store was opened before this process was forked.",
            "Open a new one in the child; what the parent has open cannot be shared.",
        )


async def in_thread(work: Callable[..., R], *args: Any, **named: Any) -> R:
    """Run a call that blocks off the loop."""
    import asyncio  # here, so that sync users never load it: it is half of what an import costs

    return await asyncio.to_thread(work, *args, **named)
