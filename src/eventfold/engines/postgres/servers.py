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
from eventfold.engines.postgres.arrays import without_nul
from eventfold.engines.postgres.connection import AsyncLink, Colour, Pool, Rows, SyncLink
from eventfold.engines.postgres.errors import lost, no_storable_text, translated
from eventfold.engines.postgres.idle import check_max_idle
from eventfold.engines.postgres.options import Address, Options, address_of, quoted
from eventfold.engines.postgres.pool import WAIT_S, Holders, Lending, shares
from eventfold.engines.postgres.statements import Reading
from eventfold.errors import StoreDamaged, StoreUnavailable

Link = SyncLink | AsyncLink
Statement = tuple[str, list[Any]]
WRITERS = 2  # connections for writing: one is used at a time, unless somebody appends past the combiner
LOOK_AGAIN = 0.005  # seconds between looks at a replica that is behind


class Sessions:
    """The connections of one engine to one store, and that store's identity as they found it.

    `forget` is called where the epoch changes: what is remembered of the log may be lost.
    """

    def __init__(self, url: str, options: Options, colour: Colour, create: bool, forget: Callable[[], None]) -> None:
        self.options = options
        self._sql = Reading(quoted(options.schema))
        self.primary: Address = address_of(url)
        self.replica: Address | None = address_of(options.read_url) if options.read_url else None
        self.store_id: str = ""
        self.epoch: int = 0
        self._known = (0, 0, b"")  # the furthest event that was come across: in which epoch, its position and id
        self._forget = forget
        self.unplaced = 0  # the last event whose checksum leaves out where it stands
        self.pooled = False
        self._create = create
        self._colour: Colour = colour
        greet = self._greet_replica if self.replica else self._greet_primary
        self.holders = Holders()
        self._most, held = max(1, options.pool), self.holders if colour == "sync" else None
        patience, rest = options.patience, options.max_idle
        check_max_idle(rest)
        at, greet_writer = self.primary, self._greet_primary
        self.writers = Pool(at, colour, WRITERS, patience, greet_writer, holders=held, max_idle=rest)
        at = self.replica or self.primary
        self._readers = Pool(at, colour, self._most, patience, greet, holders=held, max_idle=rest)
        self._lending: Lending | None = None
        self._mutex = Mutex()

    async def open(self) -> None:
        """Connect once to each server. Raises a StoreUnavailable error on anything but this store."""
        for pool in (self.writers, self._readers) if self.replica else (self.writers,):
            await pool.lend(_nothing)

    async def close(self) -> None:
        """Hang up everywhere."""
        lending = self._lending
        for pool in (self._readers, self.writers, *((lending.short, lending.long) if lending else ())):
            await pool.close()

    async def lend(self) -> Lending:
        """Connections for read models on the primary, out of `pool`: from now on those that read the log are fewer."""
        lending = self._lending
        if lending is None:
            lending = self._mutex.run(self._lend)
            if self.replica is None:
                await self._readers.limit(shares(self._most)[0])
        return lending

    def _lend(self) -> Lending:
        if self._lending is None:
            (short, long), at, held = shares(self._most), self.primary, self.holders
            patience, greet = self.options.patience, self._greet_primary
            wait, rest = max(patience, WAIT_S), self.options.max_idle
            of_rows = self._readers
            if self.replica is not None:
                of_rows = Pool(at, self._colour, short, patience, greet, holders=held, max_idle=rest)
            handlers = Pool(at, self._colour, long, patience, greet, wait=wait, holders=held, max_idle=rest)
            for pool in (of_rows, handlers):
                pool.epoch = self.epoch
            self._lending = Lending(of_rows, handlers, self.holders)
        return self._lending

    async def share(self) -> int:
        """Leave half of the connections to another engine on the same store; how many that may have."""
        theirs = self._most // 2
        if theirs:
            self._most -= theirs
            await self._readers.limit(self._most)
        return max(1, theirs)

    async def begin_epoch(self) -> tuple[str, int, int]:
        """Let a new epoch begin; the store's id, the epoch that ended and the one that begins."""
        await self.open()
        ended = self.epoch
        sql = f"SELECT epoch FROM {quoted(self.options.schema)}.begin_epoch()"  # noqa: S608 (quoted)
        self.begin((await self.ask(sql, primary=True))[0][0])
        return self.store_id, ended, self.epoch

    async def upgrade(self) -> int:
        """Bring an older layout to ours; returns the layout it had."""
        pool = Pool(self.primary, self._colour, 1, 0, self._greet_anything)
        try:
            return await pool.lend(lambda link: layouts.upgrade(link, self.options.schema, self.primary.where))
        finally:
            await pool.close()

    async def ask(self, sql: str, values: Sequence[Any] = (), *, primary: bool = False, epoch: bool = False) -> Rows:
        """One question. A connection that turns out to be dead is replaced, and the question asked once more.

        `epoch`: the second column is the store's, as it is in the same snapshot.
        """
        pool = self.writers if primary else self._readers
        once_more = True
        while True:
            rows, was_dead = await pool.lend(partial(self._ask_over, pool, sql, values, epoch, once_more))
            if rows is not None:
                return rows
            if was_dead:
                once_more = False
                await pool.hang_up_idle()  # the server went away: the others are as dead, and there is one attempt more

    async def _ask_over(
        self, pool: Pool, sql: str, values: Sequence[Any], epoch: bool, once_more: bool, link: Link
    ) -> tuple[Rows | None, bool]:
        """The rows; or None, to be asked again over another connection, and whether this one was dead."""
        try:
            try:
                rows = await link.fetch(sql, values)
            except psycopg.errors.CharacterNotInRepertoire:  # a text of the store's; or U+0000 in a question
                if (without := without_nul(values)) == values:
                    raise
                rows = await link.fetch(sql, without)
        except UnicodeEncodeError as error:
            raise no_storable_text(error) from error
        except psycopg.Error as error:
            if not (once_more and lost(error, link.closed)):
                raise translated(error, pool.address.where) from None
            return None, True
        if not epoch or not rows or link.epoch == pool.epoch == rows[0][1]:
            return rows, False
        if not link.epoch:  # a replica, which may be behind: whoever asks compares
            return rows, False
        if link.epoch == pool.epoch:  # begun on this very server, as after a restore
            link.epoch = rows[0][1]
            self.begin(link.epoch)
            return rows, False
        return None, False  # another connection has met another epoch, so this one may lead to a server that was left

    async def ask_beyond(self, floor: int, statement: Statement) -> Rows:
        """Rows of (head, epoch, …), from the replica if it has come to `floor` in this epoch, else from the primary."""
        rows = await self.ask(*statement, epoch=True)
        if self.replica is None or self._has_come_to(floor, rows):
            return rows
        deadline = time.monotonic() + self.options.replica_wait
        while time.monotonic() < deadline:
            await self._readers.pause(LOOK_AGAIN)
            rows = await self.ask(*statement, epoch=True)
            if self._has_come_to(floor, rows):
                return rows
        return await self.ask(*statement, primary=True, epoch=True)

    def _has_come_to(self, floor: int, rows: Rows) -> bool:
        return rows[0][0] >= floor and rows[0][1] == self.epoch if rows else floor <= 0

    async def ask_about(self, sql: str, value: Any) -> Rows:
        """Something about one place in the log: where a replica has not got it yet, the primary has."""
        rows = await self.ask(sql, [value], epoch=True)
        if self.replica is not None and (not rows or rows[0][1] != self.epoch):
            rows = await self.ask(sql, [value], primary=True, epoch=True)
        return rows

    async def look(self, link: Link) -> None:
        """Ask in which epoch the store is, over this connection. Raises psycopg.Error."""
        rows = await link.fetch(self._sql.store_epoch)
        if rows and link.epoch == self.epoch != rows[0][1]:
            link.epoch = rows[0][1]
            self.begin(link.epoch)

    def begin(self, epoch: int) -> None:
        """The store is in another epoch than was known here: what is remembered of its log may be lost."""
        self.epoch = self.writers.epoch = epoch
        if self.replica is None:
            self._readers.epoch = epoch
        if self._lending is not None:
            self._lending.short.epoch = self._lending.long.epoch = epoch
        self._forget()  # after that: what is learned meanwhile of the other epoch is not kept

    def saw(self, position: int, epoch: int, event_id: bytes) -> None:
        """An event that is in the log in this epoch."""
        if epoch == self.epoch and (epoch != self._known[0] or position > self._known[1]):
            self._known = (epoch, position, event_id)

    def lock_ms(self) -> int:
        """How long a writer waits for another, in ms."""
        return max(1, round(self.options.lock_timeout * 1000))

    async def _greet_primary(self, link: Link) -> None:
        where = self.primary.where
        await self._settle(link, where, writes=True)
        found = await schema.attach(link, self.options.schema, where)
        if found is None:
            if not self._create or self.store_id:
                raise schema.not_found(self.options.schema, where)
            await schema.create(link, self.options.schema, where)
            found = await schema.attach(link, self.options.schema, where)
            if found is None:
                raise schema.not_found(self.options.schema, where)
        if self.store_id and found.store_id != self.store_id:
            raise StoreDamaged(
                f"The store at {where} was replaced by another while this process used it.",
                "Open it again, and let followers start from the beginning.",
                store=self.store_id,
                found=found.store_id,
            )
        self.store_id, self.unplaced = found.store_id, found.unplaced
        if found.epoch != self.epoch:
            self.begin(found.epoch)
        else:
            await self._refuse_lost(link)
        link.epoch = found.epoch

    async def _refuse_lost(self, link: Link) -> None:
        """An event that was seen in this epoch must be there in this epoch. Raises StoreDamaged."""
        epoch, position, known = self._known
        if not position or epoch != self.epoch:
            return
        where = self.primary.where
        try:
            lags, found = (await link.fetch(self._sql.still, [position]))[0]
        except psycopg.Error as error:
            raise translated(error, where) from None
        if found != known and not lags:
            raise StoreDamaged(
                f"The store at {where} does not hold the event acknowledged at position {position} any more, and is in "
                f"the same epoch ({self.epoch}): it was restored without beginning another one.",
                "Begin another epoch, so that whoever lives on notices (eventfold restored URL); what was acknowledged "
                "since the restored point is lost.",
                position=position,
                epoch=self.epoch,
            )

    async def _greet_replica(self, link: Link) -> None:
        assert self.replica is not None
        await self._settle(link, self.replica.where, writes=False)
        found = await schema.attach(link, self.options.schema, self.replica.where)
        if found is None or found.store_id != self.store_id:
            raise StoreUnavailable(
                f"The server at {self.replica.where} (read_url=) does not hold this store.",
                "Give the address of a replica of the same database.",
                server=self.replica.where,
            )

    async def _greet_anything(self, link: Link) -> None:
        """Nothing is known of a store that is yet to be upgraded."""

    async def _settle(self, link: Link, where: str, *, writes: bool) -> None:
        """Look at a new connection's server, and set what this session needs."""
        try:
            row = (
                await link.fetch(
                    "SELECT pg_backend_pid(), current_setting('fsync'), current_setting('full_page_writes'),"
                    " current_setting('server_encoding'), current_setting('default_transaction_isolation')"
                )
            )[0]
            if writes and not self.options.unsafe:
                schema.refuse_unsafe(row[1], row[2], row[3], where)
            # A pooler introduces itself by a number of its own instead of the server process's.
            if row[0] != link.backend if self.options.pooler is None else self.options.pooler:
                link.pooler_found()
                self.pooled = self.pooled or writes
                schema.refuse_isolation(row[4], where)
                return
            await link.fetch(
                "SELECT set_config(name, value, false) FROM (VALUES"
                " ('default_transaction_isolation', 'read committed'), ('lock_timeout', %b), ('eventfold.unsafe', %b),"
                " ('enable_seqscan', 'off'), ('jit', 'off'), ('plan_cache_mode', 'force_generic_plan')) s(name, value)",
                (str(self.lock_ms()), "on" if self.options.unsafe else "off"),
            )
        except psycopg.Error as error:
            raise translated(error, where) from None


async def _nothing(_link: Link) -> None:
    """Ask nothing over a connection: it was made, and that is all."""
