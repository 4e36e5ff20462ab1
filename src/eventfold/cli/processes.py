"""Room: `eventfold processes`: which instances wait, run, are stuck or finished; and what can be done about it by hand.

Knows: words for operators. Does not know: how a process reacts, how a timer fires.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Annotated, Any

import msgspec
import typer

from eventfold.cli.asked import question_of, state_class
from eventfold.cli.ending import Signals, note
from eventfold.cli.options import Json, Url, Wide, addressed, opened
from eventfold.cli.screen import Column, Row, Screen
from eventfold.cli.shown import counted, printable
from eventfold.cli.state import ImportPath
from eventfold.core.state import plan_of as fold_of
from eventfold.errors import InvalidInput, InvalidProcess
from eventfold.process.classes import Process
from eventfold.process.listing import Instance, all_listed, listed, names
from eventfold.process.plan import plan_of
from eventfold.store import Store

DETAILED = 5  # errors shown in full
LIMIT = 1_000  # instances looked at, where nobody said how many
COLUMNS = (
    Column("process", style="bold"),
    Column("instance", elastic=True, style="green", least=8),
    Column("state"),
    Column("what", elastic=True, least=20),
)


def processes(
    url: Url = None,
    process: Annotated[
        str | None,
        typer.Argument(metavar="MODULE:PROCESS", help="A process class: list its instances.", show_default=False),
    ] = None,
    run_: Annotated[bool, typer.Option("--run", help="Run it, until Ctrl-C.", rich_help_panel="Act")] = False,
    retry: Annotated[
        str | None,
        typer.Option("--retry", metavar="NAME[:POSITION]", help="Try what is stuck again.", rich_help_panel="Act"),
    ] = None,
    skip: Annotated[
        str | None,
        typer.Option("--skip", metavar="NAME:POSITION", help="Give one event up.", rich_help_panel="Act"),
    ] = None,
    because: Annotated[
        str, typer.Option("--because", metavar="WHY", help="Why it is given up.", rich_help_panel="Act")
    ] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, metavar="N", help="Look at so many instances.")] = LIMIT,
    import_path: ImportPath = ".",
    as_json: Json = None,
    wide: Wide = False,
) -> None:
    """List processes: what waits for which timer, and what is stuck, at which event, with which error.

    With MODULE:PROCESS also what runs and what is finished. Effects that were not delivered are listed as well.
    """
    url, others = addressed(url, [] if process is None else [process])
    screen = Screen(as_json, wide)
    cls = process_class(others[0], import_path) if others else None
    with opened(url) as store:
        if retry is not None:
            name, position = _place(retry)
            store.projections.retry(name, position)
        if skip is not None:
            name, position = _place(skip)
            if position is None:
                raise InvalidProcess(f"--skip {skip!r} names no event.", "Write NAME:POSITION.")
            store.projections.skip(name, position, because)
        if run_:
            _run(store, cls)
            return
        _show(screen, _found(store, cls, limit))


def process_class(spec: str, import_path: str) -> type[Process]:
    """The Process class that MODULE:PROCESS names. Raises InvalidInput."""
    found = state_class(spec, import_path)
    if not issubclass(found, Process):
        raise InvalidProcess(f"{spec} is no process.", "Name a class that derives from ef.Process.")
    plan_of(found)
    return found


def _place(text: str) -> tuple[str, int | None]:
    name, colon, position = text.partition(":")
    if colon and not position.isdecimal():
        raise InvalidInput(f"{text!r} names no event.", "Write NAME:POSITION, as the list shows them.")
    return name, int(position) if colon else None


def _run(store: Store, cls: type[Process] | None) -> None:
    if cls is None:
        raise typer.BadParameter("say what is to be run, MODULE:PROCESS.", param_hint="--run")
    signals = Signals()
    with signals.heeded(), store.run(cls) as running:
        note(f"{plan_of(cls).name} is running; Ctrl-C ends it.")
        running.wait()
        for error in running.failed.values():
            raise error


def _found(store: Store, cls: type[Process] | None, limit: int) -> list[Instance]:
    desk = store.projections
    if cls is None:
        return [each for name in names(desk) for each in listed(desk, name)][:limit]
    return all_listed(desk, cls, islice(_questions(store, cls), limit))


def _questions(store: Store, cls: type[Process]) -> Iterator[Any]:
    """The instances there may be: the values of the question's tag; of several tags nobody knows which go together."""
    fields, keys = fold_of(cls).question, plan_of(cls).tags
    if not fields:
        yield cls()
    if len(fields) != 1:
        return
    prefix, after = f"{keys[0]}:", ""
    while page := store.tags(prefix, after=after):
        for each in page:
            yield question_of(cls, [f"{fields[0]}={each.tag.removeprefix(prefix)}"])
        after = page[-1].tag


def _show(screen: Screen, found: list[Instance]) -> None:
    if screen.json:
        screen.lines(msgspec.json.encode(each) for each in found)
        return
    if not found:
        screen.hint("Nothing waits, and nothing is stuck.")
        return
    screen.table(COLUMNS, [_row(each) for each in found])
    counts = {
        state: sum(each.state == state for each in found) for state in ("stuck", "waiting", "running", "finished")
    }
    screen.hint(", ".join(f"{count:,} {state}" for state, count in counts.items() if count))
    if stuck := [each for each in found if each.state == "stuck"]:
        _details(screen, stuck)


def _row(each: Instance) -> Row:
    what = ""
    if each.state == "stuck":
        behind = f", {each.behind:,} behind it" if each.behind else ""
        what = f"event {each.position:,}{behind}: {_said(each)}"
    elif each.state == "waiting":
        more = f" and {each.timers - 1:,} more" if each.timers > 1 else ""
        what = f"due {each.due[:16].replace('T', ' ')}Z {each.timer}{more}"  # the minute first: names may be long
    return (each.process, printable(each.key), each.state, printable(what))


def _said(each: Instance) -> str:
    """The error, without what the list has columns for."""
    return each.error.partition(f") of {each.key}")[2].lstrip(", ") or each.error


def _details(screen: Screen, stuck: list[Instance]) -> None:
    """What a row has no room for: the whole error of the first few, and what to type."""
    from rich.padding import Padding
    from rich.text import Text

    for each in stuck[:DETAILED]:
        place = f"{each.process}:{each.position}" if each.position else each.process
        behind = f", {counted(each.behind, 'later event')} behind it" if each.behind else ""
        tried = f"tried {counted(each.attempts, 'time')}{behind}:"
        screen.say(Text.assemble("\n", (place, "bold"), f" of {printable(each.key)}, " if each.key else " ", tried))
        screen.say(Padding(Text(printable(_said(each))), (0, 0, 0, 4)))
    if len(stuck) > DETAILED:
        screen.hint(f"and {len(stuck) - DETAILED:,} more")
    names = {each.process for each in stuck}
    place = f"{stuck[0].process}:{stuck[0].position}"
    name = stuck[0].process if len(names) == 1 else "NAME"
    screen.hint(f"\nMend it, then --retry {name}; or give one up, --skip {place} --because …")
