"""How everything is measured here: short rounds, interleaved, medians, ratios within a round.

Knows: clocks, rounds, figures. Does not know: what is measured, how it is shown.

The speed of a shared machine drifts by more than most relevant differences. So contenders take turns (A B C, C B A,
A B C …), each turn is short, and a ratio is the median of the ratios *within* rounds: drift affects both sides.
"""

from __future__ import annotations

import gc
import math
import statistics
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Better = Literal["higher", "lower"]


class Missing(Exception):
    """A contender that cannot take part; its text is shown in place of its figure."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured. Times in seconds, sizes in events."""

    quick: bool = False
    stored: int = 100_000  #     events in every store before a figure is taken
    rounds: int = 7  #           turns of each contender, after one that is discarded
    seconds: float = 0.3  #      length of a turn
    append: float = 1.2  #       length of a turn of one writer: it contains a merge of the index, and percentiles
    repeats: int = 5  #          turns of figures that are counted, not timed (loads, imports)
    loads: int = 200  #          entities read, or conditions checked, in one turn
    samples: int = 300  #        appends whose way to a follower is timed
    long: int = 10_000  #        events of the long entity
    growth: tuple[int, ...] = (10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000)
    memory: bool = False  #      growth: hold the files in memory (/dev/shm)
    idle: float = 3.0  #         how long an idle follower is watched

    @classmethod
    def small(cls) -> Settings:
        """Return small sizes for a quick run: to see that it works, not to trust the figures."""
        return cls(
            quick=True,
            stored=2_000,
            rounds=2,
            seconds=0.04,
            append=0.05,
            repeats=2,
            loads=20,
            samples=30,
            long=1_000,
            growth=(1_000, 2_000),
            idle=0.5,
        )


@dataclass(frozen=True, slots=True)
class Sample:
    """The values of one contender, turn by turn; NaN where it dropped out."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median."""
        kept = [v for v in self.values if not math.isnan(v)]
        return statistics.median(kept) if kept else math.nan

    @property
    def low(self) -> float:
        """The smallest value."""
        return min(self.values, default=math.nan)

    @property
    def high(self) -> float:
        """The largest value."""
        return max(self.values, default=math.nan)

    @property
    def spread(self) -> float:
        """Half the distance between the quartiles, as a share of the median: 0.1 means about ±10 %."""
        if len(self.values) < 2 or not self.median:
            return math.nan
        first, _, third = statistics.quantiles(self.values, n=4, method="inclusive")
        return (third - first) / 2 / self.median


def ratio(ours: Sample, other: Sample, better: Better = "higher") -> float:
    """Return how many times better `ours` is than `other`: the median of the ratios within each turn."""
    pairs = [
        (a / b if better == "higher" else b / a)
        for a, b in zip(ours.values, other.values, strict=False)
        if a and b and not math.isnan(a) and not math.isnan(b)
    ]
    return statistics.median(pairs) if pairs else math.nan


Cell = Callable[[], float]


def interleave(cells: Mapping[str, Cell], rounds: int, warm: int = 1) -> dict[str, Sample]:
    """Run the cells in turns, there and back. Returns each one's values without the first `warm` turns.

    A cell that raises Missing drops out; its sample is empty.
    """
    found: dict[str, list[float]] = {name: [] for name in cells}
    out: set[str] = set()
    for turn in range(warm + rounds):
        order = list(cells) if turn % 2 == 0 else list(cells)[::-1]
        for name in order:
            if name in out:
                continue
            gc.collect()
            try:
                value = cells[name]()
            except Missing:
                out.add(name)
                continue
            if turn >= warm:
                found[name].append(value)
    return {name: Sample(tuple(values)) for name, values in found.items()}


def rate(call: Callable[[], Any], seconds: float, each: int = 1, most: int = sys.maxsize) -> float:
    """Return calls per second, times `each`, of one caller that calls for `seconds`, or at most `most` times."""
    clock = time.perf_counter
    calls = 0
    start = clock()
    end = start + seconds
    while True:
        call()
        calls += 1
        now = clock()
        if now >= end or calls >= most:
            return calls * each / (now - start)


def rate_and_waits(call: Callable[[], Any], seconds: float, each: int = 1) -> tuple[float, list[float]]:
    """Return calls per second, times `each`, of one caller, and the milliseconds of every call."""
    clock = time.perf_counter
    waits: list[float] = []
    before = start = clock()
    end = start + seconds
    while before < end:
        call()
        now = clock()
        waits.append((now - before) * 1000)
        before = now
    return len(waits) * each / (before - start), waits


def took(call: Callable[[], Any], times: int = 1) -> float:
    """Return the milliseconds of a call, over `times` of them in a row."""
    start = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - start) * 1000 / times


def rate_of_threads(calls: Sequence[Callable[[], Any]], seconds: float) -> float:
    """Return calls per second of all of these callers together, each in a thread of its own.

    The clock starts when all threads are ready and stops when the last has ended.
    """
    ready = threading.Barrier(len(calls) + 1)
    counts = [0] * len(calls)
    failures: list[BaseException] = []
    end = 0.0

    def caller(number: int, call: Callable[[], Any]) -> None:
        clock = time.perf_counter
        done = 0
        ready.wait()
        try:
            while clock() < end:
                call()
                done += 1
        except Exception as error:  # noqa: BLE001 (raised again by the thread that started this one)
            failures.append(error)
        counts[number] = done

    threads = [threading.Thread(target=caller, args=pair, daemon=True) for pair in enumerate(calls)]
    for thread in threads:
        thread.start()
    start = time.perf_counter()
    end = start + seconds
    ready.wait()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - start
    if failures:
        raise failures[0]
    return sum(counts) / elapsed


async def rate_of_tasks(calls: Sequence[Callable[[], Awaitable[Any]]], seconds: float) -> float:
    """Return calls per second of all of these callers together, each a task on the running loop."""
    import asyncio

    clock = time.perf_counter
    start = clock()
    end = start + seconds

    async def caller(call: Callable[[], Awaitable[Any]]) -> int:
        done = 0
        while clock() < end:
            await call()
            done += 1
        return done

    counts = await asyncio.gather(*[caller(call) for call in calls])
    return sum(counts) / (clock() - start)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which `share` (0 to 1) of the values are."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else math.nan


def slope(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Return the slope of a line through the points in log-log: 0 constant, 1 linear."""
    if len(sizes) < 2:
        return math.nan
    return statistics.linear_regression([math.log(s) for s in sizes], [math.log(v) for v in values]).slope


@dataclass(slots=True)
class Figure:
    """One line of a table: eventfold's value, beside the others' values of the same turns.

    `key` identifies the figure within its group, whatever the sizes of a run are; without one it is the name.
    `others` are in the order in which they are shown, each a Sample or, where it took no part, the reason.
    `target` compares `ours` or a ratio with a bound; `met` is None where there is nothing to compare. Where the bound
    is the least that is asked for, `aim_met` says whether the aim was reached too. `details` has other values of the
    same turns, for example percentiles.
    """

    group: str
    name: str
    unit: str
    ours: Sample
    others: dict[str, Sample | str] = field(default_factory=dict[str, "Sample | str"])
    better: Better = "higher"
    target: str = ""
    met: bool | None = None
    note: str = ""
    key: str = ""
    aim_met: bool | None = None
    details: dict[str, float] = field(default_factory=dict[str, float])

    def __post_init__(self) -> None:
        self.key = self.key or self.name

    def against(self, name: str) -> float:
        """Return how many times better than another contender; NaN where it took no part."""
        other = self.others.get(name)
        return ratio(self.ours, other, self.better) if isinstance(other, Sample) else math.nan

    def ratios(self) -> dict[str, float]:
        """Return the ratios against every contender that took part."""
        return {name: self.against(name) for name, other in self.others.items() if isinstance(other, Sample)}

    def aim(self, text: str, met: bool | None, aim_met: bool | None = None) -> Figure:
        """Return this figure with a target, whether it was met, and whether the aim beyond it was."""
        self.target, self.met, self.aim_met = text, met, aim_met
        return self


def all_met(*checks: bool | float) -> bool | None:
    """Return whether every check holds; None if none fails and one is NaN (its contender took no part)."""
    unknown = [isinstance(c, float) and math.isnan(c) for c in checks]
    if any(not c for c, open_ in zip(checks, unknown, strict=True) if not open_):
        return False
    return None if any(unknown) else True
