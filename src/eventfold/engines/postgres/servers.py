"""The servers of one store: the primary and, if there is one, a replica. Which is asked, and what its sessions must be.

Knows: session settings, the store's identity and epoch, when a replica lags too far. Does not know: what is asked.
"""

from __future__ import annotations

import logging
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
from eventfold.engines.postgres.options import (
    PostgresOptions,
    ServerAddress,
    parse_address,
    quote_identifier,
    session_lock_arguments,
)
from eventfold.engines.postgres.pool import (
    HANDLER_ACQUIRE_TIMEOUT_S,
    Pool,
    SessionSetup,
    TargetPools,
    ThreadCheckouts,
    split_pool_size,
)
from eventfold.engines.postgres.statements import ReadStatements
from eventfold.errors import AppendUnconfirmed, EventfoldError, StoreDamaged, StoreUnavailable
from eventfold.ports.refusals import import_gap

logger = logging.getLogger("eventfold")
Statement = tuple[str, list[Any]]
WRITER_CONNECTIONS = 2  # group commit uses one at a time; other writes may need a second
REPLICA_POLL_S = 0.005  # between queries of a replica that lags


class Servers:
    """The connection pools of one engine, and the identity of the store that they lead to.

    `on_new_epoch` is called when the epoch changes: remembered positions may be lost.
    """

    def __init__(
        self, url: str, options: PostgresOptions, mode: Mode, create: bool, on_new_epoch: Callable[[], None]
    ) -> None:
        self.options = options
        self._session_lock = session_lock_arguments(options.schema)
        self._sql = ReadStatements(quote_identifier(options.schema))
        self.primary: ServerAddress = parse_address(url)
        self.replica: ServerAddress | None = parse_address(options.read_url) if options.read_url else None
        self.store_id: str = ""
        self.epoch: int = 0
        self._last_seen_event = (0, 0, b"")  # epoch, position and id of the furthest event seen
        self._on_new_epoch = on_new_epoch
        self.unplaced = 0  # the last event whose checksum does not include its position
        self.behind_pooler = False
        self._create = create
        self._mode: Mode = mode
        self.thread_checkouts = ThreadCheckouts()
        check_max_idle(options.max_idle)
        self._pool_size = max(1, options.pool)
        self.writer_pool = self._new_pool(self.primary, WRITER_CONNECTIONS, self._set_up_primary)
        set_up = self._set_up_replica if self.replica else self._set_up_primary
        self._reader_pool = self._new_pool(self.replica or self.primary, self._pool_size, set_up)
        self._target_pools: TargetPools | None = None
        self._mutex = Mutex()

    async def open(self) -> None:
        """Connect once to each server. Raises StoreUnavailable or a subclass if one does not have this store."""
        for pool in (self.writer_pool, self._reader_pool) if self.replica else (self.writer_pool,):
            await pool.run_on(_do_nothing)

    async def close(self) -> None:
        """Close all connections."""
        lending = self._target_pools
        for pool in (self._reader_pool, self.writer_pool, *((lending.short, lending.long) if lending else ())):
            await pool.close()

    async def target_pools(self) -> TargetPools:
        """Connections for read models on the primary. From now on fewer of the pool are left for reading the log."""
        lending = self._target_pools
        if lending is None:
            lending = self._mutex.run(self._create_target_pools)
            if self.replica is None:
                await self._reader_pool.shrink(split_pool_size(self._pool_size)[0])
        return lending

    def _create_target_pools(self) -> TargetPools:
        if self._target_pools is None:
            (short, long), set_up = split_pool_size(self._pool_size), self._set_up_primary
            acquire_timeout_s = max(self.options.patience, HANDLER_ACQUIRE_TIMEOUT_S)
            short_pool = self._reader_pool
            if self.replica is not None:
                short_pool = self._new_pool(self.primary, short, set_up)
            long_pool = self._new_pool(self.primary, long, set_up, acquire_timeout_s)
            for pool in (short_pool, long_pool):
                pool.epoch = self.epoch
            self._target_pools = TargetPools(short_pool, long_pool, self.thread_checkouts)
        return self._target_pools

    def _new_pool(
        self, address: ServerAddress, size: int, set_up: SessionSetup, acquire_timeout_s: float | None = None
    ) -> Pool:
        return Pool(
            address,
            self._mode,
            size,
            self.options.patience,
            set_up,
            acquire_timeout_s=acquire_timeout_s,
            thread_checkouts=self.thread_checkouts if self._mode == "sync" else None,
            max_idle_s=self.options.max_idle,
        )

    async def give_up_half(self) -> int:
        """Leave half of the connections to another engine on the same store; returns how many it may have."""
        given_up = self._pool_size // 2
        if given_up:
            self._pool_size -= given_up
            await self._reader_pool.shrink(self._pool_size)
        return max(1, given_up)

    async def begin_epoch(self) -> tuple[str, int, int]:
        """Begin a new epoch. Returns the store's id, the epoch that ended and the one that begins."""
        await self.open()
        ended = self.epoch
        sql = f"SELECT epoch FROM {quote_identifier(self.options.schema)}.begin_epoch()"  # noqa: S608 (quoted)
        self.enter_epoch((await self.query(sql, primary=True))[0][0])
        return self.store_id, ended, self.epoch

    async def upgrade(self, *, has_backup: bool) -> int:
        """Upgrade a store of an older layout; returns the layout it had. See layouts.upgrade."""
        pool = Pool(self.primary, self._mode, 1, 0, self._skip_setup)
        schema_name, where, timeout_ms = self.options.schema, self.primary.where, self.lock_timeout_ms()
        try:
            return await pool.run_on(
                lambda connection: layouts.upgrade(connection, schema_name, where, has_backup, timeout_ms)
            )
        finally:
            await pool.close()

    async def query(
        self, sql: str, values: Sequence[Any] = (), *, primary: bool = False, epoch: bool = False
    ) -> ResultRows:
        """The rows of a query, from the reader pool or the primary. One that meets a lost connection is repeated once.

        `epoch`: the second column is the store's epoch, read in the same snapshot.
        """
        pool = self.writer_pool if primary else self._reader_pool
        once_more = True
        while True:
            rows, was_dead = await pool.run_on(partial(self._query_on, pool, sql, values, epoch, once_more))
            if rows is not None:
                return rows
            if was_dead:
                once_more = False
                await pool.close_idle()  # the others are lost too, and there is only one more attempt

    async def _query_on(
        self, pool: Pool, sql: str, values: Sequence[Any], epoch: bool, once_more: bool, connection: Connection
    ) -> tuple[ResultRows | None, bool]:
        """The rows, or None to repeat the query on another connection; and whether this connection was lost."""
        try:
            try:
                rows = await connection.fetch(sql, values)
            except psycopg.errors.CharacterNotInRepertoire:  # a damaged text in the store, or U+0000 in a value
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
        if not connection.epoch:  # a replica, which may lag: the caller compares
            return rows, False
        if connection.epoch == pool.epoch:  # the new epoch began on this server, as after a restore
            connection.epoch = rows[0][1]
            self.enter_epoch(connection.epoch)
            return rows, False
        return None, False  # another connection knows a newer epoch: this one may lead to a server that was replaced

    async def query_from(self, floor: int, statement: Statement) -> ResultRows:
        """Rows of (head, epoch, …): from the replica if it has reached `floor` in this epoch, else from the primary."""
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
        """The rows for one value; from the primary if the replica has none yet."""
        rows = await self.query(sql, [value], epoch=True)
        if self.replica is not None and (not rows or rows[0][1] != self.epoch):
            rows = await self.query(sql, [value], primary=True, epoch=True)
        return rows

    async def refresh_epoch(self, connection: Connection) -> None:
        """Query the store's epoch on this connection. Raises psycopg.Error."""
        rows = await connection.fetch(self._sql.store_epoch)
        if rows and connection.epoch == self.epoch != rows[0][1]:
            connection.epoch = rows[0][1]
            self.enter_epoch(connection.epoch)

    def enter_epoch(self, epoch: int) -> None:
        """Change to the store's new epoch, and forget what is remembered of its log: it may be lost."""
        self.epoch = self.writer_pool.epoch = epoch
        if self.replica is None:
            self._reader_pool.epoch = epoch
        if self._target_pools is not None:
            self._target_pools.short.epoch = self._target_pools.long.epoch = epoch
        self._on_new_epoch()  # last: what other threads note of the old epoch until now is forgotten too

    def note_event(self, position: int, epoch: int, event_id: bytes) -> None:
        """Remember that this event is in the log in this epoch."""
        if epoch == self.epoch and (epoch != self._last_seen_event[0] or position > self._last_seen_event[1]):
            self._last_seen_event = (epoch, position, event_id)

    def lock_timeout_ms(self) -> int:
        """How long a writer waits for another writer, in ms."""
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
        is_last_seen_stored = await self._has_last_seen_event(connection)
        if found.epoch != self.epoch:
            self._log_new_epoch(found.epoch, is_last_seen_stored)
            self.enter_epoch(found.epoch)
        elif not is_last_seen_stored:
            raise self._lost_within_epoch()
        connection.epoch = found.epoch

    async def _has_last_seen_event(self, connection: Connection) -> bool:
        """Whether the last event seen is still in the log, as far as this server can know; True if none was."""
        epoch, position, known = self._last_seen_event
        if not position or epoch != self.epoch:
            return True
        try:
            lags, found = (await connection.fetch(self._sql.last_seen_event, [position]))[0]
        except psycopg.Error as error:
            raise translate_error(error, self.primary.where) from None
        return found == known or lags

    def _lost_within_epoch(self) -> StoreDamaged:
        where, position = self.primary.where, self._last_seen_event[1]
        return StoreDamaged(
            f"The store at {where} no longer has the event acknowledged at position {position}, and is in "
            f"the same epoch ({self.epoch}): it was restored without beginning a new epoch.",
            "Begin a new epoch, so that every reader notices (eventfold restored URL); what was acknowledged "
            "since the restored point is lost.",
            position=position,
            epoch=self.epoch,
        )

    def _log_new_epoch(self, epoch: int, is_last_seen_stored: bool) -> None:
        """Log whether the failover or restore behind a new epoch lost what this process had seen."""
        if not self._last_seen_event[1] or self._last_seen_event[0] != self.epoch:
            return
        begun = f"The store at {self.primary.where} is in epoch {epoch}: a server was promoted, or a backup restored"
        if is_last_seen_stored:
            logger.info("%s. Every event that this process knew is in its log.", begun)
        else:
            logger.warning(
                "%s. The event that this process knew at position %d is lost, and followers and read models that have "
                "seen it are refused (CursorMismatch).",
                begun,
                self._last_seen_event[1],
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
        """Check nothing: the store has an older layout."""

    async def _configure_session(self, connection: Connection, where: str, *, writes: bool) -> None:
        """Check the server of a new connection, and set the session's parameters."""
        try:
            row = (
                await connection.fetch(
                    "SELECT pg_backend_pid(), current_setting('fsync'), current_setting('full_page_writes'),"
                    " current_setting('server_encoding'), current_setting('default_transaction_isolation')"
                )
            )[0]
            if writes and not self.options.unsafe:
                schema.check_durability(row[1], row[2], row[3], where)
            # A pooler announces a number of its own instead of the server process's id.
            if row[0] != connection.backend_pid if self.options.pooler is None else self.options.pooler:
                connection.mark_pooled()
                self.behind_pooler = self.behind_pooler or writes
                schema.check_isolation(row[4], where)
                return
            await connection.fetch(
                # The lock tells an upgrade that the store is in use (layouts.py). It is waited for while one runs, for
                # at most the lock_timeout of an earlier row.
                "SELECT set_config(name, value, false),"
                f" CASE WHEN name = 'jit' AND {writes} THEN pg_advisory_lock_shared({self._session_lock}) END"
                " FROM (VALUES ('default_transaction_isolation', 'read committed'), ('lock_timeout', %b),"
                " ('eventfold.unsafe', %b), ('enable_seqscan', 'off'), ('jit', 'off'),"
                " ('plan_cache_mode', 'force_generic_plan')) s(name, value)",
                (str(self.lock_timeout_ms()), "on" if self.options.unsafe else "off"),
            )
        except psycopg.Error as error:
            raise translate_error(error, where) from None


async def _do_nothing(_link: Connection) -> None:
    """Only open a connection."""
