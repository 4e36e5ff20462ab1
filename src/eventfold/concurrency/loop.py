"""Event loops: waiting in tasks, group commit for an engine that suspends, objects that belong to one loop.

Knows: asyncio's loops, tasks and futures. Does not know: engines. Only async users load this module.
"""

from __future__ import annotations

import asyncio
import copy
import sys
from collections import deque
from collections.abc import Awaitable, Callable
from types import CoroutineType
from typing import Any, Generic, TypeVar

from eventfold.concurrency.calls import Call
from eventfold.concurrency.group_commit import MAX_BATCH_REQUESTS, Appends, check_count
from eventfold.concurrency.waiting import Promise
from eventfold.core.backoff import with_jitter
from eventfold.core.mutex import Mutex
from eventfold.errors import AppendUnconfirmed, EventfoldError, InvalidInput, NotSupported
from eventfold.ports.messages import AppendRequest, Outcome

T = TypeVar("T")


class LoopRuntime:
    """How tasks on an event loop sleep, wait and exclude each other. See log.context.Runtime."""

    promise = Promise
    mutex = Mutex

    async def sleep(self, seconds: float, *, jitter: bool = False) -> None:
        """Pause the calling task."""
        await asyncio.sleep(with_jitter(seconds) if jitter else seconds)

    async def wait(self, promise: Promise, /) -> None:
        """Wait in the calling task. Any thread may set the promise."""
        await promise.wait_on_loop()


class _Ticket:
    """A queued append: its request, the call that waits, and the future of its outcome."""

    __slots__ = ("call", "future", "request")

    def __init__(self, request: AppendRequest, call: Call) -> None:
        self.request, self.call = request, call
        self.future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    def is_waiting(self) -> bool:
        """Whether it needs an outcome: it has none, its call has not ended, and its loop is not closed."""
        return not (self.future.done() or self.call.has_ended() or self.future.get_loop().is_closed())


class LoopGroupCommit:
    """Group commit of tasks, for an engine that suspends: while one batch is committed, the next one is queued."""

    def __init__(self, engine: Appends) -> None:
        self.engine = engine
        self._waiting: deque[_Ticket] = deque()
        self._batch: list[_Ticket] = []  # the batch that is being committed
        self._leader: asyncio.Task[None] | None = None

    def append_alone(self, request: AppendRequest) -> None:
        """Nothing: the engine suspends, so every request is queued."""

    def enqueue(self, request: AppendRequest, call: Call) -> _Ticket:
        """Add a request to the queue, without waiting. It is not written if `call` ends while it is queued."""
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
        """Give every waiting caller an outcome when the leader ends, also if a signal handler's exception ended it."""
        for ticket in self._batch:
            if not ticket.future.done():
                ticket.future.set_exception(_unconfirmed_error())
        self._batch = []
        if self._waiting and leader is self._leader and not leader.cancelled():
            self._start(leader.get_loop())

    def _next_batch(self) -> list[_Ticket]:
        """Remove the next batch from the queue and return it."""
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
                outcomes = check_count(await self.engine.append_many(requests), requests)
            except EventfoldError as error:
                outcomes = [copy.copy(error) for _ in batch]  # each task raises its own copy, with its own traceback
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
        """Do nothing: no resource is held between batches."""


def _unconfirmed_error() -> AppendUnconfirmed:
    return AppendUnconfirmed("The writer was ended while it committed this append.", "Repeat the identical append.")


class DirectCommit:
    """Commits each append alone, for an engine that neither blocks nor suspends: combining would gain nothing."""

    def __init__(self, engine: Appends) -> None:
        self.engine = engine

    def append_alone(self, request: AppendRequest) -> None:
        """Nothing: see `outcome`."""

    def enqueue(self, request: AppendRequest, call: Call) -> AppendRequest:
        """Return the request, which is its own ticket."""
        return request

    async def outcome(self, ticket: AppendRequest) -> Outcome:
        """Append the request now."""
        try:
            return (await self.engine.append_many([ticket]))[0]
        except EventfoldError as error:  # an outcome, so that an unconfirmed append is repeated
            return error

    def close(self) -> None:
        """Do nothing: no resource is held."""


class _Making:
    """A call that makes the object, or is about to make it."""

    def __init__(self) -> None:
        self.call = Call()
        self.promise = Promise()


class AsyncOnce(Generic[T]):
    """An object that is made once, by its first caller, on any event loop: `await once.get(make)`.

    Other callers wait. If making it fails, the next caller makes it. An asyncio.Lock does not suffice: it belongs to
    one loop, and would never wake a waiter on another loop.
    """

    def __init__(self) -> None:
        self._made: T | None = None
        self._making: _Making | None = None
        self._mutex = Mutex()

    def get(self, make: Callable[[], Awaitable[T]]) -> CoroutineType[Any, Any, T]:
        """Return the object, and make it if this is the first call. To be awaited. Raises what `make` raises."""
        mine = _Making()
        return mine.call.bind(self._get(make, mine))

    async def _get(self, make: Callable[[], Awaitable[T]], mine: _Making) -> T:
        while self._made is None:
            others = self._mutex.run(self._claim, mine)
            if others is not None:
                await others.promise.wait_on_loop()
                continue
            if self._made is not None:  # made since the check above
                break
            try:
                self._made = await make()
            finally:
                self._making = None
                mine.promise.set_result(None)
        return self._made

    def _claim(self, mine: _Making) -> _Making | None:
        """Return the other call that makes the object; None if this call is to make it. Ended calls do not count."""
        if self._making is not None and not self._making.call.has_ended():
            return self._making
        self._making = mine
        return None


def current_loop() -> asyncio.AbstractEventLoop:
    """Return the running loop of asyncio. Raises NotSupported if there is none, for example on trio."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        where = "trio's" if "trio" in sys.modules else "another library's"
        raise NotSupported(
            f"AsyncStore needs an event loop of asyncio, and none is running here (perhaps {where} is).",
            "Use asyncio (asyncio.run(main())); elsewhere use Store in threads, as in "
            "`await trio.to_thread.run_sync(store.append, event)`.",
            capability="other event loops",
        ) from None


class OwnLoop:
    """The event loop that connections belong to, because they can be awaited on no other.

    After it has ended, the next loop that uses the connections becomes their loop.
    """

    def __init__(self) -> None:
        self._loop = current_loop()

    def refuse_others(self) -> None:
        """Raise InvalidInput if called on another loop while the own loop is running."""
        loop = asyncio.get_running_loop()
        if loop is self._loop:
            return
        if self._loop.is_running():
            raise InvalidInput(
                "This AsyncStore is in use on another event loop, and its connections can only be awaited there.",
                "Open an AsyncStore for each event loop: `async with AsyncStore(url) as store` in the code it runs.",
            )
        self._loop = loop
