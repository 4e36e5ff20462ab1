"""`eventfold history`: a state step by step: each event and its changes.

Knows: how steps are shown. Does not know: how they are folded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from eventfold.cli.formatting import (
    ChangeLine,
    change_lines,
    change_to_json,
    escape_control,
    format_pairs,
    format_second,
    name_width,
    render_change_lines,
)
from eventfold.cli.generated_test import generate_test
from eventfold.cli.options import Json, Tags, Types, Until, Url, Where, Wide, build_query, open_store
from eventfold.cli.output import COLUMN_GAP, Column, Output
from eventfold.cli.read import CHUNK_EVENTS, TERMINAL_LIMIT, split_into_chunks
from eventfold.cli.state import (
    Class,
    ImportPath,
    StateRequest,
    Words,
    event_origin,
    parse_state_request,
    print_title,
    resolve_position,
)
from eventfold.cli.suggestions import print_suggestions
from eventfold.cli.untyped_state import UntypedState
from eventfold.core.counted import count_of
from eventfold.core.envelope import StoredEvent
from eventfold.core.event import Metadata, Recorded
from eventfold.core.event_json import format_id
from eventfold.core.state import Change, diff
from eventfold.core.user_code import user_code_errors
from eventfold.store import Store

if TYPE_CHECKING:
    from rich.text import Text

COLUMNS = (
    Column("position", align_right=True),
    Column("when UTC"),
    Column("type, and its changes below", elastic=True, min_width=32),
)


class HistoryStep(NamedTuple):
    """One step: an event and its changes."""

    stored: StoredEvent
    changes: Mapping[str, Change]


class StepHeading(NamedTuple):
    """The parts of a step's first line."""

    position: str
    when: str
    type: str
    metadata: Text


def history(
    url: Url = None,
    cls: Class = None,
    words: Words = None,
    types: Types = None,
    tags: Tags = None,
    where: Where = None,
    after: Annotated[
        int,
        typer.Option(
            "--after", min=0, metavar="POSITION", help="Only steps after it; earlier ones are folded, not shown."
        ),
    ] = 0,
    until: Until = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", min=0, metavar="N", help="At most N; the default on a terminal is 50.", show_default=False
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="No limit, also on a terminal.")] = False,
    import_path: ImportPath = ".",
    as_a_test: Annotated[
        bool, typer.Option("--as-test", help="Print a Python test that replays it.", rich_help_panel="Output")
    ] = False,
    as_json: Json = None,
    wide: Wide = False,
) -> None:
    """Show how a state developed, step by step.

    Each event in order, with who caused it (--wide: its metadata) and the fields it changed, before → after. Name the
    state as for `eventfold state`.
    """
    output = Output(as_json, wide)
    url, asked = parse_state_request(url, cls, words, build_query(types, tags, where), import_path)
    with open_store(url) as store:
        if as_a_test:
            if asked.question is None:
                raise typer.BadParameter("name a State class of your own: MODULE:STATE.", param_hint="--as-test")
            steps = store.history(asked.question, until=resolve_position(store, until))
            output.write_text(generate_test(asked.spec, asked.question, steps).rstrip())
            return
        steps = read_steps(store, asked, after, resolve_position(store, until))
        if output.is_json:
            given = 0
            for given, step in enumerate(islice(steps, limit), start=1):  # noqa: B007 (how many they were)
                output.write_value(step_to_json(step))
            if not given and limit != 0:
                print_suggestions(store, asked.query)
            return
        most = TERMINAL_LIMIT if limit is None and output.is_terminal and not everything else limit
        print_title(output, asked, "step by step")
        shown = print_steps(output, islice(steps, most))
        if most is not None and next(steps, None) is not None:
            output.print_hint(f"\n{count_of(shown, 'step')} shown; there are more.")
            output.print_hint("--limit N or --all shows more; --after POSITION shows the next ones.")
        elif not shown:
            output.print_hint("No events.")
            print_suggestions(store, asked.query)


def read_steps(store: Store, asked: StateRequest, after: int, until: int) -> Iterator[HistoryStep]:
    """Fold up to a position, inclusive, and yield the steps after `after`."""
    if asked.question is None:
        merged = UntypedState()
        for recorded in store.read(asked.query, raw=True, until=until):
            changes = merged.fold(recorded)
            if recorded.position > after:
                yield HistoryStep(recorded.stored, changes)
        return
    before = asked.question
    with user_code_errors(f"Folding {asked.spec}"):
        for step in store.history(asked.question, until=until):
            if step.recorded.position > after:
                yield HistoryStep(step.recorded.stored, diff(before, step.state))
            before = step.state


def step_to_json(step: HistoryStep) -> dict[str, Any]:
    """A step as a JSON line."""
    stored = step.stored
    changes = {name: change_to_json(change) for name, change in step.changes.items()}
    found = {**event_origin(stored), "id": format_id(stored.id), "changes": changes}
    metadata = metadata_of(stored)
    return {**found, "metadata": metadata} if metadata else found


def metadata_of(stored: StoredEvent) -> Metadata:
    """Its metadata, empty if it has none."""
    return Recorded(stored, None).metadata


def print_steps(output: Output, steps: Iterator[HistoryStep]) -> int:
    """Print each event on a line, and a line for each field it changed; returns the number of steps."""
    shown, widths, names = 0, list[int](), 0
    for chunk in split_into_chunks(steps, CHUNK_EVENTS):
        headed_steps = [(step_heading(step, output.is_wide), list(change_lines(step.changes))) for step in chunk]
        if not shown:
            widths = output.print_table(COLUMNS, [tuple(lead[:3]) for lead, _ in headed_steps], body=False)
            names = name_width([line for _, lines in headed_steps for line in lines], output.is_wide)
        output.console.print_lines(
            (line for lead, lines in headed_steps for line in render_step(lead, lines, widths[0], names)),
            output.is_wide,
        )
        shown += len(chunk)
    return shown


def step_heading(step: HistoryStep, wide: bool) -> StepHeading:
    """The first line of a step: its position, its time (occurred, else recorded), its type, who caused it.

    `wide`: all of its metadata instead.
    """
    stored = step.stored
    metadata = metadata_of(stored)
    actor = metadata.get("actor")
    pairs = format_pairs(metadata if wide else {} if actor is None else {"actor": actor})
    when = format_second(stored.time if stored.occurred is None else stored.occurred)
    return StepHeading(f"{stored.position:,}", when, escape_control(stored.type), pairs)


def render_step(lead: StepHeading, lines: list[ChangeLine], width: int, names: int) -> Iterator[Text]:
    """A step as lines; its changes are indented by the width of the positions."""
    from rich.text import Text

    gap = " " * COLUMN_GAP
    line = Text(lead.position.rjust(width), style="cyan") + gap + Text(lead.when, style="dim") + gap
    line = line + Text(lead.type, style="bold")
    yield line + gap + lead.metadata if lead.metadata else line
    if lines:
        yield from render_change_lines(lines, width + COLUMN_GAP, names)
    else:
        yield Text(" " * (width + COLUMN_GAP) + "nothing changed", style="dim")
