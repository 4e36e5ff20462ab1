"""The log as effects on rows, up to a watermark: of events that a load or a capture made, and of those of decisions.

A change that was captured counts if the source's snapshot sees its transaction: all its appends, or none of them. An
event that a decision wrote counts if the reverse projection had written it into the snapshot.
Knows: metadata of events, watermarks. Does not know: sources, what is compared.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import msgspec

from eventfold.concurrency import run
from eventfold.core.envelope import StoredEvent
from eventfold.core.query import Item, Query
from eventfold.log.read import Bounds, Reader
from eventfold.migrate.comparison import GivenBy
from eventfold.migrate.decided import DecidedEvents
from eventfold.migrate.events import Origin
from eventfold.migrate.plan import Plan
from eventfold.migrate.sources.changes import Snapshot
from eventfold.migrate.spool import Record
from eventfold.store import Store

OPENED, CHANGED, REMOVED, DECIDED, AMENDED = range(5)  # what an event does; the last two: a decision opened, changed
_DECIDED = {"open": DECIDED, "change": AMENDED, "remove": REMOVED}
_OF = {"open": OPENED, "change": CHANGED, "remove": REMOVED}
_origin = msgspec.json.Decoder(Origin).decode
_decode = msgspec.json.decode


class Watermark(msgspec.Struct, frozen=True):
    """A point at which rows and events can be equal.

    `position`: of the last event that is read. `snapshot`: what of the changes of this `generation` the source shows;
    None if none are recorded. `run`: the last load. `reverse`: up to which position decisions are in the tables; None
    if no reverse projection writes them.
    """

    position: int
    snapshot: Snapshot | None
    generation: int
    run: int
    reverse: int | None = None

    def covers(self, stored: StoredEvent, origin: Origin | None) -> bool:
        """Whether the rows at this watermark have what an event says."""
        if origin is None:
            return self.reverse is None or stored.position <= self.reverse
        mark = origin.mark
        if mark is None or self.snapshot is None or mark[0] != self.generation:
            return True  # loaded, or recorded before recording began again
        return self.snapshot.sees(int(origin.transaction) if origin.transaction is not None else mark[1])


class RowLog:
    """The events of some tables' rows in a store."""

    def __init__(self, store: Store, plan: Plan, labels: Collection[str]) -> None:
        self._log, self._plan, self._labels = store.projections.log, plan, labels
        self._decided = DecidedEvents(plan.events)
        self._has_others = set(labels) != set(plan.tables)
        self.newest_run = 0

    def read(self, watermark: Watermark) -> Iterator[Record]:
        """Yield each event that the watermark covers: the name of its row, what it does, its fields."""
        types = tuple(dict.fromkeys(name for each in self._labels for name in self._plan.events[each].types))
        for stored in self._events(Query.of(types=types), watermark.position):
            origin = origin_of_stored(stored)
            if origin is not None:
                if origin.run is not None and origin.run > self.newest_run:
                    self.newest_run = origin.run
                if origin.op == "fact":  # what it says is said again by the opening
                    continue
                source, what = origin.source, _OF[origin.op]
                if self._has_others and self.label_of(source) not in self._labels:
                    continue
            elif watermark.covers(stored, None):
                decided = self._decided.read(stored)
                if decided.label in self._labels:
                    source = self._plan.events[decided.label].source(decided.key)
                    yield source, _DECIDED[decided.effect], msgspec.json.encode(decided.values)
                continue
            else:
                continue
            if watermark.covers(stored, origin):
                yield source, what, stored.data

    def given(self, label: str, key: str, watermark: Watermark) -> dict[str | None, GivenBy]:
        """Return the event that gave each field of a row its value; under None the last event of the row."""
        events = self._plan.events[label]
        found: dict[str | None, GivenBy] = {}
        for stored in self._events(Query((Item(events.types, (events.tag(key),)),)), watermark.position):
            origin = origin_of_stored(stored)
            if origin is None:
                decided = self._decided.read(stored)
                is_of_row = (decided.label, decided.key) == (label, key)
            else:
                is_of_row = origin.source == events.source(key) and origin.op != "fact"
            if is_of_row and watermark.covers(stored, origin):
                by = GivenBy(stored.position, stored.type, stored.time, None if origin is None else origin.evidence)
                found |= dict.fromkeys([*_decode(stored.data), None], by)
        return found

    def label_of(self, source: str) -> str:
        """Return the table of a row: the longest label with which its name begins."""
        found = [each for each in self._plan.tables if source.startswith(f"{each}/")]
        return max(found, key=len, default="")

    def _events(self, query: Query, until: int) -> Iterator[StoredEvent]:
        reader = Reader(self._log, query, Bounds(until=until), raw=True)
        while (page := run(reader.next_stored())) is not None:
            yield from page


def origin_of_stored(stored: StoredEvent) -> Origin | None:
    """Return the metadata of an event that a load or a capture made; None if a decision wrote it."""
    if stored.metadata is None:
        return None
    try:
        return _origin(stored.metadata)
    except msgspec.ValidationError:  # metadata of a decision
        return None


def merged(before: bytes | None, after: bytes) -> bytes:
    """Return the fields of a row after a change, encoded."""
    values: dict[str, Any] = {} if before is None else _decode(before)
    return msgspec.json.encode(values | _decode(after))
