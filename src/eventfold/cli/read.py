"""Room: `eventfold read`: events that are there, once.

Knows: how flags become the bounds of a read. Does not know: how events are shown or found.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Annotated, Any, Protocol, TypeVar

import typer

from eventfold.cli.events import Events
from eventfold.cli.filters import query_of
from eventfold.cli.lines import line_of
from eventfold.cli.moments import place_of, since, until
from eventfold.cli.nearest import tell_nearest
from eventfold.cli.options import (
    After,
    Json,
    OccurredSince,
    OccurredUntil,
    Since,
    Tags,
    Types,
    Until,
    Url,
    Where,
    Wide,
    opened,
    position_or_cursor,
)
from eventfold.cli.screen import Screen
from eventfold.cli.shown import counted
from eventfold.core.envelope import Stored
from eventfold.core.event import Recorded
from eventfold.core.query import Cursor, Query
from eventfold.ports.engine import PAGE_BYTES
from eventfold.store import Store


class OfAnEvent(Protocol):
    """A step or an event that was read."""

    @property
    def stored(self) -> Stored:
        """As it stands in the log."""
        ...


T = TypeVar("T", bound=OfAnEvent)
ON_A_TERMINAL = 50  # events shown where nobody said how many
CHUNK = 500


def read(
    url: Url = None,
    types: Types = None,
    tags: Tags = None,
    where: Where = None,
    after: After = None,
    since_: Since = None,
    until_: Until = None,
    occurred_since: OccurredSince = None,
    occurred_until: OccurredUntil = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", min=0, metavar="N", help="At the most so many; on a terminal 50.", show_default=False),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="No limit, on a terminal either.")] = False,
    backwards: Annotated[bool, typer.Option("--backwards", help="The newest first.")] = False,
    count: Annotated[bool, typer.Option("--count", help="Only how many there are.")] = False,
    as_json: Json = None,
    wide: Wide = False,
) -> None:
    """Show the events that are there.

    All of them, or those of some types, with some tags, in some stretch of time. Their classes need not be known here:
    payloads are shown as they were written. Times are UTC.
    """
    screen = Screen(as_json, wide)
    query = query_of(types, tags, where)
    bounds: dict[str, Any] = {
        "after": position_or_cursor(after),
        "until": None if until_ is None else place_of(until_),
        "since": since(since_),
        "occurred_since": since(occurred_since),
        "occurred_until": until(occurred_until),
        "backwards": backwards,
    }
    with opened(url) as store:
        if count:
            found = counted_events(store, query, bounds, limit)
            screen.text(str(found))
        elif screen.json:
            found = 0
            for chunk in chunks(store.read(query, raw=True, limit=limit, **bounds), CHUNK):
                screen.lines(line_of(each.stored) for each in chunk)
                found += len(chunk)
        else:
            most = ON_A_TERMINAL if limit is None and screen.terminal and not everything else limit
            one_more = None if most is None else most + 1
            found = show(screen, store.read(query, raw=True, limit=one_more, **bounds), most, backwards)
        if not found and limit != 0:
            tell_nearest(store, query)


def counted_events(store: Store, query: Query, bounds: dict[str, Any], limit: int | None) -> int:
    """How many events a read would give."""
    after, end = bounds["after"], bounds["until"]
    if limit is None and bounds["since"] is bounds["occurred_since"] is bounds["occurred_until"] is None:
        return store.count(query, after=store.verify(after) if isinstance(after, Cursor) else after, until=end)
    return sum(1 for _ in store.read(query, raw=True, limit=limit, **bounds))


def show(screen: Screen, events: Iterator[Recorded[Any]], most: int | None, backwards: bool) -> int:
    """A table of at most so many events, and what to do to see more; returns how many are shown."""
    table = Events(screen)
    last = 0
    for chunk in chunks(islice(events, most), CHUNK):
        table.show(chunk)
        last = chunk[-1].position
    if next(events, None) is not None:
        screen.hint(f"\n{counted(table.shown, 'event')} shown, and there are more.")
        onward = "." if backwards else f"; --after {last} goes on."
        screen.hint(f"--limit N or --all shows more{onward}")
    elif not table.shown:
        screen.hint("No events. `eventfold types` and `eventfold tags` tell what there is.")
    return table.shown


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """What has a stored event each, so many at a time; fewer where the events are large."""
    chunk, held = list[T](), 0
    for item in items:
        chunk.append(item)
        held += len(item.stored.data)
        if len(chunk) == size or held >= PAGE_BYTES:
            yield chunk
            chunk, held = list[T](), 0
    if chunk:
        yield chunk
