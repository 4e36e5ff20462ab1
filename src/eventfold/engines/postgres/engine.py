"""Room: the engine: the port over one PostgreSQL schema, in both colours.

Knows: what to make of each answer. Does not know: how questions are phrased (read.py, append.py), over which
connection they go (sessions.py), how followers are woken (listen.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import psycopg
from psycopg import errors as pg

from eventfold.engine import AppendRequest, Capabilities, Head, Outcome, Page, Span, TagCount, TypeCount
from eventfold.engines.postgres import joined, schema
from eventfold.engines.postgres.address import options_of, quoted
from eventfold.engines.postgres.adopt import ADOPTED, adopted
from eventfold.engines.postgres.append import (
    Answer,
    Batch,
    arguments,
    batches,
    call,
    how,
    outcomes,
    repeats_itself,
)
from eventfold.engines.postgres.arrays import uuids
from eventfold.engines.postgres.connect import Colour, Rows, off_loop
from eventfold.engines.postgres.errors import lost, translated, unconfirmed
from eventfold.engines.postgres.listen import Listener
from eventfold.engines.postgres.locks import NamedLocks
from eventfold.engines.postgres.read import FACTS, MOST, Reading
from eventfold.engines.postgres.sessions import Link, Sessions
from eventfold.engines.postgres.sums import first_missing, missing, verified
from eventfold.errors import AppendConflict, AppendUnconfirmed, EventfoldError
from eventfold.query import Query
from eventfold.record import Receipt, Staged, Stored, receipt
from eventfold.refusal import id_reused, not_behind
from eventfold.snapshot import Snapshot

RECENT = 2_048  # appends


class PostgresEngine:
    """One log in one schema of a PostgreSQL database; any number of processes may use it at once."""

    name = "postgres"

    def __init__(self, url: str, *, colour: Colour = "sync", create: bool = True, **options: Any) -> None:
        url, self.options = options_of(url, options)
        self.capabilities = Capabilities(suspends=colour == "async", blocks=colour == "sync")
        self._sessions = Sessions(url, self.options, colour, create)
        self._schema = quoted(self.options.schema)
        self._sql = Reading(self._schema)
        self._statements: dict[tuple[str, ...], str] = {}
        self._locks = NamedLocks(self._sessions, colour)
        self._listener: Listener | None = None
        self._recent: dict[bytes, int] = {}  # the last events of appends made here, and where they stand
        self._seen = 0  #  the furthest position this engine has come across
        self._floor = 0  # what a reader must see: what a refused writer was told of, and, if asked for, our own writes

    @property
    def store_id(self) -> str:
        """See the port."""
        return self._sessions.store_id

    @property
    def epoch(self) -> int:
        """See the port."""
        return self._sessions.epoch

    async def open(self) -> None:
        """See the port."""
        await self._sessions.open()

    async def upgrade(self) -> int:
        """Bring a store of an older layout to this eventfold's; returns the layout it had. Needs its owner's rights.

        Call it on an engine that is not open yet, when no older eventfold uses the store any more.
        """
        return await self._sessions.upgrade()

    # Writing

    async def append_many(self, requests: Sequence[AppendRequest]) -> list[Outcome]:
        """See the port."""
        done: list[Outcome] = []
        for batch in batches(requests) if requests else ():
            try:
                done += await self._append(batch)
            except EventfoldError as error:
                if not done:
                    raise
                # An earlier part is written already: what this part met is the outcome of its own requests.
                done += [error] * len(batch.requests)
        return done

    async def _append(self, batch: Batch) -> list[Outcome]:
        if repeats_itself(batch.requests[0]):
            return [await self._twice(batch.requests[0])]
        if behind := batch.behind():
            batch = batch.resolved(await self._standing(behind))
        given = arguments(batch) | how(batch, self._seen)
        link = await self._sessions.writers.take()
        try:
            if link.pooled:
                given["patience"] = self._sessions.lock_ms()
            try:
                rows = await link.fetch(self._append_sql(given), tuple(given.values()), prepare=True)
            except pg.UniqueViolation:
                # An id is known already. Looking first would cost every append what this costs a few.
                given["careful"] = True
                rows = await link.fetch(self._append_sql(given), tuple(given.values()), prepare=True)
            self._refuse_if_local(link)
        except psycopg.Error as error:
            raise self._failed(error, link) from None
        finally:
            await self._sessions.writers.give(link)
        return await self._outcomes(batch, Answer(*rows[0]))

    def _append_sql(self, given: dict[str, Any]) -> str:
        names = tuple(given)
        if names not in self._statements:
            self._statements[names] = f"SELECT * FROM {call(f'{self._schema}.append', given)}"
        return self._statements[names]

    async def _standing(self, identities: list[bytes]) -> dict[bytes, int]:
        """Where events stand in the log, those that do; mostly they were written by us a moment ago."""
        found = {identity: self._recent[identity] for identity in identities if identity in self._recent}
        if unknown := [identity for identity in identities if identity not in found]:
            rows = await self._sessions.ask(self._sql.known, [uuids(unknown)], primary=True)
            found |= {bytes(identity): position for position, identity in rows}
        return found

    async def _twice(self, request: AppendRequest) -> Outcome:
        """The outcome of a request in which two events have the same id."""
        if request.key is not None and (known := await self.request(request.key)) is not None:
            return msgspec.structs.replace(known, repeated=True)
        rows = await self._sessions.ask(self._sql.known, [uuids([event.id for event in request.events])], primary=True)
        at = {event_id: position for position, event_id in rows}
        return id_reused(request.events, [at.get(event.id) for event in request.events])

    def _failed(self, error: psycopg.Error, link: Link) -> EventfoldError:
        """What became of something that was to be written: open, if the connection is gone, and nothing otherwise."""
        where = self._sessions.primary.where
        if lost(error, link.closed):
            return unconfirmed(error, where)
        if error.sqlstate == "EF007":
            return not_behind(int(error.diag.message_detail or 0), 0)
        return translated(error, where)

    def _refuse_if_local(self, link: Link) -> None:
        if link.only_local:
            link.only_local = False
            raise AppendUnconfirmed(
                "The append was committed here, and the wait for the standby that should have it too was cancelled.",
                "Check the standby, then repeat the identical append, which is safe.",
                server=self._sessions.primary.where,
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
            self._recent[outcome.ids[-1]] = outcome.last
            if len(self._recent) > RECENT:
                self._recent.pop(next(iter(self._recent)), None)
            if self.options.read_your_writes:
                self._floor = max(self._floor, outcome.last)
        elif isinstance(outcome, AppendConflict):
            self._floor = max(self._floor, outcome.fields["found"])

    async def append_joined(self, connection: Any, requests: Sequence[AppendRequest]) -> list[Staged]:
        """Append within the user's own transaction on `connection`: it commits or rolls back with it.

        `connection`: psycopg's, SQLAlchemy's Connection or Session (async ones too), or Django's. Positions are
        assigned and conditions judged at its COMMIT, which fails (see `refusal`) if one does not hold. What is
        returned has no positions yet; `confirm` gives the receipt afterwards. Raises InvalidInput on a connection
        that is in no transaction or in one of another isolation level than READ COMMITTED.
        """
        return await joined.stage(connection, requests, self._schema, self.store_id, self._sessions.primary.where)

    async def confirm(self, staged: Staged) -> Receipt | None:
        """The receipt of a joined append after its COMMIT; None if it was not committed."""
        rows = await self._sessions.ask(self._sql.known, [uuids(staged.ids[:1])], primary=True)
        found = await self._receipt_at(rows[0][0], repeated=False) if rows else None
        return found if found is not None and found.ids == staged.ids and found.digest == staged.digest else None

    async def adopt(self, events: Sequence[Stored], keys: Sequence[tuple[str, int]] = ()) -> None:
        """See the port. Needs the rights of the store's owner."""
        try:
            await self._own(f"SELECT {self._schema}.adopt({ADOPTED})", adopted(events, keys))
        except AppendConflict as conflict:
            raise not_behind(conflict.fields["found"], events[0].position) from None

    async def succeed(self, store_id: str, epoch: int) -> None:
        """See the port. Needs the rights of the store's owner."""
        try:
            await self._own(f"SELECT {self._schema}.succeed(%b, %b)", [store_id, epoch])
        except AppendConflict as conflict:
            raise not_behind(conflict.fields["found"], 1) from None
        self._sessions.store_id, self._sessions.epoch = store_id, epoch

    async def _own(self, sql: str, values: Sequence[Any]) -> None:
        link = await self._sessions.writers.take()
        try:
            await link.fetch(sql, values)
            self._refuse_if_local(link)
        except psycopg.Error as error:
            raise self._failed(error, link) from None
        finally:
            await self._sessions.writers.give(link)

    # Reading

    async def read(self, query: Query, span: Span) -> Page:
        """See the port."""
        rows = await self._page(query, span, span.limit + 1)
        head: int = rows[0][0]
        self._seen = max(self._seen, head)
        events = _events(rows)
        end = head if span.until is None else min(span.until, head)
        more = len(events) > span.limit
        if more:
            beyond = events.pop()
            if beyond.first == events[-1].first:
                events += await self._rest(query, span, events[-1])
        if not query.items and span.occurred_since is None and span.occurred_until is None:
            await self._refuse_holes(events, span, end, more)
        if more:
            return Page(events, events[-1].position, True)
        return Page(events, span.after + 1 if span.backwards else end, False)

    async def _refuse_holes(self, events: list[Stored], span: Span, end: int, more: bool) -> None:
        """Everything was asked for, so every position must be there, or in a sealed range. Raises CorruptEvent."""
        low, high = span.after + 1, end
        if more:
            low, high = (events[-1].position, end) if span.backwards else (low, events[-1].position)
        hole = first_missing(events, low, high) if low <= high else None
        if hole is None:
            return
        sealed = await self._sessions.ask(self._sql.sealed, [hole - 1])
        there = {event.position for event in events}
        for position in range(hole, high + 1):
            if position not in there and not any(first <= position <= last for first, last in sealed):
                raise missing(position)

    async def _rest(self, query: Query, span: Span, last: Stored) -> list[Stored]:
        """The further matching events of the append that a page's limit cut."""
        if span.backwards:
            part = msgspec.structs.replace(span, after=max(span.after, last.first - 1), until=last.position - 1)
        else:
            until = last.last if span.until is None else min(span.until, last.last)
            part = msgspec.structs.replace(span, after=last.position, until=until)
        return _events(await self._page(query, part, None))

    async def _page(self, query: Query, span: Span, limit: int | None) -> Rows:
        floor = self._needed(span.after, span.until)
        return await self._sessions.ask_beyond(floor, self._sql.page(query, span, limit))

    def _needed(self, after: int, until: int | None) -> int:
        """How far a replica must have come to answer for (after, until]: never less than what was seen of it."""
        return max(self._floor, after, min(until, self._seen) if until is not None else 0)

    async def head(self) -> Head:
        """See the port."""
        rows = await self._sessions.ask(self._sql.head)
        if self._sessions.replica is not None and self._floor > (rows[0][0] if rows else 0):
            rows = await self._sessions.ask(self._sql.head, primary=True)
        return Head(*rows[0]) if rows else Head(0, 0, b"")

    async def count(self, query: Query, after: int = 0, until: int | None = None) -> int:
        """See the port."""
        statement = self._sql.count(query, after, MOST if until is None else until)
        head, count = (await self._sessions.ask_beyond(self._needed(after, until), statement))[0]
        if query.items:
            return count
        return max(0, (head if until is None else min(until, head)) - after)

    async def position_at(self, time: int) -> int:
        """See the port."""
        return (await self._sessions.ask_beyond(self._floor, (self._sql.position_at, [time])))[0][1]

    async def event_id(self, position: int) -> bytes | None:
        """See the port."""
        rows = await self._sessions.ask_about(self._sql.id, position)
        return rows[0][0] if rows else None

    async def boundary(self, position: int) -> int:
        """See the port."""
        rows = await self._sessions.ask_about(self._sql.boundary, position)
        return rows[0][0] if rows else position

    async def request(self, key: str) -> Receipt | None:
        """See the port."""
        rows = await self._sessions.ask(self._sql.request, [key], primary=True)
        return await self._receipt_at(rows[0][0], repeated=False) if rows else None

    async def _receipt_at(self, position: int, *, repeated: bool) -> Receipt:
        rows = await self._sessions.ask(self._sql.append, [position], primary=True)
        return receipt(self.store_id, self.epoch, verified(rows), repeated=repeated)

    async def keys(self, after: str = "", limit: int = 1000) -> list[tuple[str, int]]:
        """See the port."""
        return [(key, first) for key, first in await self._sessions.ask(self._sql.keys, [after, limit])]

    async def types(self) -> list[TypeCount]:
        """See the port."""
        return [TypeCount(*row) for row in await self._sessions.ask(self._sql.types())]

    async def tags(self, prefix: str = "", limit: int = 1000, after: str = "") -> list[TagCount]:
        """See the port."""
        rows = await self._sessions.ask(*self._sql.tags(prefix, limit, after)) if limit > 0 else []
        return [TagCount(*row) for row in rows]

    async def snapshot(self, key: str) -> Snapshot | None:
        """See the port."""
        rows = await self._sessions.ask(self._sql.snapshot, [key])
        return Snapshot(*rows[0]) if rows else None

    async def keep_snapshot(self, key: str, snapshot: Snapshot) -> None:
        """See the port."""
        values = [key, snapshot.fingerprint, snapshot.position, snapshot.event_id, snapshot.state]
        await self._sessions.ask(self._sql.keep_snapshot, values, primary=True)

    async def drop_snapshots(self, prefix: str = "") -> int:
        """See the port."""
        return (await self._sessions.ask(self._sql.drop_snapshots, [prefix], primary=True))[0][0]

    async def try_lock(self, name: str, owner: str) -> str | None:
        """See the port."""
        return await self._locks.take(name, owner)

    async def unlock(self, name: str) -> None:
        """See the port."""
        await self._locks.give_back(name)

    async def stats(self) -> dict[str, Any]:
        """See the port."""
        sessions = self._sessions
        return {
            "engine": self.name,
            "schema": self.options.schema,
            "server": sessions.primary.where,
            "replica": sessions.replica.where if sessions.replica else None,
            "pooler": sessions.pooled,
            "listener": self._listener.mode if self._listener else "idle",
            "layout": schema.LAYOUT,
            **dict(zip(FACTS, (await sessions.ask(self._sql.facts))[0], strict=True)),
        }

    def watch(self, ring: Callable[[], None]) -> Callable[[], None]:
        """See the port."""
        if self._listener is None:
            poll = self.options.poll if self._sessions.pooled else None
            primary, replica = self._sessions.primary, self._sessions.replica
            self._listener = Listener(primary, replica, self._sql.head, self.options.schema, poll)
        return self._listener.watch(ring)

    async def close(self) -> None:
        """See the port."""
        await self._locks.close()
        await self._sessions.close()
        if self._listener is not None:  # it rings once more: whoever waits looks, and is told of the close
            await off_loop(self.capabilities.suspends, self._listener.close)


def _events(rows: Rows) -> list[Stored]:
    """A page's rows, each behind the head; one row with nothing but the head stands for no events."""
    return verified([row[1:] for row in rows]) if rows[0][1] is not None else []
