"""Room: `eventfold history`: a state, step by step: each event, and what it changed.

Knows: how steps are shown. Does not know: how they are folded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from eventfold.cli.as_test import as_test
from eventfold.cli.asked import told
from eventfold.cli.changes import Said, change_json, drawn, name_width, said
from eventfold.cli.filters import query_of
from eventfold.cli.lines import id_text
from eventfold.cli.merged import Merged
from eventfold.cli.nearest import tell_nearest
from eventfold.cli.options import Json, Tags, Types, Until, Url, Where, Wide, opened
from eventfold.cli.read import CHUNK, ON_A_TERMINAL, chunks
from eventfold.cli.screen import GAP, Column, Screen
from eventfold.cli.shown import counted, printable, second_text
from eventfold.cli.state import (
    Asked,
    Class,
    ImportPath,
    Words,
    asked_for,
    origin_of,
    position_at,
    tell_title,
)
from eventfold.core.envelope import Stored
from eventfold.core.state import Change, diff
from eventfold.store import Store

if TYPE_CHECKING:
    from rich.text import Text

COLUMNS = (
    Column("position", right=True),
    Column("when UTC"),
    Column("type, and below it what changed", elastic=True, least=32),
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
    as_a_test: Annotated[
        bool, typer.Option("--as-test", help="As a test in Python that replays it.", rich_help_panel="Output")
    ] = False,
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
        if as_a_test:
            if asked.question is None:
                raise typer.BadParameter("name a State of yours: MODULE:STATE.", param_hint="--as-test")
            until = position_at(store, until_)
            screen.text(as_test(asked.spec, asked.question, store.history(asked.question, until=until)).rstrip())
            return
        steps = steps_of(store, asked, after, position_at(store, until_))
        if screen.json:
            given = False
            for chunk in chunks(islice(steps, limit), CHUNK):
                given = True
                for step in chunk:
                    screen.value(step_json(step))
            if not given and limit != 0:
                tell_nearest(store, asked.query)
            return
        most = ON_A_TERMINAL if limit is None and screen.terminal and not everything else limit
        tell_title(screen, asked, "step by step")
        shown = tell_steps(screen, islice(steps, most))
        if most is not None and next(steps, None) is not None:
            screen.hint(f"\n{counted(shown, 'step')} shown, and there are more.")
            screen.hint("--limit N or --all shows more; --after POSITION goes on.")
        elif not shown:
            screen.hint("No events.")
            tell_nearest(store, asked.query)


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
    changes = {name: change_json(change) for name, change in step.changes.items()}
    return {**origin_of(stored), "id": id_text(stored.id), "changes": changes}


def tell_steps(screen: Screen, steps: Iterator[Changed]) -> int:
    """Steps in words: each event in a line, and under it a line for each field it changed; returns how many."""
    shown, widths, names = 0, list[int](), 0
    for chunk in chunks(steps, CHUNK):
        told_steps = [(lead_of(step), list(said(step.changes))) for step in chunk]
        if not shown:
            widths = screen.table(COLUMNS, [lead for lead, _ in told_steps], rows_too=False)
            names = name_width([line for _, lines in told_steps for line in lines], screen.wide)
        screen.console.cut(
            (line for lead, lines in told_steps for line in step_lines(lead, lines, widths[0], names)), screen.wide
        )
        shown += len(chunk)
    return shown


def lead_of(step: Changed) -> tuple[str, str, str]:
    """What a step begins with: its position, when it happened, its type."""
    stored = step.stored
    when = second_text(stored.time if stored.occurred is None else stored.occurred)
    return (f"{stored.position:,}", when, printable(stored.type))


def step_lines(lead: tuple[str, str, str], lines: list[Said], width: int, names: int) -> Iterator[Text]:
    """A step as lines; its changes stand where the positions end."""
    from rich.text import Text

    position, when, kind = lead
    line = Text(position.rjust(width), style="cyan") + " " * GAP + Text(when, style="dim") + " " * GAP
    yield line + Text(kind, style="bold")
    if lines:
        yield from drawn(lines, width + GAP, names)
    else:
        yield Text(" " * (width + GAP) + "nothing changed", style="dim")
