"""A pool of connections: opened when needed, checked out, released, reused.

A connection is opened in the call that needs it, so that a wrong password is raised to the caller instead of being
logged. Knows: threads, event loops, time limits. Does not know: statements, which server is asked (servers.py).
"""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from types import CoroutineType
from typing import Any, TypeVar
from weakref import ref

import msgspec
import psycopg

from eventfold.concurrency.calls import Call
from eventfold.concurrency.waiting import CHECK_AGAIN_S, Waiters
from eventfold.core.mutex import Mutex
from eventfold.engines.postgres.connection import Checkout, Connection, Mode, connect
from eventfold.engines.postgres.errors import is_transient
from eventfold.engines.postgres.idle import IdleTimer
from eventfold.engines.postgres.options import ServerAddress
from eventfold.errors import EventfoldError, InvalidInput, StoreBusy, StoreClosed
from eventfold.ports.refusals import closed_error

T = TypeVar("T")
SessionSetup = Callable[[Connection], Awaitable[None]]

MIN_ACQUIRE_TIMEOUT_S = 1.0  # for a connection that others use
HANDLER_ACQUIRE_TIMEOUT_S = 30.0  # for a connection in which handlers write: handlers may be slow
RECONNECT_DELAYS_S = (0.02, 0.05, 0.1, 0.2, 0.5)  # between attempts to reach a server; the last one repeats


class ThreadCheckouts:
    """The checkouts that each thread holds while user code runs.

    Such a thread never waits for another connection: the thread that has that one may be waiting for this thread.
    """

    def __init__(self) -> None:
        self._own = threading.local()

    def add(self, checkout: Checkout | None) -> None:
        """Record that the calling thread holds this checkout until it is over."""
        kept: list[Checkout] = getattr(self._own, "checkouts", [])
        self._own.checkouts = [each for each in kept if not each.is_over()]
        if checkout is not None:
            self._own.checkouts.append(checkout)

    def is_holding(self) -> bool:
        """Whether the calling thread holds a checkout."""
        kept: list[Checkout] = getattr(self._own, "checkouts", [])
        return any(not each.is_over() for each in kept)


class Pool:
    """Connections to one server, prepared in one way. At most `size` of them are checked out at a time.

    `set_up` prepares and checks each new connection. `reconnect_timeout_s`: how long to retry a server that was reached
    before. `acquire_timeout_s`: how long to wait for a connection that others use, before StoreBusy. `max_kept`: how
    many idle connections are kept open (None: all); `max_idle_s`: for how long (None: forever). A thread in
    `thread_checkouts` does not wait: it is given an additional connection, which is closed when it is released.
    """

    def __init__(
        self,
        address: ServerAddress,
        mode: Mode,
        size: int,
        reconnect_timeout_s: float,
        set_up: SessionSetup,
        *,
        acquire_timeout_s: float | None = None,
        max_kept: int | None = None,
        thread_checkouts: ThreadCheckouts | None = None,
        max_idle_s: float | None = None,
    ) -> None:
        self.address = address
        self._acquire_timeout_s = (
            max(reconnect_timeout_s, MIN_ACQUIRE_TIMEOUT_S) if acquire_timeout_s is None else acquire_timeout_s
        )
        self._max_kept, self._thread_checkouts = max_kept, thread_checkouts
        self._mode: Mode = mode
        self._size, self._reconnect_timeout_s, self._set_up = size, reconnect_timeout_s, set_up
        self._idle: deque[Connection] = deque()
        self._timer = None if max_idle_s is None else IdleTimer(mode, max_idle_s, self._idle, self._discard)
        self._checkouts: dict[int, Checkout] = {}  # in blocking mode, by id; one that is over no longer counts
        self._mutex, self._waiters = Mutex(), Waiters()
        self._loop_semaphore: tuple[asyncio.AbstractEventLoop, asyncio.Semaphore] | None = None
        self._pid = os.getpid()
        self._was_reached = False
        self.epoch = 0  # the store's; a connection with another epoch may lead to a server that was replaced
        self.closed = False

    def run_on(self, work: Callable[[Connection], Awaitable[T]]) -> CoroutineType[Any, Any, T]:
        """Await `work` with a usable connection. Raises StoreUnavailable and its subclasses if there is none.

        The checkout belongs to the returned coroutine: it is over when that has ended, at whichever instruction.
        """
        checkout = Checkout()
        checkout.call = Call()
        return checkout.call.bind(self._run_on(checkout, work))

    async def _run_on(self, checkout: Checkout, work: Callable[[Connection], Awaitable[T]]) -> T:
        connection = await self._check_out(checkout)
        try:
            return await work(connection)
        finally:
            await self.release(connection)

    def acquire(self) -> CoroutineType[Any, Any, Connection]:
        """Await a usable connection for longer than one call; `release` it afterwards. Raises as `run_on` does.

        The checkout of a connection that is never released is over once nothing refers to the connection.
        """
        checkout = Checkout()
        checkout.call = Call()
        return checkout.call.bind(self._acquire(checkout))

    async def _acquire(self, checkout: Checkout) -> Connection:
        connection = await self._check_out(checkout)
        checkout.call = None
        return connection

    async def _check_out(self, checkout: Checkout) -> Connection:
        self._check_open()
        await self._reserve(checkout)
        try:
            connection = await self._idle_or_new()
            checkout.connection, connection.checkout = ref(connection), checkout
            return connection
        except BaseException:
            self._free(checkout)
            raise

    async def release(self, connection: Connection) -> None:
        """Keep the connection for the next caller; close it if it is broken or within a transaction."""
        checkout, connection.checkout = connection.checkout, None
        try:
            if self.closed or not connection.is_idle() or not self._should_keep():
                await self._discard(connection)
            else:
                connection.idle_since = time.monotonic()
                self._idle.append(connection)
                if self._timer is not None:
                    self._timer.start()
        finally:
            self._free(checkout)

    def _should_keep(self) -> bool:
        if self._max_kept is not None and len(self._idle) >= self._max_kept:
            return False
        return len(self._checkouts) + len(self._idle) <= self._size  # the released one still counts as checked out

    async def shrink(self, size: int) -> None:
        """Allow no more than `size` connections from now on, as soon as those in use are released."""
        fewer, self._size = self._size - size, size
        if self._mode == "async":
            semaphore = self._semaphore(self._size + fewer)
            for _ in range(fewer):
                await semaphore.acquire()  # never released
        while len(self._idle) > size:
            await self._discard(self._idle.pop())

    async def close_idle(self) -> None:
        """Close the idle connections, so that the next connection is a new one."""
        while self._idle:
            await self._discard(self._idle.pop())

    async def _idle_or_new(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.epoch == self.epoch and connection.is_usable():
                return connection
            await self._discard(connection)
        return await self._connect()

    async def close(self) -> None:
        """Close the idle connections now, and the others as they are released."""
        self.closed = True
        if os.getpid() != self._pid:
            return  # a forked child must not close its parent's connections
        while self._idle:
            await self._discard(self._idle.pop())

    def _check_open(self) -> None:
        if self.closed:
            raise closed_error()
        if os.getpid() != self._pid:
            raise StoreClosed(
                "This store was opened before the process forked, and a connection cannot be shared by two processes.",
                "Open a new store in the child process.",
            )

    async def _connect(self) -> Connection:
        deadline = time.monotonic() + self._reconnect_timeout_s
        for attempt in range(1_000_000):
            try:
                connection = await connect(self.address, self._mode)
                try:
                    await self._set_up(connection)
                except BaseException:
                    await self._discard(connection)
                    raise
            except EventfoldError as error:
                if not self._was_reached or self.closed or not is_transient(error) or time.monotonic() > deadline:
                    raise
            else:
                self._was_reached = True
                return connection
            await self.sleep(RECONNECT_DELAYS_S[min(attempt, len(RECONNECT_DELAYS_S) - 1)])
        raise AssertionError("unreachable: the deadline ends the loop")

    async def sleep(self, seconds: float) -> None:
        """Sleep: the thread in blocking mode, otherwise the task."""
        if self._mode == "sync":
            time.sleep(seconds)
        else:
            await asyncio.sleep(seconds)

    async def _reserve(self, checkout: Checkout) -> None:
        timeout_s, reserved = self._acquire_timeout_s, True
        if self._thread_checkouts is not None and self._thread_checkouts.is_holding():
            self._checkouts[id(checkout)] = checkout
        elif self._mode == "sync":
            reserved = self._reserve_blocking(checkout, time.monotonic() + timeout_s)
        elif not self._semaphore().locked():
            reserved = await self._semaphore().acquire()
        else:
            try:
                async with asyncio.timeout(timeout_s):
                    reserved = await self._semaphore().acquire()
            except TimeoutError:
                reserved = False
        if not reserved:
            raise StoreBusy(
                f"All {self._size} connections to {self.address.where} were in use for {timeout_s:g} seconds.",
                "Try again, or allow more (pool=).",
            )

    def _reserve_blocking(self, checkout: Checkout, deadline: float) -> bool:
        while not self._mutex.run(self._try_reserve, checkout):
            left = deadline - time.monotonic()
            if left <= 0:
                gc.collect()  # a connection that was acquired and dropped may be part of a reference cycle
                return self._mutex.run(self._try_reserve, checkout)
            self._waiters.wait(self._has_capacity, min(left, CHECK_AGAIN_S))
        return True

    def _try_reserve(self, checkout: Checkout) -> bool:
        if not self._has_capacity():
            return False
        self._checkouts[id(checkout)] = checkout
        return True

    def _has_capacity(self) -> bool:
        if len(self._checkouts) < self._size:
            return True
        for number, checkout in tuple(self._checkouts.items()):
            if checkout.is_over() and self._checkouts.pop(number, None) is not None:
                checkout.abort()
        return len(self._checkouts) < self._size

    def _free(self, checkout: Checkout | None) -> None:
        self._checkouts.pop(id(checkout), None)
        if self._mode == "sync":
            self._waiters.wake_one()
        else:
            self._semaphore().release()

    def _semaphore(self, size: int | None = None) -> asyncio.Semaphore:
        loop = asyncio.get_running_loop()
        current = self._loop_semaphore
        if current is not None and current[0] is not loop and current[0].is_running():
            raise InvalidInput(
                "This store is in use on another event loop, and its connections can only be awaited there.",
                "Open an AsyncStore for each event loop.",
            )
        if self._loop_semaphore is None or self._loop_semaphore[0] is not loop:
            self._loop_semaphore = (loop, asyncio.Semaphore(size or self._size))
        return self._loop_semaphore[1]

    @staticmethod
    async def _discard(connection: Connection) -> None:
        try:
            await connection.close()
        except psycopg.Error:
            return  # it was broken already


class TargetPools(msgspec.Struct, frozen=True):
    """Connections for read models: `short` for single statements and short transactions, `long` for handlers' rows.

    Two pools, so that slow handlers leave connections for reading rows and renewing leases.
    """

    short: Pool
    long: Pool
    thread_checkouts: ThreadCheckouts


def split_pool_size(size: int) -> tuple[int, int]:
    """How many of `size` connections are for short use, and how many for handlers' transactions; at least one each."""
    long = max(1, size // 2)
    return max(1, size - long), long
