"""Combining the appends of tasks for an engine that really waits on a loop (a network engine).

Knows: tasks and futures. Does not know: threads, engines.
"""

from __future__ import annotations

import asyncio
import copy
from collections import deque

from eventfold.concurrency.batch import MAX_BATCH_REQUESTS, Appends, Door, at_once, certain, counted
from eventfold.errors import AppendUnconfirmed, EventfoldError
from eventfold.ports.messages import AppendRequest, Outcome


class LoopGroupCommit:
    """Combines the appends of tasks for an engine that suspends: one batch at a time, the rest gathers."""

    def __init__(self, engine: Appends) -> None:
        self._engine = engine
        self._waiting: deque[tuple[AppendRequest, asyncio.Future[Outcome]]] = deque()
        self._batch: list[tuple[AppendRequest, asyncio.Future[Outcome]]] = []  # what is being committed
        self._leader: asyncio.Task[None] | None = None

    async def submit(self, request: AppendRequest) -> Outcome:
        """Hand in a request; the batch it joins is shielded from this caller's cancellation."""
        return certain(await self.offer(request, at_once))

    async def offer(self, request: AppendRequest, door: Door) -> Outcome | None:
        """The same, unless the door stays shut: then None."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Outcome] = loop.create_future()
        entry = (request, future)
        if not door(lambda: self._waiting.append(entry)):
            return None
        if self._leader is None or self._leader.done() or self._leader.get_loop() is not loop:
            self._start(loop)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            if entry in self._waiting:
                self._waiting.remove(entry)
            raise  # as it is: asyncio.timeout knows no subclass of it (decision 30)

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._leader = loop.create_task(self._lead())
        self._leader.add_done_callback(self._ended)

    def _ended(self, leader: asyncio.Task[None]) -> None:
        """The leader is done; perhaps by an exception of a signal's handler, at any point: nobody is left waiting."""
        for _, future in self._batch:
            if not future.done():
                future.set_exception(_lost())
        self._batch = []
        if self._waiting and leader is self._leader and not leader.cancelled():
            self._start(leader.get_loop())

    def _pick(self) -> list[tuple[AppendRequest, asyncio.Future[Outcome]]]:
        """The next batch. Those that are done were in one before, or belong to a loop that is closed."""
        self._batch = [entry for entry in tuple(self._waiting)[:MAX_BATCH_REQUESTS] if not _is_over(entry[1])]
        for _ in range(min(len(self._waiting), MAX_BATCH_REQUESTS)):
            self._waiting.popleft()
        return self._batch

    async def _lead(self) -> None:
        while self._waiting:
            if not (batch := self._pick()):
                continue
            try:
                requests = [request for request, _ in batch]
                outcomes = counted(await self._engine.append_many(requests), requests)
            except EventfoldError as error:
                outcomes = [copy.copy(error) for _ in batch]  # each is raised, and gets its traceback, somewhere else
            except BaseException as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error if isinstance(error, Exception) else _lost())
                if not isinstance(error, Exception):
                    raise
                continue
            for (_, future), outcome in zip(batch, outcomes, strict=True):
                if not future.done():
                    future.set_result(outcome)

    def close(self) -> None:
        """Nothing is held between batches."""


def _lost() -> AppendUnconfirmed:
    return AppendUnconfirmed("The writer ended while committing.", "Repeat the identical append.")


def _is_over(future: asyncio.Future[Outcome]) -> bool:
    return future.done() or future.get_loop().is_closed()


class DirectCommit:
    """For an engine that neither blocks nor waits: nothing is gained by combining."""

    def __init__(self, engine: Appends) -> None:
        self._engine = engine

    async def submit(self, request: AppendRequest) -> Outcome:
        """Hand in a request; returns its outcome."""
        try:
            return (await self._engine.append_many([request]))[0]
        except EventfoldError as error:  # an outcome, so that a lost answer is asked for again
            return error

    async def offer(self, request: AppendRequest, door: Door) -> Outcome | None:
        """The same, unless the door stays shut: then None."""
        return await self.submit(request) if door(int) else None

    def close(self) -> None:
        """Nothing is held."""
