"""Group commit for the tasks of an event loop, for an engine that suspends (a network engine).

Knows: tasks and futures. Does not know: threads, engines.
"""

from __future__ import annotations

import asyncio
import copy
from collections import deque

from eventfold.concurrency.calls import Call
from eventfold.concurrency.group_commit import MAX_BATCH_REQUESTS, Appends, check_count
from eventfold.errors import AppendUnconfirmed, EventfoldError
from eventfold.ports.messages import AppendRequest, Outcome


class _Ticket:
    """One waiting append: its request, the call that waits, and the future of its outcome."""

    __slots__ = ("call", "future", "request")

    def __init__(self, request: AppendRequest, call: Call) -> None:
        self.request, self.call = request, call
        self.future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    def is_waiting(self) -> bool:
        """Whether it needs an outcome: it has none, its call has not ended, and its loop is not closed."""
        return not (self.future.done() or self.call.has_ended() or self.future.get_loop().is_closed())


class LoopGroupCommit:
    """Combines the appends of tasks for an engine that suspends: while one batch commits, the next one gathers."""

    def __init__(self, engine: Appends) -> None:
        self._engine = engine
        self._waiting: deque[_Ticket] = deque()
        self._batch: list[_Ticket] = []  # the batch that is being committed
        self._leader: asyncio.Task[None] | None = None

    def enqueue(self, request: AppendRequest, call: Call) -> _Ticket:
        """Add a request to the queue, without waiting. It is written only while `call` has not ended."""
        ticket = _Ticket(request, call)
        self._waiting.append(ticket)
        return ticket

    async def outcome(self, ticket: _Ticket) -> Outcome:
        """Wait for the outcome. Cancelling the caller withdraws the request, unless its batch is being committed."""
        loop = ticket.future.get_loop()
        if self._leader is None or self._leader.done() or self._leader.get_loop() is not loop:
            self._start(loop)
        try:
            return await asyncio.shield(ticket.future)
        except asyncio.CancelledError:
            if ticket in self._waiting:
                self._waiting.remove(ticket)
            raise  # a plain CancelledError: asyncio.timeout does not know subclasses of it (decision 30)

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._leader = loop.create_task(self._lead())
        self._leader.add_done_callback(self._on_end)

    def _on_end(self, leader: asyncio.Task[None]) -> None:
        """Leave no caller waiting when the leader ends, also where a signal handler's exception ended it."""
        for ticket in self._batch:
            if not ticket.future.done():
                ticket.future.set_exception(_unconfirmed_error())
        self._batch = []
        if self._waiting and leader is self._leader and not leader.cancelled():
            self._start(leader.get_loop())

    def _next_batch(self) -> list[_Ticket]:
        """Remove the next batch from the queue."""
        self._batch = [ticket for ticket in tuple(self._waiting)[:MAX_BATCH_REQUESTS] if ticket.is_waiting()]
        for _ in range(min(len(self._waiting), MAX_BATCH_REQUESTS)):
            self._waiting.popleft()
        return self._batch

    async def _lead(self) -> None:
        while self._waiting:
            if not (batch := self._next_batch()):
                continue
            try:
                requests = [ticket.request for ticket in batch]
                outcomes = check_count(await self._engine.append_many(requests), requests)
            except EventfoldError as error:
                outcomes = [copy.copy(error) for _ in batch]  # each is raised, and gets its traceback, in another place
            except BaseException as error:
                for ticket in batch:
                    if not ticket.future.done():
                        ticket.future.set_exception(error if isinstance(error, Exception) else _unconfirmed_error())
                if not isinstance(error, Exception):
                    raise
                continue
            for ticket, outcome in zip(batch, outcomes, strict=True):
                if not ticket.future.done():
                    ticket.future.set_result(outcome)

    def close(self) -> None:
        """Nothing is held between batches."""


def _unconfirmed_error() -> AppendUnconfirmed:
    return AppendUnconfirmed("The writer ended while committing.", "Repeat the identical append.")


class DirectCommit:
    """For an engine that neither blocks nor waits: combining would gain nothing."""

    def __init__(self, engine: Appends) -> None:
        self._engine = engine

    def enqueue(self, request: AppendRequest, call: Call) -> AppendRequest:
        """The request is its own ticket."""
        return request

    async def outcome(self, ticket: AppendRequest) -> Outcome:
        """Append it now."""
        try:
            return (await self._engine.append_many([ticket]))[0]
        except EventfoldError as error:  # an outcome, so that an unconfirmed append is repeated
            return error

    def close(self) -> None:
        """Nothing is held."""
