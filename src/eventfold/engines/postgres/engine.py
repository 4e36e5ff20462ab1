"""Room: the engine: the port over one PostgreSQL schema, in both colours.

Knows: what to make of each answer. Does not know: how questions are phrased (statements.py, append.py), over which
connection they go (servers.py), what is written (writer.py), how followers are woken (listen.py).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import msgspec

from eventfold.core.envelope import StoredEvent, page_length
from eventfold.core.query import Query
from eventfold.core.snapshot import Snapshot
from eventfold.engines.postgres import schema
from eventfold.engines.postgres.checksums import (
    check_matches_query,
    check_no_gaps,
    damaged_snapshot,
    decode_request_key,
    missing_event,
    snapshot_crc,
)
from eventfold.engines.postgres.connection import Mode, ResultRows, run_off_loop
from eventfold.engines.postgres.integrity import IntegrityCheck
from eventfold.engines.postgres.listen import Listener
from eventfold.engines.postgres.many import MAX_POSITIONS_PER_RANGE, MIN_RANGE_POSITIONS, LargeQuery, is_large
from eventfold.engines.postgres.named_locks import NamedLocks
from eventfold.engines.postgres.options import ServerAddress, parse_url, target_url
from eventfold.engines.postgres.pool import TargetPools
from eventfold.engines.postgres.statements import MAX_POSITION, STATS_COLUMNS
from eventfold.engines.postgres.writer import PostgresWriter
from eventfold.errors import NotSupported
from eventfold.ports.engine import PAGE_BYTES, Head, Page, RestoreResult, Span, TagCount, TypeCount, UpgradeResult
from eventfold.ports.integrity import Problem, Progress


class PostgresEngine(PostgresWriter):
    """One log in one schema of a PostgreSQL database; any number of processes may use it at once."""

    name = "postgres"

    def __init__(self, url: str, *, colour: Mode = "sync", create: bool = True, **options: Any) -> None:
        plain, chosen = parse_url(url, options)
        super().__init__(plain, chosen, colour, create)
        self._default_target = target_url(plain, chosen.schema)
        self._given_options: dict[str, Any] = {**options, "schema": chosen.schema}
        self._blocking_pool_size = chosen.pool  # connections that another engine on this store may have
        self._locks = NamedLocks(self._servers, colour)
        self._listener: Listener | None = None
        self._type_counts = (0, 0, dict[str, int]())  # events of each type: in which epoch, up to which position

    @property
    def default_target(self) -> str:
        """See the port: the schema of the log, on the primary. Contains the password if the address does."""
        return self._default_target

    def blocking(self) -> PostgresEngine:
        """Another engine on the same store, not opened yet, whose calls block: what read models are run with."""
        options: dict[str, Any] = {**self._given_options, "pool": self._blocking_pool_size}
        return PostgresEngine(self._default_target, create=False, **options)

    async def share(self) -> None:
        """Leave half of the connections to the engine that `blocking` makes. Call it once, before that."""
        self._blocking_pool_size = await self._servers.give_up_half()

    async def lend(self, address: ServerAddress) -> TargetPools | None:
        """Connections for read models at an address, out of this engine's own; None where they do not lead there."""
        if self.capabilities.suspends or address.parameters != self._servers.primary.parameters:
            return None
        return await self._servers.target_pools()

    async def open(self) -> None:
        """See the port."""
        await self._servers.open()

    async def upgrade(self, copy: str | None = None, *, copies: bool = True) -> UpgradeResult:
        """Bring a store of an older layout to this eventfold's. Needs its owner's rights.

        Call it on an engine that is not open. Processes of the older layout can write no more afterwards. No copy
        can be made here: `copy` is refused, and `copies` means nothing. Raises NotSupported, StoreUnavailable.
        """
        if copy is not None and copies:
            raise NotSupported(
                "A PostgreSQL store is upgraded in one transaction, and no copy of it is written to a file.",
                "Make one by pg_dump, then upgrade without naming a file.",
                engine=self.name,
            )
        return UpgradeResult(await self._servers.upgrade(), schema.LAYOUT)

    async def restored(self) -> RestoreResult:
        """Let a new epoch begin, after a restore by other tools. Needs its owner's rights.

        Call it on an engine that is not open, before anything uses the store; the engine is closed afterwards. Raises
        StoreUnavailable.
        """
        try:
            return RestoreResult(*await self._servers.begin_epoch())
        finally:
            await self.close()

    # Reading

    async def read(self, query: Query, span: Span) -> Page:
        """See the port."""
        while True:
            asked = await self._expand_query(query)
            page = await self._read(asked, span)
            if asked is query or await self._expand_query(query) == asked:
                return page

    async def _read(self, query: Query, span: Span) -> Page:
        if is_large(query):
            head, events = await self._read_ranges(query, span)
        else:
            rows = await self._query_page(query, span, span.limit + 1)
            head, events = rows[0][0], self._decode_page(rows)
            self._servers.note_event(*rows[0][:3])
        self._last_seen_position = max(self._last_seen_position, head)
        end = head if span.until is None else min(span.until, head)
        size = page_length(events, span.limit, PAGE_BYTES)
        if more := len(events) > size:
            beyond = events[size]
            del events[size:]
            if beyond.first == events[-1].first:
                events += await self._rest_of_append(query, span, events[-1])
        if query.items:
            check_matches_query(events, query, span.backwards)
        elif span.occurred_since is None and span.occurred_until is None:
            check_no_gaps(events, span, end, more)
        if more:
            return Page(events, events[-1].position, True)
        return Page(events, span.after + 1 if span.backwards else end, False)

    async def _read_ranges(self, query: Query, span: Span) -> tuple[int, list[StoredEvent]]:
        """The head, and up to one more matching event than the limit of the span, a stretch of the log at a time."""
        arms, events = LargeQuery(self._schema, query), list[StoredEvent]()
        after, until = span.after, MAX_POSITION if span.until is None else span.until
        width = MAX_POSITION
        while True:
            low, high = (max(after, until - width), until) if span.backwards else (after, min(until, after + width))
            part = msgspec.structs.replace(span, after=low, until=high)
            most = MAX_POSITIONS_PER_RANGE if high - low > MIN_RANGE_POSITIONS else MAX_POSITION - 1
            statement = self._sql.range_page(arms, part, span.limit + 1 - len(events), most)
            rows = await self._servers.query_from(self._required_position(low, span.until), statement)
            head, epoch, count, last = rows[0][:4]
            self._servers.note_event(head, epoch, last)
            until, high = min(until, head), min(high, head)
            if count > most:
                width = max(1, (high - low) // 4)
                continue
            events += self._decode_page([(*row[:2], *row[3:]) for row in rows])
            after, until = (after, low) if span.backwards else (high, until)
            if len(events) > page_length(events, span.limit, PAGE_BYTES) or after >= until:
                return head, events
            width *= 2

    async def _rest_of_append(self, query: Query, span: Span, last: StoredEvent) -> list[StoredEvent]:
        """The further matching events of the append that a page's limit cut."""
        if span.backwards:
            part = msgspec.structs.replace(span, after=max(span.after, last.first - 1), until=last.position - 1)
        else:
            until = last.last if span.until is None else min(span.until, last.last)
            part = msgspec.structs.replace(span, after=last.position, until=until)
        return self._decode_page(await self._query_page(query, part, None))

    async def _query_page(self, query: Query, span: Span, limit: int | None) -> ResultRows:
        floor = self._required_position(span.after, span.until)
        return await self._servers.query_from(floor, self._sql.page(query, span, limit))

    def _required_position(self, after: int, until: int | None) -> int:
        """How far a replica must have come to answer for (after, until]: never less than what was seen of it."""
        return max(self._read_floor, after, min(until, self._last_seen_position) if until is not None else 0)

    async def head(self) -> Head:
        """See the port."""
        rows = await self._servers.query_from(self._read_floor, (self._sql.last_event, []))
        if not rows:
            return Head(0, 0, b"")
        (last,) = self._decode_events([row[2:] for row in rows])
        return Head(last.position, last.time, last.id)

    async def count(self, query: Query, after: int = 0, until: int | None = None) -> int:
        """See the port."""
        query = await self._expand_query(query)
        statement = self._sql.count(query, after, MAX_POSITION if until is None else until)
        head, _, count = (await self._servers.query_from(self._required_position(after, until), statement))[0]
        if query.items:
            return count
        return max(0, (head if until is None else min(until, head)) - after)

    async def position_at(self, time: int) -> int:
        """See the port."""
        rows = await self._servers.query_from(self._read_floor, (self._sql.position_at, [time]))
        head, _, probes, last = rows[0][:4]
        if not head:
            return 0
        events = self._decode_events([row[4:] for row in rows if row[4] is not None])
        if len(events) < probes:
            raise missing_event(last)
        return max((event.position for event in events if event.time <= time), default=0)

    async def event_id(self, position: int) -> bytes | None:
        """See the port."""
        event = await self._event_at(position)
        return event.id if event else None

    async def position_of(self, id: bytes) -> int | None:
        """See the port."""
        rows = await self._servers.query_with_fallback(self._sql.position_of, id)
        return rows[0][0] if rows else None

    async def boundary(self, position: int) -> int:
        """See the port."""
        event = await self._event_at(position)
        return event.last if event else position

    async def _event_at(self, position: int) -> StoredEvent | None:
        """The event at a position; None beyond the head. Raises CorruptEvent where there must be one."""
        rows = await self._servers.query_with_fallback(self._sql.event_at, position)
        if not rows and 0 < position <= (await self.head()).position:
            rows = await self._servers.query(
                self._sql.event_at, [position], primary=True, epoch=True
            )  # it may have come
            if not rows:
                raise missing_event(position)
        return self._decode_events([rows[0][2:]])[0] if rows else None

    async def keys(self, after: str = "", limit: int = 1000) -> list[tuple[str, int]]:
        """See the port."""
        return [decode_request_key(row) for row in await self._servers.query(self._sql.keys, [after, limit])]

    async def types(self) -> list[TypeCount]:
        """See the port."""
        epoch, through, counts = self._type_counts
        if epoch != self.epoch:
            through, counts = 0, dict[str, int]()
        rows = await self._servers.query(*self._sql.types(through), epoch=True)
        head, epoch = rows[0][:2]
        if through > head or epoch != self.epoch or (through and self._type_counts[0] != epoch):  # of another moment
            counts = dict[str, int]()
            rows = await self._servers.query(*self._sql.types(0), epoch=True)
            head, epoch = rows[0][:2]
        found = [
            TypeCount(type, counts.get(type, 0) + more, first, last)
            for _, _, type, more, first, last in rows
            if last is not None
        ]
        self._type_counts = (epoch, head, {each.type: each.count for each in found})
        return found

    async def tags(self, prefix: str = "", limit: int = 1000, after: str = "") -> list[TagCount]:
        """See the port."""
        rows = await self._servers.query(*self._sql.tags(prefix, limit, after)) if limit > 0 else []
        return [TagCount(*row) for row in rows]

    async def snapshot(self, key: str) -> Snapshot | None:
        """See the port."""
        rows = await self._servers.query(self._sql.snapshot, [key]) if "\0" not in key else []
        if not rows:
            return None
        found = Snapshot(*rows[0][:-1])
        if snapshot_crc(self.store_id, key, found) != rows[0][-1]:
            raise damaged_snapshot(key, self._servers.primary.where)
        return found

    async def keep_snapshot(self, key: str, snapshot: Snapshot) -> None:
        """See the port."""
        if "\0" in key:  # PostgreSQL has no such text
            return
        columns = [snapshot.fingerprint, snapshot.position, snapshot.event_id, snapshot.state]
        values = [key, *columns, snapshot_crc(self.store_id, key, snapshot)]
        await self._servers.query(self._sql.keep_snapshot, values, primary=True)

    async def drop_snapshots(self, prefix: str = "") -> int:
        """See the port."""
        return (await self._servers.query(self._sql.drop_snapshots, [prefix], primary=True))[0][0]

    async def try_lock(self, name: str, owner: str) -> str | None:
        """See the port."""
        return await self._locks.try_acquire(name, owner)

    async def unlock(self, name: str) -> None:
        """See the port."""
        await self._locks.release(name)

    async def stats(self) -> dict[str, Any]:
        """See the port."""
        sessions = self._servers
        return {
            "engine": self.name,
            "schema": self.options.schema,
            "server": sessions.primary.where,
            "replica": sessions.replica.where if sessions.replica else None,
            "pooler": sessions.behind_pooler,
            "listener": self._listener.mode if self._listener else "idle",
            "layout": schema.LAYOUT,
            **dict(zip(STATS_COLUMNS, (await sessions.query(self._sql.stats))[0], strict=True)),
        }

    async def check(self, progress: Progress = lambda _done, _all: None) -> AsyncIterator[Problem]:
        """Compare everything in the store that is written twice: yields what is not as it was written.

        Reads verify what they find; only this finds what an index hides. `progress` is called with the number of
        events compared so far and in all. Appends and reads may go on meanwhile. The primary is asked.
        """
        sessions = self._servers

        async def ask(sql: str, values: Sequence[Any]) -> ResultRows:
            return await sessions.query(sql, values, primary=True)

        async for problem in IntegrityCheck(ask, self._schema, self.store_id, sessions.unplaced).problems(progress):
            yield problem

    def watch(self, ring: Callable[[], None]) -> Callable[[], None]:
        """See the port."""
        if self._listener is None:
            poll = self.options.poll if self._servers.behind_pooler else None
            primary, replica = self._servers.primary, self._servers.replica
            self._listener = Listener(primary, replica, self._sql.head, self.options.schema, poll)
        return self._listener.watch(ring)

    async def close(self) -> None:
        """See the port."""
        await self._locks.close()
        await self._servers.close()
        if self._listener is not None:  # it rings once more: whoever waits looks, and is told of the close
            await run_off_loop(self.capabilities.suspends, self._listener.close)
