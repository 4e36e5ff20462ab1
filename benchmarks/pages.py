"""What is published of a run: README's table, the page of figures, and its pictures. One run gives one text.

Knows: Markdown, rows, columns. Does not know: files, marks, how a figure was measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import report
from benchmarks.chart import Axis, Line, line_chart
from benchmarks.measure import Figure, Sample
from benchmarks.peers import EventsourcingMemory
from benchmarks.report import number
from benchmarks.runfile import RunFile
from benchmarks.tables import COLUMNS, GROWTH, ROWS, Row

FOLDER = Path("docs/explanation")
APPEND_PICTURE, GROWTH_PICTURE = FOLDER / "figures-append.svg", FOLDER / "figures-growth.svg"
UNITS = {"ms": " ms", "µs": " µs", "s": " s", "bytes": " bytes", "%": " %", "MiB": " MiB"}
SIZES = (1, 10, 100, 1000)  # events an append


class Figures:
    """The figures of a run, by group and key."""

    def __init__(self, run: RunFile) -> None:
        self.run = run
        self._found = {(name, f.key): f for name in run.document["groups"] for f in run.figures(name)}

    def get(self, group: str, key: str) -> Figure | None:
        """Return a figure; None if the run does not have it."""
        return self._found.get((group, key))

    def rows(self) -> Iterator[tuple[Row, Figure]]:
        """Yield the rows whose figures the run has."""
        for row in ROWS:
            if figure := self.get(row.group, row.key):
                yield row, figure

    def missing(self) -> list[str]:
        """Return the labels of the rows whose figures the run does not have."""
        return [row.label for row in ROWS if self.get(row.group, row.key) is None]

    def without(self, group: str) -> list[Figure]:
        """Return the figures of all other groups."""
        return [figure for (name, _), figure in self._found.items() if name != group]

    def sizes(self) -> list[int]:
        """Return the sizes of the group "growth" at which everything was measured."""
        last = f"{GROWTH[1][1]} at "
        return sorted(int(key.removeprefix(last)) for group, key in self._found if group == "growth" and last in key)


def block(run: RunFile) -> str:
    """Return what stands between the marks: a sentence about the machine, and the table."""
    about, versions, settings = run.document["machine"], run.document["versions"], run.document["settings"]
    figures = Figures(run)
    heads = ["", "eventfold"]
    heads += [f"`{name}` {versions[name]}" if name in versions else name for name, _ in COLUMNS]
    heads = [head.replace("raw apsw", "raw `apsw`") for head in [*heads, "beside"]]
    lines = [
        f"One run of {run.document['began'][:10]} on {about['processor']} with {about['cores']} cores and"
        f" {about['memory_gib']} GiB, {about['disk']} (one 4 KiB fdatasync {about['fdatasync_us'] / 1000:.2f} ms),"
        f" {about['kernel']}, Python {versions['python']}, SQLite {versions['sqlite']}. {quiet(run)} SQLite at"
        f" `synchronous=FULL`, 200-byte typed events with two tags, {settings['stored']:,} events stored. Compare the"
        " ratios rather than the rates: each is the median of ratios within turns, and above 1 means that eventfold is"
        f" faster or smaller. Generated from `benchmarks/results/{run.path.name}`.",
        "",
        f"| {' | '.join(heads)} |",
        f"|{'|'.join(['---', *['---:'] * (len(heads) - 2), '---'])}|",
    ]
    lines += [f"| {' | '.join(cells(figures, row, figure))} |" for row, figure in figures.rows()]
    lines += [f"| {' | '.join(each)} |" for each in growth_rows(figures)]
    return "\n".join([*lines, ""])


def quiet(run: RunFile) -> str:
    """Return a sentence about what else used the machine."""
    found = report.disturbance(run)
    return (
        f"Other processes used {found['others']:.2f} cores on average (load average at the start {found['load']:.2f})."
        if report.is_quiet(run)
        else f"**The machine was not quiet**: other processes used {found['others']:.2f} cores on average."
    )


def value(figure: Figure) -> str:
    """Return eventfold's value with its unit, rates as "…/s"."""
    unit = figure.unit
    text = number(figure.ours.median)
    return f"{text}/s" if unit.endswith("/s") else f"{text}{UNITS.get(unit, f' {unit}')}"


def ratio(value: float) -> str:
    """Return a ratio with two significant digits, from 10 on without decimals."""
    if math.isnan(value):
        return "–"
    return f"{value:.{0 if value >= 10 else 1 if value >= 1 else 2}f}×"


def cells(figures: Figures, row: Row, figure: Figure) -> list[str]:
    """Return the cells of a row."""
    p99 = figures.get(row.group, row.p99) if row.p99 else None
    ours = value(figure) + (f" (p99 {value(p99)})" if p99 else "")
    ratios = [_against(figure, names) for _, names in COLUMNS]
    beside = [f"{ratio(figure.against(name))} {phrase}" for name, phrase in row.beside]
    return [row.label, ours, *ratios, ", ".join(beside) or "–"]


def _against(figure: Figure, names: tuple[str, ...]) -> str:
    """Return the ratio to the first of these contenders that took part, and what sets it apart from the column's."""
    name = next((name for name in names if isinstance(figure.others.get(name), Sample)), None)
    if name is None:
        return "–"
    apart = {EventsourcingMemory.name: " in memory"}.get(name, "")
    return f"{ratio(figure.against(name))}{apart}"


def growth_rows(figures: Figures) -> Iterator[list[str]]:
    """Yield a row for each line of growth: the value at the largest size, beside that at the smallest."""
    sizes = figures.sizes()
    if len(sizes) < 2:
        return
    first, last = sizes[0], sizes[-1]
    for label, what in GROWTH:
        largest = figures.get("growth", f"{what} at {last}")
        if largest is None:
            continue
        cost = largest.details.get("times", math.nan)
        raw = ratio(largest.against("raw apsw")) if "raw apsw" in largest.others else "–"
        yield [
            f"{label}, {last:,} events stored",
            value(largest),
            raw,
            "–",
            "–",
            "–",
            f"{ratio(1 / cost)} the speed at {first:,}",
        ]


def page(run: RunFile | None) -> str:
    """Return the page with all figures of a run."""
    lines = [
        "# Figures",
        "",
        "All figures of one run of the benchmarks. [What a figure means, and how to repeat it](speed.md).",
        "This page is generated by `python -m benchmarks.publish`; nothing in it is typed.",
        "",
    ]
    if run is None:
        return "\n".join([*lines, "No run has been published yet.", ""])
    figures = Figures(run)
    lines += [f"- **{name}**: {text}" for name, text in report.setup(run).items()]
    lines += [
        "",
        "Figures are medians; `±` is half the distance between the quartiles. Other columns show the ratio to another",
        "contender, the median within turns (above 1: eventfold is better), and the contender's own value.",
    ]
    for title, of_it in report.titles(figures.without("growth")):
        lines += ["", f"## {title[0].upper()}{title[1:]}", ""]
        if of_it[0] is figures.get("append", f"{SIZES[0]} an append"):
            lines += [f"![Events a second by events an append]({APPEND_PICTURE.name})", ""]
        lines += _table(of_it)
    return "\n".join([*lines, *_growth(figures), *_visits(run), ""])


def _table(figures: Sequence[Figure]) -> list[str]:
    names = report.columns(figures)
    heads = ["figure", "eventfold", "spread", *names]
    body = [
        [
            f.name,
            number(f.ours.median, f.unit),
            report.spread(f.ours) or "–",
            *[report.times(f, n) or "–" for n in names],
        ]
        for f in figures
    ]
    lines = [f"| {' | '.join(heads)} |", f"|{'|'.join(['---', *['---:'] * (len(heads) - 1)])}|"]
    lines += [f"| {' | '.join(cell.replace('|', ' ') for cell in row)} |" for row in body]
    said = report.notes(figures)
    return [*lines, "", *[f"- {note}" for note in said]] if said else lines


def _growth(figures: Figures) -> list[str]:
    """Return the table of growth: a line for each size."""
    sizes = figures.sizes()
    if not sizes:
        return []
    lines = ["", "## Growth", "", f"![Cost by events stored]({GROWTH_PICTURE.name})", ""]
    place = "in memory (`/dev/shm`)" if figures.run.document["settings"]["memory"] else "on the disk"
    lines.append(
        f"One store, grown and measured at each size on the way, {place}."
        " In brackets: the ratio to raw apsw in the same turns."
    )
    heads = ["events stored", *[label for label, _ in GROWTH], "bytes an event"]
    lines += ["", f"| {' | '.join(heads)} |", f"|{'|'.join(['---:'] * len(heads))}|"]
    for size in sizes:
        row = [f"{size:,}"]
        for what in (*[key for _, key in GROWTH], "bytes"):
            found = figures.get("growth", f"{what} at {size}")
            row.append("–" if found is None else _grown(found))
        lines.append(f"| {' | '.join(row)} |")
    return lines


def _grown(figure: Figure) -> str:
    raw = figure.others.get("raw apsw")
    return value(figure) + (f" ({ratio(figure.against('raw apsw'))})" if isinstance(raw, Sample) else "")


def _visits(run: RunFile) -> list[str]:
    """Return a table of what else used the machine while each group was measured."""
    lines = ["", "## What else used the machine", ""]
    lines += ["| group | seconds | load average before, after | cores of other processes | fdatasync before, after |"]
    lines += ["|---|---:|---:|---:|---:|"]
    for name, entry in run.document["groups"].items():
        for visit in entry["visits"]:
            before, after = visit["load"]
            first, last = visit["fdatasync_us"]
            lines.append(
                f"| {name} | {visit['seconds']:.0f} | {before:.2f}, {after:.2f} | {visit['others']:.2f} |"
                f" {first:.0f} µs, {last:.0f} µs |"
            )
    return lines


def pictures(run: RunFile) -> dict[Path, str]:
    """Return the pictures of a run, as SVG."""
    figures = Figures(run)
    made = {APPEND_PICTURE: _append_picture(figures)}
    return made | {GROWTH_PICTURE: _growth_picture(figures)} if figures.sizes() else made


def _append_picture(figures: Figures) -> str:
    found = {events: figures.get("append", f"{events} an append") for events in SIZES}
    known = {events: figure for events, figure in found.items() if figure is not None}
    lines = [Line("eventfold", [(events, figure.ours.median) for events, figure in known.items()])]
    for name, _ in COLUMNS:
        others = [(events, figure.others.get(name)) for events, figure in known.items()]
        points = [(events, other.median) for events, other in others if isinstance(other, Sample) and other.values]
        lines += [Line(name, points)] if points else []
    return line_chart("One writer", "events an append", Axis("events a second", logarithmic=True), lines)


def _growth_picture(figures: Figures) -> str:
    sizes = figures.sizes()
    lines: list[Line] = []
    for label, what in GROWTH:
        points = [(s, f.details.get("times", 1.0)) for s in sizes if (f := figures.get("growth", f"{what} at {s}"))]
        lines += [Line(label, points)] if points else []
    axis = Axis(f"cost, in costs at {sizes[0]:,} events")
    return line_chart("Cost while one store grows", "events stored", axis, lines)
