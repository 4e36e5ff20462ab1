"""Room: connections, in both colours from one source: `Link` is what the rest of the engine sees of one.

Knows: psycopg's sync and async faces, how a connection is made, checked, kept and given up. Does not know: events.
A sync link's coroutines never suspend; an async link's await psycopg.
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
from eventfold.engines.postgres.arrays import Dumpers
from eventfold.engines.postgres.errors import away, no_text, unreachable
from eventfold.engines.postgres.idle import IdleTimer
from eventfold.engines.postgres.options import Address
from eventfold.engines.postgres.pool import Holders
from eventfold.errors import EventfoldError, InvalidInput, StoreBusy, StoreClosed

Colour = Literal["sync", "async"]
T = TypeVar("T")
Rows = list[tuple[Any, ...]]
LEAST_WAIT = 1.0  # seconds to wait for a connection that others use
PAUSES = (0.02, 0.05, 0.1, 0.2, 0.5)  # seconds between attempts to reach a server that is away; the last repeats


class Link(Protocol):
    """One connection, used by one caller at a time."""

    pooled: bool  #         a transaction pooler stands in between: nothing of a session lasts
    only_local: bool  #     the last commit was made here but, against orders, on no standby
    epoch: int  #           the store's, as this server had it when it was asked last; 0: not known (a replica)

    @property
    def server(self) -> int:
        """The server's version: 150018 for 15.18."""
        ...

    async def fetch(self, sql: str, parameters: Sequence[Any] = (), *, prepare: bool | None = None) -> Rows:
        """Run one statement in a transaction of its own and return its rows. Raises psycopg.Error."""
        ...

    async def script(self, sql: str) -> None:
        """Run several statements without parameters. Raises psycopg.Error."""
        ...

    def idle(self) -> bool:
        """Whether it is open and in no transaction."""
        ...

    def usable(self) -> bool:
        """Whether it is idle and the other side has not hung up, as far as can be known without asking."""
        ...

    @property
    def closed(self) -> bool:
        """Whether the connection is gone."""
        ...

    @property
    def connection(self) -> Any:
        """psycopg's own, as psycopg makes it: for rows of others in our transactions."""
        ...

    async def close(self) -> None:
        """Hang up."""
        ...

    def hang_up(self) -> None:
        """Hang up at once, whatever it is in the middle of; for a connection that no call uses."""
        ...


class Loan:
    """A connection that is lent, or about to be.

    `call`: the coroutine that it is lent to; for a connection that is taken for longer, the one that takes it, and
    None from then on.
    """

    __slots__ = ("__weakref__", "call", "link")

    def __init__(self) -> None:
        self.call: Call | None = None
        self.link: ReferenceType[SyncLink | AsyncLink] | None = None

    def is_over(self) -> bool:
        """Whether an exception ended its call before it could say that the connection is given back."""
        if self.call is not None:
            return has_ended(self.call)
        return not self._has(None if self.link is None else self.link())

    def hang_up(self) -> None:
        """Close the connection that was not given back: what it was in the middle of is not known."""
        link = None if self.link is None else self.link()
        if link is not None and self._has(link):
            link.hang_up()

    def _has(self, link: SyncLink | AsyncLink | None) -> bool:
        return link is not None and link.loan is self


class _Face:
    """What both colours share: everything about a connection that needs no waiting."""

    def __init__(self, connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection
        self._pgconn = connection.pgconn
        self.pooled = False
        self.only_local = False
        self.epoch = 0
        self.loan: Loan | None = None  # while it is lent
        self.kept_at = 0.0  # when it was given back, by the monotonic clock
        self.dressed = False  # whether it reads rows as read models do
        connection.add_notice_handler(partial(_notice, ref(self)))  # no cycle: a link that is lost hangs up at once
        self._heard: Callable[[int], object] | None = None
        if hasattr(select, "poll"):  # Windows has none: there a dead connection is noticed in use
            poll = select.poll()
            poll.register(self._pgconn.socket, select.POLLIN)
            self._heard = poll.poll

    @property
    def server(self) -> int:
        """See Link."""
        return self._pgconn.server_version

    @property
    def backend(self) -> int:
        """The server process, as the other side introduced itself; a pooler gives another number."""
        return self._pgconn.backend_pid

    @property
    def connection(self) -> Any:
        """See Link."""
        return self._connection

    @property
    def closed(self) -> bool:
        """See Link."""
        return self._connection.closed or self._pgconn.status == ConnStatus.BAD

    def idle(self) -> bool:
        """See Link."""
        return not self.closed and self._pgconn.transaction_status == TransactionStatus.IDLE

    def usable(self) -> bool:
        """See Link."""
        if not self.idle():
            return False
        # Nothing was asked, so whatever is there to be read are the server's last words, or the end.
        return self._heard is None or not self._heard(0)

    def hang_up(self) -> None:
        """See Link."""
        self._pgconn.finish()

    def pooler_found(self) -> None:
        """Keep nothing in the session from now on."""
        self.pooled = True
        self._connection.prepare_threshold = None


def _notice(link: ReferenceType[_Face], notice: Diagnostic) -> None:
    # The wait for a standby was cancelled: committed, yet not where the user's settings want it. The server
    # reports success; the routine's name is the only mark that no translation changes.
    found = link()
    if found is not None and notice.source_function == "SyncRepWaitForLSN":
        found.only_local = True


class SyncLink(_Face):
    """A psycopg.Connection."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        super().__init__(connection)
        self._sync = connection
        self._cursor = psycopg.Cursor(connection, row_factory=tuple_row)
        _taught(self._cursor)

    async def fetch(self, sql: str, parameters: Sequence[Any] = (), *, prepare: bool | None = None) -> Rows:
        """See Link."""
        cursor = self._cursor.execute(sql.encode(), parameters or None, prepare=prepare)
        try:
            return cursor.fetchall() if cursor.description else []
        except UnicodeDecodeError as error:
            raise no_text(error) from error

    async def script(self, sql: str) -> None:
        """See Link."""
        self._sync.execute(sql.encode())

    async def close(self) -> None:
        """See Link."""
        self._sync.close()


def _taught(cursor: psycopg.Cursor[Any] | psycopg.AsyncCursor[Any]) -> None:
    """Our own ways with types. The cursor has them, and not the connection, over which others may write their rows."""
    cursor.format = Format.BINARY
    Dumpers.register(cursor)
    # ids are wanted as bytes, and the C loader of bytea gives them fastest
    loader = cursor.adapters.get_loader(17, Format.BINARY)
    if loader is not None:
        cursor.adapters.register_loader(2950, loader)
    # one width for every number, so that a statement is prepared once and not once for each width
    cursor.adapters.register_dumper(int, Int8BinaryDumper)


class AsyncLink(_Face):
    """A psycopg.AsyncConnection."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        super().__init__(connection)
        self._async = connection
        self._cursor = psycopg.AsyncCursor(connection, row_factory=tuple_row)
        _taught(self._cursor)
        self.loop = asyncio.get_running_loop()

    def usable(self) -> bool:
        """See Link. A connection belongs to the loop it was made on."""
        return self.loop is asyncio.get_running_loop() and super().usable()

    async def fetch(self, sql: str, parameters: Sequence[Any] = (), *, prepare: bool | None = None) -> Rows:
        """See Link."""
        cursor = await self._cursor.execute(sql.encode(), parameters or None, prepare=prepare)
        try:
            return await cursor.fetchall() if cursor.description else []
        except UnicodeDecodeError as error:
            raise no_text(error) from error

    async def script(self, sql: str) -> None:
        """See Link."""
        await self._async.execute(sql.encode())

    async def close(self) -> None:
        """See Link."""
        if self.loop is asyncio.get_running_loop():
            await self._async.close()
        else:
            self._pgconn.finish()


async def dial(address: Address, colour: Colour) -> SyncLink | AsyncLink:
    """One new connection. Raises StoreUnavailable and kin, with the reason."""
    try:
        if colour == "sync":
            return SyncLink(psycopg.Connection.connect(autocommit=True, **address.parameters))
        return AsyncLink(await psycopg.AsyncConnection.connect(autocommit=True, **address.parameters))
    except psycopg.Error as error:
        raise unreachable(error, address.where) from None


async def off_loop(on_loop: bool, call: Callable[[], None]) -> None:
    """Something that waits for a thread, without holding up a loop."""
    if on_loop:
        await asyncio.to_thread(call)
    else:
        call()


Greet = Callable[[SyncLink | AsyncLink], Awaitable[None]]


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
        address: Address,
        colour: Colour,
        most: int,
        patience: float,
        greet: Greet,
        *,
        wait: float | None = None,
        keep: int | None = None,
        holders: Holders | None = None,
        max_idle: float | None = None,
    ) -> None:
        self.address = address
        self._wait = max(patience, LEAST_WAIT) if wait is None else wait
        self._keep, self._holders = keep, holders
        self._colour: Colour = colour
        self._most, self._patience, self._greet = most, patience, greet
        self._idle: deque[SyncLink | AsyncLink] = deque()
        self._timer = None if max_idle is None else IdleTimer(colour, max_idle, self._idle, self._drop)
        # What is lent, or about to be, in the blocking colour, by the id of its loan. One that is over counts no more.
        self._lent: dict[int, Loan] = {}
        self._counting, self._waiting = Mutex(), Waiters()
        self._loop_gate: tuple[asyncio.AbstractEventLoop, asyncio.Semaphore] | None = None
        self._pid = os.getpid()
        self._reached = False
        self.epoch = 0  # the store's; a connection that knows another one may lead to a server that was left
        self.closed = False

    def lend(self, work: Callable[[SyncLink | AsyncLink], Awaitable[T]]) -> CoroutineType[Any, Any, T]:
        """Await `work` with a usable connection. Raises StoreUnavailable and kin where there is none: nothing was sent.

        The connection is lent to this very call: when the call has ended, at whichever instruction, it is lent no more.
        """
        loan = Loan()
        call = self._lend(loan, work)
        loan.call = ref(call)
        return call

    async def _lend(self, loan: Loan, work: Callable[[SyncLink | AsyncLink], Awaitable[T]]) -> T:
        link = await self._enter_and_find(loan)
        try:
            return await work(link)
        finally:
            await self.give(link)

    def take(self) -> CoroutineType[Any, Any, SyncLink | AsyncLink]:
        """Await a usable connection for longer than one call; give it back with `give`. Raises as `lend` does.

        One that is not given back is lent no more once nothing refers to it.
        """
        loan = Loan()
        call = self._take(loan)
        loan.call = ref(call)
        return call

    async def _take(self, loan: Loan) -> SyncLink | AsyncLink:
        link = await self._enter_and_find(loan)
        loan.call = None
        return link

    async def _enter_and_find(self, loan: Loan) -> SyncLink | AsyncLink:
        self._refuse_if_closed()
        await self._enter(loan)
        try:
            link = await self._usable()
            loan.link, link.loan = ref(link), loan
            return link
        except BaseException:
            self._leave(loan)
            raise

    async def give(self, link: SyncLink | AsyncLink) -> None:
        """Take a connection back; a broken one, or one in the middle of something, is closed."""
        loan, link.loan = link.loan, None
        try:
            if self.closed or not link.idle() or not self._has_room_to_keep():
                await self._drop(link)
            else:
                link.kept_at = time.monotonic()
                self._idle.append(link)
                if self._timer is not None:
                    self._timer.start()
        finally:
            self._leave(loan)

    def _has_room_to_keep(self) -> bool:
        if self._keep is not None and len(self._idle) >= self._keep:
            return False
        return len(self._lent) + len(self._idle) <= self._most  # what comes back is still counted as lent

    async def limit(self, most: int) -> None:
        """Have no more than so many from now on, as soon as those in use come back."""
        fewer, self._most = self._most - most, most
        if self._colour == "async":
            gate = self._semaphore(self._most + fewer)
            for _ in range(fewer):
                await gate.acquire()  # for good
        while len(self._idle) > most:
            await self._drop(self._idle.pop())

    async def hang_up_idle(self) -> None:
        """Close what is kept, so that the next connection is a new one."""
        while self._idle:
            await self._drop(self._idle.pop())

    async def _usable(self) -> SyncLink | AsyncLink:
        while self._idle:
            link = self._idle.pop()
            if link.epoch == self.epoch and link.usable():
                return link
            await self._drop(link)
        return await self._connect()

    async def close(self) -> None:
        """Close what is idle now, and the rest as it comes back."""
        self.closed = True
        if os.getpid() != self._pid:
            return  # a fork's connections belong to its parent
        while self._idle:
            await self._drop(self._idle.pop())

    def _refuse_if_closed(self) -> None:
        if self.closed:
            raise StoreClosed("This store was closed.", "Open it again.")
        if os.getpid() != self._pid:
            raise StoreClosed(
                "This store was opened before the process forked, and a connection cannot be shared by two processes.",
                "Open the store anew in the child process.",
            )

    async def _connect(self) -> SyncLink | AsyncLink:
        deadline = time.monotonic() + self._patience
        for attempt in range(1_000_000):
            try:
                link = await dial(self.address, self._colour)
                try:
                    await self._greet(link)
                except BaseException:
                    await self._drop(link)
                    raise
            except EventfoldError as error:
                if not self._reached or self.closed or not away(error) or time.monotonic() > deadline:
                    raise
            else:
                self._reached = True
                return link
            await self.pause(PAUSES[min(attempt, len(PAUSES) - 1)])
        raise AssertionError("unreachable: the deadline ends the loop")

    async def pause(self, seconds: float) -> None:
        """Wait, in the colour's way."""
        if self._colour == "sync":
            time.sleep(seconds)
        else:
            await asyncio.sleep(seconds)

    async def _enter(self, loan: Loan) -> None:
        wait, entered = self._wait, True
        if self._holders is not None and self._holders.is_one():
            self._lent[id(loan)] = loan
        elif self._colour == "sync":
            entered = self._enter_here(loan, time.monotonic() + wait)
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
                f"All {self._most} connections to {self.address.where} were in use for {wait:g} seconds.",
                "Try again, or allow more (pool=).",
            )

    def _enter_here(self, loan: Loan, deadline: float) -> bool:
        while not self._counting.run(self._admit, loan):
            left = deadline - time.monotonic()
            if left <= 0:
                gc.collect()  # a connection that was taken for longer may live on in a cycle
                return self._counting.run(self._admit, loan)
            self._waiting.wait(self._has_room, min(left, LOOK_AGAIN_S))
        return True

    def _admit(self, loan: Loan) -> bool:
        if not self._has_room():
            return False
        self._lent[id(loan)] = loan
        return True

    def _has_room(self) -> bool:
        if len(self._lent) < self._most:
            return True
        for number, loan in tuple(self._lent.items()):
            if loan.is_over() and self._lent.pop(number, None) is not None:
                loan.hang_up()
        return len(self._lent) < self._most

    def _leave(self, loan: Loan | None) -> None:
        self._lent.pop(id(loan), None)
        if self._colour == "sync":
            self._waiting.wake_one()
        else:
            self._semaphore().release()

    def _semaphore(self, most: int | None = None) -> asyncio.Semaphore:
        loop = asyncio.get_running_loop()
        gate = self._loop_gate
        if gate is not None and gate[0] is not loop and gate[0].is_running():
            raise InvalidInput(
                "This store is in use on another event loop, and its connections can only be awaited there.",
                "Open an AsyncStore for each event loop.",
            )
        if self._loop_gate is None or self._loop_gate[0] is not loop:
            self._loop_gate = (loop, asyncio.Semaphore(most or self._most))
        return self._loop_gate[1]

    @staticmethod
    async def _drop(link: SyncLink | AsyncLink) -> None:
        try:
            await link.close()
        except psycopg.Error:
            return  # it was broken already
