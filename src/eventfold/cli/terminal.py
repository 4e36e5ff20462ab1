"""The terminal, drawn on by rich. A file of its own because importing it imports rich, which only tables need.

Knows: rich. Does not know: what is drawn.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn

from rich.console import Console
from rich.table import Table
from rich.text import Text


class Terminal(Console):
    """A rich console that prints text unchanged: no highlighting, no markup, no emoji codes."""

    def __init__(self, width: int | None = None) -> None:
        super().__init__(width=width, highlight=False, emoji=False, markup=False)

    def on_broken_pipe(self) -> NoReturn:
        """Raise BrokenPipeError, as other output does; rich alone would exit with 1."""
        raise BrokenPipeError

    def print_lines(self, lines: Iterable[Text], whole: bool = False) -> None:
        """Print lines, each truncated with … at the width of the terminal unless `whole`."""
        text = Text("\n").join(lines)
        self.print(text, no_wrap=True, overflow="ignore" if whole else "ellipsis", crop=not whole)


def build_grid(widths: list[int], styles: list[str], right: list[bool], gap: int) -> Table:
    """A table without borders, with columns of these widths; longer cells are truncated with …."""
    drawn = Table(box=None, show_header=False, padding=(0, gap, 0, 0), pad_edge=False)
    for width, style, to_the_right in zip(widths, styles, right, strict=True):
        justify = "right" if to_the_right else "left"
        drawn.add_column(width=width, style=style, justify=justify, no_wrap=True, overflow="ellipsis")
    return drawn
