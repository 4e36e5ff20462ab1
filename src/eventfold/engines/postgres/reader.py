"""Reading the log: pages of events, single events, counts, and how far a replica must be for each answer.

Knows: which position was seen last, and that a reader must never go back behind it. Does not know: SQL
(statements.py), which server answers (servers.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import msgspec

from eventfold.core.envelope import Receipt, StoredEvent, make_receipt, page_length
from eventfold.core.query import ConditionClause, Query
from eventfold.core.tags import tag_key
from eventfold.engines.postgres.checksums import (
    check_matches_query,
    check_no_gaps,
    check_whole_append,
    decode_events,
    decode_request_key,
    missing_event,
)
from eventfold.engines.postgres.connection import ResultRows
from eventfold.engines.postgres.large_queries import (
    MAX_POSITIONS_PER_RANGE,
    MIN_RANGE_POSITIONS,
    LargeQuery,
    is_large,
)
from eventfold.engines.postgres.moment_variants import MomentVariants
from eventfold.engines.postgres.options import quote_identifier
from eventfold.engines.postgres.servers import Servers
from eventfold.engines.postgres.statements import MAX_POSITION, ReadStatements
from eventfold.ports.messages import PAGE_BYTES, AppendRequest, Head, Page, Span, TypeCount


class PostgresReader:
    """Reads one log, from the replica where there is one and it is recent enough.

    `last_seen_position`: the furthest position this engine has met. `read_floor`: the position that every read must
    include: that of a conflict that a writer was refused for and, with `read_your_writes`, of the last own append.
    """

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._schema = quote_identifier(servers.options.schema)
        self._sql = ReadStatements(self._schema)
        self._moment_variants = MomentVariants(self._schema)
        self._type_counts = (0, 0, dict[str, int]())  # epoch, position through which events are counted, counts by type
        self.last_seen_position = 0
        self.read_floor = 0

    def forget_epoch(self) -> None:
        """Forget positions of the previous epoch: its last events may be lost."""
        self.last_seen_position, self.read_floor = 0, 0
        self._moment_variants.clear()

    def note_position(self, position: int) -> None:
        """Remember that the log reaches this position."""
        self.last_seen_position = max(self.last_seen_position, position)

    def raise_floor(self, position: int) -> None:
        """Let every later read include this position."""
        self.read_floor = max(self.read_floor, position)

    # Queries with moments

    async def expand_query(self, query: Query, through: int | None = None) -> Query:
        """The query with every stored variant of its moments up to a position (None: the last one seen)."""
        if not query.names_moments():
            return query
        run_query = partial(self._servers.query, primary=True)
        return await self._moment_variants.expand(
            query, self.last_seen_position if through is None else through, run_query
        )

    async def expand_conditions(self, requests: Sequence[AppendRequest]) -> Sequence[AppendRequest]:
        """The requests, with every stored variant of the moments in their conditions."""
        if not any(clause.query.names_moments() for request in requests for clause in request.unless):
            return requests
        result: list[AppendRequest] = []
        for request in requests:
            clauses = [
                ConditionClause(await self.expand_query(c.query, MAX_POSITION), c.after, c.after_event)
                for c in request.unless
            ]
            result.append(msgspec.structs.replace(request, unless=tuple(clauses)))
        return result

    # Pages

    async def read(self, query: Query, span: Span) -> Page:
        """See the port."""
        while True:
            expanded = await self.expand_query(query)
            page = await self._read(expanded, span)
            if expanded is query or await self.expand_query(query) == expanded:
                return page

    async def _read(self, query: Query, span: Span) -> Page:
        if is_large(query):
            head, events = await self._read_ranges(query, span)
        else:
            rows = await self._query_page(query, span, span.limit + 1)
            head, events = rows[0][0], self.decode_page(rows)
            self._servers.note_event(*rows[0][:3])
        self.note_position(head)
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
        """The head, and up to one more matching event than the span's limit, read from one range after the other.

        A range with too many matching positions is divided by four; after one that succeeds the width is doubled.
        """
        large_query, events = LargeQuery(self._schema, query), list[StoredEvent]()
        after, until = span.after, MAX_POSITION if span.until is None else span.until
        width = MAX_POSITION
        while True:
            low, high = (max(after, until - width), until) if span.backwards else (after, min(until, after + width))
            part = msgspec.structs.replace(span, after=low, until=high)
            max_positions = MAX_POSITIONS_PER_RANGE if high - low > MIN_RANGE_POSITIONS else MAX_POSITION - 1
            statement = self._sql.range_page(large_query, part, span.limit + 1 - len(events), max_positions)
            rows = await self._servers.query_from(self._required_position(low, span.until), statement)
            head, epoch, count, last = rows[0][:4]
            self._servers.note_event(head, epoch, last)
            until, high = min(until, head), min(high, head)
            if count > max_positions:
                width = max(1, (high - low) // 4)
                continue
            events += self.decode_page([(*row[:2], *row[3:]) for row in rows])
            after, until = (after, low) if span.backwards else (high, until)
            if len(events) > page_length(events, span.limit, PAGE_BYTES) or after >= until:
                return head, events
            width *= 2

    async def _rest_of_append(self, query: Query, span: Span, last: StoredEvent) -> list[StoredEvent]:
        """The other matching events of the append that the page's limit divided."""
        if span.backwards:
            part = msgspec.structs.replace(span, after=max(span.after, last.first - 1), until=last.position - 1)
        else:
            until = last.last if span.until is None else min(span.until, last.last)
            part = msgspec.structs.replace(span, after=last.position, until=until)
        return self.decode_page(await self._query_page(query, part, None))

    async def _query_page(self, query: Query, span: Span, limit: int | None) -> ResultRows:
        floor = self._required_position(span.after, span.until)
        return await self._servers.query_from(floor, self._sql.page(query, span, limit))

    def _required_position(self, after: int, until: int | None) -> int:
        """The position a replica must have reached to answer for (after, until]."""
        return max(self.read_floor, after, min(until, self.last_seen_position) if until is not None else 0)

    # Single values

    async def head(self) -> Head:
        """See the port."""
        rows = await self._servers.query_from(self.read_floor, (self._sql.last_event, []))
        if not rows:
            return Head(0, 0, b"")
        (last,) = self.decode_events([row[2:] for row in rows])
        return Head(last.position, last.time, last.id)

    async def count(self, query: Query, after: int, until: int | None) -> int:
        """See the port."""
        query = await self.expand_query(query)
        statement = self._sql.count(query, after, MAX_POSITION if until is None else until)
        head, _, count = (await self._servers.query_from(self._required_position(after, until), statement))[0]
        if query.items:
            return count
        return max(0, (head if until is None else min(until, head)) - after)

    async def counts(self, query: Query, bounds: Sequence[int]) -> list[int]:
        """See the port."""
        if len(bounds) < 2:
            return []
        query = await self.expand_query(query)
        statement = self._sql.counts(query, bounds)
        rows = await self._servers.query_from(self._required_position(bounds[0], bounds[-1]), statement)
        if not query.items:
            ends = [min(bound, rows[0][0]) for bound in bounds]
            return [high - low for low, high in pairwise(ends)]
        found = [0] * (len(bounds) - 1)
        for _, _, number, events in rows:
            if number is not None:
                found[number - 1] = events
        return found

    async def position_at(self, time: int) -> int:
        """See the port."""
        rows = await self._servers.query_from(self.read_floor, (self._sql.position_at, [time]))
        head, _, probes, last = rows[0][:4]
        if not head:
            return 0
        events = self.decode_events([row[4:] for row in rows if row[4] is not None])
        if len(events) < probes:
            raise missing_event(last)
        return max((event.position for event in events if event.time <= time), default=0)

    async def position_of(self, id: bytes) -> int | None:
        """See the port."""
        rows = await self._servers.query_with_fallback(self._sql.position_of, id)
        return rows[0][0] if rows else None

    async def tag_keys(self, prefix: str = "", limit: int = 1000, after: str = "") -> list[str]:
        """See the port."""
        rows = await self._servers.query(*self._sql.tag_keys(prefix, limit, after)) if limit > 0 else []
        return [tag_key(tag) for (tag,) in rows]

    async def tag_names(self, prefix: str = "", limit: int = 1000, after: str = "") -> list[str]:
        """See the port."""
        rows = await self._servers.query(*self._sql.tag_names(prefix, limit, after)) if limit > 0 else []
        return [tag for (tag,) in rows]

    async def event_at(self, position: int) -> StoredEvent | None:
        """The event at a position; None beyond the head. Raises CorruptEvent if the log lacks an event it must have."""
        rows = await self._servers.query_with_fallback(self._sql.event_at, position)
        if not rows and 0 < position <= (await self.head()).position:
            # It may have been written between the two queries.
            rows = await self._servers.query(self._sql.event_at, [position], primary=True, epoch=True)
            if not rows:
                raise missing_event(position)
        return self.decode_events([rows[0][2:]])[0] if rows else None

    async def types(self) -> list[TypeCount]:
        """See the port. Counts events only behind the position through which it has counted them before."""
        epoch, through, counts = self._type_counts
        if epoch != self._servers.epoch:
            through, counts = 0, dict[str, int]()
        rows = await self._servers.query(*self._sql.types(through), epoch=True)
        head, epoch = rows[0][:2]
        # Another epoch, or a replica that lags: the remembered counts do not belong to these rows.
        if through > head or epoch != self._servers.epoch or (through and self._type_counts[0] != epoch):
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

    # Receipts, from the primary

    async def receipt_of(self, key: str) -> Receipt | None:
        """The receipt of the append with this request key."""
        rows = await self._servers.query(self._sql.request, [key], primary=True)
        return await self.receipt_at(decode_request_key(rows[0])[1], repeated=False) if rows else None

    async def receipt_at(self, position: int, *, repeated: bool) -> Receipt:
        """The receipt of the append that wrote this position. Raises CorruptEvent if it is not complete."""
        events = check_whole_append(await self.events_of_append(position), position)
        return make_receipt(self._servers.store_id, self._servers.epoch, events, repeated=repeated)

    async def events_of_append(self, position: int) -> list[StoredEvent]:
        """The events of the append that wrote this position."""
        return self.decode_events(await self._servers.query(self._sql.events_of_append, [position], primary=True))

    # Rows

    def decode_events(self, rows: ResultRows) -> list[StoredEvent]:
        """Rows of COLUMNS as events, their checksums verified."""
        return decode_events(rows, self._servers.unplaced)

    def decode_page(self, rows: ResultRows) -> list[StoredEvent]:
        """The events of a page's rows, which begin with head, epoch and head's id; NULLs in the first: no events."""
        if rows[0][3] is None:
            return []
        lost = next((row[3] for row in rows if row[-1] is None), None)  # every event has a checksum
        if lost is not None:
            raise missing_event(lost)
        return self.decode_events([row[3:] for row in rows])
