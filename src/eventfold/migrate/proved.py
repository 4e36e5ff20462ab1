"""Facts that histories prove: what happened to a row before it was loaded, as events that precede its opening.

A change to a row that the history proves is an event of the type that such a change has from now on; the birth of a row
is one of the mapping's type `created`, if it names one. Facts change no folded row: the opening says everything again.

Knows: histories, the mapping. Does not know: how events are sorted and appended.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from eventfold.core.envelope import NewEvent, to_micros
from eventfold.migrate.connection import Connection
from eventfold.migrate.events import Row, TableEvents
from eventfold.migrate.histories import Change, changes
from eventfold.migrate.plan import Plan


class ProvedFacts:
    """Reads the histories of a source. `latest`: by table and key, the moment of the last change, in µs since 1970."""

    def __init__(self, plan: Plan, connection: Connection) -> None:
        self._plan, self._connection = plan, connection
        self.latest: dict[tuple[str, str], int] = {}

    def events(self, run: int) -> Iterator[tuple[str, int | None, NewEvent]]:
        """Yield facts with the label of their table, and their moment. Raises MigrationError for a history row."""
        for label, own in self._plan.mapping.tables.items():
            if own.history is None or not any(table.label == label for table in self._plan.schema.tables):
                continue
            found = changes(self._connection, self._plan.schema, label, own.history)
            for (target, _), of_row in groupby(found, key=lambda change: (change.table, change.key)):
                if target in self._plan.tables:
                    yield from self._of_row(target, of_row, run)

    def _of_row(self, label: str, of_row: Iterator[Change], run: int) -> Iterator[tuple[str, int | None, NewEvent]]:
        events = self._plan.events[label]
        state: Row = dict.fromkeys(events.codec.fields)
        for change in of_row:
            moment = None if change.when is None else to_micros(change.when)
            before = state | self._fields(events, change.before or {}) if change.operation == "update" else state
            after = before | self._fields(events, change.values)
            for column, value in zip(self._plan.tables[label].key, change.key, strict=True):
                after |= self._fields(events, {column: value})
            event = events.proved(change.operation, before, after, moment, change.source, change.who, run)
            if moment is not None:
                key = (label, events.key(after))
                self.latest[key] = max(moment, self.latest.get(key, moment))
            if event is not None:
                yield label, moment, event
            state = dict.fromkeys(events.codec.fields) if change.operation == "delete" else after

    def _fields(self, events: TableEvents, values: dict[str, Any]) -> Row:
        """Return the values that events have, by field; hidden ones as their hashes."""
        codec = events.codec
        carried = set(codec.columns)
        return {
            codec.mapping.field(column): codec.hidden(column, value)
            for column, value in values.items()
            if column in carried
        }
