"""The terminal, as rich draws on it. Imported when the first table is drawn.

Knows: rich. Does not know: what is drawn.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn

from rich.console import Console
from rich.table import Table
from rich.text import Text


class Terminal(Console):
    """Standard output without guesses: no highlighting, no markup, no emoji codes."""

    def __init__(self, width: int | None = None) -> None:
        super().__init__(width=width, highlight=False, emoji=False, markup=False)

    def on_broken_pipe(self) -> NoReturn:
        """A reader that has had enough ends the command as any broken pipe does; rich alone would exit with 1."""
        raise BrokenPipeError

    def print_lines(self, lines: Iterable[Text], whole: bool = False) -> None:
        """Lines, each cut with … where the terminal ends, unless it is to be `whole`."""
        text = Text("\n").join(lines)
        self.print(text, no_wrap=True, overflow="ignore" if whole else "ellipsis", crop=not whole)


def build_grid(widths: list[int], styles: list[str], right: list[bool], gap: int) -> Table:
    """A table without lines, its columns of these widths; what does not fit is cut, with …."""
    drawn = Table(box=None, show_header=False, padding=(0, gap, 0, 0), pad_edge=False)
    for width, style, to_the_right in zip(widths, styles, right, strict=True):
        justify = "right" if to_the_right else "left"
        drawn.add_column(width=width, style=style, justify=justify, no_wrap=True, overflow="ellipsis")
    return drawn
