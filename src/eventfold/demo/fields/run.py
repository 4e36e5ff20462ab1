"""Runs an example: loads its source into a store, checks it, and prints what came of it.

Knows: arguments, the order of the steps, time and memory. Does not know: any example.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import msgspec

import eventfold as ef
from eventfold.demo.fields.comparison import Comparison
from eventfold.demo.fields.load_count import LoadCount
from eventfold.demo.fields.report import heading
from eventfold.errors import EventfoldError


class Checked(msgspec.Struct):
    """What a check found: chapters to print, figures by name, the comparison with the source, a plot as SVG."""

    chapters: list[tuple[str, list[str]]] = []
    figures: dict[str, Any] = {}
    comparison: Comparison = msgspec.field(default_factory=Comparison)
    plot: str | None = None

    def add(self, title: str, lines: list[str]) -> None:
        """Add a chapter to the report."""
        self.chapters.append((title, lines))


Load = Callable[[ef.Store, int | None], LoadCount]
Check = Callable[[ef.Store, int | None], Checked]


class Measured(msgspec.Struct):
    """What a run took: seconds of each step, peak memory in bytes (None if the system does not report it)."""

    seconds: dict[str, float] = {}
    memory: int | None = None
    size: int = 0  # of the store, bytes

    @contextlib.contextmanager
    def step(self, name: str) -> Generator[None]:
        """Measure the block."""
        began = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - began, 3)

    def line(self) -> str:
        """The measurements in words."""
        took = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.seconds.items())
        memory = f", {self.memory / 1e6:,.0f} MB of memory at most" if self.memory else ""
        return f"{took}{memory}" + (f", a store of {self.size / 1e6:,.0f} MB" if self.size else "")


def main(name: str, load: Load, check: Check, arguments: Sequence[str] | None = None) -> int:
    """Run an example from the command line. Returns 0; 1 if a figure or a row is not right; 2 on an EventfoldError.

    `--store URL`: a store to keep (default: a temporary file); `--limit N`: only the first rows of the source;
    `--plot FILE`: write the plot there; `--json`: the figures as one JSON object in place of the report.
    """
    parser = argparse.ArgumentParser(prog=f"python -m examples.fields.{name}.check")
    parser.add_argument("--store", metavar="URL", help="where to keep the events (default: a temporary file)")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N rows of the source")
    parser.add_argument("--plot", metavar="FILE", type=Path, help="write the plot into this file")
    parser.add_argument("--json", action="store_true", help="one JSON object in place of the report")
    given = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix=f"eventfold-{name}-") as folder:
            url = given.store or str(Path(folder) / f"{name}.db")
            return _run(name, url, given.limit, load, check, given.plot, given.json)
    except EventfoldError as error:
        sys.stderr.write(f"{error}\n")
        return 2


def _run(name: str, url: str, limit: int | None, load: Load, check: Check, plot: Path | None, as_json: bool) -> int:
    measured = Measured()
    with ef.Store(url) as store:
        with measured.step("load"):
            count = load(store, limit)
        with measured.step("check"):
            checked = check(store, limit)
    measured.memory, measured.size = peak_memory(), size_of(url)
    if plot is not None and checked.plot is not None:
        plot.write_text(checked.plot, "utf-8")
    if as_json:
        sys.stdout.write(msgspec.json.encode(facts_of(name, count, checked, measured)).decode() + "\n")
    else:
        sys.stdout.write("\n".join(report_lines(name, count, checked, measured)) + "\n")
    return 1 if checked.comparison.mismatches or not count.is_complete else 0


def report_lines(name: str, count: LoadCount, checked: Checked, measured: Measured) -> list[str]:
    """The whole report, line by line."""
    lines = [name, *count.lines()]
    for title, chapter in checked.chapters:
        lines += [*heading(title), *chapter]
    return [*lines, *heading("The same figures from the source"), *checked.comparison.lines(), "", measured.line()]


def facts_of(name: str, count: LoadCount, checked: Checked, measured: Measured) -> dict[str, Any]:
    """The results for programs."""
    rows = {
        "read": count.read,
        "loaded": count.loaded,
        "repeated": count.repeated,
        "rejected": dict(count.rejected),
        "events": count.events,
        "made": count.made,
    }
    return {
        "name": name,
        "rows": rows,
        "figures": checked.figures,
        "compared": checked.comparison.compared,
        "mismatches": checked.comparison.mismatches,
        "seconds": measured.seconds,
        "memory": measured.memory,
        "size": measured.size,
    }


def size_of(url: str) -> int:
    """The size of a store on disk in bytes, with its write-ahead log; 0 if the store is not a file."""
    path = url.removeprefix("sqlite:")
    return sum(file.stat().st_size for end in ("", "-wal") if (file := Path(path + end)).is_file())


def peak_memory() -> int | None:
    """The peak memory of this process in bytes, if the system reports it."""
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError, ValueError):
        return None
