"""Pictures of figures, as SVG: lines over a logarithmic axis of sizes.

Knows: coordinates, ticks, SVG. Does not know: figures, files. The same values give the same text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 760, 380
LEFT, RIGHT, TOP, BOTTOM = 70, 210, 46, 52
STROKES = ("#1f5fbf", "#c2410c", "#15803d", "#7e22ce", "#64748b", "#a16207")
STYLE = "font-family='system-ui, sans-serif' font-size='12' fill='#111827'"


class Line(NamedTuple):
    """A named line: points by rising size."""

    name: str
    points: Sequence[tuple[float, float]]


class Axis(NamedTuple):
    """The axis of the values: linear from 0, or logarithmic from the power of ten below the least value."""

    label: str
    logarithmic: bool = False


def line_chart(title: str, sizes: str, axis: Axis, lines: Sequence[Line]) -> str:
    """Return a picture as SVG; `sizes` is the label of the lower axis."""
    xs = sorted({x for line in lines for x, _ in line.points})
    ys = [y for line in lines for _, y in line.points]
    ticks = _powers(min(ys), max(ys)) if axis.logarithmic else _steps(max(ys))
    right, lower = WIDTH - RIGHT, HEIGHT - BOTTOM

    def place_x(value: float) -> float:
        share = (math.log(value) - math.log(xs[0])) / (math.log(xs[-1]) - math.log(xs[0])) if len(xs) > 1 else 0.5
        return LEFT + share * (right - LEFT)

    def place_y(value: float) -> float:
        if axis.logarithmic:
            value, first, last = math.log(value), math.log(ticks[0]), math.log(ticks[-1])
        else:
            first, last = ticks[0], ticks[-1]
        return lower - (value - first) / (last - first) * (lower - TOP)

    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {HEIGHT}' role='img' {STYLE}>",
        f"<title>{escape(title)}</title>",
        f"<rect width='{WIDTH}' height='{HEIGHT}' fill='#ffffff'/>",
        _text(LEFT, 22, title, "font-size='15' font-weight='600'"),
        _text(LEFT, 38, axis.label),
        _text((LEFT + right) / 2, HEIGHT - 12, sizes, "text-anchor='middle'"),
    ]
    for tick in ticks:
        y = place_y(tick)
        parts.append(f"<path d='M{LEFT} {y:.1f}H{right}' stroke='#e5e7eb'/>")
        parts.append(_text(LEFT - 8, y + 4, f"{tick:,g}" if tick < 1e4 else f"{tick:,.0f}", "text-anchor='end'"))
    parts += [_text(place_x(x), lower + 18, short_number(x), "text-anchor='middle'") for x in xs]
    parts += _lines(lines, place_x, place_y)
    return "\n".join([*parts, "</svg>", ""])


def short_number(value: float) -> str:
    """Return 10,000,000 as 10M, 30,000 as 30k."""
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:g}{name}"
    return f"{value:g}"


def _lines(lines: Sequence[Line], place_x: Callable[[float], float], place_y: Callable[[float], float]) -> list[str]:
    parts: list[str] = []
    labels: list[tuple[float, int]] = []
    for number, line in enumerate(lines):
        stroke = STROKES[number % len(STROKES)]
        places = [(place_x(x), place_y(y)) for x, y in line.points]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        parts.append(f"<path d='M{path}' fill='none' stroke='{stroke}' stroke-width='2'/>")
        parts += [f"<circle cx='{x:.1f}' cy='{y:.1f}' r='3' fill='{stroke}'/>" for x, y in places]
        labels.append((places[-1][1], number))
    below = float("-inf")
    for y, number in sorted(labels):
        below = max(y + 4, below + 15)  # labels do not cover each other
        parts.append(_text(WIDTH - RIGHT + 12, below, lines[number].name, f"fill='{STROKES[number % len(STROKES)]}'"))
    return parts


def _text(x: float, y: float, text: str, attributes: str = "") -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' {attributes}>{escape(text)}</text>"


def _powers(least: float, most: float) -> list[float]:
    first, last = math.floor(math.log10(least)), math.ceil(math.log10(most))
    return [10.0**power for power in range(first, max(last, first + 1) + 1)]


def _steps(most: float) -> list[float]:
    size = 10 ** math.floor(math.log10(most))
    step = next(size * part for part in (0.1, 0.2, 0.25, 0.5, 1, 2) if most / (size * part) <= 8)
    return [step * number for number in range(math.ceil(most / step) + 1)]
