"""Room: `eventfold history`: a state, step by step: each event, and what it changed.

Knows: how steps are shown. Does not know: how they are folded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Annotated, Any, NamedTuple

import typer

from eventfold.cli.asked import told
from eventfold.cli.filters import query_of
from eventfold.cli.lines import id_text, time_text
from eventfold.cli.merged import Merged
from eventfold.cli.options import Json, Tags, Types, Until, Url, Where, Wide, opened
from eventfold.cli.read import CHUNK, ON_A_TERMINAL, chunks
from eventfold.cli.screen import Column, Row, Screen
from eventfold.cli.shown import counted, printable, second_text
from eventfold.cli.state import (
    Asked,
    Class,
    ImportPath,
    Words,
    asked_for,
    change_json,
    change_text,
    position_at,
    tell_title,
)
from eventfold.record import Stored
from eventfold.state import Change, diff
from eventfold.store import Store

COLUMNS = (
    Column("position", right=True, style="cyan"),
    Column("when UTC", style="dim"),
    Column("type", elastic=True, style="bold", least=12),
    Column("field", elastic=True, least=8),
    Column("change", elastic=True, least=12),
)


class Changed(NamedTuple):
    """One step: an event, and what it changed."""

    stored: Stored
    changes: Mapping[str, Change]


def history(
    url: Url = None,
    cls: Class = None,
    words: Words = None,
    types: Types = None,
    tags: Tags = None,
    where: Where = None,
    after: Annotated[
        int,
        typer.Option("--after", min=0, metavar="POSITION", help="Only steps after it; earlier ones are folded unseen."),
    ] = 0,
    until_: Until = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", min=0, metavar="N", help="At the most so many; on a terminal 50.", show_default=False),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="No limit, on a terminal either.")] = False,
    import_path: ImportPath = ".",
    as_json: Json = None,
    wide: Wide = False,
) -> None:
    """Tell how a state came to be, step by step.

    Each event, in order, with the fields it changed, before → after. What can be asked for is what `eventfold state`
    takes: a State of yours, or the events of some tag.
    """
    screen = Screen(as_json, wide)
    url, asked = asked_for(url, cls, words, query_of(types, tags, where), import_path)
    with opened(url) as store:
        steps = steps_of(store, asked, after, position_at(store, until_))
        if screen.json:
            for chunk in chunks(islice(steps, limit), CHUNK):
                for step in chunk:
                    screen.value(step_json(step))
            return
        most = ON_A_TERMINAL if limit is None and screen.terminal and not everything else limit
        tell_title(screen, asked, "step by step")
        shown = tell_steps(screen, islice(steps, most))
        if most is not None and next(steps, None) is not None:
            screen.hint(f"\n{counted(shown, 'step')} shown, and there are more.")
            screen.hint("--limit N or --all shows more; --after POSITION goes on.")
        elif not shown:
            screen.hint("No events.")


def steps_of(store: Store, asked: Asked, after: int, until: int) -> Iterator[Changed]:
    """The steps up to a position, inclusive."""
    if asked.question is None:
        merged = Merged()
        for recorded in store.read(asked.query, raw=True, until=until):
            changes = merged.take(recorded)
            if recorded.position > after:
                yield Changed(recorded.stored, changes)
        return
    before = asked.question
    with told(f"Folding {asked.spec}"):
        for step in store.history(asked.question, until=until):
            if step.recorded.position > after:
                yield Changed(step.recorded.stored, diff(before, step.state))
            before = step.state


def step_json(step: Changed) -> dict[str, Any]:
    """A step as a JSON line."""
    stored = step.stored
    line: dict[str, Any] = {
        "position": stored.position,
        "id": id_text(stored.id),
        "type": stored.type,
        "time": time_text(stored.time),
        "changes": {name: change_json(change) for name, change in step.changes.items()},
    }
    if stored.occurred is not None:
        line["occurred"] = time_text(stored.occurred)
    return line


def tell_steps(screen: Screen, steps: Iterator[Changed]) -> int:
    """Steps as a table; returns how many there were."""
    shown, widths = 0, None
    for chunk in chunks(steps, CHUNK):
        widths = screen.table(COLUMNS, [row for step in chunk for row in rows_of(step)], widths, header=not shown)
        shown += len(chunk)
    return shown


def rows_of(step: Changed) -> Iterator[Row]:
    """A step as rows: one for each change."""
    stored = step.stored
    when = second_text(stored.time if stored.occurred is None else stored.occurred)
    lead = (f"{stored.position:,}", when, printable(stored.type))
    if not step.changes:
        yield (*lead, "", "–")
    for name, change in step.changes.items():
        yield (*lead, printable(name), change_text(change))
        lead = ("", "", "")
