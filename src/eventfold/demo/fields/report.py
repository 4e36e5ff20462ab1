"""Lines of a report on a terminal of 80 columns: headings, tables, bars, numbers side by side.

Knows: text. Does not know: any figure, rich.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

WIDTH = 80  # columns
BLOCKS = " ▏▎▍▌▋▊▉█"  # eighths of a column, from the left
LEVELS = " ▁▂▃▄▅▆▇█"  # eighths of a line, from below


def heading(words: str, note: str = "") -> list[str]:
    """An empty line, and a chapter's title with a note at the right, underlined."""
    first = words if not note else f"{words}{note:>{max(1, WIDTH - len(words))}}"
    return ["", clip(first), "─" * WIDTH]


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """A table: numbers to the right, texts to the left; the widest column of texts is cut so that it fits."""
    shown = [[cell(value) for value in row] for row in rows]
    right = [bool(shown) and all(is_number(row[index]) for row in shown) for index in range(len(head))]
    widths = [max([len(name), *(len(row[index]) for row in shown)]) for index, name in enumerate(head)]
    texts = [index for index in range(len(head)) if not right[index]] or [0]
    widest = max(texts, key=lambda index: widths[index])
    widths[widest] = max(4, widths[widest] - max(0, sum(widths) + 2 * (len(widths) - 1) - WIDTH))
    return [_line(list(head), widths, right), *(_line(row, widths, right) for row in shown)]


def _line(row: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    parts = [
        clip(text, width).rjust(width) if is_right else clip(text, width).ljust(width)
        for text, width, is_right in zip(row, widths, right, strict=True)
    ]
    return "  ".join(parts).rstrip()


def bars(figures: Mapping[str, float | Decimal], unit: str = "") -> list[str]:
    """A horizontal bar for each figure: its name, the bar, the figure."""
    most = max([float(abs(value)) for value in figures.values()] or [0.0]) or 1.0
    names = max([len(name) for name in figures] or [0])
    numbers = {name: f"{cell(value)}{unit}" for name, value in figures.items()}
    space = WIDTH - names - max([len(text) for text in numbers.values()] or [0]) - 2
    lines: list[str] = []
    for name, value in figures.items():
        eighths = round(float(abs(value)) / most * space * 8)
        bar = "█" * (eighths // 8) + BLOCKS[eighths % 8].strip()
        lines.append(f"{name:<{names}} {bar} {numbers[name]}")
    return lines


def columns(figures: Sequence[float], height: int = 4) -> list[str]:
    """Figures as vertical bars of one column each, `height` lines high."""
    most = max(figures, default=0) or 1
    eighths = [round(value / most * height * 8) for value in figures]
    return [
        "".join(LEVELS[min(8, max(0, each - level * 8))] for each in eighths) for level in range(height - 1, -1, -1)
    ]


def numbers(figures: Mapping[str, Any]) -> list[str]:
    """Numbers side by side, each above its name; several lines if they do not fit."""
    lines: list[str] = []
    rest = [(cell(value), name) for name, value in figures.items()]
    while rest:
        taken: list[tuple[str, str]] = []
        while rest and sum(max(map(len, each)) + 3 for each in [*taken, rest[0]]) <= WIDTH + 3:
            taken.append(rest.pop(0))
        if not taken:
            taken.append(rest.pop(0))
        widths = [max(map(len, each)) + 3 for each in taken]
        lines += [
            "".join(each[row].ljust(width) for each, width in zip(taken, widths, strict=True)).rstrip()
            for row in (0, 1)
        ]
    return lines


def cell(value: Any) -> str:
    """A value as text: numbers with separators of thousands, a dash for None."""
    match value:
        case None:
            return "–"
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case Decimal():
            return f"{value:,.2f}"
        case float():
            return f"{value:,.2f}" if abs(value) < 1_000 else f"{value:,.0f}"
        case _:
            return str(value)


def is_number(text: str) -> bool:
    """Whether a cell is a number, or has none."""
    return text == "–" or text.strip("-£€$%").replace(",", "").replace(".", "", 1).replace(":", "").isdigit()


def clip(text: str, width: int = WIDTH) -> str:
    """A text of at most `width` columns, with … where it was cut."""
    return text if len(text) <= width else text[: width - 1] + "…"
