"""`eventfold processes`: the instances of processes that wait, run, are stuck or finished; retry and skip.

Knows: how instances are shown. Does not know: how a process reacts, how a timer fires.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from eventfold.cli.exit_codes import Signals, print_note
from eventfold.cli.formatting import escape_control
from eventfold.cli.options import Json, Target, Url, Wide, open_store, split_store_argument
from eventfold.cli.output import Column, Output, Row
from eventfold.cli.questions import import_state_class
from eventfold.cli.state import ImportPath
from eventfold.core.counted import count_of
from eventfold.errors import InvalidInput, InvalidProcess
from eventfold.processes.classes import Process
from eventfold.processes.definition import process_definition
from eventfold.processes.inspection import Instance
from eventfold.store import Store

MAX_DETAILED_ERRORS = 5  # errors shown in full
DEFAULT_LIMIT = 1_000  # instances examined without --limit
COLUMNS = (
    Column("process", style="bold"),
    Column("instance", elastic=True, style="green", min_width=8),
    Column("state"),
    Column("what", elastic=True, min_width=20),
)


def processes(
    url: Url = None,
    process: Annotated[
        str | None,
        typer.Argument(metavar="MODULE:PROCESS", help="A process class: list its instances.", show_default=False),
    ] = None,
    run_: Annotated[bool, typer.Option("--run", help="Run it until Ctrl-C.", rich_help_panel="Act")] = False,
    retry: Annotated[
        str | None,
        typer.Option("--retry", metavar="NAME[:POSITION]", help="Retry stuck events.", rich_help_panel="Act"),
    ] = None,
    skip: Annotated[
        str | None,
        typer.Option("--skip", metavar="NAME:POSITION", help="Skip one event for good.", rich_help_panel="Act"),
    ] = None,
    because: Annotated[
        str, typer.Option("--because", metavar="WHY", help="The reason for --skip.", rich_help_panel="Act")
    ] = "",
    limit: Annotated[
        int, typer.Option("--limit", min=1, metavar="N", help="Examine at most N instances.")
    ] = DEFAULT_LIMIT,
    import_path: ImportPath = ".",
    target: Target = None,
    as_json: Json = None,
    wide: Wide = False,
) -> None:
    """List instances of processes that wait for a timer or are stuck at an event, with the error.

    With MODULE:PROCESS also those that run or are finished. Effects that were not delivered are listed as well.
    """
    url, others = split_store_argument(url, [] if process is None else [process])
    output = Output(as_json, wide)
    cls = import_process_class(others[0], import_path) if others else None
    with open_store(url, target=target) as store:
        if retry is not None:
            name, position = _parse_name_and_position(retry)
            store.processes.retry(name, position)
        if skip is not None:
            name, position = _parse_name_and_position(skip)
            if position is None:
                raise InvalidProcess(f"--skip {skip!r} does not name an event.", "Write NAME:POSITION.")
            store.processes.skip(name, position, because)
        if run_:
            _run_process(store, cls)
            return
        _print_instances(output, _find_instances(store, cls, limit))


def import_process_class(spec: str, import_path: str) -> type[Process]:
    """Import the Process class named MODULE:PROCESS. Raises InvalidInput."""
    found = import_state_class(spec, import_path)
    if not issubclass(found, Process):
        raise InvalidProcess(f"{spec} is not a process.", "Name a class that derives from ef.Process.")
    process_definition(found)
    return found


def _parse_name_and_position(text: str) -> tuple[str, int | None]:
    name, colon, position = text.partition(":")
    if colon and not position.isdecimal():
        raise InvalidInput(f"{text!r} does not name an event.", "Write NAME:POSITION, as in the list.")
    return name, int(position) if colon else None


def _run_process(store: Store, cls: type[Process] | None) -> None:
    if cls is None:
        raise typer.BadParameter("name what to run: MODULE:PROCESS.", param_hint="--run")
    signals = Signals()
    with signals.installed(), store.run(cls) as running:
        print_note(f"{process_definition(cls).name} is running. Press Ctrl-C to stop.")
        running.wait()
        for error in running.failed.values():
            raise error


def _find_instances(store: Store, cls: type[Process] | None, limit: int) -> list[Instance]:
    return store.processes.list(cls, limit=limit)


def _print_instances(output: Output, found: list[Instance]) -> None:
    if output.is_json:
        output.write_lines(msgspec.json.encode(each) for each in found)
        return
    if not found:
        output.print_hint("No instance waits or is stuck.")
        return
    output.print_table(COLUMNS, [_instance_row(each) for each in found])
    counts = {
        state: sum(each.state == state for each in found) for state in ("stuck", "waiting", "running", "finished")
    }
    output.print_hint(", ".join(f"{count:,} {state}" for state, count in counts.items() if count))
    if stuck := [each for each in found if each.state == "stuck"]:
        _print_stuck(output, stuck)


def _instance_row(each: Instance) -> Row:
    what = ""
    if each.state == "stuck":
        behind = f", {each.behind:,} behind it" if each.behind else ""
        what = f"event {each.position:,}{behind}: {_short_error(each)}"
    elif each.state == "waiting":
        more = f" and {each.timers - 1:,} more" if each.timers > 1 else ""
        what = (
            f"due {each.due[:16].replace('T', ' ')}Z {each.timer}{more}"  # the minute first, because names may be long
        )
    return (each.process, escape_control(each.key), each.state, escape_control(what))


def _short_error(each: Instance) -> str:
    """The error, without the process and instance, which have columns of their own."""
    return each.error.partition(f") of {each.key}")[2].lstrip(", ") or each.error


def _print_stuck(output: Output, stuck: list[Instance]) -> None:
    """Print the whole error of the first stuck instances, and the command to continue."""
    from rich.padding import Padding
    from rich.text import Text

    for each in stuck[:MAX_DETAILED_ERRORS]:
        place = f"{each.process}:{each.position}" if each.position else each.process
        behind = f", {count_of(each.behind, 'later event')} behind it" if each.behind else ""
        tried = f"tried {count_of(each.attempts, 'time')}{behind}:"
        output.print(
            Text.assemble("\n", (place, "bold"), f" of {escape_control(each.key)}, " if each.key else " ", tried)
        )
        output.print(Padding(Text(escape_control(_short_error(each))), (0, 0, 0, 4)))
    if len(stuck) > MAX_DETAILED_ERRORS:
        output.print_hint(f"and {len(stuck) - MAX_DETAILED_ERRORS:,} more")
    names = {each.process for each in stuck}
    place = f"{stuck[0].process}:{stuck[0].position}"
    name = stuck[0].process if len(names) == 1 else "NAME"
    output.print_hint(f"\nFix the cause, then --retry {name}; or skip an event: --skip {place} --because …")
