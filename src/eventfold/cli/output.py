"""Standard output as JSON lines or tables, progress bars, and files that are replaced as a whole.

Knows: whether standard output is a terminal, and how wide it is; the file system. Does not know: what the values mean.
rich is imported when the first table is drawn, so that output into a pipe does not wait for it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from eventfold.errors import EventfoldError
from eventfold.log.copy import Progress

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from eventfold.cli.terminal import Terminal

COLUMN_GAP = 2  # blank columns between two columns


class Column(NamedTuple):
    """A column of a table. An `elastic` one is truncated, with …, so that the table fits, but not below `min_width`."""

    title: str
    align_right: bool = False
    elastic: bool = False
    style: str = ""
    min_width: int = 6


Row = Sequence["str | Text"]


class Output:
    """Standard output. `as_json` None: JSON unless it is a terminal. `wide`: nothing is truncated."""

    def __init__(self, as_json: bool | None = None, wide: bool = False) -> None:
        self.is_terminal = sys.stdout.isatty()
        self.is_json = not self.is_terminal if as_json is None else as_json
        self.is_wide = wide

    @cached_property
    def console(self) -> Terminal:
        """The terminal, with its width."""
        from eventfold.cli.terminal import Terminal

        return Terminal()

    def write_lines(self, lines: Iterable[bytes]) -> None:
        """Write lines of bytes, each with a line break."""
        sys.stdout.flush()  # text written before must come first
        sys.stdout.buffer.write(b"".join([line + b"\n" for line in lines]))

    def write_value(self, value: Any) -> None:
        """Write one value as a JSON line."""
        self.write_lines((msgspec.json.encode(value, enc_hook=str),))

    def flush(self) -> None:
        """Flush the output. Raises BrokenPipeError if the reader has closed the pipe."""
        sys.stdout.flush()
        sys.stdout.buffer.flush()

    def write_text(self, text: str) -> None:
        """Write plain text, the same on a terminal and in a pipe."""
        sys.stdout.write(text + "\n")

    def print(self, text: RenderableType, style: str = "") -> None:
        """Print text for people, wrapped between words."""
        self.console.print(text, style=style)

    def print_hint(self, text: str) -> None:
        """Print a remark under a table."""
        self.print(text, style="dim")

    def print_table(
        self,
        columns: Sequence[Column],
        rows: Sequence[Row],
        widths: list[int] | None = None,
        *,
        header: bool = True,
        body: bool = True,
    ) -> list[int]:
        """Print a table, one line for each row. Returns the widths, so that more rows can follow in the same columns.

        Without `body`, print only the header, with the widths that the rows need.
        """
        from eventfold.cli.terminal import Terminal, build_grid

        if widths is None or self.is_wide:
            natural = natural_widths(columns, rows)
            widths = natural if self.is_wide else fit_widths(columns, natural, self.console.width)
        console = Terminal(max(sum(widths) + COLUMN_GAP * (len(widths) - 1), self.console.width))
        if header:
            self._print_header(console, columns, widths)
        if rows and body:
            drawn = build_grid(
                widths, [each.style for each in columns], [each.align_right for each in columns], COLUMN_GAP
            )
            for row in rows:
                drawn.add_row(*row)
            console.print(drawn)
        return widths

    @staticmethod
    def _print_header(console: Terminal, columns: Sequence[Column], widths: list[int]) -> None:
        cells = (
            column.title[:width].rjust(width) if column.align_right else column.title[:width].ljust(width)
            for column, width in zip(columns, widths, strict=True)
        )
        console.print((" " * COLUMN_GAP).join(cells).rstrip(), style="bold")
        console.print("─" * (sum(widths) + COLUMN_GAP * (len(widths) - 1)), style="dim")


def natural_widths(columns: Sequence[Column], rows: Sequence[Row]) -> list[int]:
    """The width of each column if nothing is truncated, in terminal cells."""
    from rich.cells import cell_len

    widths = [len(column.title) for column in columns]
    for row in rows:
        for index, cell in enumerate(row):
            size = cell_len(cell if isinstance(cell, str) else cell.plain)
            if size > widths[index]:
                widths[index] = size
    return widths


def fit_widths(columns: Sequence[Column], natural: Sequence[int], available: int) -> list[int]:
    """Widths that fit into `available` cells: elastic columns share what the others leave, short ones first."""
    widths = list(natural)
    elastic = sorted((i for i, column in enumerate(columns) if column.elastic), key=lambda i: natural[i])
    left = available - COLUMN_GAP * (len(columns) - 1) - sum(w for i, w in enumerate(natural) if not columns[i].elastic)
    for done, index in enumerate(elastic):
        share = max(left // (len(elastic) - done), columns[index].min_width)
        widths[index] = min(natural[index], share)
        left -= widths[index]
    return widths


def write_file_atomically(file: Path, data: bytes, what: str) -> None:
    """Write a file durably and atomically: a reader finds the old content or the new content, never a part.

    `what` begins the error message: "{what} cannot be saved in …".
    """
    place = file.resolve()  # a symbolic link stays one
    fresh = place.with_name(f"{place.name}.new")
    try:
        if place.exists() and not place.is_file():  # a pipe or a device cannot be replaced by a rename
            place.write_bytes(data)
            return
        with fresh.open("wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        with suppress(FileNotFoundError):
            fresh.chmod(place.stat().st_mode & 0o7777)
        fresh.replace(place)
    except OSError as error:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise EventfoldError(
            f"{what} cannot be saved in {file}: {error.strerror}.",
            "Name a file in a writable folder with free space.",
            path=str(file),
        ) from error


@contextmanager
def progress_bar(output: Output, what: str) -> Generator[Progress, None, None]:
    """A progress bar on a terminal, with events per second and the time left; nothing in a pipe."""
    if not output.is_terminal or output.is_json:
        yield lambda done, total: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    rate = TextColumn("{task.fields[rate]:>16}")
    columns = (TextColumn(f"{what:<9}"), BarColumn(None), MofNCompleteColumn(), rate, TimeRemainingColumn())
    with RichProgress(*columns, console=output.console, transient=True) as bar:
        task = bar.add_task(what, total=None, rate="")

        def report(done: int, total: int) -> None:
            speed = bar.tasks[0].speed
            bar.update(task, completed=done, total=total, rate=f"{speed:,.0f} events/s" if speed else "")

        yield report
