"""How the callers of a log sleep, wait and exclude each other: in threads, and as tasks on an event loop.

Knows: threads and loops. Does not know: what is waited for.
"""

from __future__ import annotations

import random
import time

from eventfold.concurrency.waiting import Promise
from eventfold.core.mutex import Mutex


class ThreadRuntime:
    """For callers that block their thread. See flow.log.Runtime."""

    promise = Promise
    mutex = Mutex

    async def sleep(self, seconds: float, *, jitter: bool = False) -> None:
        """Pause the calling thread."""
        time.sleep(_random_around(seconds) if jitter else seconds)

    async def wait(self, promise: Promise, /) -> None:
        """Wait in the calling thread."""
        promise.wait()


class LoopRuntime:
    """For tasks on an event loop. See flow.log.Runtime."""

    promise = Promise
    mutex = Mutex

    async def sleep(self, seconds: float, *, jitter: bool = False) -> None:
        """Pause the calling task."""
        import asyncio  # here, so that sync users never load it: it is half of what an import costs

        await asyncio.sleep(_random_around(seconds) if jitter else seconds)

    async def wait(self, promise: Promise, /) -> None:
        """Wait in the calling task, whichever thread the outcome comes from."""
        await promise.wait_on_loop()


def _random_around(seconds: float) -> float:
    return random.uniform(0.0, 2 * seconds)  # noqa: S311 (not a secret)
