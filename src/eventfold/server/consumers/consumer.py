"""A consumer that this server owns: it reads events, delivers them, and stores what became of them.

Calls that change something wait until it is stored; all that wait at the same time share one transaction. When the
lease is lost, or the store begins another epoch, the object is of no use any more (`is_lost`): claim it again.
Knows: asyncio, AsyncStore, deliveries. Does not know: HTTP, who calls.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from eventfold.aio import AsyncStore
from eventfold.core.json_values import decode
from eventfold.core.query import Query
from eventfold.errors import EventfoldError, LeaseLost, StoreUnavailable, TargetUnavailable
from eventfold.ports.target import Checkpoint, CheckpointChanged
from eventfold.server.consumers import storage
from eventfold.server.consumers.deliveries import Deliveries
from eventfold.server.consumers.errors import ConsumerElsewhere
from eventfold.server.consumers.item import Delivery, Token
from eventfold.server.consumers.storage import Owned
from eventfold.server.live.filters import Test

WINDOW = 2_000  # events after the checkpoint that are held in memory, at most
WINDOW_BYTES = 16 * 2**20
PAGE = 500
READS_BY_POSITION = 50  # of events that have entries, before a delivery


class Consumer:
    """One consumer of one store, on one event loop. `test`: what its filter accepts of the events that are read."""

    def __init__(self, store: AsyncStore, owned: Owned, test: Test | None) -> None:
        self._store, self._test = store, test
        self._query = decode(owned.checkpoint.query, Query)
        self._checkpoint, self._epoch = owned.checkpoint, owned.epoch
        self.definition = owned.definition
        self.deliveries = Deliveries(owned.definition, owned.checkpoint, owned.entries, time.monotonic())
        self.is_lost = self.is_ending = False
        self.used_at = time.monotonic()
        self.receivers = 0
        self._at_end = False  # the events up to the head, as it was, were added
        self._through: tuple[int, str] | None = None  # a position up to which the next transaction may advance
        self._filling = asyncio.Lock()
        self._news = asyncio.Event()
        self._calls: list[asyncio.Future[None]] = []  # that wait for the next transaction
        self._writing: asyncio.Task[None] | None = None
        loop = asyncio.get_running_loop()
        self._stop_watching = store.engine.watch(lambda: _call_soon(loop, self._on_commit))

    @property
    def name(self) -> str:
        """Its name."""
        return self._checkpoint.place.name

    @property
    def checkpoint(self) -> Checkpoint:
        """The checkpoint, as it was last stored."""
        return self._checkpoint

    # What workers do

    async def receive(self, count: int, wait_s: float, has_gone: Callable[[], Awaitable[bool]]) -> list[Delivery]:
        """Deliver up to `count` events; wait up to `wait_s` seconds for the first. [] if there is none by then.

        `has_gone` says whether the client has gone meanwhile: then nothing is delivered.
        """
        ends = time.monotonic() + wait_s
        self.receivers += 1
        try:
            while True:
                self._refuse_lost()
                self._news.clear()
                await self._fill(min(count, READS_BY_POSITION))
                now = time.monotonic()
                if await has_gone():
                    return []
                taken = self.deliveries.take(count, now)
                if taken or self.deliveries.has_ended_leases:
                    self._news.set()  # there may be more, for other workers
                    await self._store_changes()
                if taken:
                    return taken
                if now >= ends or self.is_ending:
                    return []
                await self._wait(ends, now)
        finally:
            self.receivers -= 1
            self.used_at = time.monotonic()

    async def acknowledge(self, tokens: Sequence[Token]) -> list[bool]:
        """Finish events; returns for each whether its token is that of its last delivery."""
        await self._fill(0)
        return await self._change([self.deliveries.acknowledge(token) for token in tokens])

    async def reject(self, tokens: Sequence[Token], *, delay_s: float, park: bool, reason: str) -> list[bool]:
        """Give events back, to be delivered again after a delay, or parked."""
        await self._fill(0)
        now = time.monotonic()
        return await self._change(
            [self.deliveries.reject(token, now, delay=delay_s, park=park, reason=reason) for token in tokens]
        )

    async def _change(self, done: list[bool]) -> list[bool]:
        self.used_at = time.monotonic()
        if any(done):
            await self._store_changes()
            self._news.set()
        return done

    async def _wait(self, ends: float, now: float) -> None:
        timer = self.deliveries.next_time()
        until = ends if timer is None else min(ends, timer)
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.001, min(until - now, 1.0))):  # 1 s: to notice a client that has gone
                await self._news.wait()

    # Reading the log

    def _on_commit(self) -> None:
        self._at_end = False
        self._news.set()

    async def _fill(self, count: int) -> None:
        """Add events of the log, as many as memory is meant for, and read up to `count` of those that have entries.

        Raises ConsumerElsewhere.
        """
        self._refuse_lost()
        async with self._filling:
            for position in self.deliveries.unread(count):
                found = self._store.read(after=position - 1, limit=1, raw=True)
                async for recorded in found:
                    self.deliveries.supply(recorded.stored)
            while not self._at_end and self._has_space():
                self._at_end = True  # a commit meanwhile changes it back
                head = await self._store.head()
                found = self._store.read(self._query, after=self.deliveries.scanned, limit=PAGE, raw=True)
                page = [recorded.stored async for recorded in found]
                if self._store.engine.epoch != self._epoch:
                    await self._give_up()
                    self._refuse_lost()
                now = time.monotonic()
                for stored in page:
                    self.deliveries.add(stored, now, is_selected=self._test is None or self._test(stored))
                if page:
                    self._news.set()
                if len(page) == PAGE:
                    self._at_end = False
                else:
                    self.deliveries.scanned = max(self.deliveries.scanned, head)

    def _has_space(self) -> bool:
        found = self.deliveries
        return found.is_restoring or (found.window < WINDOW and found.bytes < WINDOW_BYTES)

    # Storing

    async def _store_changes(self) -> None:
        """Wait until all that changed so far is stored. Raises ConsumerElsewhere, TargetUnavailable and others."""
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._calls.append(stored)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())
        await stored

    async def _write(self) -> None:
        while self._calls:
            calls, self._calls = self._calls, []
            try:
                await self._commit()
            except Exception as error:  # noqa: BLE001 - every call gets it
                for call in calls:
                    if not call.done():
                        call.set_exception(error)
                        call.exception()  # a call that was cancelled does not ask for it
            else:
                for call in calls:
                    if not call.done():
                        call.set_result(None)

    async def _commit(self) -> None:
        while True:
            self._refuse_lost()
            checkpoint = self._checkpoint
            plan = self.deliveries.plan(checkpoint, time.monotonic(), WINDOW, self._epoch, self._through)
            try:
                self._checkpoint = await self._store.projections.ask(
                    lambda admin: storage.commit(admin, checkpoint, plan.update)  # noqa: B023 - called before the next
                )
            except CheckpointChanged:
                await self.reload()
                continue
            except LeaseLost:
                self._lose()
                continue  # raises
            self.deliveries.stored(plan)
            return

    async def reload(self) -> None:
        """Take over what operators changed. Raises ConsumerElsewhere, ProjectionStopped (it was paused)."""
        checkpoint = self._checkpoint
        try:
            owned = await self._store.projections.ask(lambda admin: storage.reload(admin, checkpoint))
        except EventfoldError as error:
            if not isinstance(error, StoreUnavailable | TargetUnavailable):
                await self._give_up()
            raise
        if owned is None:
            self._lose()
            self._refuse_lost()
            return
        self._checkpoint = owned.checkpoint
        self.definition = self.deliveries.definition = owned.definition
        self.deliveries.synchronise(owned.entries)
        self._news.set()

    async def beat(self) -> None:
        """Renew the lease, and advance the checkpoint past events that do not match. Called every few seconds."""
        checkpoint = self._checkpoint
        try:
            unchanged = await self._store.projections.ask(lambda admin: storage.renew(admin, checkpoint))
            if not unchanged and self._checkpoint is checkpoint:
                await self.reload()
            self.deliveries.pass_time(time.monotonic())
            if self.deliveries.has_ended_leases:
                self._news.set()
                await self._store_changes()
            await self._pass_others()
        except LeaseLost:
            self._lose()

    async def _pass_others(self) -> None:
        scanned = self.deliveries.scanned
        if self._calls or scanned == self._checkpoint.position or not self.deliveries.is_idle:
            return
        cursor = await self._store.cursor(scanned)
        self._through = cursor.position, cursor.event_id
        await self._store_changes()

    # The end

    def _refuse_lost(self) -> None:
        if self.is_lost:
            raise ConsumerElsewhere(
                f"This server has lost the lease of the consumer {self.name}.",
                "Call again: events that were delivered keep their tokens while their leases last.",
                name=self.name,
            )

    def _lose(self) -> None:
        self.is_lost = True
        self._stop_watching()
        self._news.set()

    async def _give_up(self) -> None:
        """Release the lease, so that it can be claimed again at once."""
        self._lose()
        checkpoint = self._checkpoint
        with suppress(EventfoldError):  # it expires by itself
            await self._store.projections.ask(lambda admin: storage.release(admin, checkpoint))

    def end(self) -> None:
        """Let calls that wait for events return now."""
        self.is_ending = True
        self._news.set()

    async def close(self) -> None:
        """Wait until what changed is stored, and release the lease."""
        self.end()
        if self._writing is not None:
            await asyncio.wait([self._writing])
        if not self.is_lost:
            await self._give_up()


def _call_soon(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    with suppress(RuntimeError):  # the loop has ended
        loop.call_soon_threadsafe(function)
