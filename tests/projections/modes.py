"""An AsyncStore that a test may use as if it were a Store, so that one test is true of both modes.

Knows: a loop in a thread of its own. Does not know: what is asked: every name is the async store's own.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import eventfold as ef


class Loop:
    """A loop in a thread that runs awaitables for callers in other threads."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    def settle(self, found: Any) -> Any:
        """Return the result of a coroutine, the items of an async iterator, or any other value unchanged."""
        if inspect.isasyncgen(found):
            return iter(self.settle(_listed(found)))
        if inspect.iscoroutine(found):
            return asyncio.run_coroutine_threadsafe(found, self.loop).result(60)
        return found

    def stop(self) -> None:
        """End the thread."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


async def _listed(found: Any) -> list[Any]:
    return [each async for each in found]


class Awaited:
    """A wrapper of an object with coroutine methods; its calls block."""

    def __init__(self, twin: Any, loop: Loop) -> None:
        self._twin, self._loop = twin, loop

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._twin, name)
        if not callable(found):
            return found
        return lambda *args, **named: self._wrapped(self._loop.settle(found(*args, **named)))

    def _wrapped(self, found: Any) -> Any:
        kind = type(found).__name__
        if kind == "AsyncProcessRunner":  # a Store opens in its constructor, an AsyncStore when it is awaited
            self._loop.settle(found.start())
        return Awaited(found, self._loop) if kind in ("AsyncProcessRunner", "AsyncStore") else found

    def __enter__(self) -> Any:
        return self._loop.settle(self._twin.__aenter__())

    def __exit__(self, *error: object) -> None:
        self._loop.settle(self._twin.__aexit__(*error))

    @property
    def projections(self) -> Awaited:
        """Return the blocking administration."""
        return AwaitedAdmin(self._twin.projections, self._loop)

    @property
    def engine(self) -> Any:
        """Return the engine with blocking calls, for tests that write what a store would not."""
        return self.projections.ask(lambda admin: admin.log.engine)


class AwaitedAdmin(Awaited):
    """The administration of an async store, with blocking calls."""

    def target(self, projection: Any) -> Any:
        """Return the target of a projection: only the sync administration has this method."""
        return self.ask(lambda admin: admin.target(projection))


@contextmanager
def opened(url: str, mode: str, **options: Any) -> Iterator[Any]:
    """Open a store of either mode for tests that block."""
    if mode == "sync":
        with ef.Store(url, **options) as store:
            yield store
        return
    loop = Loop()
    try:
        twin = ef.AsyncStore(url, **options)
        loop.settle(twin.open())
        try:
            yield Awaited(twin, loop)
        finally:
            loop.settle(twin.close())
    finally:
        loop.stop()
