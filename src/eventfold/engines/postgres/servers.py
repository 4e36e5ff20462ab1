"""Room: which server is asked: the primary or a replica, over which connections, and what each must be like.

Knows: how a session is settled and verified, when a replica is too far behind. Does not know: what is asked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import psycopg

from eventfold.core.mutex import Mutex
from eventfold.engines.postgres import layouts, schema
from eventfold.engines.postgres.arrays import replace_nul
from eventfold.engines.postgres.connection import Connection, Mode, ResultRows
from eventfold.engines.postgres.errors import append_unconfirmed, is_connection_lost, translate_error, unencodable_text
from eventfold.engines.postgres.idle import check_max_idle
from eventfold.engines.postgres.options import PostgresOptions, ServerAddress, parse_address, quote_identifier
from eventfold.engines.postgres.pool import (
    HANDLER_ACQUIRE_TIMEOUT_S,
    Pool,
    TargetPools,
    ThreadCheckouts,
    split_pool_size,
)
from eventfold.engines.postgres.statements import ReadStatements
from eventfold.errors import AppendUnconfirmed, EventfoldError, StoreDamaged, StoreUnavailable
from eventfold.ports.refusals import import_gap

Statement = tuple[str, list[Any]]
WRITER_CONNECTIONS = 2  # connections for writing: one is used at a time, unless somebody appends past the combiner
REPLICA_POLL_S = 0.005  # seconds between looks at a replica that is behind


class Servers:
    """The connections of one engine to one store, and that store's identity as they found it.

    `forget` is called where the epoch changes: what is remembered of the log may be lost.
    """

    def __init__(
        self, url: str, options: PostgresOptions, mode: Mode, create: bool, on_new_epoch: Callable[[], None]
    ) -> None:
        self.options = options
        self._sql = ReadStatements(quote_identifier(options.schema))
        self.primary: ServerAddress = parse_address(url)
        self.replica: ServerAddress | None = parse_address(options.read_url) if options.read_url else None
        self.store_id: str = ""
        self.epoch: int = 0
        self._last_seen_event = (
            0,
            0,
            b"",
        )  # the furthest event that was come across: in which epoch, its position and id
        self._on_new_epoch = on_new_epoch
        self.unplaced = 0  # the last event whose checksum leaves out where it stands
        self.behind_pooler = False
        self._create = create
        self._mode: Mode = mode
        greet = self._set_up_replica if self.replica else self._set_up_primary
        self.thread_checkouts = ThreadCheckouts()
        self._pool_size, held = max(1, options.pool), self.thread_checkouts if mode == "sync" else None
        patience, rest = options.patience, options.max_idle
        check_max_idle(rest)
        at, greet_writer = self.primary, self._set_up_primary
        self.writer_pool = Pool(
            at, mode, WRITER_CONNECTIONS, patience, greet_writer, thread_checkouts=held, max_idle_s=rest
        )
        at = self.replica or self.primary
        self._reader_pool = Pool(at, mode, self._pool_size, patience, greet, thread_checkouts=held, max_idle_s=rest)
        self._target_pools: TargetPools | None = None
        self._mutex = Mutex()

    async def open(self) -> None:
        """Connect once to each server. Raises a StoreUnavailable error on anything but this store."""
        for pool in (self.writer_pool, self._reader_pool) if self.replica else (self.writer_pool,):
            await pool.run_on(_do_nothing)

    async def close(self) -> None:
        """Hang up everywhere."""
        lending = self._target_pools
        for pool in (self._reader_pool, self.writer_pool, *((lending.short, lending.long) if lending else ())):
            await pool.close()

    async def target_pools(self) -> TargetPools:
        """Connections for read models on the primary, out of `pool`: from now on those that read the log are fewer."""
        lending = self._target_pools
        if lending is None:
            lending = self._mutex.run(self._create_target_pools)
            if self.replica is None:
                await self._reader_pool.shrink(split_pool_size(self._pool_size)[0])
        return lending

    def _create_target_pools(self) -> TargetPools:
        if self._target_pools is None:
            (short, long), at, held = split_pool_size(self._pool_size), self.primary, self.thread_checkouts
            patience, greet = self.options.patience, self._set_up_primary
            wait, rest = max(patience, HANDLER_ACQUIRE_TIMEOUT_S), self.options.max_idle
            of_rows = self._reader_pool
            if self.replica is not None:
                of_rows = Pool(at, self._mode, short, patience, greet, thread_checkouts=held, max_idle_s=rest)
            handlers = Pool(
                at, self._mode, long, patience, greet, acquire_timeout_s=wait, thread_checkouts=held, max_idle_s=rest
            )
            for pool in (of_rows, handlers):
                pool.epoch = self.epoch
            self._target_pools = TargetPools(of_rows, handlers, self.thread_checkouts)
        return self._target_pools

    async def give_up_half(self) -> int:
        """Leave half of the connections to another engine on the same store; how many that may have."""
        theirs = self._pool_size // 2
        if theirs:
            self._pool_size -= theirs
            await self._reader_pool.shrink(self._pool_size)
        return max(1, theirs)

    async def begin_epoch(self) -> tuple[str, int, int]:
        """Let a new epoch begin; the store's id, the epoch that ended and the one that begins."""
        await self.open()
        ended = self.epoch
        sql = f"SELECT epoch FROM {quote_identifier(self.options.schema)}.begin_epoch()"  # noqa: S608 (quoted)
        self.enter_epoch((await self.query(sql, primary=True))[0][0])
        return self.store_id, ended, self.epoch

    async def upgrade(self) -> int:
        """Bring an older layout to ours; returns the layout it had."""
        pool = Pool(self.primary, self._mode, 1, 0, self._skip_setup)
        try:
            return await pool.run_on(
                lambda connection: layouts.upgrade(connection, self.options.schema, self.primary.where)
            )
        finally:
            await pool.close()

    async def query(
        self, sql: str, values: Sequence[Any] = (), *, primary: bool = False, epoch: bool = False
    ) -> ResultRows:
        """One question. A connection that turns out to be dead is replaced, and the question asked once more.

        `epoch`: the second column is the store's, as it is in the same snapshot.
        """
        pool = self.writer_pool if primary else self._reader_pool
        once_more = True
        while True:
            rows, was_dead = await pool.run_on(partial(self._query_on, pool, sql, values, epoch, once_more))
            if rows is not None:
                return rows
            if was_dead:
                once_more = False
                await pool.close_idle()  # the server went away: the others are as dead, and there is one attempt more

    async def _query_on(
        self, pool: Pool, sql: str, values: Sequence[Any], epoch: bool, once_more: bool, connection: Connection
    ) -> tuple[ResultRows | None, bool]:
        """The rows; or None, to be asked again over another connection, and whether this one was dead."""
        try:
            try:
                rows = await connection.fetch(sql, values)
            except psycopg.errors.CharacterNotInRepertoire:  # a text of the store's; or U+0000 in a question
                if (without := replace_nul(values)) == values:
                    raise
                rows = await connection.fetch(sql, without)
        except UnicodeEncodeError as error:
            raise unencodable_text(error) from error
        except psycopg.Error as error:
            if not (once_more and is_connection_lost(error, connection.closed)):
                raise translate_error(error, pool.address.where) from None
            return None, True
        if not epoch or not rows or connection.epoch == pool.epoch == rows[0][1]:
            return rows, False
        if not connection.epoch:  # a replica, which may be behind: whoever asks compares
            return rows, False
        if connection.epoch == pool.epoch:  # begun on this very server, as after a restore
            connection.epoch = rows[0][1]
            self.enter_epoch(connection.epoch)
            return rows, False
        return None, False  # another connection has met another epoch, so this one may lead to a server that was left

    async def query_from(self, floor: int, statement: Statement) -> ResultRows:
        """Rows of (head, epoch, …), from the replica if it has come to `floor` in this epoch, else from the primary."""
        rows = await self.query(*statement, epoch=True)
        if self.replica is None or self._has_reached(floor, rows):
            return rows
        deadline = time.monotonic() + self.options.replica_wait
        while time.monotonic() < deadline:
            await self._reader_pool.sleep(REPLICA_POLL_S)
            rows = await self.query(*statement, epoch=True)
            if self._has_reached(floor, rows):
                return rows
        return await self.query(*statement, primary=True, epoch=True)

    def _has_reached(self, floor: int, rows: ResultRows) -> bool:
        return rows[0][0] >= floor and rows[0][1] == self.epoch if rows else floor <= 0

    async def query_with_fallback(self, sql: str, value: Any) -> ResultRows:
        """Something about one place in the log: where a replica has not got it yet, the primary has."""
        rows = await self.query(sql, [value], epoch=True)
        if self.replica is not None and (not rows or rows[0][1] != self.epoch):
            rows = await self.query(sql, [value], primary=True, epoch=True)
        return rows

    async def refresh_epoch(self, connection: Connection) -> None:
        """Ask in which epoch the store is, over this connection. Raises psycopg.Error."""
        rows = await connection.fetch(self._sql.store_epoch)
        if rows and connection.epoch == self.epoch != rows[0][1]:
            connection.epoch = rows[0][1]
            self.enter_epoch(connection.epoch)

    def enter_epoch(self, epoch: int) -> None:
        """The store is in another epoch than was known here: what is remembered of its log may be lost."""
        self.epoch = self.writer_pool.epoch = epoch
        if self.replica is None:
            self._reader_pool.epoch = epoch
        if self._target_pools is not None:
            self._target_pools.short.epoch = self._target_pools.long.epoch = epoch
        self._on_new_epoch()  # after that: what is learned meanwhile of the other epoch is not kept

    def note_event(self, position: int, epoch: int, event_id: bytes) -> None:
        """An event that is in the log in this epoch."""
        if epoch == self.epoch and (epoch != self._last_seen_event[0] or position > self._last_seen_event[1]):
            self._last_seen_event = (epoch, position, event_id)

    def lock_timeout_ms(self) -> int:
        """How long a writer waits for another, in ms."""
        return max(1, round(self.options.lock_timeout * 1000))

    def translate_write_error(self, error: psycopg.Error, connection: Connection) -> EventfoldError:
        """The error of a call that writes: unconfirmed if the connection was lost, otherwise nothing was written."""
        where = self.primary.where
        if is_connection_lost(error, connection.closed):
            return append_unconfirmed(error, where)
        if error.sqlstate == "EF007":
            return import_gap(int(error.diag.message_detail or 0), 0)
        return translate_error(error, where)

    def check_replicated(self, connection: Connection) -> None:
        """Raises AppendUnconfirmed if the last commit did not reach the standby that it was to wait for."""
        if connection.committed_only_locally:
            connection.committed_only_locally = False
            raise AppendUnconfirmed(
                "The append was committed on the primary, and the wait for its synchronous standby was cancelled.",
                "Check the standby, then repeat the identical append, which is safe.",
                server=self.primary.where,
            )

    async def _set_up_primary(self, connection: Connection) -> None:
        where = self.primary.where
        await self._configure_session(connection, where, writes=True)
        found = await schema.attach(connection, self.options.schema, where)
        if found is None:
            if not self._create or self.store_id:
                raise schema.store_not_found(self.options.schema, where)
            await schema.create(connection, self.options.schema, where)
            found = await schema.attach(connection, self.options.schema, where)
            if found is None:
                raise schema.store_not_found(self.options.schema, where)
        if self.store_id and found.store_id != self.store_id:
            raise StoreDamaged(
                f"The store at {where} was replaced by another while this process used it.",
                "Open it again, and let followers start from the beginning.",
                store=self.store_id,
                found=found.store_id,
            )
        self.store_id, self.unplaced = found.store_id, found.unplaced
        if found.epoch != self.epoch:
            self.enter_epoch(found.epoch)
        else:
            await self._check_last_seen_event(connection)
        connection.epoch = found.epoch

    async def _check_last_seen_event(self, connection: Connection) -> None:
        """An event that was seen in this epoch must be there in this epoch. Raises StoreDamaged."""
        epoch, position, known = self._last_seen_event
        if not position or epoch != self.epoch:
            return
        where = self.primary.where
        try:
            lags, found = (await connection.fetch(self._sql.last_seen_event, [position]))[0]
        except psycopg.Error as error:
            raise translate_error(error, where) from None
        if found != known and not lags:
            raise StoreDamaged(
                f"The store at {where} does not hold the event acknowledged at position {position} any more, and is in "
                f"the same epoch ({self.epoch}): it was restored without beginning another one.",
                "Begin another epoch, so that whoever lives on notices (eventfold restored URL); what was acknowledged "
                "since the restored point is lost.",
                position=position,
                epoch=self.epoch,
            )

    async def _set_up_replica(self, connection: Connection) -> None:
        assert self.replica is not None
        await self._configure_session(connection, self.replica.where, writes=False)
        found = await schema.attach(connection, self.options.schema, self.replica.where)
        if found is None or found.store_id != self.store_id:
            raise StoreUnavailable(
                f"The server at {self.replica.where} (read_url=) does not hold this store.",
                "Give the address of a replica of the same database.",
                server=self.replica.where,
            )

    async def _skip_setup(self, connection: Connection) -> None:
        """Nothing is known of a store that is yet to be upgraded."""

    async def _configure_session(self, connection: Connection, where: str, *, writes: bool) -> None:
        """Look at a new connection's server, and set what this session needs."""
        try:
            row = (
                await connection.fetch(
                    "SELECT pg_backend_pid(), current_setting('fsync'), current_setting('full_page_writes'),"
                    " current_setting('server_encoding'), current_setting('default_transaction_isolation')"
                )
            )[0]
            if writes and not self.options.unsafe:
                schema.check_durability(row[1], row[2], row[3], where)
            # A pooler introduces itself by a number of its own instead of the server process's.
            if row[0] != connection.backend_pid if self.options.pooler is None else self.options.pooler:
                connection.mark_pooled()
                self.behind_pooler = self.behind_pooler or writes
                schema.check_isolation(row[4], where)
                return
            await connection.fetch(
                "SELECT set_config(name, value, false) FROM (VALUES"
                " ('default_transaction_isolation', 'read committed'), ('lock_timeout', %b), ('eventfold.unsafe', %b),"
                " ('enable_seqscan', 'off'), ('jit', 'off'), ('plan_cache_mode', 'force_generic_plan')) s(name, value)",
                (str(self.lock_timeout_ms()), "on" if self.options.unsafe else "off"),
            )
        except psycopg.Error as error:
            raise translate_error(error, where) from None


async def _do_nothing(_link: Connection) -> None:
    """Ask nothing over a connection: it was made, and that is all."""
