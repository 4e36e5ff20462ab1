"""Rows as their events say: the last value of each field, folded without the user's event classes.

Events of a migration have metadata that say what they do; those of decisions are read by their types (decided.py).
Knows: metadata of events (events.py), a store. Does not know: sources, how events are made.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from eventfold.concurrency import run
from eventfold.core.envelope import NewEvent, StoredEvent
from eventfold.core.query import Item, Query
from eventfold.log.read import Bounds, Reader
from eventfold.migrate.decided import DecidedEvents
from eventfold.migrate.events import Origin, Row, TableEvents
from eventfold.migrate.sources.changes import Mark
from eventfold.store import Store

KEPT_ROWS = 100_000  # folded rows in memory
ASKED_TOGETHER = 500  # rows in one query
NO_MARK: Mark = ()
_origin = msgspec.json.Decoder(Origin).decode
_data = msgspec.json.decode


class FoldedRow(msgspec.Struct, frozen=True):
    """A row as its events say. `values`: None if it does not exist (any more).

    `mark`: of the last change; `run`: of the last load that saw it; `position`: of its last event. `is_decided`: a
    decision wrote to it, so that a field that is not in `values` is unknown.
    """

    values: Row | None = None
    mark: Mark = NO_MARK
    run: int = 0
    position: int = 0
    is_decided: bool = False

    def after(self, event: NewEvent | StoredEvent, origin: Origin) -> FoldedRow:
        """Return the row after an event of it."""
        mark, last = origin.mark or self.mark, origin.run or self.run
        position = event.position if isinstance(event, StoredEvent) else self.position
        match origin.op:
            case "open":
                return FoldedRow(_data(event.data), mark, last, position)
            case "change":
                values = (self.values or {}) | _data(event.data)
                return FoldedRow(values, mark, last, position, self.is_decided)
            case "remove":
                return FoldedRow(None, mark, last, position)
            case _:  # what is said by a fact is said again by the opening
                return FoldedRow(self.values, mark, last, position, self.is_decided)

    def completed(self, row: Row | None) -> Row | None:
        """Return the values, with those of `row` where this row's are unknown."""
        if self.values is None or row is None or not self.is_decided:
            return self.values
        return {field: value for field, value in row.items() if field not in self.values} | self.values


UNKNOWN = FoldedRow()


class FoldedRows:
    """The folded rows of some tables, those used last in memory. `tables`: by label."""

    def __init__(self, store: Store, tables: Mapping[str, TableEvents], kept: int = KEPT_ROWS) -> None:
        self._log, self._tables, self._kept = store.projections.log, tables, kept
        self._decided = DecidedEvents(tables)
        self._rows: OrderedDict[tuple[str, str], FoldedRow] = OrderedDict()

    def get(self, label: str, key: str) -> FoldedRow:
        """Return one row."""
        found = self._rows.get((label, key))
        if found is None:
            self.fetch([(label, key)])
            found = self._rows[label, key]
        return found

    def fetch(self, wanted: Iterable[tuple[str, str]]) -> None:
        """Read the rows that are not in memory, many in one query."""
        rows = self._rows
        missing = [each for each in dict.fromkeys(wanted) if each not in rows]
        for each in wanted:
            if each in rows:
                rows.move_to_end(each)
        for start in range(0, len(missing), ASKED_TOGETHER):
            part = missing[start : start + ASKED_TOGETHER]
            found = dict.fromkeys(part, UNKNOWN)
            sources = {self._tables[label].source(key): (label, key) for label, key in part}
            items = [Item(self._tables[label].types, (self._tables[label].tag(key),)) for label, key in part]
            for stored, origin in self._read(Query.any_of(items)):
                if origin is None:
                    self._add_decided(found, stored, None)
                elif (name := sources.get(origin.source)) is not None:
                    found[name] = found[name].after(stored, origin)
            rows.update(found)

    def apply(self, label: str, key: str, event: NewEvent) -> None:
        """Fold an event that was appended, or will be."""
        self._rows[label, key] = self.get(label, key).after(event, origin_of(event))

    def known(self, label: str) -> dict[str, FoldedRow]:
        """Return the rows of a table that are in memory, by key."""
        return {key: row for (each, key), row in self._rows.items() if each == label}

    def trim(self) -> None:
        """Forget the rows that were not used for longest, down to the number that is kept."""
        while len(self._rows) > self._kept:
            self._rows.popitem(last=False)

    def forget(self) -> None:
        """Forget all rows: they are read again."""
        self._rows.clear()

    def table(self, label: str, until: int | None = None) -> dict[str, FoldedRow]:
        """Return all rows of a table, by key, also those removed, as of a position (inclusive; default: the head)."""
        events = self._tables[label]
        found: dict[tuple[str, str], FoldedRow] = {}
        prefix = f"{label}/"
        for stored, origin in self._read(Query.of(types=events.types), until):
            if origin is None:
                self._add_decided(found, stored, label)
            elif origin.source.startswith(prefix):
                name = label, origin.source[len(prefix) :]
                found[name] = found.get(name, UNKNOWN).after(stored, origin)
        return {key: row for (_, key), row in found.items()}

    def _add_decided(self, found: dict[tuple[str, str], FoldedRow], stored: StoredEvent, label: str | None) -> None:
        """Fold an event of a decision into the rows that are wanted: those of a table, or those that are there."""
        decided = self._decided.read(stored)
        name = decided.label, decided.key
        if name in found or decided.label == label:
            row = found.get(name, UNKNOWN)
            values = self._decided.folded(row.values, decided)
            found[name] = FoldedRow(values, row.mark, row.run, stored.position, values is not None)

    def _read(self, query: Query, until: int | None = None) -> Iterator[tuple[StoredEvent, Origin | None]]:
        reader = Reader(self._log, query, Bounds(until=until), raw=True)
        while (page := run(reader.next_stored())) is not None:
            for stored in page:
                yield stored, known_origin(stored.metadata)


def known_origin(metadata: bytes | None) -> Origin | None:
    """Return the origin of an event of a migration; None for others, which decisions wrote under the same type."""
    if metadata is None:
        return None
    try:
        return _origin(metadata)
    except msgspec.ValidationError:
        return None


def origin_of(event: NewEvent) -> Origin:
    """Return the metadata of an event that a migration made."""
    return _origin(event.metadata or b"{}")


def live_keys(rows: Mapping[str, FoldedRow]) -> set[str]:
    """Return the keys of rows that exist."""
    return {key for key, row in rows.items() if row.values is not None}


def shown_row(row: Row | None) -> Any:
    """Return a row as text for a message; "no row" for None."""
    return "no row" if row is None else msgspec.json.encode(row).decode()
