"""Room: `eventfold types`, `tags`, `stats` and `cursor`: what there is, how much of it, and how far it goes.

Knows: what an operator looks for. Does not know: any engine; its facts are shown as it names them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
import typer

from eventfold.cli.lines import id_text, time_text
from eventfold.cli.options import Json, Url, Wide, addressed, opened
from eventfold.cli.screen import Column, Screen
from eventfold.cli.shown import counted, printable, second_text, size_text, value_text
from eventfold.cli.state import position_at
from eventfold.core.query import Cursor
from eventfold.ports.engine import TagCount
from eventfold.store import Store

PAGE = 1_000
ON_A_TERMINAL = 50  # tags shown where nobody said how many
TIMES = {"created", "first_recorded", "last_recorded"}  # facts in µs since 1970
COUNT = Column("events", right=True, style="cyan")


def types(url: Url = None, as_json: Json = None, wide: Wide = False) -> None:
    """List the types of events.

    With how many there are of each, and the first and last position of each.
    """
    screen = Screen(as_json, wide)
    with opened(url) as store:
        found = store.types()
    if screen.json:
        screen.lines(msgspec.json.encode(each) for each in found)
    elif not found:
        screen.hint("No events yet.")
    else:
        screen.table(
            (
                Column("type", elastic=True, style="bold", least=12),
                COUNT,
                Column("first", right=True, style="dim"),
                Column("last", right=True, style="dim"),
            ),
            [(printable(each.type), f"{each.count:,}", f"{each.first:,}", f"{each.last:,}") for each in found],
        )


def tags(
    url: Url = None,
    prefix: Annotated[
        str | None, typer.Argument(metavar="PREFIX", help="Only tags that begin so: account:", show_default=False)
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", min=0, metavar="N", help="At the most so many; on a terminal 50.", show_default=False),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="No limit, on a terminal either.")] = False,
    after: Annotated[str, typer.Option("--after", metavar="TAG", help="Only those after this tag, in order.")] = "",
    keys: Annotated[
        bool, typer.Option("--keys", help="Only what stands before the colon, and how many tags have it.")
    ] = False,
    as_json: Json = None,
    wide: Wide = False,
) -> None:
    """List tags, and how many events carry each.

    In order; with --keys the kinds of tags there are.
    """
    url, others = addressed(url, [] if prefix is None else [prefix])
    if len(others) > 1:
        raise typer.BadParameter(f"{others[1]!r} is one argument too many.", param_hint="PREFIX")
    screen = Screen(as_json, wide)
    most = ON_A_TERMINAL if limit is None and screen.terminal and not screen.json and not everything else limit
    with opened(url) as store:
        found = all_tags(store, others[0] if others else "", after)
        if keys:
            tell_keys(screen, found)
        else:
            tell_tags(screen, found, most)


def all_tags(store: Store, prefix: str, after: str) -> Iterator[TagCount]:
    """The tags, page after page."""
    while page := store.tags(prefix, limit=PAGE, after=after):
        yield from page
        after = page[-1].tag


def tell_tags(screen: Screen, found: Iterator[TagCount], most: int | None) -> None:
    """Tags with their counts."""
    shown: list[TagCount] = []
    columns = (Column("tag", elastic=True, style="green", least=20), COUNT)
    for each in found:
        if most is not None and len(shown) >= most:
            more = True
            break
        if screen.json:
            screen.lines((msgspec.json.encode(each),))
        shown.append(each)
    else:
        more = False
    if screen.json:
        return
    if shown:
        screen.table(columns, [(printable(each.tag), f"{each.count:,}") for each in shown])
    else:
        screen.hint("No such tags.")
    if more:
        onward = f"; --after {printable(shown[-1].tag)} goes on." if shown else "."
        screen.hint(f"\n{counted(len(shown), 'tag')} shown, and there are more.\n--limit N or --all shows more{onward}")


def tell_keys(screen: Screen, found: Iterator[TagCount]) -> None:
    """What stands before the colon, with the number of different tags and of events that carry them."""
    numbers: dict[str, list[int]] = {}
    for each in found:
        key, colon, _ = each.tag.partition(":")
        number = numbers.setdefault(key + colon, [0, 0])
        number[0] += 1
        number[1] += each.count
    if screen.json:
        for key, (distinct, count) in numbers.items():
            screen.value({"key": key, "tags": distinct, "count": count})
    elif not numbers:
        screen.hint("No such tags.")
    else:
        screen.table(
            (Column("key", elastic=True, style="green", least=12), Column("different tags", right=True), COUNT),
            [(printable(key), f"{distinct:,}", f"{count:,}") for key, (distinct, count) in numbers.items()],
        )


def stats(url: Url = None, as_json: Json = None) -> None:
    """Tell the facts about a store.

    Its id, how much it holds, its size on disk, how durable its writes are.
    """
    screen = Screen(as_json)
    with opened(url) as store:
        found = stats_of(store)
    if screen.json:
        screen.value({name: time_text(v) if name in TIMES and isinstance(v, int) else v for name, v in found.items()})
        return
    rows = [(fact_name(name), fact_text(name, value)) for name, value in found.items() if value is not None]
    size, events = found.get("bytes"), found["head"]
    if isinstance(size, int) and events:
        rows.append(("bytes per event", f"{size / events:,.0f}"))
    screen.table((Column("fact", style="bold"), Column("value", elastic=True, least=20)), rows)


def stats_of(store: Store) -> dict[str, Any]:
    """The engine's facts, and those that every store has."""
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


def fact_name(name: str) -> str:
    """The name of a fact, in words: wal_bytes is the wal size."""
    return re.sub(r"(^|_)bytes$", r"\1size", name).replace("_", " ")


def fact_text(name: str, value: Any) -> str:
    """A fact in words; its name tells its unit."""
    if isinstance(value, bool) or not isinstance(value, int):
        return value_text(value)
    if name.endswith("bytes"):
        return size_text(value)
    return f"{second_text(value)} UTC" if name in TIMES else f"{value:,}"


def cursor(
    url: Url = None,
    at: Annotated[
        str | None,
        typer.Argument(
            metavar="AT", help="A position, a time, or a cursor to look into; else the head.", show_default=False
        ),
    ] = None,
    as_json: Json = None,
) -> None:
    """Give the cursor at a moment, or verify one.

    A cursor is the text that --after takes: a position that cannot be mistaken for one of another store. It is printed
    bare, in a pipe too; --json tells its parts.
    """
    url, others = addressed(url, [] if at is None else [at])
    if len(others) > 1:
        raise typer.BadParameter(f"{others[1]!r} is one argument too many.", param_hint="AT")
    screen = Screen(as_json)
    text = others[0] if others else None
    with opened(url) as store:
        if text is not None and text.startswith("efc"):
            found = Cursor.parse(text)
            store.verify(found)
            if as_json is not True:
                screen.text(f"It is a cursor of this store, at position {found.position:,}.")
        else:
            found = store.cursor(position_at(store, text))
            if as_json is not True:
                screen.text(str(found))
    if as_json is True:
        event_id = id_text(bytes.fromhex(found.event_id)) if found.event_id else None
        screen.value(
            {
                "cursor": str(found),
                "store": found.store,
                "epoch": found.epoch,
                "position": found.position,
                "event_id": event_id,
            }
        )
