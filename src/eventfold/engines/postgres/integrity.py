"""A whole store compared with itself, which finds damage that reads cannot: an index that hides an event.

Every read verifies the checksums of its events. But a row that is found by a value (a tag, a request key, a snapshot's
key) is not found once that value has changed in the table and the index alike. This check finds it. It does not find a
request key, a snapshot or a whole last append that is missing in every table at once, nor a changed request key of
layout 1, which has no checksum.

Knows: everything that is written twice, and every checksum. Does not know: connections, repairs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from eventfold.core.counted import count_of
from eventfold.core.envelope import StoredEvent
from eventfold.core.snapshot import Snapshot
from eventfold.engines.postgres.arrays import pack_bigints, pack_texts, pack_uuids
from eventfold.engines.postgres.checksums import decode_events, snapshot_crc, text_checksum
from eventfold.engines.postgres.connection import ResultRows
from eventfold.engines.postgres.inline import decode_registrations as registrations
from eventfold.engines.postgres.statements import COLUMNS
from eventfold.errors import CorruptEvent, StoreDamaged
from eventfold.ports.integrity import Problem, Progress, placement_problems

PAGE_ROWS = 1_000  # events, snapshots or keys that one query reads
MAX_PAGE_BYTES = 8 << 20  # of data that one query reads, unless a single row has more

DAMAGE_ERRORS = (CorruptEvent, StoreDamaged)

RunQuery = Callable[[str, Sequence[Any]], Awaitable[ResultRows]]


class _CheckStatements:
    """The queries for the store in one schema. Texts that may be damaged are read as bytes."""

    def __init__(self, schema: str) -> None:
        event, tag, request, snapshot = (f"{schema}.{name}" for name in ("event", "tag", "request", "snapshot"))
        self.head = f"SELECT coalesce(max(position), 0) FROM {event}"
        # The next events, as many as MAX_PAGE_BYTES allows.
        self.events = (
            f"SELECT {COLUMNS} FROM (SELECT p.*, sum(octet_length(data)) OVER w AS bytes, row_number() OVER w AS number"
            f" FROM (SELECT * FROM {event} WHERE position > %b AND position <= %b ORDER BY position"
            f" LIMIT {PAGE_ROWS}) p"
            f" WINDOW w AS (ORDER BY position)) e WHERE number = 1 OR bytes <= {MAX_PAGE_BYTES} ORDER BY position"
        )
        self.positions = (
            f"SELECT position FROM {event} WHERE position > %b AND position <= %b ORDER BY position LIMIT {PAGE_ROWS}"
        )
        self.one = f"SELECT {COLUMNS} FROM {event} e WHERE position = %b"
        self.ids = f"SELECT position FROM {event} WHERE id = ANY (%b)"
        self.untagged = (
            "SELECT g.tag, g.position FROM unnest(%b::text[], %b::bigint[], %b::text[]) g(tag, position, type)"
            f" WHERE NOT EXISTS (SELECT FROM {tag} t WHERE t.tag = g.tag AND t.position = g.position"
            " AND t.type = g.type)"
        )
        self.tags = f"SELECT count(*) FROM {tag} WHERE position <= %b"
        self.types = (
            f"SELECT g.type, (SELECT count(*) FROM {event} e WHERE e.type = g.type AND e.position <= %b)"
            " FROM unnest(%b::text[]) g(type)"
        )
        self.keys = (
            f"SELECT convert_to(r.key, 'UTF8'), r.first, r.size, r.crc, e.\"offset\", e.size FROM"
            f" (SELECT * FROM {request} ORDER BY key LIMIT {PAGE_ROWS} OFFSET %b) r"
            f" LEFT JOIN {event} e ON e.position = r.first"
        )
        self.snapshots = (
            "SELECT convert_to(key, 'UTF8'), convert_to(fingerprint, 'UTF8'), position, event, state, crc FROM"
            " (SELECT p.*, sum(octet_length(state)) OVER w AS bytes, row_number() OVER w AS number"
            f" FROM (SELECT * FROM {snapshot} ORDER BY key LIMIT {PAGE_ROWS} OFFSET %b) p"
            f" WINDOW w AS (ORDER BY key)) s WHERE number = 1 OR bytes <= {MAX_PAGE_BYTES}"
        )
        self.inlined = f"SELECT name, code, types, ticket, crc FROM {schema}.inlined ORDER BY name"
        self.store = f"SELECT id, epoch, layout, unplaced, place, crc FROM {schema}.store"


class IntegrityCheck:
    """One check, up to the head at its start. `unplaced`: see `checksums.decode_events`."""

    def __init__(self, ask: RunQuery, schema: str, store_id: str, unplaced: int) -> None:
        self._query, self._sql = ask, _CheckStatements(schema)
        self._store_id, self._unplaced = store_id, unplaced
        self._type_counts: Counter[str] = Counter()
        self._tag_count = 0

    async def problems(self, progress: Progress) -> AsyncIterator[Problem]:
        """Every problem. `progress` is called with the number of events compared so far and in all.

        Raises StoreUnavailable if the server cannot be asked.
        """
        head: int = (await self._query(self._sql.head, []))[0][0]
        done, before, damaged = 0, None, False
        while done < head:
            found, events, until = await self._check_page(done, head)
            damaged = damaged or bool(found)
            for problem in found:
                yield problem
            for event in events:
                for problem in placement_problems(before, event):
                    yield problem
                before = event
            for problem in await _as_problems(self._check_indexes(events)):
                yield problem
            done = until
            progress(done, head)
        for part in (
            partial(self._check_index_sizes, head, damaged),
            partial(self._check_request_keys, head),
            self._check_snapshots,
            self._check_store_row,
        ):
            for problem in await _as_problems(part()):
                yield problem

    async def _check_page(self, after: int, head: int) -> tuple[list[Problem], list[StoredEvent], int]:
        """Problems of the next events, those events that are undamaged, and the last position checked."""
        try:
            events = decode_events(await self._query(self._sql.events, [after, head]), self._unplaced)
        except DAMAGE_ERRORS:
            return await self._check_each(after, head)
        positions = [event.position for event in events]
        return _find_gaps(after, positions or [head + 1]), events, positions[-1] if positions else head

    async def _check_each(self, after: int, head: int) -> tuple[list[Problem], list[StoredEvent], int]:
        """The same, event by event, when one of them cannot be read."""
        events = list[StoredEvent]()
        positions: list[int] = [row[0] for row in await self._query(self._sql.positions, [after, head])]
        found = _find_gaps(after, positions)
        for position in positions:
            try:
                events += decode_events(await self._query(self._sql.one, [position]), self._unplaced)
            except DAMAGE_ERRORS as error:
                found.append(Problem(error.what, position))
        return found, events, positions[-1]

    async def _check_indexes(self, events: Sequence[StoredEvent]) -> list[Problem]:
        """Whether the indexes of ids and tags find these events."""
        if not events:
            return []
        positions = {row[0] for row in await self._query(self._sql.ids, [pack_uuids([event.id for event in events])])}
        found = [
            Problem("The index of ids does not lead to it.", event.position)
            for event in events
            if event.position not in positions
        ]
        tags = [(tag, event.position, event.type) for event in events for tag in event.tag_set]
        self._tag_count += len(tags)
        self._type_counts.update(event.type for event in events)
        if tags:
            names, tag_positions, types = zip(*tags, strict=True)
            values = [pack_texts(names), pack_bigints(tag_positions), pack_texts(types)]
            found += [
                Problem(f"The tag index does not lead to it by {tag!r}.", position)
                for tag, position in await self._query(self._sql.untagged, values)
            ]
        return found

    async def _check_index_sizes(self, head: int, damaged: bool) -> list[Problem]:
        """Whether the indexes have as many entries as the events need. Types are counted if no event is damaged."""
        found: list[Problem] = []
        entries: int = (await self._query(self._sql.tags, [head]))[0][0]
        if entries != self._tag_count:
            found.append(
                Problem(
                    f"The tag index has {entries:,} entries, and the events carry {count_of(self._tag_count, 'tag')}."
                )
            )
        if not damaged:
            found += [
                Problem(
                    f"The index of types leads to {count_of(count, 'event')} of {name}, and there are "
                    f"{self._type_counts[name]}."
                )
                for name, count in await self._query(self._sql.types, [head, pack_texts(list(self._type_counts))])
                if count != self._type_counts[name]
            ]
        return found

    async def _check_request_keys(self, head: int) -> list[Problem]:
        """Request keys with a wrong checksum, or that do not refer to the first event of an append."""
        found: list[Problem] = []
        done = 0
        while rows := await self._query(self._sql.keys, [done]):
            done += len(rows)
            for raw, first, size, crc, offset, event_size in rows:
                key = raw.decode("utf-8", "replace")
                if crc is not None and text_checksum(f"{key}\n{first}\n{size}") != crc:
                    found.append(Problem(f"The request key {key!r} does not have its checksum."))
                elif first <= head and (offset, event_size) != (0, size):
                    found.append(Problem(f"The request key {key!r} leads to no beginning of an append.", first))
        return found

    async def _check_snapshots(self) -> list[Problem]:
        """Snapshots that are not as they were written."""
        found: list[Problem] = []
        done = 0
        while rows := await self._query(self._sql.snapshots, [done]):
            done += len(rows)
            for raw, code, position, event, state, crc in rows:
                key = raw.decode("utf-8", "replace")
                snapshot = Snapshot(code.decode("utf-8", "replace"), position, event, state)
                if snapshot_crc(self._store_id, key, snapshot) != crc:
                    found.append(Problem(f"The snapshot of {key} does not have its checksum."))
        return found

    async def _check_store_row(self) -> list[Problem]:
        """The store's own row, and the registrations of inline projections."""
        *columns, crc = (await self._query(self._sql.store, []))[0]
        registrations(await self._query(self._sql.inlined, []))
        if text_checksum("\n".join(str(each) for each in columns if each is not None)) != crc:
            return [Problem("The store's own row (id, epoch, layout) does not have its checksum.")]
        return []


async def _as_problems(part: Awaitable[list[Problem]]) -> list[Problem]:
    """The problems that a part of the check finds. An error that reports damage becomes a problem."""
    try:
        return await part
    except DAMAGE_ERRORS as error:
        return [Problem(error.what)]


def _find_gaps(after: int, positions: Sequence[int]) -> list[Problem]:
    """A problem for each gap between these positions."""
    found: list[Problem] = []
    for position in positions:
        if position == after + 2:
            found.append(Problem("There is no event at this position.", after + 1))
        elif position > after + 2:
            found.append(Problem(f"There is no event at the positions {after + 1} to {position - 1}.", after + 1))
        after = position
    return found
