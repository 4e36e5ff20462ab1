"""One connection to a server, blocking or asyncio, behind the same methods.

`SyncConnection` wraps psycopg.Connection: its coroutines never suspend. `AsyncConnection` wraps
psycopg.AsyncConnection. Knows: psycopg's two interfaces, how a connection is made, configured and closed. Does not
know: events, who uses a connection (pool.py).
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal
from weakref import ReferenceType, ref

import psycopg
from psycopg.errors import Diagnostic
from psycopg.pq import ConnStatus, Format, TransactionStatus
from psycopg.rows import tuple_row
from psycopg.types.numeric import Int8BinaryDumper

from eventfold.concurrency.calls import Call
from eventfold.engines.postgres.arrays import ArrayDumpers
from eventfold.engines.postgres.errors import translate_connection_error, translate_error, undecodable_text
from eventfold.engines.postgres.options import ServerAddress

Mode = Literal["sync", "async"]
ResultRows = list[tuple[Any, ...]]


class Checkout:
    """One caller's hold on a pooled connection, from before the connection is chosen until it is released.

    `call`: the call that uses the connection. For a connection that outlives the call that acquires it, this is
    the acquiring call, and None once that has returned.
    """

    __slots__ = ("__weakref__", "call", "connection")

    def __init__(self) -> None:
        self.call: Call | None = None
        self.connection: ReferenceType[Connection] | None = None

    def is_over(self) -> bool:
        """Whether an exception ended the call before it could release the connection."""
        if self.call is not None:
            return self.call.has_ended()
        return not self._holds(None if self.connection is None else self.connection())

    def abort(self) -> None:
        """Close the connection that was not released: the state of its transaction is unknown."""
        connection = None if self.connection is None else self.connection()
        if connection is not None and self._holds(connection):
            connection.abort()

    def _holds(self, connection: Connection | None) -> bool:
        return connection is not None and connection.checkout is self


class _BaseConnection:
    """The part of both connections that never waits. One caller uses a connection at a time.

    `pooled`                  a transaction pooler is in between: no session state survives a transaction
    `committed_only_locally`  the last commit did not reach the standby that the session's settings require
    `epoch`                   the store's epoch when this server was last asked; 0: unknown (a replica)
    `checkout`                the current checkout, None while the connection is idle
    `idle_since`              when it was released, by the monotonic clock
    `is_set_up_for_targets`   whether it has the type adapters that read models need
    `is_pipelining`           it sends statements before it reads the results of earlier ones; an interrupt may leave it
                              in this state
    """

    def __init__(self, connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
        self._psycopg = connection
        self._pgconn = connection.pgconn
        self.pooled = False
        self.committed_only_locally = False
        self.epoch = 0
        self.checkout: Checkout | None = None
        self.idle_since = 0.0
        self.is_set_up_for_targets = False
        self.is_pipelining = False
        # A weak reference makes no cycle: a connection that nothing refers to is closed at once.
        connection.add_notice_handler(partial(_note_missing_standby, ref(self)))
        self._poll_readable: Callable[[int], object] | None = None
        if hasattr(select, "poll"):  # Windows has no poll: there a dead connection is noticed when it is used
            poll = select.poll()
            poll.register(self._pgconn.socket, select.POLLIN)
            self._poll_readable = poll.poll

    @property
    def server_version(self) -> int:
        """The server's version: 150018 for 15.18."""
        return self._pgconn.server_version

    @property
    def backend_pid(self) -> int:
        """The server process, as announced when connecting. A pooler announces a number of its own."""
        return self._pgconn.backend_pid

    @property
    def psycopg_connection(self) -> Any:
        """The wrapped connection, with psycopg's default adapters: read models write their rows over it."""
        return self._psycopg

    @property
    def closed(self) -> bool:
        """Whether the connection is closed or broken."""
        return self._psycopg.closed or self._pgconn.status == ConnStatus.BAD

    def is_idle(self) -> bool:
        """Whether it is open and in no transaction."""
        if self.closed or self.is_pipelining:
            return False
        return self._pgconn.transaction_status == TransactionStatus.IDLE

    def is_usable(self) -> bool:
        """Whether it is idle and the server has not closed it, as far as can be known without a query."""
        if not self.is_idle():
            return False
        # No query is pending, so readable data is the server's final message or the end of the stream.
        return self._poll_readable is None or not self._poll_readable(0)

    def abort(self) -> None:
        """Close the socket at once, in whatever state it is; for a connection that no call uses."""
        self._pgconn.finish()

    def mark_pooled(self) -> None:
        """Keep no session state from now on: a transaction pooler is in between."""
        self.pooled = True
        self._psycopg.prepare_threshold = None


def _note_missing_standby(connection: ReferenceType[_BaseConnection], notice: Diagnostic) -> None:
    # The wait for a synchronous standby was cancelled: the transaction is committed on this server only. The server
    # reports success; the name of the routine is the only part of the notice that is never translated.
    found = connection()
    if found is not None and notice.source_function == "SyncRepWaitForLSN":
        found.committed_only_locally = True


def _register_adapters(cursor: psycopg.Cursor[Any] | psycopg.AsyncCursor[Any]) -> None:
    """Register the engine's adapters on its cursor. The connection keeps psycopg's: read models use it directly."""
    cursor.format = Format.BINARY
    ArrayDumpers.register(cursor)
    # Event ids are read as bytes; the C loader of bytea is the fastest for them.
    loader = cursor.adapters.get_loader(17, Format.BINARY)
    if loader is not None:
        cursor.adapters.register_loader(2950, loader)
    # Integers of one width: a statement is prepared once, not once for each width.
    cursor.adapters.register_dumper(int, Int8BinaryDumper)


class SyncConnection(_BaseConnection):
    """A connection whose calls block. Its coroutines never suspend."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        super().__init__(connection)
        self._sync = connection
        self._cursor = psycopg.Cursor(connection, row_factory=tuple_row)
        _register_adapters(self._cursor)
        self._control_cursor = psycopg.Cursor(connection)  # of statements whose results are not read

    async def fetch(self, sql: str, parameters: Sequence[Any] = (), *, prepare: bool | None = None) -> ResultRows:
        """Run one statement in a transaction of its own and return its rows. Raises psycopg.Error."""
        cursor = self._cursor.execute(sql.encode(), parameters or None, prepare=prepare)
        try:
            return cursor.fetchall() if cursor.description else []
        except UnicodeDecodeError as error:
            raise undecodable_text(error) from error

    async def execute_script(self, sql: str) -> None:
        """Run several statements without parameters. Raises psycopg.Error."""
        self._sync.execute(sql.encode())

    async def begin_and_fetch(self, begin: Sequence[str], sql: str, parameters: Sequence[Any]) -> ResultRows:
        """Run the statements of `begin`, then `sql`, in one round trip; return the rows of `sql`.

        Raises psycopg.Error. If that is an error of the server, the transaction has failed.
        """

        def run() -> None:
            for statement in begin:
                self._control_cursor.execute(statement.encode(), prepare=True)
            self._cursor.execute(sql.encode(), parameters, prepare=True)

        if self._can_pipeline():
            self._run_pipelined(run)
        else:
            await self.execute_script("; ".join(begin))
            self._cursor.execute(sql.encode(), parameters, prepare=True)
        try:
            return self._cursor.fetchall()
        except UnicodeDecodeError as error:
            raise undecodable_text(error) from error

    async def write_and_commit(self, write: Callable[[], None]) -> None:
        """Call `write`, then commit: in one round trip if `write` reads no results.

        `write` runs its statements on `psycopg_connection`. Raises what `write` raises, and psycopg.Error: if the
        connection was not lost, nothing was committed, since a server skips what follows a statement that failed.
        """

        def run() -> None:
            write()
            self._control_cursor.execute(b"COMMIT", prepare=False)

        if self._can_pipeline():
            self._run_pipelined(run)
        else:
            run()

    def _can_pipeline(self) -> bool:
        """Whether statements can be sent together: libpq can since version 14, and poolers are not asked to."""
        return not self.pooled and psycopg.Pipeline.is_supported()

    def _run_pipelined(self, run: Callable[[], None]) -> None:
        """Run statements without waiting for the results of each; wait for all at the end. Raises the first error."""
        failure: BaseException | None = None
        self.is_pipelining = True
        try:
            with self._sync.pipeline():
                try:
                    run()
                except Exception as error:  # noqa: BLE001 (raised below: psycopg logs what fails after an exception)
                    failure = error
        except psycopg.errors.PipelineAborted as aborted:  # the error before it is its context, if it came in time
            failure = failure or (aborted.__context__ if isinstance(aborted.__context__, psycopg.Error) else aborted)
        except psycopg.Error as error:
            failure = failure or error
        self.is_pipelining = False  # not after an interrupt: then the connection is not used again (`is_idle`)
        if failure is not None:
            raise failure

    async def close(self) -> None:
        """Close the connection."""
        self._sync.close()


class AsyncConnection(_BaseConnection):
    """A connection for the asyncio event loop on which it was made."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        super().__init__(connection)
        self._async = connection
        self._cursor = psycopg.AsyncCursor(connection, row_factory=tuple_row)
        _register_adapters(self._cursor)
        self.loop = asyncio.get_running_loop()

    def is_usable(self) -> bool:
        """Whether it is idle, not closed by the server, and belongs to the running loop."""
        return self.loop is asyncio.get_running_loop() and super().is_usable()

    async def fetch(self, sql: str, parameters: Sequence[Any] = (), *, prepare: bool | None = None) -> ResultRows:
        """Run one statement in a transaction of its own and return its rows. Raises psycopg.Error."""
        cursor = await self._cursor.execute(sql.encode(), parameters or None, prepare=prepare)
        try:
            return await cursor.fetchall() if cursor.description else []
        except UnicodeDecodeError as error:
            raise undecodable_text(error) from error

    async def execute_script(self, sql: str) -> None:
        """Run several statements without parameters. Raises psycopg.Error."""
        await self._async.execute(sql.encode())

    async def close(self) -> None:
        """Close the connection, also from another loop."""
        if self.loop is asyncio.get_running_loop():
            await self._async.close()
        else:
            self._pgconn.finish()


Connection = SyncConnection | AsyncConnection


async def connect(address: ServerAddress, mode: Mode) -> Connection:
    """Open one connection. Raises StoreUnavailable and its subclasses, with the reason."""
    try:
        if mode == "sync":
            return SyncConnection(psycopg.Connection.connect(autocommit=True, **address.parameters))
        return AsyncConnection(await psycopg.AsyncConnection.connect(autocommit=True, **address.parameters))
    except psycopg.Error as error:
        raise translate_connection_error(error, address.where) from None


async def detect_pooler(connection: Connection, where: str) -> None:
    """Mark the connection as pooled if a transaction pooler is in between. Raises StoreUnavailable.

    A pooler announces a number of its own instead of the server process's id.
    """
    try:
        if (await connection.fetch("SELECT pg_backend_pid()"))[0][0] != connection.backend_pid:
            connection.mark_pooled()
    except psycopg.Error as error:
        raise translate_error(error, where) from None
