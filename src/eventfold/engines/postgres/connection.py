"""Room: connections, in both colours from one source: `Link` is what the rest of the engine sees of one.

Knows: psycopg's sync and async faces, how a connection is made, checked, kept and given up. Does not know: events.
A sync connection's coroutines never suspend; an async connection's await psycopg.
"""

from __future__ import annotations

import asyncio
import gc
import os
import select
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from types import CoroutineType
from typing import Any, Literal, Protocol, TypeVar
from weakref import ReferenceType, ref

import psycopg
from psycopg.errors import Diagnostic
from psycopg.pq import ConnStatus, Format, TransactionStatus
from psycopg.rows import tuple_row
from psycopg.types.numeric import Int8BinaryDumper

from eventfold.concurrency.calls import Call, has_ended
from eventfold.concurrency.waiting import LOOK_AGAIN_S, Waiters
from eventfold.core.mutex import Mutex
from eventfold.engines.postgres.arrays import ArrayDumpers
from eventfold.engines.postgres.errors import is_transient, translate_connection_error, undecodable_text
from eventfold.engines.postgres.idle import IdleTimer
from eventfold.engines.postgres.options import ServerAddress
from eventfold.engines.postgres.pool import ThreadCheckouts
from eventfold.errors import EventfoldError, InvalidInput, StoreBusy, StoreClosed

Mode = Literal["sync", "async"]
T = TypeVar("T")
ResultRows = list[tuple[Any, ...]]
MIN_ACQUIRE_TIMEOUT_S = 1.0  # seconds to wait for a connection that others use
RECONNECT_DELAYS_S = (
    0.02,
    0.05,
    0.1,
    0.2,
    0.5,
)  # seconds between attempts to reach a server that is away; the last repeats


class Connection(Protocol):
    """One connection, used by one caller at a time."""

    pooled: bool  #         a transaction pooler stands in between: nothing of a session lasts
    committed_only_locally: bool  #     the last commit was made here but, against orders, on no standby
    epoch: int  #           the store's, as this server had it when it was asked last; 0: not known (a replica)

    @property
    def server_version(self) -> int:
        """The server's version: 150018 for 15.18."""
        ...

    async def fetch(self, sql: str, parameters: Sequence[Any] = (), *, prepare: bool | None = None) -> ResultRows:
        """Run one statement in a transaction of its own and return its rows. Raises psycopg.Error."""
        ...

    async def execute_script(self, sql: str) -> None:
        """Run several statements without parameters. Raises psycopg.Error."""
        ...

    def is_idle(self) -> bool:
        """Whether it is open and in no transaction."""
        ...

    def is_usable(self) -> bool:
        """Whether it is idle and the other side has not hung up, as far as can be known without asking."""
        ...

    @property
    def closed(self) -> bool:
        """Whether the connection is gone."""
        ...

    @property
    def psycopg_connection(self) -> Any:
        """psycopg's own, as psycopg makes it: for rows of others in our transactions."""
        ...

    async def close(self) -> None:
        """Hang up."""
        ...

    def abort(self) -> None:
        """Hang up at once, whatever it is in the middle of; for a connection that no call uses."""
        ...


class Checkout:
    """A connection that is lent, or about to be.

    `coroutine`: that which it is lent to; for a connection that is taken for longer, the one that takes it, and
    None from then on.
    """

    __slots__ = ("__weakref__", "connection", "coroutine")

    def __init__(self) -> None:
        self.coroutine: Call | None = None
        self.connection: ReferenceType[SyncConnection | AsyncConnection] | None = None

    def is_over(self) -> bool:
        """Whether an exception ended its call before it could say that the connection is given back."""
        if self.coroutine is not None:
            return has_ended(self.coroutine)
        return not self._holds(None if self.connection is None else self.connection())

    def abort(self) -> None:
        """Close the connection that was not given back: what it was in the middle of is not known."""
        connection = None if self.connection is None else self.connection()
        if connection is not None and self._holds(connection):
            connection.abort()

    def _holds(self, connection: SyncConnection | AsyncConnection | None) -> bool:
        return connection is not None and connection.checkout is self


class _BaseConnection:
    """What both colours share: everything about a connection that needs no waiting."""

    def __init__(self, connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
        self._psycopg = connection
        self._pgconn = connection.pgconn
        self.pooled = False
        self.committed_only_locally = False
        self.epoch = 0
        self.checkout: Checkout | None = None  # while it is lent
        self.idle_since = 0.0  # when it was given back, by the monotonic clock
        self.is_set_up_for_targets = False  # whether it reads rows as read models do
        connection.add_notice_handler(
            partial(_note_missing_standby, ref(self))
        )  # no cycle: a connection that is lost hangs up at once
        self._poll_readable: Callable[[int], object] | None = None
        if hasattr(select, "poll"):  # Windows has none: there a dead connection is noticed in use
            poll = select.poll()
            poll.register(self._pgconn.socket, select.POLLIN)
            self._poll_readable = poll.poll

    @property
    def server_version(self) -> int:
        """See Link."""
        return self._pgconn.server_version

    @property
    def backend_pid(self) -> int:
        """The server process, as the other side introduced itself; a pooler gives another number."""
        return self._pgconn.backend_pid

    @property
    def psycopg_connection(self) -> Any:
        """See Link."""
        return self._psycopg

    @property
    def closed(self) -> bool:
        """See Link."""
        return self._psycopg.closed or self._pgconn.status == ConnStatus.BAD

    def is_idle(self) -> bool:
        """See Link."""
        return not self.closed and self._pgconn.transaction_status == TransactionStatus.IDLE

    def is_usable(self) -> bool:
        """See Link."""
        if not self.is_idle():
            return False
        # Nothing was asked, so whatever is there to be read are the server's last words, or the end.
        return self._poll_readable is None or not self._poll_readable(0)

    def abort(self) -> None:
        """See Link."""
        self._pgconn.finish()

    def mark_pooled(self) -> None:
        """Keep nothing in the session from now on."""
        self.pooled = True
        self._psycopg.prepare_threshold = None


def _note_missing_standby(connection: ReferenceType[_BaseConnection], notice: Diagnostic) -> None:
    # The wait for a standby was cancelled: committed, yet not where the user's settings want it. The server
    # reports success; the routine's name is the only mark that no translation changes.
    found = connection()
    if found is not None and notice.source_function == "SyncRepWaitForLSN":
        found.committed_only_locally = True


class SyncConnection(_BaseConnection):
    """A psycopg.Connection."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        super().__init__(connection)
        self._sync = connection
        self._cursor = psycopg.Cursor(connection, row_factory=tuple_row)
        _register_adapters(self._cursor)

    async def fetch(self, sql: str, parameters: Sequence[Any] = (), *, prepare: bool | None = None) -> ResultRows:
        """See Link."""
        cursor = self._cursor.execute(sql.encode(), parameters or None, prepare=prepare)
        try:
            return cursor.fetchall() if cursor.description else []
        except UnicodeDecodeError as error:
            raise undecodable_text(error) from error

    async def execute_script(self, sql: str) -> None:
        """See Link."""
        self._sync.execute(sql.encode())

    async def close(self) -> None:
        """See Link."""
        self._sync.close()


def _register_adapters(cursor: psycopg.Cursor[Any] | psycopg.AsyncCursor[Any]) -> None:
    """Our own ways with types. The cursor has them, and not the connection, over which others may write their rows."""
    cursor.format = Format.BINARY
    ArrayDumpers.register(cursor)
    # ids are wanted as bytes, and the C loader of bytea gives them fastest
    loader = cursor.adapters.get_loader(17, Format.BINARY)
    if loader is not None:
        cursor.adapters.register_loader(2950, loader)
    # one width for every number, so that a statement is prepared once and not once for each width
    cursor.adapters.register_dumper(int, Int8BinaryDumper)


class AsyncConnection(_BaseConnection):
    """A psycopg.AsyncConnection."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        super().__init__(connection)
        self._async = connection
        self._cursor = psycopg.AsyncCursor(connection, row_factory=tuple_row)
        _register_adapters(self._cursor)
        self.loop = asyncio.get_running_loop()

    def usable(self) -> bool:
        """See Link. A connection belongs to the loop it was made on."""
        return self.loop is asyncio.get_running_loop() and super().is_usable()

    async def fetch(self, sql: str, parameters: Sequence[Any] = (), *, prepare: bool | None = None) -> ResultRows:
        """See Link."""
        cursor = await self._cursor.execute(sql.encode(), parameters or None, prepare=prepare)
        try:
            return await cursor.fetchall() if cursor.description else []
        except UnicodeDecodeError as error:
            raise undecodable_text(error) from error

    async def execute_script(self, sql: str) -> None:
        """See Link."""
        await self._async.execute(sql.encode())

    async def close(self) -> None:
        """See Link."""
        if self.loop is asyncio.get_running_loop():
            await self._async.close()
        else:
            self._pgconn.finish()


async def connect(address: ServerAddress, colour: Mode) -> SyncConnection | AsyncConnection:
    """One new connection. Raises StoreUnavailable and kin, with the reason."""
    try:
        if colour == "sync":
            return SyncConnection(psycopg.Connection.connect(autocommit=True, **address.parameters))
        return AsyncConnection(await psycopg.AsyncConnection.connect(autocommit=True, **address.parameters))
    except psycopg.Error as error:
        raise translate_connection_error(error, address.where) from None


async def run_off_loop(on_loop: bool, call: Callable[[], None]) -> None:
    """Something that waits for a thread, without holding up a loop."""
    if on_loop:
        await asyncio.to_thread(call)
    else:
        call()


SessionSetup = Callable[[SyncConnection | AsyncConnection], Awaitable[None]]


class Pool:
    """Connections of one kind, made when needed, kept for the next caller, and thrown away when they broke.

    Made in the caller's own call, so that a wrong password is told to the caller and not to a log. `greet`
    prepares and checks each new one. A server that was reached once and is away is waited for, `patience` seconds, and
    a connection that others use `wait` seconds. `keep`: how many are kept open that nobody uses (None: all), each for
    `max_idle` seconds (None: for ever). A thread that is one of the `holders` does not wait: it is given one connection
    more, which is closed afterwards.
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
        self._idle: deque[SyncConnection | AsyncConnection] = deque()
        self._timer = None if max_idle_s is None else IdleTimer(mode, max_idle_s, self._idle, self._discard)
        # What is lent, or about to be, in the blocking colour, by the id of its loan. One that is over counts no more.
        self._checkouts: dict[int, Checkout] = {}
        self._mutex, self._waiters = Mutex(), Waiters()
        self._loop_semaphore: tuple[asyncio.AbstractEventLoop, asyncio.Semaphore] | None = None
        self._pid = os.getpid()
        self._was_reached = False
        self.epoch = 0  # the store's; a connection that knows another one may lead to a server that was left
        self.closed = False

    def run_on(self, work: Callable[[SyncConnection | AsyncConnection], Awaitable[T]]) -> CoroutineType[Any, Any, T]:
        """Await `work` with a usable connection. Raises StoreUnavailable and kin where there is none: nothing was sent.

        The connection is lent to this very call: when the call has ended, at whichever instruction, it is lent no more.
        """
        loan = Checkout()
        call = self._run_on(loan, work)
        loan.coroutine = ref(call)
        return call

    async def _run_on(self, loan: Checkout, work: Callable[[SyncConnection | AsyncConnection], Awaitable[T]]) -> T:
        connection = await self._check_out(loan)
        try:
            return await work(connection)
        finally:
            await self.release(connection)

    def acquire(self) -> CoroutineType[Any, Any, SyncConnection | AsyncConnection]:
        """Await a usable connection for longer than one call; give it back with `give`. Raises as `lend` does.

        One that is not given back is lent no more once nothing refers to it.
        """
        loan = Checkout()
        call = self._acquire(loan)
        loan.coroutine = ref(call)
        return call

    async def _acquire(self, loan: Checkout) -> SyncConnection | AsyncConnection:
        connection = await self._check_out(loan)
        loan.coroutine = None
        return connection

    async def _check_out(self, loan: Checkout) -> SyncConnection | AsyncConnection:
        self._check_open()
        await self._reserve(loan)
        try:
            connection = await self._idle_or_new()
            loan.connection, connection.checkout = ref(connection), loan
            return connection
        except BaseException:
            self._free(loan)
            raise

    async def release(self, connection: SyncConnection | AsyncConnection) -> None:
        """Take a connection back; a broken one, or one in the middle of something, is closed."""
        loan, connection.checkout = connection.checkout, None
        try:
            if self.closed or not connection.is_idle() or not self._should_keep():
                await self._discard(connection)
            else:
                connection.idle_since = time.monotonic()
                self._idle.append(connection)
                if self._timer is not None:
                    self._timer.start()
        finally:
            self._free(loan)

    def _should_keep(self) -> bool:
        if self._max_kept is not None and len(self._idle) >= self._max_kept:
            return False
        return len(self._checkouts) + len(self._idle) <= self._size  # what comes back is still counted as lent

    async def shrink(self, most: int) -> None:
        """Have no more than so many from now on, as soon as those in use come back."""
        fewer, self._size = self._size - most, most
        if self._mode == "async":
            gate = self._semaphore(self._size + fewer)
            for _ in range(fewer):
                await gate.acquire()  # for good
        while len(self._idle) > most:
            await self._discard(self._idle.pop())

    async def close_idle(self) -> None:
        """Close what is kept, so that the next connection is a new one."""
        while self._idle:
            await self._discard(self._idle.pop())

    async def _idle_or_new(self) -> SyncConnection | AsyncConnection:
        while self._idle:
            connection = self._idle.pop()
            if connection.epoch == self.epoch and connection.is_usable():
                return connection
            await self._discard(connection)
        return await self._connect()

    async def close(self) -> None:
        """Close what is idle now, and the rest as it comes back."""
        self.closed = True
        if os.getpid() != self._pid:
            return  # a fork's connections belong to its parent
        while self._idle:
            await self._discard(self._idle.pop())

    def _check_open(self) -> None:
        if self.closed:
            raise StoreClosed("This store was closed.", "Open it again.")
        if os.getpid() != self._pid:
            raise StoreClosed(
                "This store was opened before the process forked, and a connection cannot be shared by two processes.",
                "Open the store anew in the child process.",
            )

    async def _connect(self) -> SyncConnection | AsyncConnection:
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
        """Wait, in the colour's way."""
        if self._mode == "sync":
            time.sleep(seconds)
        else:
            await asyncio.sleep(seconds)

    async def _reserve(self, loan: Checkout) -> None:
        wait, entered = self._acquire_timeout_s, True
        if self._thread_checkouts is not None and self._thread_checkouts.is_holding():
            self._checkouts[id(loan)] = loan
        elif self._mode == "sync":
            entered = self._reserve_blocking(loan, time.monotonic() + wait)
        elif not self._semaphore().locked():
            entered = await self._semaphore().acquire()
        else:
            try:
                async with asyncio.timeout(wait):
                    entered = await self._semaphore().acquire()
            except TimeoutError:
                entered = False
        if not entered:
            raise StoreBusy(
                f"All {self._size} connections to {self.address.where} were in use for {wait:g} seconds.",
                "Try again, or allow more (pool=).",
            )

    def _reserve_blocking(self, loan: Checkout, deadline: float) -> bool:
        while not self._mutex.run(self._try_reserve, loan):
            left = deadline - time.monotonic()
            if left <= 0:
                gc.collect()  # a connection that was taken for longer may live on in a cycle
                return self._mutex.run(self._try_reserve, loan)
            self._waiters.wait(self._has_capacity, min(left, LOOK_AGAIN_S))
        return True

    def _try_reserve(self, loan: Checkout) -> bool:
        if not self._has_capacity():
            return False
        self._checkouts[id(loan)] = loan
        return True

    def _has_capacity(self) -> bool:
        if len(self._checkouts) < self._size:
            return True
        for number, loan in tuple(self._checkouts.items()):
            if loan.is_over() and self._checkouts.pop(number, None) is not None:
                loan.abort()
        return len(self._checkouts) < self._size

    def _free(self, loan: Checkout | None) -> None:
        self._checkouts.pop(id(loan), None)
        if self._mode == "sync":
            self._waiters.wake_one()
        else:
            self._semaphore().release()

    def _semaphore(self, most: int | None = None) -> asyncio.Semaphore:
        loop = asyncio.get_running_loop()
        gate = self._loop_semaphore
        if gate is not None and gate[0] is not loop and gate[0].is_running():
            raise InvalidInput(
                "This store is in use on another event loop, and its connections can only be awaited there.",
                "Open an AsyncStore for each event loop.",
            )
        if self._loop_semaphore is None or self._loop_semaphore[0] is not loop:
            self._loop_semaphore = (loop, asyncio.Semaphore(most or self._size))
        return self._loop_semaphore[1]

    @staticmethod
    async def _discard(connection: SyncConnection | AsyncConnection) -> None:
        try:
            await connection.close()
        except psycopg.Error:
            return  # it was broken already
