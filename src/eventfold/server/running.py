"""The life of a server: it opens its stores once, tells its tasks when it ends, and closes the stores that are its own.

Knows: stores, tasks that run beside the requests. Does not know: HTTP, signals.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from eventfold.aio import AsyncStore
from eventfold.concurrency.loop import AsyncOnce
from eventfold.errors import EventfoldError, StoreDamaged

Action = Callable[[], Awaitable[None]]


class Running:
    """A server from its first call to its end.

    `stopping` is set when the server will end: long responses and tasks then end by themselves, while appends in
    progress are finished. `at_start` and `at_stop` take functions to be awaited after the stores were opened, and
    before they are closed (the last one added first). `damaged` is set when a call met a store that may have to be
    opened again.
    """

    def __init__(self, stores: Mapping[str, AsyncStore], own: Mapping[str, AsyncStore]) -> None:
        self.stopping, self.damaged = asyncio.Event(), asyncio.Event()
        self._stores, self._own = stores, own
        self._once: AsyncOnce[bool] = AsyncOnce()
        self._started = False
        self._at_start: list[Action] = []
        self._at_stop: list[Action] = []
        self._at_error: list[Callable[[EventfoldError], None]] = []

    @property
    def own_stores(self) -> list[AsyncStore]:
        """The stores that the server opened by address."""
        return list(self._own.values())

    def note(self, error: EventfoldError) -> None:
        """Take note of an error that a call met."""
        if StoreDamaged.code in (error.code, error.fields.get("cause")):
            self.damaged.set()
        for action in self._at_error:
            action(error)

    def at_error(self, action: Callable[[EventfoldError], None]) -> None:
        """Call this function with each error that a call meets."""
        self._at_error.append(action)

    def at_start(self, action: Action) -> None:
        """Await this function when the server has opened its stores."""
        self._at_start.append(action)

    def at_stop(self, action: Action) -> None:
        """Await this function before the stores are closed."""
        self._at_stop.append(action)

    @property
    def is_started(self) -> bool:
        """Whether the stores are open."""
        return self._started

    async def start(self) -> None:
        """Open the stores, once; an attempt that failed is repeated by the next call."""
        if not self._started:
            await self._once.get(self._start)

    async def _start(self) -> bool:
        self.stopping.clear()
        for store in self._stores.values():
            await store.open()
        for action in self._at_start:
            await action()
        self._started = True
        return True

    async def stop(self) -> None:
        """Tell everything that runs that the server ends, and close the stores that the server opened by address."""
        self.stopping.set()
        for action in reversed(self._at_stop):
            await action()
        for store in self._own.values():
            await store.close()
        self._started, self._once = False, AsyncOnce()
