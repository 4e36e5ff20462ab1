"""The life of a server: it opens its stores once, tells its tasks when it ends, and closes the stores that are its own.

Knows: stores, tasks that run beside the requests. Does not know: HTTP, signals.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from eventfold.aio import AsyncStore
from eventfold.concurrency.loop import AsyncOnce
from eventfold.errors import EventfoldError, StoreDamaged
from eventfold.ports.messages import Outcome
from eventfold.server.refusals import StoreReopening

RETRY_S = 1
log = logging.getLogger("eventfold.server")
Action = Callable[[], Awaitable[None]]


class Running:
    """A server from its first call to its end.

    `stopping` is set when the server will end: long responses and tasks then end by themselves, while appends in
    progress are finished. `at_start` and `at_stop` take functions to be awaited after the stores were opened, and
    before they are closed (the last one added first). `damaged` is set when a call met a store that may have to be
    opened again; `reopens` while that would be done (reopening.py), and an attempt has not failed.
    """

    def __init__(self, stores: Mapping[str, AsyncStore], own: Mapping[str, AsyncStore]) -> None:
        self.stopping, self.damaged = asyncio.Event(), asyncio.Event()
        self.reopens = False
        self._stores, self._own = stores, own
        self._once: AsyncOnce[bool] = AsyncOnce()
        self._started = False
        self._before_start: list[Action] = []
        self._at_start: list[Action] = []
        self._at_stop: list[Action] = []
        self._at_error: list[Callable[[EventfoldError], None]] = []

    def note(self, error: EventfoldError) -> None:
        """Take note of an error that a call met."""
        if StoreDamaged.code in (error.code, error.fields.get("cause")):
            self.damaged.set()
        for action in self._at_error:
            action(error)

    def at_error(self, action: Callable[[EventfoldError], None]) -> None:
        """Call this function with each error that a call meets."""
        self._at_error.append(action)

    async def shown(self, error: EventfoldError) -> EventfoldError:
        """Return an error as the caller sees it: a store that is about to be opened again is not damaged."""
        if isinstance(error, StoreDamaged) and self.reopens and await self.has_lost_a_store():
            return StoreReopening(
                "The file of the store was replaced or moved away, and the server opens it again.",
                f"Repeat the call in {RETRY_S} second; nothing of it was written. Cursors from before are verified.",
                retry_after=RETRY_S,
            )
        return error

    def checked(self, outcomes: list[Outcome]) -> list[Outcome]:
        """Return outcomes of appends. If a store that is about to be opened again refused all, the error is raised."""
        for each in outcomes[:1]:
            if (
                isinstance(each, StoreDamaged)
                and self.reopens
                and all(isinstance(one, StoreDamaged) for one in outcomes)
            ):
                raise each
        return outcomes

    async def has_lost_a_store(self) -> bool:
        """Whether a store as a whole refuses to go on; it may also have been one damaged event."""
        for store in self._own.values():
            try:
                await store.head()
            except StoreDamaged:
                return True
            except EventfoldError as error:  # unavailable: it may come back by itself
                log.debug("A store is not available.", exc_info=error)
        return False

    def before_start(self, action: Action) -> None:
        """Await this function before the server opens its stores: if it refuses, no store was created."""
        self._before_start.append(action)

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
        for action in self._before_start:
            await action()
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
