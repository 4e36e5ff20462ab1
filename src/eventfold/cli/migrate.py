"""`eventfold migrate …`: a live application from tables to events, and back, in steps.

Knows: flags, what is printed. Does not know: sources, mappings, how a guess is made.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eventfold.cli.command import Command, Group, help_text
from eventfold.cli.formatting import escape_control
from eventfold.cli.options import Json, Wide
from eventfold.cli.output import Output
from eventfold.core.counted import count_of

if TYPE_CHECKING:
    from eventfold.migrate.inspection import File, Inspection

OUTCOMES = {
    "written": "{} is written: read it, edit it.",
    "unchanged": "{} is as this run would write it.",
    "replaced": "{} is written again: it was as eventfold had written it.",
    "kept": "{} was edited and is kept. It differs from what this run would write:",
}
MAX_OPEN = 20

migrate = typer.Typer(name="migrate", cls=Group, help="From tables to events, and back.", no_args_is_help=True)

Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="A SQLite file, postgresql://…, mysql://… or mariadb://…",
        envvar="EVENTFOLD_SOURCE",
        show_default=False,
    ),
]
Out = Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where migration.toml and events.py are written.")]


def _columns(option: str, what: str) -> typer.models.OptionInfo:
    return typer.Option(option, metavar="TABLE.COLUMN", help=f"{what} Repeatable.", show_default=False)


Keep = Annotated[list[str] | None, _columns("--keep", "Keep a column in events.")]
Hide = Annotated[list[str] | None, _columns("--hide", "Replace its values by a keyed hash.")]
Drop = Annotated[list[str] | None, _columns("--drop", "Leave a column out of events.")]


def inspect(
    source: Source,
    out: Out = Path(),
    keep: Keep = None,
    hide: Hide = None,
    drop: Drop = None,
    as_json: Json = None,
    wide: Wide = False,
) -> None:
    """Read a database's schema and some of its rows, and write how its tables become events.

    Writes migration.toml, where each guess has its evidence, and events.py, typed event classes. Prints what the
    source can guarantee, and what needs attention. A file that was edited is never written: the difference is shown.
    Nothing is changed in the source.
    """
    from eventfold.migrate.inspection import Decisions, inspect

    output = Output(as_json, wide)
    found = inspect(source, out, Decisions(keep=keep or (), hide=hide or (), drop=drop or ()))
    if output.is_json:
        output.write_value(found)
        return
    _print(output, found)


def _print(output: Output, found: Inspection) -> None:
    from rich.text import Text

    for each in found.findings:
        line = Text.assemble((f"{each.kind:<10}", "bold"))
        line.append(f"{escape_control(each.subject)}: ", style="green")
        output.print(line.append(escape_control(each.text)))
    roles = ", ".join(f"{number} {role}" for role, number in sorted(found.roles.items(), key=lambda pair: -pair[1]))
    output.print(f"{count_of(found.tables, 'table')} of {found.dialect} {found.version}: {roles}")
    for each in found.files:
        _print_file(output, each)
    if found.open:
        shown = ", ".join(found.open[:MAX_OPEN])
        more = f" and {len(found.open) - MAX_OPEN} more" if len(found.open) > MAX_OPEN else ""
        output.print(f"To decide in migration.toml before load: {escape_control(shown)}{more}", style="yellow")


def _print_file(output: Output, file: File) -> None:
    output.print(OUTCOMES[file.outcome].format(escape_control(file.path)))
    if file.outcome == "kept":
        for line in file.difference.splitlines():
            style = {"+": "green", "-": "red"}.get(line[:1], "")
            output.print(escape_control(line), style=style)


migrate.command("inspect", cls=Command, help=help_text(inspect.__doc__))(inspect)
