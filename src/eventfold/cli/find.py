"""`eventfold find`: the events that a line of text describes, a page at a time.

Knows: parameters, what is printed under a page. Does not know: the filter language (search does), how events are shown.
"""

from __future__ import annotations

from time import monotonic
from typing import Annotated

import typer

from eventfold.cli.event_table import EventTable
from eventfold.cli.exit_codes import print_note
from eventfold.cli.formatting import escape_control
from eventfold.cli.options import Json, Url, Wide, open_store, parse_position_or_cursor, split_store_argument
from eventfold.cli.output import Output
from eventfold.cli.suggestions import print_suggestions
from eventfold.core.counted import count_of
from eventfold.core.event_json import encode_line
from eventfold.core.query import Cursor
from eventfold.search.find import Budget
from eventfold.searches import FoundPage, Search
from eventfold.store import Store

TABLE_EVENTS = 50  # events of a table, unless --limit is given
TABLE_SECONDS = 5.0  # how long a table may be filled, unless --seconds is given
PAGE_EVENTS = 500  # found before they are written


Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="FILTER",
        help="Such as 'type:Paid customer:42 data.amount>100'. Without one: every event.",
        show_default=False,
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(
        "--limit",
        min=0,
        metavar="N",
        help="At most N. Default: all as JSON, 50 as a table.",
        show_default=False,
        rich_help_panel="Which",
    ),
]
Behind = Annotated[
    str | None,
    typer.Option(
        "--after", metavar="CURSOR|POSITION", help="Go on behind it, in the same direction.", rich_help_panel="Which"
    ),
]
Backwards = Annotated[
    bool, typer.Option("--backwards/--forwards", help="Newest first, or oldest first.", rich_help_panel="Which")
]
Seconds = Annotated[
    float | None,
    typer.Option(
        "--seconds",
        min=0,
        metavar="N",
        help="Look for at most N seconds. Default: 5 for a table.",
        show_default=False,
        rich_help_panel="Which",
    ),
]


def find(
    url: Url = None,
    words: Words = None,
    limit: Limit = None,
    after: Behind = None,
    backwards: Backwards = True,
    seconds: Seconds = None,
    count: Annotated[bool, typer.Option("--count", help="Print only how many match.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Print only how they are found.")] = False,
    as_json: Json = None,
    wide: Wide = False,
) -> None:
    """Find events by a line of text.

    Clauses: type:A,B, type:Order*, tag:x, customer:42 (any key of tags), pos:5..9, since:7d, until:2026-06-01,
    data.PATH>5, meta.PATH=x, actor:ann, has:data.PATH, version>1. A word alone stands anywhere in the payload. Blanks
    mean and; OR, NOT and parentheses combine. Types, tags, positions and times are found by an index; the rest is
    tested on the events that these return.
    """
    output = Output(as_json, wide)
    url, texts = split_store_argument(url, words or [])
    with open_store(url) as store:
        search = store.search(" ".join(texts), backwards=backwards)
        if explain:
            print_explanation(output, search)
        elif count:
            output.write_text(str(search.count()))
        else:
            print_found(output, store, search, after, limit, seconds)


def print_explanation(output: Output, search: Search) -> None:
    """Print how the events are found."""
    if output.is_json:
        plan = search.plan()
        output.write_value({"filter": plan.text, "index": plan.index, "scan": plan.scan, "answered": search.explain()})
    else:
        output.write_text(escape_control(search.explain()))


def print_found(
    output: Output, store: Store, search: Search, after: str | None, limit: int | None, seconds: float | None
) -> None:
    """Print the events found, until there are `limit` of them or the time is over, and how to go on."""
    if not output.is_json:
        limit = TABLE_EVENTS if limit is None else limit
        seconds = TABLE_SECONDS if seconds is None else seconds
    end = None if seconds is None else monotonic() + seconds
    start: int | Cursor | None = None if after is None else parse_position_or_cursor(after)
    table, found, looked_at, undecodable = EventTable(output), 0, 0, 0
    while True:
        budget = Budget(seconds=None if end is None else max(0.0, end - monotonic()), events=None)
        page = search.page(
            limit=PAGE_EVENTS if limit is None else min(PAGE_EVENTS, limit - found), after=start, budget=budget
        )
        if output.is_json:
            output.write_lines(encode_line(each.stored) for each in page.events)
        else:
            table.print_page(page.events)
        found, looked_at = found + len(page.events), looked_at + page.looked_at
        undecodable += page.undecodable
        if page.next is None or found == limit or (end is not None and monotonic() >= end):
            break
        start = page.next
    if not found and page.next is None and limit != 0:
        print_nothing(output, store, search)
    print_end(output, search, page, found, looked_at)
    if undecodable:
        print_note(f"{count_of(undecodable, 'payload')} could not be looked into: encrypted, or no JSON.")


def print_nothing(output: Output, store: Store, search: Search) -> None:
    """Print that no event matches, and names that are similar to those of the filter."""
    if not output.is_json:
        output.print_hint("No event matches.")
    query = search.plan().query
    if query is not None:
        print_suggestions(store, query)


def print_end(output: Output, search: Search, page: FoundPage, found: int, looked_at: int) -> None:
    """Print how the events were found, and the cursor that goes on behind them."""
    if output.is_json:
        if page.next is not None:
            print_note(f"--after {page.next}")
        return
    output.print_hint(f"\n{escape_control(search.explain())}")
    if page.next is None:
        return
    shown = f"{count_of(found, 'event')} shown"
    back = "" if page.reached_time is None else f", back to {page.reached_time:%Y-%m-%d %H:%M}"
    if not search.is_backwards:
        back = back.replace("back to", "up to")
    looked = f", {looked_at:,} looked at" if looked_at > found else ""
    output.print_hint(f"{shown}{looked}{back}; there may be more:")
    output.write_text(f"--after {page.next}")
