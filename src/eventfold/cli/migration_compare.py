"""`eventfold migrate compare`: every row and column of a source, compared with the events, once or for days.

Knows: flags, what is printed, how often it is repeated, exit codes. Does not know: how rows and events are compared.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from eventfold.cli.exit_codes import DIFFERENT, Signals, exit_code_of, print_error
from eventfold.cli.formatting import escape_control, format_second
from eventfold.cli.migration_steps import MappingFile, Name, Rate, Replica, Source, migration_session
from eventfold.cli.options import Json, Url, Wide
from eventfold.cli.output import Column, Output, progress_bar
from eventfold.core.moments import AGO_PATTERN, AGO_UNITS
from eventfold.errors import EventfoldError, InvalidInput, MigrationError, SourceUnavailable, StoreUnavailable

if TYPE_CHECKING:
    from eventfold.migrate.comparison import Comparison, Difference
    from eventfold.migrate.load import Progress

RECONNECT_S = 5.0  # until a pass that could not be made is tried again
SHOWN = 20
Tables = Annotated[
    list[str] | None, typer.Option("--only", metavar="TABLE", help="Compare only this table. Repeatable.")
]
Watch = Annotated[bool, typer.Option("--watch", help="Compare again and again, until it is ended.")]
Every = Annotated[str, typer.Option("--every", metavar="TIME", help="With --watch: how often, such as 30s or 10m.")]
During = Annotated[
    str | None, typer.Option("--for", metavar="TIME", help="With --watch: end after this time, such as 2d.")
]
Limit = Annotated[int, typer.Option("--limit", min=0, metavar="N", help="Show at most N of each kind and table.")]
Patience = Annotated[
    float, typer.Option("--patience", metavar="SECONDS", min=0, help="How long to wait for what is not captured yet.")
]


def compare(
    url: Url = None,
    source: Source = None,
    mapping: MappingFile = Path("migration.toml"),
    tables: Tables = None,
    watch: Watch = False,
    every: Every = "5m",
    during: During = None,
    limit: Limit = SHOWN,
    patience: Patience = 300.0,
    replica: Replica = None,
    max_rate: Rate = None,
    name: Name = "migration",
    as_json: Json = None,
    wide: Wide = False,
) -> None:
    """Compare every row and column of a database with its events, at one point of both. Exits 8 if they differ.

    Shows the first differences with both values, and the event that gave ours. Changes that wait in the source are
    captured first. With --watch it goes on through lost connections; it exits 8 if any comparison found differences,
    else with the code of the last error if the last one could not be made, else 0.
    """
    output = Output(as_json, wide)

    def once() -> Comparison:
        with (
            migration_session(url, source, mapping, name, replica) as session,
            progress_bar(output, "comparing") as bar,
        ):

            def progress(done: Progress) -> None:
                if done.step == "reading":
                    bar(done.rows, done.total)

            return session.compare(tables or (), patience=patience, max_rate=max_rate, progress=progress, shown=limit)

    if watch:
        pause, lasts = _seconds("--every", every), None if during is None else _seconds("--for", during)
        raise typer.Exit(Watching(output, once, pause, lasts).run())
    if during is not None:
        raise InvalidInput("--for is for --watch.", "Add --watch.")
    found = once()
    _print(output, found)
    if not found.equal:
        raise typer.Exit(DIFFERENT)


class Watching:
    """Comparisons one after the other. What cannot be compared now is printed, and tried again."""

    def __init__(self, output: Output, once: Any, pause: float, lasts: float | None) -> None:
        self._output, self._once, self._pause, self._lasts = output, once, pause, lasts
        self._code = self._compared = 0
        self._has_differed = False

    def run(self) -> int:
        """Compare until the time is over, or a signal ends it. Returns the exit code."""
        began = time.monotonic()
        with self._until_signal():
            while self._lasts is None or time.monotonic() - began < self._lasts:
                pause = self._pass()
                left = pause if self._lasts is None else min(pause, self._lasts - (time.monotonic() - began))
                time.sleep(max(left, 0))
        return DIFFERENT if self._has_differed else self._code

    def _pass(self) -> float:
        """Compare once. Returns how long to wait then."""
        try:
            found: Comparison = self._once()
        except (SourceUnavailable, StoreUnavailable, MigrationError, InvalidInput) as error:
            if isinstance(error, InvalidInput) and not self._compared:
                raise  # a wrong argument, and not a table that was changed meanwhile
            self._note_error(error)
            return min(RECONNECT_S, self._pause)
        self._code, self._compared = 0, self._compared + 1
        self._has_differed = self._has_differed or not found.equal
        if self._output.is_json:
            self._output.write_value(as_json_value(found))
        else:
            self._output.write_text(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {escape_control(found.verdict)}")
            _print_differences(self._output, found)
        self._output.flush()
        return self._pause

    def _note_error(self, error: EventfoldError) -> None:
        self._code = exit_code_of(error)
        print_error(error, self._output.is_json)

    @contextmanager
    def _until_signal(self) -> Generator[None]:
        """Run the block until Ctrl-C or SIGTERM: they end it as its time does."""
        try:
            with Signals().installed():
                yield
        except (KeyboardInterrupt, SystemExit):
            return


# What is printed


def as_json_value(found: Comparison) -> dict[str, Any]:
    """Return a result as one JSON object."""
    content: dict[str, Any] = msgspec.to_builtins(found)
    return {"equal": found.equal, "rows": found.rows, "differing": found.differing, "verdict": found.verdict} | content


def _print(output: Output, found: Comparison) -> None:
    if output.is_json:
        output.write_value(as_json_value(found))
        return
    _print_differences(output, found)
    output.print(escape_control(found.verdict), style="green" if found.equal else "red")
    if found.left_out:
        output.print_hint(f"Not in events, so not compared: {escape_control(', '.join(found.left_out))}")
    output.print_hint(f"Compared up to position {found.position:,} in {found.seconds:.1f} s")


def _print_differences(output: Output, found: Comparison) -> None:
    if found.differences:
        columns = [
            Column("table"),
            Column("key", elastic=True),
            Column("column"),
            Column("events", elastic=True),
            Column("source", elastic=True),
            Column("given by", elastic=True),
        ]
        output.print_table(columns, [row for each in found.differences for row in _rows(each)])
        left = found.differing - len(found.differences)
        if left:
            output.print_hint(f"{left:,} more: --limit {found.differing}")


def _rows(each: Difference) -> Iterator[list[str]]:
    table, key = escape_control(each.table), escape_control(each.key)
    match each.kind:
        case "different":
            for column in each.columns:
                yield [table, key, column.column, _shown(column.ours), _shown(column.theirs), _given(column.by)]
        case "unreadable":
            yield [table, key, "", "", escape_control(each.reason), _given(each.by)]
        case "missing":
            yield [table, key, "", "no row", "a row", _given(each.by)]
        case "extra":
            yield [table, key, "", "a row", "no row", _given(each.by)]
        case _:
            yield [table, key, "", "", "two rows with this key", _given(each.by)]


def _shown(value: Any) -> str:
    return escape_control(msgspec.json.encode(value).decode())


def _given(by: Any) -> str:
    return "" if by is None else f"{by.position} {escape_control(by.type)} {format_second(by.time)}"


def _seconds(option: str, text: str) -> float:
    found = AGO_PATTERN.fullmatch(text.strip())
    if found is None or not int(found[1]):
        raise InvalidInput(f"{option} {text!r} is no length of time.", "Write 30s, 10m, 2h or 1d.")
    return timedelta(**{AGO_UNITS[found[2]]: int(found[1])}).total_seconds()
