"""Views: a projection's rows folded in memory, without a table, as of now or of a moment in the past.

Knows: the fold. Does not know: targets, checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any, Generic, TypeVar

from eventfold.core.event import Recorded
from eventfold.errors import InvalidInput, InvalidProjection
from eventfold.log.context import Log
from eventfold.log.read import last_micros, resolve_position
from eventfold.ports.messages import Span
from eventfold.projections.classes import Projection
from eventfold.projections.definition import ProjectionDefinition, projection_definition
from eventfold.projections.fold import keys_in
from eventfold.projections.memory_rows import MemoryRows
from eventfold.projections.page import (
    ColumnarPage,
    DecodedEvent,
    HandlerFailed,
    PageDecoder,
    key_changed_error,
    result_refused,
)
from eventfold.selection import Filter, Rows, Selection

P = TypeVar("P", bound=Projection)
PAGE = 2_000


class View(Mapping[Any, P], Generic[P]):
    """Rows by key (a tuple, or the value itself where the key has one field), as of `position`."""

    def __init__(
        self,
        rows: dict[tuple[Any, ...], P],
        position: int,
        origin: tuple[str, int],
        definition: ProjectionDefinition,
    ) -> None:
        self._rows, self.position = rows, position
        self._origin = origin  # the store's id and epoch
        self._definition = definition

    def __getitem__(self, key: Any) -> P:
        return self._rows[key if isinstance(key, tuple) else (key,)]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def select(
        self, /, *filters: Filter | Mapping[str, Any] | None, order: str | Sequence[str] = (), **fields: Any
    ) -> Selection[P]:
        """Return a selection of these rows. See Store.select. Its cursors are of this position of the view."""
        source = MemoryRows(self._definition, self._rows, f"a view at position {self.position}", self._origin[0])
        return Selection(source, filters, fields, order)

    def rows(
        self,
        /,
        *filters: Filter | Mapping[str, Any] | None,
        order: str | Sequence[str] = (),
        limit: int | None = None,
        after: str | None = None,
        **fields: Any,
    ) -> Rows[P]:
        """Return the rows that satisfy all filters. See Store.rows."""
        return self.select(*filters, order=order, **fields).rows(limit, after)

    def __repr__(self) -> str:
        return f"<View of {len(self._rows)} rows at position {self.position}>"


async def view(
    log: Log,
    projection: type[P],
    at: int | date | None,
    since: View[P] | None,
    occurred_until: date | None = None,
    *,
    each: bool = False,
) -> View[P]:
    """Fold the rows of a projection. Raises what its code raises.

    `since`: an earlier view to continue, whose rows are changed in place; one of another store or of an ended epoch is
    ignored. `at`: a position (inclusive), moment or day; None: now. Raises InvalidProjection where an event changes the
    key of its row, InvalidInput for `since` with `occurred_until`. `each`: check the key after every event.
    """
    definition = projection_definition(projection)
    if definition.rows is None:
        raise InvalidProjection(f"{definition.name} is written in SQL, so it needs a table.", "Use store.project(…).")
    if since is not None and (not isinstance(since, View) or since._definition.cls is not definition.cls):  # pyright: ignore[reportUnnecessaryIsInstance, reportPrivateUsage]
        raise InvalidInput(
            f"since={since!r} is no view of {definition.cls.__name__}.",
            "Give an earlier view of it, to continue from; for the rows as of a moment or a position, use at=.",
        )
    if occurred_until is not None and since is not None:
        raise InvalidInput(
            "occurred_until= cannot be combined with since=, whose rows were folded without it.",
            "Remove since=: a view by the time of occurrence is folded from the beginning.",
        )
    until = None if at is None else await resolve_position(log, at)
    occurred = None if occurred_until is None else last_micros(occurred_until)
    decoder = PageDecoder(definition, log.registry, 0, 1)
    origin = (log.engine.store_id, log.engine.epoch)
    usable = since is not None and since._origin == origin  # pyright: ignore[reportPrivateUsage]
    rows: dict[tuple[Any, ...], Any] = since._rows if since is not None and usable else {}  # pyright: ignore[reportPrivateUsage]
    position = since.position if since is not None and usable else 0
    while True:
        page = await log.engine.read(
            definition.query, Span(after=position, until=until, limit=PAGE, occurred_until=occurred)
        )
        if log.engine.epoch != origin[1]:
            return await view(log, projection, at, None, occurred_until, each=each)
        try:
            items = decoder.items(page.events, {})
        except HandlerFailed as failed:
            raise failed.error from None
        try:
            changed = _fold(items, definition, rows, each)
        except HandlerFailed as failed:
            raise failed.error from None
        if changed:  # fold again from the beginning, to find the event that changed a key
            return await view(log, projection, page.scanned, None, occurred_until, each=True)
        position = max(position, page.scanned)
        if not page.more:
            return View(rows, position, origin, definition)


def _fold(
    items: Sequence[DecodedEvent], definition: ProjectionDefinition, rows: dict[tuple[Any, ...], Any], each: bool
) -> bool:
    """Fold events into rows. Return whether any row has another key now than the one that its events are found by."""
    assert definition.rows is not None
    key_of = definition.rows.key_of
    if isinstance(items, ColumnarPage) and not each:
        items.evolve(definition, rows)
        for key in items.keys if definition.keeps else ():
            if rows.get(key, definition) is None:
                del rows[key]
    else:
        _fold_one_by_one(items, definition, rows, each)
    return any(key in rows and key_of(rows[key]) != key for key in keys_in(items))


def _fold_one_by_one(
    items: Sequence[DecodedEvent], definition: ProjectionDefinition, rows: dict[tuple[Any, ...], Any], each: bool
) -> None:
    assert definition.rows is not None
    for item in items:
        for event, keys in item.parts:
            for key in keys:
                row = rows.get(key)
                if row is None:
                    row = rows[key] = definition.cls(*key)
                done = row.evolve(event, Recorded(item.stored, event)) if definition.recorded else row.evolve(event)
                if done is not None:
                    raise result_refused(definition.cls)
                if definition.keeps and not row.keep():
                    del rows[key]
                elif each and definition.rows.key_of(row) != key:
                    error = key_changed_error(definition, key, row)
                    what = f"Event {item.stored.position} ({item.stored.type}): {error.what}"
                    raise InvalidProjection(what, error.remedy, **{**error.fields, "position": item.stored.position})
