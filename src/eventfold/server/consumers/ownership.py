"""The consumers that this server owns: claimed at the first call, kept alive by heartbeats, released when unused.

Knows: consumers by store and name, leases. Does not know: HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress

from eventfold.aio import AsyncStore, opened_log
from eventfold.errors import EventfoldError
from eventfold.server.consumers import storage
from eventfold.server.consumers.consumer import Consumer
from eventfold.server.live.filters import lasting_filter
from eventfold.server.running import Running

LOGGER = logging.getLogger("eventfold.server")
BEAT_S = 3.0  # a third of the lease, and less
UNUSED_S = 10.0  # after which a consumer without a delivered event is released, for other servers


class OwnedConsumers:
    """The consumers of all stores that this server owns, on one event loop."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._consumers: dict[tuple[str, str], Consumer] = {}
        self._claiming: dict[tuple[str, str], asyncio.Lock] = {}
        self._beat: asyncio.Task[None] | None = None
        running.at_stop(self.close)

    async def consumer(self, store_name: str, store: AsyncStore, name: str) -> Consumer:
        """Return a consumer, claimed. Raises UnknownProjection, ConsumerElsewhere, and others."""
        key = store_name, name
        async with self._claiming.setdefault(key, asyncio.Lock()):
            consumer = self._consumers.get(key)
            if consumer is None or consumer.is_lost:
                definition = await store.projections.ask(lambda admin: storage.definition_of(admin, name))
                test = (await lasting_filter(await opened_log(store), definition.filter, definition.query)).test
                owned = await store.projections.ask(lambda admin: storage.claim(admin, name))
                consumer = self._consumers[key] = Consumer(store, owned, test)
                if self._beat is None or self._beat.done():
                    self._beat = asyncio.create_task(self._run(), name="eventfold-consumers")
            if self._running.stopping.is_set():
                consumer.end()  # calls are answered, and none waits
            return consumer

    def owned(self, store_name: str, name: str) -> Consumer | None:
        """Return a consumer if this server owns it now."""
        consumer = self._consumers.get((store_name, name))
        return None if consumer is None or consumer.is_lost else consumer

    async def release(self, store_name: str, name: str) -> None:
        """Release a consumer, if this server owns it."""
        key = store_name, name
        async with self._claiming.setdefault(key, asyncio.Lock()):
            consumer = self._consumers.pop(key, None)
            if consumer is not None:
                await consumer.close()

    async def close(self) -> None:
        """Release all: called when the server stops, before its stores are closed."""
        if self._beat is not None:
            await asyncio.wait([self._beat])
        for key in tuple(self._consumers):
            await self.release(*key)

    async def _run(self) -> None:
        while self._consumers and not self._running.stopping.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(BEAT_S):
                    await self._running.stopping.wait()
                    break
            for key, consumer in tuple(self._consumers.items()):
                await self._look_after(key, consumer)
        for consumer in self._consumers.values():
            consumer.end()

    async def _look_after(self, key: tuple[str, str], consumer: Consumer) -> None:
        unused = time.monotonic() - consumer.used_at > UNUSED_S
        if consumer.is_lost or (unused and not consumer.receivers and not consumer.deliveries.delivered):
            await self.release(*key)
            return
        try:
            await consumer.beat()
        except EventfoldError as error:  # the next call says so, too
            LOGGER.warning("The consumer %s cannot go on: %s", consumer.name, error)
