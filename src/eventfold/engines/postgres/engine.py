"""Room: the engine: the port over one PostgreSQL schema, in both colours.

Knows: which connection asks what, and what to make of the answer. Does not know: how questions are phrased (read.py,
append.py), how connections are made (connect.py), how followers are woken (listen.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import psycopg
from psycopg import errors as pg

from eventfold.engine import AppendRequest, Capabilities, Head, Outcome, Page, Span, TagCount, TypeCount
from eventfold.engines.postgres import joined, schema
from eventfold.engines.postgres.address import address_of, options_of, quoted
from eventfold.engines.postgres.append import (
    ARGUMENTS,
    Answer,
    Batch,
    arguments,
    batches,
    looks,
    outcomes,
    repeats_itself,
)
from eventfold.engines.postgres.connect import AsyncLink, Colour, Pool, SyncLink
from eventfold.engines.postgres.errors import lost, translated, unconfirmed
from eventfold.engines.postgres.listen import Listener
from eventfold.engines.postgres.read import FACTS, MOST, Reading, Statement, stored
from eventfold.errors import AppendConflict, AppendUnconfirmed, EventfoldError, StoreDamaged, StoreUnavailable
from eventfold.query import Query
from eventfold.record import Receipt, Stored, receipt
from eventfold.refusal import id_reused

Link = SyncLink | AsyncLink
WRITERS = 2  # connections for writing: one is used at a time, unless somebody appends past the combiner
LOOK_AGAIN = 0.005  # seconds between looks at a replica that is behind


class PostgresEngine:
    """One log in one schema of a PostgreSQL database; any number of processes may use it at once."""

    name = "postgres"

    def __init__(self, url: str, *, colour: Colour = "sync", create: bool = True, **options: Any) -> None:
        url, self.options = options_of(url, options)
        self.capabilities = Capabilities(suspends=colour == "async", blocks=colour == "sync")
        self.store_id, self.epoch = "", 0
        self.schema = quoted(self.options.schema)
        self._create = create
        self._colour: Colour = colour
        self._primary = address_of(url)
        self._replica = address_of(self.options.read_url) if self.options.read_url else None
        patience, most = self.options.patience, self.options.pool
        self._writers = Pool(self._primary, colour, WRITERS, patience, self._greet_primary)
        greet = self._greet_replica if self._replica else self._greet_primary
        self._readers = Pool(self._replica or self._primary, colour, max(1, most), patience, greet)
        self._sql = Reading(self.schema)
        self._append_sql = f"SELECT * FROM {self.schema}.append({ARGUMENTS}, %b, %b, %b::int4, %b)"
        self._listener: Listener | None = None
        self._pooled = False
        self._seen = 0  #  the furthest position this engine knows of; only ever a hint
        self._floor = 0  # what a reader must see: what a refused writer was told of, and perhaps our own writes

    # Opening

    async def open(self) -> None:
        """See the port."""
        link = await self._writers.take()
        await self._writers.give(link)
        if self._replica is not None:
            link = await self._readers.take()
            await self._readers.give(link)

    async def _greet_primary(self, link: Link) -> None:
        where = self._primary.where
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
        self.store_id, self.epoch = found.store_id, found.epoch

    async def _greet_replica(self, link: Link) -> None:
        assert self._replica is not None
        await self._settle(link, self._replica.where, writes=False)
        found = await schema.attach(link, self.options.schema, self._replica.where)
        if found is None or found.store_id != self.store_id:
            raise StoreUnavailable(
                f"The server at {self._replica.where} (read_url=) does not hold this store.",
                "Give the address of a replica of the same database.",
                server=self._replica.where,
            )

    async def _settle(self, link: Link, where: str, *, writes: bool) -> None:
        """Look at a new connection's server, and set what this session needs."""
        try:
            row = (
                await link.fetch(
                    "SELECT pg_backend_pid(), current_setting('fsync'), current_setting('full_page_writes'),"
                    " current_setting('server_encoding'), current_setting('default_transaction_isolation')"
                )
            )[0]
            pooled = self.options.pooler if self.options.pooler is not None else row[0] != link.backend
            if writes and not self.options.unsafe:
                schema.refuse_unsafe(row[1], row[2], row[3], where)
            if pooled:
                link.pooler_found()
                self._pooled = self._pooled or writes
                schema.refuse_isolation(row[4], where)
                return
            await link.fetch(
                "SELECT set_config(name, value, false) FROM (VALUES"
                " ('default_transaction_isolation', 'read committed'), ('lock_timeout', %b), ('eventfold.unsafe', %b),"
                " ('enable_seqscan', 'off'), ('jit', 'off'), ('plan_cache_mode', 'force_generic_plan')) s(name, value)",
                (str(self._lock_ms()), "on" if self.options.unsafe else "off"),
            )
        except psycopg.Error as error:
            raise translated(error, where) from None

    def _lock_ms(self) -> int:
        return max(1, round(self.options.lock_timeout * 1000))

    async def upgrade(self) -> int:
        """Bring a store of an older layout to this eventfold's; returns the layout it had. Needs its owner's rights.

        Call it on an engine that is not open yet, when no older eventfold uses the store any more.
        """
        pool = Pool(self._primary, self._colour, 1, 0, self._greet_anything)
        link = await pool.take()
        try:
            return await schema.upgrade(link, self.options.schema, self._primary.where)
        finally:
            await pool.give(link)
            await pool.close()

    async def _greet_anything(self, link: Link) -> None:
        """Nothing is known of a store that is yet to be upgraded."""

    # Writing

    async def append_many(self, requests: Sequence[AppendRequest]) -> list[Outcome]:
        """See the port."""
        done: list[Outcome] = []
        refused = {
            index: id_reused(r.events, [None] * len(r.events)) for index, r in enumerate(requests) if repeats_itself(r)
        }
        left = [r for index, r in enumerate(requests) if index not in refused] if refused else requests
        for batch in batches(left) if left else ():
            try:
                done += await self._append(batch)
            except EventfoldError as error:
                if not done:
                    raise
                # An earlier part is written already: what this part met is the outcome of its own requests.
                done += [error] * len(batch.requests)
        for index, refusal in refused.items():
            done.insert(index, refusal)
        return done

    async def _append(self, batch: Batch) -> list[Outcome]:
        given = arguments(batch)
        early, furthest = looks(batch, self._seen)
        link = await self._writers.take()
        try:
            patience = self._lock_ms() if link.pooled else None
            try:
                rows = await link.fetch(self._append_sql, (*given, False, early, patience, furthest), prepare=True)
            except pg.UniqueViolation:
                # An id is known already. Looking first would cost every append what this costs a few.
                rows = await link.fetch(self._append_sql, (*given, True, early, patience, furthest), prepare=True)
            self._refuse_if_local(link)
        except psycopg.Error as error:
            if lost(error, link.closed):
                raise unconfirmed(error, self._primary.where) from None
            raise translated(error, self._primary.where) from None
        finally:
            await self._writers.give(link)
        return await self._outcomes(batch, Answer(*rows[0]))

    def _refuse_if_local(self, link: Link) -> None:
        if link.only_local:
            link.only_local = False
            raise AppendUnconfirmed(
                "The append was committed here, and the wait for the standby that should have it too was cancelled.",
                "Check the standby, then repeat the identical append, which is safe.",
                server=self._primary.where,
            )

    async def _outcomes(self, batch: Batch, answer: Answer) -> list[Outcome]:
        result: list[Outcome] = []
        for outcome in outcomes(batch, answer, self.store_id, self.epoch):
            result.append(await self._receipt_at(outcome, repeated=True) if isinstance(outcome, int) else outcome)
            self._learn(result[-1])
        return result

    def _learn(self, outcome: Outcome) -> None:
        if isinstance(outcome, Receipt):
            self._seen = max(self._seen, outcome.last)
            if self.options.read_your_writes:
                self._floor = max(self._floor, outcome.last)
        elif isinstance(outcome, AppendConflict):
            self._floor = max(self._floor, outcome.fields["found"])

    async def append_joined(self, connection: Any, requests: Sequence[AppendRequest]) -> list[joined.Staged]:
        """Append within the user's own transaction on `connection`: it commits or rolls back with it.

        `connection`: psycopg's, SQLAlchemy's Connection or Session (async ones too), or Django's. Positions are
        assigned and conditions judged at its COMMIT, which fails (see `refusal`) if one does not hold. What is
        returned has no positions yet; `confirm` gives the receipt afterwards. Raises InvalidInput on a connection
        that is in no transaction or in one of another isolation level than READ COMMITTED.
        """
        return await joined.stage(connection, requests, self.schema, self.store_id, self._primary.where)

    async def confirm(self, staged: joined.Staged) -> Receipt | None:
        """The receipt of a joined append after its COMMIT; None if it was not committed."""
        rows = await self._ask(self._sql.known, [staged.ids[0]], primary=True)
        found = await self._receipt_at(rows[0][0], repeated=False) if rows else None
        return found if found is not None and found.ids == staged.ids and found.digest == staged.digest else None

    # Reading

    async def read(self, query: Query, span: Span) -> Page:
        """See the port."""
        rows = await self._page(query, span, span.limit + 1)
        head: int = rows[0][0]
        self._seen = max(self._seen, head)
        events = [Stored(*row[1:]) for row in rows] if rows[0][1] is not None else []
        end = head if span.until is None else min(span.until, head)
        if len(events) <= span.limit:
            return Page(events, span.after + 1 if span.backwards else end, False)
        next_one = events.pop()
        if next_one.first == events[-1].first if events else False:
            events += await self._rest(query, span, events[-1])
        edge = events[-1] if events else next_one
        return Page(events, edge.position, True)

    async def _rest(self, query: Query, span: Span, last: Stored) -> list[Stored]:
        """The further matching events of the append that a page's limit cut."""
        if span.backwards:
            part = msgspec.structs.replace(span, after=max(span.after, last.first - 1), until=last.position - 1)
        else:
            until = last.last if span.until is None else min(span.until, last.last)
            part = msgspec.structs.replace(span, after=last.position, until=until)
        rows = await self._page(query, part, None)
        return [Stored(*row[1:]) for row in rows if row[1] is not None]

    async def _page(self, query: Query, span: Span, limit: int | None) -> list[tuple[Any, ...]]:
        statement = self._sql.page(query, span, limit)
        return await self._fresh(statement, self._needed(span.after, span.until))

    def _needed(self, after: int, until: int | None) -> int:
        """How far a replica must have come to answer for (after, until]: never less than what was seen of it."""
        return max(self._floor, after, min(until, self._seen) if until is not None else 0)

    async def _fresh(self, statement: Statement, floor: int) -> list[tuple[Any, ...]]:
        """Rows whose first column is the head; from the replica if it has come to `floor`, else from the primary."""
        rows = await self._ask(*statement)
        if self._replica is None or rows[0][0] >= floor:
            return rows
        deadline = time.monotonic() + self.options.replica_wait
        while time.monotonic() < deadline:
            await self._readers.pause(LOOK_AGAIN)
            rows = await self._ask(*statement)
            if rows[0][0] >= floor:
                return rows
        return await self._ask(*statement, primary=True)

    async def _ask(self, sql: str, values: Sequence[Any] = (), *, primary: bool = False) -> list[tuple[Any, ...]]:
        """One question. A connection that turns out to be dead is replaced, and the question asked once more."""
        pool = self._writers if primary else self._readers
        for again in (True, False):
            link = await pool.take()
            try:
                return await link.fetch(sql, values)
            except psycopg.Error as error:
                if not (again and lost(error, link.closed)):
                    raise translated(error, pool.address.where) from None
            finally:
                await pool.give(link)
        raise AssertionError("unreachable: the second attempt returns or raises")

    async def _known(self, sql: str, value: Any) -> list[tuple[Any, ...]]:
        """Something about a place in the log: where a replica has not got it yet, the primary has."""
        rows = await self._ask(sql, [value])
        if not rows and self._replica is not None:
            rows = await self._ask(sql, [value], primary=True)
        return rows

    async def head(self) -> Head:
        """See the port."""
        rows = await self._ask(self._sql.head)
        if self._replica is not None and self._floor > (rows[0][0] if rows else 0):
            rows = await self._ask(self._sql.head, primary=True)
        return Head(*rows[0]) if rows else Head(0, 0, b"")

    async def count(self, query: Query, after: int = 0, until: int | None = None) -> int:
        """See the port."""
        statement = self._sql.count(query, after, MOST if until is None else until)
        head, count = (await self._fresh(statement, self._needed(after, until)))[0]
        if query.items:
            return count
        return max(0, (head if until is None else min(until, head)) - after)

    async def position_at(self, time: int) -> int:
        """See the port."""
        return (await self._fresh((self._sql.position_at, [time]), self._floor))[0][1]

    async def event_id(self, position: int) -> bytes | None:
        """See the port."""
        rows = await self._known(self._sql.id, position)
        return rows[0][0] if rows else None

    async def boundary(self, position: int) -> int:
        """See the port."""
        rows = await self._known(self._sql.boundary, position)
        return rows[0][0] if rows else position

    async def request(self, key: str) -> Receipt | None:
        """See the port."""
        rows = await self._ask(self._sql.request, [key], primary=True)
        return await self._receipt_at(rows[0][0], repeated=False) if rows else None

    async def _receipt_at(self, position: int, *, repeated: bool) -> Receipt:
        rows = await self._ask(self._sql.append, [position], primary=True)
        return receipt(self.store_id, self.epoch, [stored(row) for row in rows], repeated=repeated)

    async def types(self) -> list[TypeCount]:
        """See the port."""
        return [TypeCount(*row) for row in await self._ask(self._sql.types())]

    async def tags(self, prefix: str = "", limit: int = 1000, after: str = "") -> list[TagCount]:
        """See the port."""
        return [TagCount(*row) for row in await self._ask(*self._sql.tags(prefix, limit, after))] if limit > 0 else []

    async def stats(self) -> dict[str, Any]:
        """See the port."""
        return {
            "engine": self.name,
            "schema": self.options.schema,
            "server": self._primary.where,
            "replica": self._replica.where if self._replica else None,
            "pooler": self._pooled,
            "listener": self._listener.mode if self._listener else "idle",
            "layout": schema.LAYOUT,
            **dict(zip(FACTS, (await self._ask(self._sql.facts))[0], strict=True)),
        }

    def watch(self, ring: Callable[[], None]) -> Callable[[], None]:
        """See the port."""
        if self._listener is None:
            poll = self.options.poll if self._pooled else None
            self._listener = Listener(self._primary, self._replica, self._sql.head, self.options.schema, poll)
        return self._listener.watch(ring)

    async def close(self) -> None:
        """See the port."""
        if self._listener is not None:
            self._listener.close()
        await self._readers.close()
        await self._writers.close()
