"""`eventfold migrate cutover` and `rollback`: who writes the tables, the old application or the events.

Knows: flags, what is printed. Does not know: how writers are blocked, how rows are compared.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from eventfold.cli.formatting import escape_control
from eventfold.cli.migration_steps import MappingFile, Name, Source, migration_session
from eventfold.cli.options import Json, Url
from eventfold.cli.output import Output
from eventfold.core.counted import count_of
from eventfold.errors import InvalidInput

if TYPE_CHECKING:
    from eventfold.migrate.cutover import Switched

MAX_NAMED = 10
Only = Annotated[
    list[str] | None,
    typer.Option(
        "--only", metavar="TABLE", help="This entity's table, with its parts. Repeatable.", show_default=False
    ),
]


def cutover(
    url: Url = None,
    source: Source = None,
    mapping: MappingFile = Path("migration.toml"),
    only: Only = None,
    check: Annotated[bool, typer.Option("--check", help="Say what would stop it, and change nothing.")] = False,
    name: Name = "migration",
    as_json: Json = None,
) -> None:
    """Let events lead: block the writers of tables, capture what they did, compare, and switch.

    Stop `eventfold migrate capture` first, and start it again afterwards: it then writes what is decided into the
    tables, for those who still read them. If rows and events differ, the block is lifted, and nothing is switched.
    """
    from eventfold.migrate.cutover import check_cutover, cut_over, labels_of

    output = Output(as_json)
    with migration_session(url, source, mapping, name) as session, session.alone():
        labels = labels_of(session, only or (), lambda state: [e for e in session.plan.tables if e not in state.moved])
        if not labels:
            raise InvalidInput("Every table is cut over.", "To go back, run eventfold migrate rollback.")
        if check:
            check_cutover(session, labels)
            output.print(f"{_named(labels)} can be cut over.")
            return
        done = cut_over(session, labels, _teller(output))
    if output.is_json:
        output.write_value(msgspec.to_builtins(done))
        return
    _print(output, done, "cut over")
    output.print("Next: start the new application, and `eventfold migrate capture`, which keeps the tables up to date.")


def rollback(
    url: Url = None,
    source: Source = None,
    mapping: MappingFile = Path("migration.toml"),
    only: Only = None,
    because: Annotated[
        str, typer.Option("--because", metavar="REASON", help="Take rows that differ into the events, for this reason.")
    ] = "",
    name: Name = "migration",
    as_json: Json = None,
) -> None:
    """Let the old application write its tables again: everything that was decided is in them first.

    Stop the new application and `eventfold migrate capture` first. It also lifts the block of a cutover that was
    killed. Start the capture again afterwards: what the old application writes becomes events as before.
    """
    from eventfold.migrate.cutover import labels_of
    from eventfold.migrate.rollback import roll_back

    output = Output(as_json)
    with migration_session(url, source, mapping, name) as session, session.alone():
        labels = labels_of(session, only or (), lambda state: [*state.moved, *state.blocked])
        done = roll_back(session, labels, because, _teller(output))
    if output.is_json:
        output.write_value(msgspec.to_builtins(done))
        return
    _print(output, done, "rolled back")
    output.print("Next: start the old application, and `eventfold migrate capture`.")


def _teller(output: Output):
    def tell(text: str) -> None:
        if not output.is_json:
            output.print(f"{text} …", style="dim")

    return tell


def _print(output: Output, done: Switched, what: str) -> None:
    output.print(
        f"{_named(done.tables)} {what} at position {done.position}: {count_of(done.rows, 'row')} compared, "
        f"{done.blocked_s:.1f} s without a writer."
    )
    if done.refused:
        were = "was" if done.refused == 1 else "were"
        output.print(f"{count_of(done.refused, 'write')} {were} refused since the last look: see status.")


def _named(labels: tuple[str, ...] | list[str]) -> str:
    shown = ", ".join(labels[:MAX_NAMED])
    return escape_control(shown if len(labels) <= MAX_NAMED else f"{shown} and {len(labels) - MAX_NAMED} more")
