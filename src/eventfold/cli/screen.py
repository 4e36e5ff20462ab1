"""Room: where output goes: JSON lines for programs, tables for people, and how wide a column may be.

Knows: whether standard output is a terminal, and how wide it is. Does not know: what the values mean.
rich is imported when the first table is drawn: a pipe never pays for it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from eventfold.cli.terminal import Terminal

GAP = 2  # blank columns between two columns


class Column(NamedTuple):
    """A column of a table. An `elastic` one may be cut, with …, so that the table fits; never below `least`."""

    title: str
    right: bool = False
    elastic: bool = False
    style: str = ""
    least: int = 6


Row = Sequence["str | Text"]


class Screen:
    """Standard output. `as_json` None: JSON unless it is a terminal. `wide`: nothing is cut, however long."""

    def __init__(self, as_json: bool | None = None, wide: bool = False) -> None:
        self.terminal = sys.stdout.isatty()
        self.json = not self.terminal if as_json is None else as_json
        self.wide = wide

    @cached_property
    def console(self) -> Terminal:
        """The terminal, as wide as it is."""
        from eventfold.cli.terminal import Terminal

        return Terminal()

    def lines(self, lines: Iterable[bytes]) -> None:
        """JSON lines, as they are."""
        sys.stdout.flush()  # the text layer and its buffer take turns
        sys.stdout.buffer.write(b"".join([line + b"\n" for line in lines]))

    def value(self, value: Any) -> None:
        """One value as a JSON line."""
        self.lines((msgspec.json.encode(value, enc_hook=str),))

    def flush(self) -> None:
        """What was shown is with its reader. Raises BrokenPipeError if there is none any more."""
        sys.stdout.flush()
        sys.stdout.buffer.flush()

    def text(self, text: str) -> None:
        """Plain text for people and programs alike."""
        sys.stdout.write(text + "\n")

    def say(self, text: RenderableType, style: str = "") -> None:
        """Text for people, wrapped between words."""
        self.console.print(text, style=style)

    def hint(self, text: str) -> None:
        """A remark under a table."""
        self.say(text, style="dim")

    def table(
        self,
        columns: Sequence[Column],
        rows: Sequence[Row],
        widths: list[int] | None = None,
        *,
        header: bool = True,
        rows_too: bool = True,
    ) -> list[int]:
        """Draw a table, each row in one line; returns the widths, so that more rows can follow in line.

        Without `rows_too` only the header, as wide as the rows would need it.
        """
        from eventfold.cli.terminal import Terminal, grid

        if widths is None or self.wide:
            natural = natural_widths(columns, rows)
            widths = natural if self.wide else fitted(columns, natural, self.console.width)
        console = Terminal(max(sum(widths) + GAP * (len(widths) - 1), self.console.width))
        if header:
            self._header(console, columns, widths)
        if rows and rows_too:
            drawn = grid(widths, [each.style for each in columns], [each.right for each in columns], GAP)
            for row in rows:
                drawn.add_row(*row)
            console.print(drawn)
        return widths

    @staticmethod
    def _header(console: Terminal, columns: Sequence[Column], widths: list[int]) -> None:
        cells = (
            column.title[:width].rjust(width) if column.right else column.title[:width].ljust(width)
            for column, width in zip(columns, widths, strict=True)
        )
        console.print((" " * GAP).join(cells).rstrip(), style="bold")
        console.print("─" * (sum(widths) + GAP * (len(widths) - 1)), style="dim")


def natural_widths(columns: Sequence[Column], rows: Sequence[Row]) -> list[int]:
    """How wide each column would be if nothing were cut, in terminal cells."""
    from rich.cells import cell_len

    widths = [len(column.title) for column in columns]
    for row in rows:
        for index, cell in enumerate(row):
            size = cell_len(cell if isinstance(cell, str) else cell.plain)
            if size > widths[index]:
                widths[index] = size
    return widths


def fitted(columns: Sequence[Column], natural: Sequence[int], room: int) -> list[int]:
    """Widths that fit into `room`: rigid columns stay as they are, elastic ones share the rest, short ones first."""
    widths = list(natural)
    elastic = sorted((i for i, column in enumerate(columns) if column.elastic), key=lambda i: natural[i])
    left = room - GAP * (len(columns) - 1) - sum(w for i, w in enumerate(natural) if not columns[i].elastic)
    for done, index in enumerate(elastic):
        share = max(left // (len(elastic) - done), columns[index].least)
        widths[index] = min(natural[index], share)
        left -= widths[index]
    return widths
