"""Plots as SVG, for the documents: bars, and lines over time. Each has a title and a description for all readers.

Knows: SVG. Does not know: where a plot is shown, what it is about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

FONT = "Inter, Segoe UI, Helvetica Neue, Liberation Sans, Arial, sans-serif"
INK, GREY, LINE, GROUND = "#14273f", "#55677f", "#d5dde8", "#f6f8fb"
SHADES = ("#1f3a5f", "#b3541e", "#4f8a5b", "#8a5a9e", "#c29a2d")  # of series, in their order
WIDTH, HEIGHT = 830, 320  # CSS pixels
LEFT, RIGHT, TOP, BOTTOM = 78, 20, 62, 52


def svg(title: str, description: str, parts: Sequence[str], height: int = HEIGHT) -> str:
    """A whole file: a light ground of its own, the title above, and the parts in the order of drawing."""
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
            f'aria-labelledby="t d" font-family="{FONT}" fill="{INK}">',
            f'<title id="t">{escape(title)}</title>',
            f'<desc id="d">{escape(description)}</desc>',
            f'<rect width="{WIDTH}" height="{height}" rx="10" fill="{GROUND}"/>',
            text(24, 32, title, size=15, bold=True, anchor="start"),
            *parts,
            "</svg>\n",
        )
    )


def text(
    x: float, y: float, words: str, *, size: int = 12, bold: bool = False, fill: str = "", anchor: str = "middle"
) -> str:
    """One line of text."""
    weight = ' font-weight="600"' if bold else ""
    shade = fill or (INK if bold else GREY)
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{shade}" text-anchor="{anchor}"{weight}>'
        f"{escape(words)}</text>"
    )


def bar_plot(title: str, description: str, figures: Mapping[str, float], *, unit: str = "", every: int = 1) -> str:
    """Vertical bars, a name below each (below every `every`-th one); the unit stands at the axis."""
    most = _ceiling(max([*figures.values(), 0]))
    parts = _axis(0.0, most, unit)
    step = (WIDTH - LEFT - RIGHT) / max(1, len(figures))
    for number, (name, value) in enumerate(figures.items()):
        x, y = LEFT + step * number, _y(max(0.0, value), 0.0, most)
        parts.append(
            f'<rect x="{x + step * 0.12:.1f}" y="{y:.1f}" width="{step * 0.76:.1f}" '
            f'height="{HEIGHT - BOTTOM - y:.1f}" rx="2" fill="{SHADES[0]}"/>'
        )
        if number % every == 0:
            parts.append(text(x + step / 2, HEIGHT - BOTTOM + 18, name, size=11))
    return svg(title, description, parts)


def line_plot(
    title: str,
    description: str,
    series: Mapping[str, Sequence[tuple[float, float]]],
    *,
    unit: str = "",
    labels: Mapping[float, str] | None = None,
) -> str:
    """Lines through points (x, y), one for each series, named above; `labels`: texts below places on the x axis."""
    points = [point for each in series.values() for point in each]
    low, high = min([x for x, _ in points], default=0.0), max([x for x, _ in points], default=1.0)
    least, most = min([*(y for _, y in points), 0.0]), _ceiling(max([*(y for _, y in points), 0.0]))
    parts, width = _axis(least, most, unit), (WIDTH - LEFT - RIGHT) / ((high - low) or 1.0)
    for place, words in (labels or {}).items():
        parts.append(text(LEFT + (place - low) * width, HEIGHT - BOTTOM + 18, words, size=11))
    left = float(LEFT)
    for shade, (name, line) in zip(SHADES * (1 + len(series) // len(SHADES)), series.items(), strict=False):
        path = " ".join(f"{LEFT + (x - low) * width:.1f},{_y(y, least, most):.1f}" for x, y in line)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{shade}" stroke-width="2"/>')
        parts.append(text(left, 52, f"— {name}", fill=shade, anchor="start"))
        left += 7.2 * len(name) + 40
    return svg(title, description, parts)


def _axis(least: float, most: float, unit: str) -> list[str]:
    """Five horizontal lines with their values."""
    parts: list[str] = []
    for number in range(5):
        value = least + (most - least) * number / 4
        y = _y(value, least, most)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="{LINE}" fill="none"/>')
        parts.append(text(LEFT - 8, y + 4, f"{_short(value)}{unit}", size=11, anchor="end"))
    return parts


def _y(value: float, least: float, most: float) -> float:
    return HEIGHT - BOTTOM - (value - least) / ((most - least) or 1.0) * (HEIGHT - TOP - BOTTOM)


def _ceiling(value: float) -> float:
    """The next value that divides well by four."""
    if value <= 0:
        return 1.0
    size = 10.0 ** (len(str(int(value))) - 1)
    return next(size * step for step in (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10, 12) if size * step >= value)


def _short(value: float) -> str:
    if abs(value) >= 1_000_000:
        return f"{value / 1e6:g} M"
    return f"{value:,.0f}" if abs(value) >= 10 or value == int(value) else f"{value:.2f}"
