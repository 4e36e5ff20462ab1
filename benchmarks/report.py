"""How a run is shown on a terminal: its machine, a table for each title with goals, and what disturbed it.

Knows: words, columns, digits. Does not know: how a figure was measured, how pages are published (publish.py).
"""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.measure import Figure, Sample
from benchmarks.runfile import RunFile

OURS = "eventfold"
QUIET_OTHERS = 0.25  # cores that other processes may use, on average over a run


def setup(run: RunFile) -> dict[str, str]:
    """Return what a reader must know to judge the figures."""
    about, versions, settings = run.document["machine"], run.document["versions"], run.document["settings"]
    return {
        "run": f"{run.document['began']}, commit {run.document['commit']}"
        + (", with changes that are not committed" if run.document["modified"] else ""),
        "machine": f"{about['processor']}, {about['cores']} cores, {about['memory_gib']} GiB, {about['kernel']}",
        "disk": f"{about['disk']}; one 4 KiB write and fdatasync: {about['fdatasync_us']:.0f} µs (median)",
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "durability": "SQLite at WAL, synchronous=FULL: an fsync or more each commit; umadb at its default: the same",
        "stored": f"{settings['stored']:,} events of 200 bytes with two tags before each group"
        + (" (a quick run: sizes too small to be believed)" if settings["quick"] else ""),
        "method": f"{settings['rounds']} turns of {settings['seconds']} s each, contenders in turns, medians; "
        "a ratio is the median of the ratios within turns and above 1 always means better",
        "noise": noise(run),
    }


def noise(run: RunFile) -> str:
    """Return a sentence about what else the machine did during the run."""
    found = disturbance(run)
    return (
        f"load average at the start {found['load']:.2f}; on average {found['others']:.2f} cores were used by other"
        f" processes and {found['stolen']:.2f} by other machines of the host; fdatasync between groups"
        f" {found['least_sync']:.0f} to {found['most_sync']:.0f} µs"
    )


def disturbance(run: RunFile) -> dict[str, float]:
    """Return the load at the start, and the means of the cores that others used, by the time of each group."""
    visits = run.visits()
    seconds = sum(visit["seconds"] for visit in visits) or 1.0
    syncs = [sync for visit in visits for sync in visit["fdatasync_us"]] or [run.document["machine"]["fdatasync_us"]]
    return {
        "load": run.document["machine"]["load"],
        "others": sum(visit["others"] * visit["seconds"] for visit in visits) / seconds,
        "stolen": sum(visit["stolen"] * visit["seconds"] for visit in visits) / seconds,
        "least_sync": min(syncs),
        "most_sync": max(syncs),
        "seconds": seconds,
    }


def is_quiet(run: RunFile) -> bool:
    """Return whether little else ran on the machine."""
    found = disturbance(run)
    return found["others"] + found["stolen"] <= QUIET_OTHERS


def number(value: float, unit: str = "") -> str:
    """Return a value with as many digits as are significant."""
    if math.isnan(value):
        return "–"
    if value >= 1000:
        text = f"{value:,.0f}"
    elif value >= 100:
        text = f"{value:.0f}"
    elif value >= 10:
        text = f"{value:.1f}"
    elif value >= 0.1 or value == 0:
        text = f"{value:.2f}"
    else:
        text = f"{value:.3f}"
    return f"{text} {unit}".strip()


def spread(sample: Sample) -> str:
    """Return half the distance between the quartiles, in percent of the median."""
    return "" if math.isnan(sample.spread) else f"±{sample.spread * 100:.0f} %"


def times(figure: Figure, name: str) -> str:
    """Return the ratio against another contender, and its value; or that there is none."""
    other = figure.others.get(name)
    if other is None:
        return ""
    if isinstance(other, str):
        return "none ¹" if other else "–"
    if not other.values:
        return "none"
    return f"{number(figure.against(name))}× ({number(other.median)})"


def columns(figures: Iterable[Figure]) -> list[str]:
    """Return the names of all other contenders, in the order they came."""
    return list(dict.fromkeys(name for figure in figures for name in figure.others))


def titles(figures: Sequence[Figure]) -> list[tuple[str, list[Figure]]]:
    """Return the figures by title, in the order they came."""
    found: dict[str, list[Figure]] = {}
    for figure in figures:
        found.setdefault(figure.group, []).append(figure)
    return list(found.items())


def notes(figures: Sequence[Figure]) -> list[str]:
    """Return the notes below a table."""
    reasons = {f"{n}: {why}" for figure in figures for n, why in figure.others.items() if isinstance(why, str) and why}
    said = [f"{figure.name}: {figure.note}" for figure in figures if figure.note]
    return said + [f"¹ {why}" for why in sorted(reasons)]


def verdict(figure: Figure) -> str:
    """Return whether a figure met its target: yes, the least that is asked for, no, or that it cannot be said."""
    if not figure.target:
        return ""
    if figure.met and figure.aim_met is False:
        return "the least"
    return {True: "yes", False: "NO", None: "–"}[figure.met]


def show_one(figure: Figure) -> None:
    """Print a line about a figure that was just measured."""
    ratios = "".join(f", {number(value)}× {name}" for name, value in figure.ratios().items())
    print(f"{figure.group}: {figure.name}: {number(figure.ours.median, figure.unit)}{ratios}", flush=True)


def overall(figures: Sequence[Figure]) -> str:
    """Return how many targets were met, and the median spread."""
    spreads = [f.ours.spread for f in figures if not math.isnan(f.ours.spread)]
    aimed = [f for f in figures if f.met is not None]
    wide = f"median spread ±{statistics.median(spreads) * 100:.0f} %" if spreads else "no spread known"
    return f"{sum(bool(f.met) for f in aimed)} of {len(aimed)} targets met; {wide}"


def show(run: RunFile) -> None:
    """Print tables on the terminal."""
    from rich.console import Console
    from rich.table import Table

    console, figures = Console(width=None if os.isatty(1) else 180), run.figures()
    for key, value in setup(run).items():
        console.print(f"[bold]{key:>10}[/]  {value}", highlight=False)
    for title, of_it in titles(figures):
        names = columns(of_it)
        table = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
        for head in ("figure", OURS, "spread", *[f"vs {name}" for name in names], "goal", "met"):
            table.add_column(head, justify="left" if head in ("figure", "goal") else "right")
        for figure in of_it:
            table.add_row(*_row(figure, names))
        console.print()
        console.print(table)
        for each in notes(of_it):
            console.print(f"  {each}", style="dim", highlight=False)
    console.print()
    console.print(f"{overall(figures)}; {noise(run)}", style="bold", highlight=False)
    if not is_quiet(run):
        console.print("The machine was not quiet: compare the ratios, and do not publish this run.", style="bold red")


def _row(figure: Figure, names: Sequence[str]) -> list[Any]:
    said = verdict(figure)
    style = {"yes": "green", "the least": "yellow", "NO": "red"}.get(said)
    return [
        figure.name,
        number(figure.ours.median, figure.unit),
        spread(figure.ours),
        *[times(figure, name) for name in names],
        figure.target,
        f"[{style}]{said}[/]" if style else said,
    ]
