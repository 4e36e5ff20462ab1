"""`eventfold types`, `tags`, `stats` and `cursor`: what a store contains, its size, and its cursors.

Knows: how facts are shown. Does not know: any engine; its facts are shown under the names it gives.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Annotated, Any, TypeVar

import msgspec
import typer

from eventfold.cli.formatting import escape_control, format_second, format_size, format_value
from eventfold.cli.options import Json, Url, Wide, open_store, split_store_argument
from eventfold.cli.output import Column, Output
from eventfold.cli.state import resolve_position
from eventfold.core.counted import count_of
from eventfold.core.event_json import format_id, format_time
from eventfold.core.query import Cursor
from eventfold.core.tags import tag_key
from eventfold.ports.messages import TagCount
from eventfold.store import Store

T = TypeVar("T")
PAGE_TAGS = 1_000
TERMINAL_LIMIT = 50  # tags shown on a terminal without --limit
TIME_FACTS = {"created", "first_recorded", "last_recorded"}  # facts in µs since 1970
COUNT_COLUMN = Column("events", align_right=True, style="cyan")


def types(url: Url = None, as_json: Json = None, wide: Wide = False) -> None:
    """List the types of events.

    For each type the number of its events, and its first and last position.
    """
    output = Output(as_json, wide)
    with open_store(url) as store:
        found = store.types()
    if output.is_json:
        output.write_lines(msgspec.json.encode(each) for each in found)
    elif not found:
        output.print_hint("No events yet.")
    else:
        output.print_table(
            (
                Column("type", elastic=True, style="bold", min_width=12),
                COUNT_COLUMN,
                Column("first", align_right=True, style="dim"),
                Column("last", align_right=True, style="dim"),
            ),
            [(escape_control(each.type), f"{each.count:,}", f"{each.first:,}", f"{each.last:,}") for each in found],
        )


def tags(
    url: Url = None,
    prefix: Annotated[
        str | None,
        typer.Argument(metavar="PREFIX", help="Only tags with this prefix, for example account:", show_default=False),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", min=0, metavar="N", help="At most N; the default on a terminal is 50.", show_default=False
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="No limit, also on a terminal.")] = False,
    after: Annotated[str, typer.Option("--after", metavar="TAG", help="Only tags after this one, in order.")] = "",
    keys: Annotated[bool, typer.Option("--keys", help="Only the parts before the colon, each once.")] = False,
    counts: Annotated[
        bool | None,
        typer.Option(
            "--counts/--no-counts",
            help="Whether to count events, and with --keys tags. The default counts, except with --keys.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = None,
    wide: Wide = False,
) -> None:
    """List tags, and the number of events with each.

    In order of the tags; with --keys only the parts before the colon. Without counts, either takes milliseconds on a
    store of any size.
    """
    url, others = split_store_argument(url, [] if prefix is None else [prefix])
    if len(others) > 1:
        raise typer.BadParameter(f"{others[1]!r} is one argument too many.", param_hint="PREFIX")
    output = Output(as_json, wide)
    most = TERMINAL_LIMIT if limit is None and output.is_terminal and not output.is_json and not everything else limit
    with open_store(url) as store:
        prefix = others[0] if others else ""
        if keys and not counts:
            print_tag_keys(output, read_tag_keys(store, prefix, tag_key(after)))
        elif keys:
            print_tag_key_counts(output, read_tags(store, prefix, after))
        elif counts is False:
            print_tag_names(output, read_tag_names(store, prefix, after), most)
        else:
            print_tags(output, read_tags(store, prefix, after), most)


def read_tags(store: Store, prefix: str, after: str) -> Iterator[TagCount]:
    """Read tags, page after page."""
    while page := store.tags(prefix, limit=PAGE_TAGS, after=after):
        yield from page
        after = page[-1].tag


def read_tag_names(store: Store, prefix: str, after: str) -> Iterator[str]:
    """Read tags without counts, page after page."""
    while page := store.tag_names(prefix, limit=PAGE_TAGS, after=after):
        yield from page
        after = page[-1]


def read_tag_keys(store: Store, prefix: str, after: str) -> Iterator[str]:
    """Read keys of tags, page after page."""
    while page := store.tag_keys(prefix, limit=PAGE_TAGS, after=after):
        yield from page
        after = page[-1]


def print_tags(output: Output, found: Iterator[TagCount], most: int | None) -> None:
    """Print tags with their counts."""
    shown, more = _take(output, found, most)
    if output.is_json:
        return
    if shown:
        columns = (Column("tag", elastic=True, style="green", min_width=20), COUNT_COLUMN)
        output.print_table(columns, [(escape_control(each.tag), f"{each.count:,}") for each in shown])
    else:
        output.print_hint("No such tags.")
    if more:
        _print_more(output, [each.tag for each in shown])


def print_tag_names(output: Output, found: Iterator[str], most: int | None) -> None:
    """Print tags without counts."""
    shown, more = _take(output, ({"tag": tag} for tag in found), most)
    if output.is_json:
        return
    if shown:
        column = Column("tag", elastic=True, style="green", min_width=20)
        output.print_table((column,), [(escape_control(each["tag"]),) for each in shown])
    else:
        output.print_hint("No such tags.")
    if more:
        _print_more(output, [each["tag"] for each in shown])


def _take(output: Output, found: Iterator[T], most: int | None) -> tuple[list[T], bool]:
    """The first `most` of them, written at once as JSON lines, and whether there are more."""
    shown: list[T] = []
    for each in found:
        if most is not None and len(shown) >= most:
            return shown, True
        if output.is_json:
            output.write_lines((msgspec.json.encode(each),))
        shown.append(each)
    return shown, False


def _print_more(output: Output, shown: list[str]) -> None:
    onward = f"; --after {escape_control(shown[-1])} shows the next ones." if shown else "."
    output.print_hint(f"\n{count_of(len(shown), 'tag')} shown; there are more.\n--limit N or --all shows more{onward}")


def print_tag_keys(output: Output, found: Iterator[str]) -> None:
    """Print the parts before the colon."""
    if output.is_json:
        for key in found:
            output.write_value({"key": key})
    elif keys := list(found):
        output.print_table(
            (Column("key", elastic=True, style="green", min_width=12),), [(escape_control(key),) for key in keys]
        )
    else:
        output.print_hint("No such tags.")


def print_tag_key_counts(output: Output, found: Iterator[TagCount]) -> None:
    """Print the parts before the colon, with the number of different tags and of their events."""
    numbers: dict[str, list[int]] = {}
    for each in found:
        number = numbers.setdefault(tag_key(each.tag), [0, 0])
        number[0] += 1
        number[1] += each.count
    if output.is_json:
        for key, (distinct, count) in numbers.items():
            output.write_value({"key": key, "tags": distinct, "count": count})
    elif not numbers:
        output.print_hint("No such tags.")
    else:
        output.print_table(
            (
                Column("key", elastic=True, style="green", min_width=12),
                Column("different tags", align_right=True),
                COUNT_COLUMN,
            ),
            [(escape_control(key), f"{distinct:,}", f"{count:,}") for key, (distinct, count) in numbers.items()],
        )


def stats(
    url: Url = None,
    metrics: Annotated[
        bool, typer.Option("--metrics", help="Metrics of its state, in the text format of Prometheus.")
    ] = False,
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="The label store of these metrics.")] = "default",
    as_json: Json = None,
) -> None:
    """Show facts about a store.

    Its id, the number of its events, its size on disk, and the durability of its writes. With --metrics the state of
    the log, read models, processes and verifications, for node_exporter's textfile collector: no server is needed.
    """
    output = Output(as_json)
    if metrics:
        from eventfold.monitoring.collector import state_families
        from eventfold.monitoring.exposition import Families, encode

        with open_store(url) as store:
            sys.stdout.write(encode(Families(state_families(store, name)))[0].decode())
        return
    with open_store(url) as store:
        found = collect_stats(store)
    if output.is_json:
        output.write_value(
            {name: format_time(v) if name in TIME_FACTS and isinstance(v, int) else v for name, v in found.items()}
        )
        return
    rows = [(format_fact_name(name), format_fact(name, value)) for name, value in found.items() if value is not None]
    size, events = found.get("bytes"), found["head"]
    if isinstance(size, int) and events:
        rows.append(("bytes per event", f"{size / events:,.0f}"))
    output.print_table((Column("fact", style="bold"), Column("value", elastic=True, min_width=20)), rows)


def collect_stats(store: Store) -> dict[str, Any]:
    """The facts of the engine, and those that every store has."""
    ends = [
        next(store.read(raw=True, limit=1, backwards=backwards), None) for backwards in (False, True)
    ]  # an empty store has neither
    first, last = (None if each is None else each.stored.time for each in ends)
    common: dict[str, Any] = {
        "store": store.engine.store_id,
        "epoch": store.engine.epoch,
        "head": store.head(),
        "first_recorded": first,
        "last_recorded": last,
    }
    return common | {name: value for name, value in store.stats().items() if name not in common}


def format_fact_name(name: str) -> str:
    """The name of a fact as words: wal_bytes becomes wal size."""
    return re.sub(r"(^|_)bytes$", r"\1size", name).replace("_", " ")


def format_fact(name: str, value: Any) -> str:
    """The value of a fact as text; the unit follows from its name."""
    if isinstance(value, bool) or not isinstance(value, int):
        return format_value(value)
    if name.endswith("bytes"):
        return format_size(value)
    return f"{format_second(value)} UTC" if name in TIME_FACTS else f"{value:,}"


def cursor(
    url: Url = None,
    at: Annotated[
        str | None,
        typer.Argument(
            metavar="AT", help="A position or a time, or a cursor to verify. Default: the head.", show_default=False
        ),
    ] = None,
    as_json: Json = None,
) -> None:
    """Print the cursor at a position or time, or verify one.

    A cursor is a position with the identity of its store and event, so that another store refuses it; --after takes it.
    It is printed as plain text, also in a pipe; --json prints its parts.
    """
    url, others = split_store_argument(url, [] if at is None else [at])
    if len(others) > 1:
        raise typer.BadParameter(f"{others[1]!r} is one argument too many.", param_hint="AT")
    output = Output(as_json)
    text = others[0] if others else None
    with open_store(url) as store:
        if text is not None and text.startswith("efc"):
            found = Cursor.parse(text)
            store.verify(found)
            if as_json is not True:
                output.write_text(f"This is a cursor of this store, at position {found.position:,}.")
        else:
            found = store.cursor(resolve_position(store, text))
            if as_json is not True:
                output.write_text(str(found))
    if as_json is True:
        event_id = format_id(bytes.fromhex(found.event_id)) if found.event_id else None
        output.write_value(
            {
                "cursor": str(found),
                "store": found.store,
                "epoch": found.epoch,
                "position": found.position,
                "event_id": event_id,
            }
        )
