"""`eventfold read`: the events in the log, once.

Knows: how flags become the bounds of a read. Does not know: how events are shown or found.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Annotated, Any, Protocol, TypeVar

import typer

from eventfold.cli.event_table import EventTable
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
    build_query,
    open_store,
    parse_position_or_cursor,
    parse_since,
    parse_until,
)
from eventfold.cli.output import Output
from eventfold.cli.suggestions import print_suggestions
from eventfold.core.counted import count_of
from eventfold.core.envelope import StoredEvent
from eventfold.core.event import Recorded
from eventfold.core.event_json import encode_line
from eventfold.core.moments import parse_position_or_time
from eventfold.core.query import Cursor, Query
from eventfold.ports.messages import PAGE_BYTES
from eventfold.store import Store


class HasStoredEvent(Protocol):
    """A step of a history, or a recorded event."""

    @property
    def stored(self) -> StoredEvent:
        """The event as stored in the log."""
        ...


T = TypeVar("T", bound=HasStoredEvent)
TERMINAL_LIMIT = 50  # events shown on a terminal without --limit
CHUNK_EVENTS = 500


def read(
    url: Url = None,
    types: Types = None,
    tags: Tags = None,
    where: Where = None,
    after: After = None,
    since: Since = None,
    until: Until = None,
    occurred_since: OccurredSince = None,
    occurred_until: OccurredUntil = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", min=0, metavar="N", help="At most N; the default on a terminal is 50.", show_default=False
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="No limit, also on a terminal.")] = False,
    backwards: Annotated[bool, typer.Option("--backwards", help="Newest first.")] = False,
    count: Annotated[bool, typer.Option("--count", help="Print only their number.")] = False,
    as_json: Json = None,
    wide: Wide = False,
) -> None:
    """Show the events in the log.

    All of them, or those with given types, tags and times. Their classes need not be importable: payloads are shown as
    they were written. Times are UTC.
    """
    output = Output(as_json, wide)
    query = build_query(types, tags, where)
    bounds: dict[str, Any] = {
        "after": parse_position_or_cursor(after),
        "until": None if until is None else parse_position_or_time(until),
        "since": parse_since(since),
        "occurred_since": parse_since(occurred_since),
        "occurred_until": parse_until(occurred_until),
        "backwards": backwards,
    }
    with open_store(url) as store:
        if count:
            found = count_events(store, query, bounds, limit)
            output.write_text(str(found))
        elif output.is_json:
            found = 0
            for chunk in split_into_chunks(store.read(query, raw=True, limit=limit, **bounds), CHUNK_EVENTS):
                output.write_lines(encode_line(each.stored) for each in chunk)
                found += len(chunk)
        else:
            most = TERMINAL_LIMIT if limit is None and output.is_terminal and not everything else limit
            one_more = None if most is None else most + 1
            found = print_events(output, store.read(query, raw=True, limit=one_more, **bounds), most, backwards)
        if not found and limit != 0:
            print_suggestions(store, query)


def count_events(store: Store, query: Query, bounds: dict[str, Any], limit: int | None) -> int:
    """The number of events that a read would return."""
    after, end = bounds["after"], bounds["until"]
    if limit is None and bounds["since"] is bounds["occurred_since"] is bounds["occurred_until"] is None:
        return store.count(query, after=store.verify(after) if isinstance(after, Cursor) else after, until=end)
    return sum(1 for _ in store.read(query, raw=True, limit=limit, **bounds))


def print_events(output: Output, events: Iterator[Recorded[Any]], most: int | None, backwards: bool) -> int:
    """Print at most `most` events as a table, and how to see more; returns their number."""
    table = EventTable(output)
    last = 0
    for chunk in split_into_chunks(islice(events, most), CHUNK_EVENTS):
        table.print_page(chunk)
        last = chunk[-1].position
    if next(events, None) is not None:
        output.print_hint(f"\n{count_of(table.row_count, 'event')} shown; there are more.")
        onward = "." if backwards else f"; --after {last} shows the next ones."
        output.print_hint(f"--limit N or --all shows more{onward}")
    elif not table.row_count:
        output.print_hint("No events. `eventfold types` and `eventfold tags` list what is in the store.")
    return table.row_count


def split_into_chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Split items into lists of `size`, or fewer if their events are large."""
    chunk, held = list[T](), 0
    for item in items:
        chunk.append(item)
        held += len(item.stored.data)
        if len(chunk) == size or held >= PAGE_BYTES:
            yield chunk
            chunk, held = list[T](), 0
    if chunk:
        yield chunk
