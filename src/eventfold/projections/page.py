"""Events of a page, ready to be folded: one by one as items, or, where every one is simple, in columns.

Knows: which row each event concerns; whose fault an error is. Does not know: bytes, where rows are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from operator import length_hint
from typing import Any, overload

import msgspec

from eventfold.core.envelope import StoredEvent
from eventfold.core.event import Recorded
from eventfold.core.value_order import canonical
from eventfold.errors import InvalidProjection
from eventfold.projections.definition import Key, ProjectionDefinition

Parts = tuple[tuple[Any, tuple[Key, ...]], ...]  # events, each with the keys it concerns


class HandlerFailed(Exception):
    """The user's code, or an event, failed. `index` of the item it failed at; None: somewhere in the page."""

    def __init__(self, index: int | None, error: BaseException, handler: str = "") -> None:
        super().__init__(str(error))
        self.index, self.error, self.handler = index, error, handler


class DecodedEvent(msgspec.Struct, gc=False):
    """An event of this partition: `at` is its place in the page, `keys` the keys it concerns.

    `parts` are the events it reads as, each with its own keys: one, unless an upcaster made several of it, or none.
    """

    at: int
    stored: StoredEvent
    parts: Parts = ()
    keys: tuple[Key, ...] = ()

    @property
    def key_text(self) -> str:
        """Its keys, as they are told and remembered."""
        return storable(" | ".join(map(key_text, self.keys)))


def storable(text: str) -> str:
    """A text for people as every database takes it."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def key_text(key: tuple[Any, ...]) -> str:
    """A key as text, the same for equal keys: what parked events are grouped by, and partitions are chosen by."""
    try:
        return ", ".join([str(canonical(value)) for value in key])
    except OverflowError:  # a moment that is in UTC in no year of the calendar: no row has such a key
        return ", ".join(map(str, key))


class ColumnarPage(Sequence[DecodedEvent]):
    """A page in columns: each event reads as one, and concerns one key. Items are made only for who asks for one."""

    def __init__(self, places: Sequence[int], stored: list[StoredEvent], events: list[Any], keys: list[Key]) -> None:
        self.places, self.stored, self.events, self.keys = places, stored, events, keys

    def __len__(self) -> int:
        return len(self.events)

    @overload
    def __getitem__(self, index: int) -> DecodedEvent: ...
    @overload
    def __getitem__(self, index: slice) -> list[DecodedEvent]: ...
    def __getitem__(self, index: int | slice) -> DecodedEvent | list[DecodedEvent]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self.events)))]
        keys = (self.keys[index],)
        return DecodedEvent(self.places[index], self.stored[index], ((self.events[index], keys),), keys)

    def evolve(
        self, plan: ProjectionDefinition, rows: dict[Key, Any], catches: type[BaseException] = Exception
    ) -> None:
        """Fold into rows, in order; a row that is not to be kept becomes None. Raises Failed."""
        cls, keep, events = plan.cls, plan.keeps, iter(self.events)
        envelopes = map(Recorded[Any], self.stored, self.events) if plan.recorded else repeat(None)
        try:
            for event, key, envelope in zip(events, self.keys, envelopes, strict=False):
                row = rows.get(key)
                if row is None:
                    row = rows[key] = cls(*key)
                if (row.evolve(event) if envelope is None else row.evolve(event, envelope)) is not None:
                    raise result_refused(cls)
                if keep and not row.keep():
                    rows[key] = None
        except catches as error:
            raise HandlerFailed(len(self.events) - length_hint(events) - 1, error, "evolve") from error


def stored_events(items: Sequence[DecodedEvent], through: int | None = None) -> list[StoredEvent]:
    """The events of items, or of those before a place in the page."""
    if isinstance(items, ColumnarPage) and (through is None or not items or items.places[-1] < through):
        return items.stored
    return [item.stored for item in items if through is None or item.at < through]


def key_changed_error(plan: ProjectionDefinition, key: Key, row: Any) -> InvalidProjection:
    """The error for a row that does not have the key any more by which its events find it."""
    assert plan.rows is not None
    found = plan.rows.key_of(row)
    return InvalidProjection(
        f"A row of {plan.cls.__name__} is found by the key {_describe_key(key)}, "
        f"and has the key {_describe_key(found)} after evolve: it would be two rows.",
        "Leave the key's fields as they are in evolve. A row that is to move is two keys: have key() return both, old "
        "and new, and let keep() drop the old one.",
        projection=plan.name,
        key=_describe_key(key),
        changed_to=_describe_key(found),
    )


def _describe_key(key: Key) -> str:
    return ", ".join(map(repr, key))


def result_refused(cls: type) -> InvalidProjection:
    """An evolve that returns something: it would be lost."""
    return InvalidProjection(
        f"{cls.__name__}.evolve returned a value, and evolve changes self.",
        "Assign to self and return nothing; a row that is to go says so in keep().",
    )
