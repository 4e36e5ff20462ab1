"""How figures are shown: tables on a terminal, Markdown for the README, JSON for programs, and a header with the setup.

Knows: words, columns, the machine's description. Does not know: how a figure was measured.
"""

from __future__ import annotations

import json
import math
import os
import platform
import sqlite3
import statistics
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib import metadata
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks.measure import Figure, Sample, Settings

OURS = "eventfold"


def header(settings: Settings, folder: Path) -> dict[str, str]:
    """Return what a reader must know to judge the figures."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{_processor()}, {os.cpu_count()} cores, {_memory()}, {_load()}",
        "disk": f"{_filesystem(folder)}; one 4 KiB write and fdatasync: {_fdatasync(folder):.0f} µs (median)",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "eventfold": f"{_version('eventfold')}, apsw {_version('apsw')}, msgspec {_version('msgspec')}, "
        f"SQLite {_apsw_sqlite()} (apsw), {sqlite3.sqlite_version} (standard library)",
        "peers": f"eventsourcing {_version('eventsourcing')}, umadb {_version('umadb')}",
        "durability": "SQLite at WAL, synchronous=FULL: an fsync or more each commit; umadb at its default: the same",
        "stored": f"{settings.stored:,} events of 200 bytes with two tags before each group"
        + (" (a quick run: sizes too small to be believed)" if settings.quick else ""),
        "method": f"{settings.rounds} turns of {settings.seconds} s each, contenders interleaved, medians; "
        "a ratio is the median of the ratios within turns and above 1 always means better",
    }


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


def _spread(sample: Sample) -> str:
    return "" if math.isnan(sample.spread) else f"±{sample.spread * 100:.0f} %"


def _times(figure: Figure, name: str) -> str:
    other = figure.others.get(name)
    if other is None:
        return ""
    if isinstance(other, str):
        return "none ¹" if other else "–"
    if not other.values:
        return "none"
    return f"{number(figure.against(name))}× ({number(other.median)})"


def _verdict(figure: Figure) -> str:
    return {True: "yes", False: "NO", None: "–"}[figure.met] if figure.target else ""


def _columns(figures: Iterable[Figure]) -> list[str]:
    return list(dict.fromkeys(name for figure in figures for name in figure.others))


def _reasons(figures: Iterable[Figure]) -> list[str]:
    found = {f"{n}: {why}" for figure in figures for n, why in figure.others.items() if isinstance(why, str) and why}
    return sorted(found)


def groups(figures: Sequence[Figure]) -> list[tuple[str, list[Figure]]]:
    """Return the figures by group, in the order they came."""
    return [(name, list(of)) for name, of in groupby(figures, key=lambda figure: figure.group)]


def rows(figures: Sequence[Figure]) -> tuple[list[str], list[list[str]]]:
    """Return a group as a table: its headings, and a row for each figure."""
    columns = _columns(figures)
    heads = ["figure", OURS, "spread", *[f"vs {c}" for c in columns], "target", "met"]
    body = [
        [
            figure.name,
            number(figure.ours.median, figure.unit),
            _spread(figure.ours),
            *[_times(figure, c) for c in columns],
            figure.target,
            _verdict(figure),
        ]
        for figure in figures
    ]
    return heads, body


def notes(figures: Sequence[Figure]) -> list[str]:
    """Return the notes below a group's table."""
    said = [f"{figure.name}: {figure.note}" for figure in figures if figure.note]
    return said + [f"¹ {why}" for why in _reasons(figures)]


def show_one(figure: Figure) -> None:
    """Print a line about a figure that was just measured."""
    ratios = "".join(f", {number(times)}× {name}" for name, times in figure.ratios().items())
    print(f"{figure.group}: {figure.name}: {number(figure.ours.median, figure.unit)}{ratios}", flush=True)


def overall(figures: Sequence[Figure]) -> str:
    """Return how many targets were met, the median spread and the machine's load."""
    spreads = [f.ours.spread for f in figures if not math.isnan(f.ours.spread)]
    aimed = [f for f in figures if f.met is not None]
    wide = f"median spread ±{statistics.median(spreads) * 100:.0f} %" if spreads else "no spread known"
    return f"{sum(bool(f.met) for f in aimed)} of {len(aimed)} targets met; {wide}; load at the end {_load()}"


def markdown(head: dict[str, str], figures: Sequence[Figure]) -> str:
    """Return everything as Markdown, for a README."""
    lines = [f"- **{key}**: {value}" for key, value in head.items()]
    for name, of in groups(figures):
        heads, body = rows(of)
        keep = [i for i in range(len(heads)) if i < 2 or any(row[i] for row in body)]
        lines += ["", f"### {name}", ""]
        lines.append("| " + " | ".join(heads[i] for i in keep) + " |")
        lines.append("|" + "|".join("---" if i == 0 else "---:" for i in keep) + "|")
        lines += ["| " + " | ".join(row[i].replace("|", "\\|") for i in keep) + " |" for row in body]
        said = notes(of)
        lines += ["", *[f"{each}  " for each in said]] if said else []
    return "\n".join([*lines, "", overall(figures), ""])


def show(head: dict[str, str], figures: Sequence[Figure]) -> None:
    """Print tables on the terminal; Markdown where rich is not installed."""
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        print(markdown(head, figures))
        return
    console = Console(width=None if os.isatty(1) else 180)
    for key, value in head.items():
        console.print(f"[bold]{key:>10}[/]  {value}", highlight=False)
    for name, of in groups(figures):
        heads, body = rows(of)
        table = Table(title=name, title_justify="left", title_style="bold", header_style="bold")
        for index, title in enumerate(heads):
            table.add_column(title, justify="left" if index == 0 or title == "target" else "right")
        for row, figure in zip(body, of, strict=True):
            style = {True: "green", False: "red", None: ""}[figure.met]
            table.add_row(*row[:-1], f"[{style}]{row[-1]}[/]" if style else row[-1])
        console.print()
        console.print(table)
        for each in notes(of):
            console.print(f"  {each}", style="dim", highlight=False)
    console.print()
    console.print(overall(figures), style="bold", highlight=False)


def as_json(head: dict[str, str], settings: Settings, figures: Sequence[Figure]) -> str:
    """Return everything as JSON, every turn of every contender, for programs."""
    return json.dumps(
        {
            "header": head,
            "settings": {name: getattr(settings, name) for name in settings.__slots__},
            "figures": [_plain(figure) for figure in figures],
        },
        indent=1,
        allow_nan=False,
    )


def _plain(figure: Figure) -> dict[str, Any]:
    return {
        "group": figure.group,
        "name": figure.name,
        "unit": figure.unit,
        "better": figure.better,
        "eventfold": _sample(figure.ours),
        "others": {n: o if isinstance(o, str) else _sample(o) for n, o in figure.others.items()},
        "ratios": {n: _finite(r) for n, r in figure.ratios().items()},
        "target": figure.target,
        "met": figure.met,
        "note": figure.note,
    }


def _sample(sample: Sample) -> dict[str, Any]:
    return {"median": _finite(sample.median), "turns": [_finite(v) for v in sample.values]}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _apsw_sqlite() -> str:
    try:
        import apsw
    except ImportError:
        return "none"
    return apsw.sqlite_lib_version()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _memory() -> str:
    try:
        size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return "memory unknown"
    return f"{size / 2**30:.0f} GiB"


def _load() -> str:
    return f"load {os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else "load unknown"


def _filesystem(folder: Path) -> str:
    """Return the kind of file system that the stores are on, from the longest mount point that contains them."""
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    except OSError:
        return "file system unknown"
    place = str(folder.resolve())
    holding = [m for m in mounts if place == m[1] or place.startswith(m[1].rstrip("/") + "/")]
    return max(holding, key=lambda m: len(m[1]))[2] if holding else "file system unknown"


def _fdatasync(folder: Path, times: int = 50) -> float:
    """Return the µs of a 4 KiB append and its fdatasync (fsync where there is none)."""
    sync = getattr(os, "fdatasync", os.fsync)
    path = folder / "fdatasync.probe"
    waits: list[float] = []
    with path.open("wb", buffering=0) as file:
        for _ in range(times):
            file.write(bytes(4096))
            start = time.perf_counter()
            sync(file.fileno())
            waits.append((time.perf_counter() - start) * 1e6)
    path.unlink()
    return statistics.median(waits)
