"""The group "growth": the cost of appends, tag reads and condition checks as a store grows a few hundredfold.

Knows: sizes, and that stores of all sizes take turns in one run. Does not know: why a cost grows. It takes minutes and
about 4 GB of disk, so it runs only on request (`--growth`).
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import eventfold as ef
from benchmarks.floor import RawSqlite
from benchmarks.measure import Cell, Figure, Sample, interleave, rate, slope, took
from benchmarks.stage import Stage
from benchmarks.subject import Eventfold, event_of, question
from benchmarks.traffic import NEW, scans

GROUP = "growth"
RAW = "raw sqlite3, "
BLOCK = 100_000
LOADS = 200  # entities read, or conditions checked, in one turn


def run(stage: Stage, announce: Callable[[str], None]) -> Iterator[Figure]:
    """Yield the figures of this group: the value at the largest size, beside every smaller one."""
    sizes = stage.settings.growth
    root = stage.folder / "growth"
    for size in sizes:
        announce(f"growing to {size:,} events")
        _grow(Eventfold, root, size, sizes)
        _grow(RawSqlite, root, size, sizes)
    with contextlib.ExitStack() as opened:
        stores = {size: Eventfold(root / Eventfold.name / str(size), size, cache=0, snapshots=0) for size in sizes}
        raws = {size: RawSqlite(root / RawSqlite.name / str(size), size) for size in sizes}
        for each in (*stores.values(), *raws.values()):
            opened.callback(each.close)
        yield _bytes(root, sizes)
        for name, unit, better, cell in _measures(stage.settings.seconds):
            announce(name)
            contenders: dict[int, Any] = raws if name.startswith(RAW) else stores
            found = interleave({f"{size:,}": cell(contender, size) for size, contender in contenders.items()}, 5)
            yield _figure(name, unit, better, sizes, found)
    shutil.rmtree(root, ignore_errors=True)


def _grow(kind: Any, root: Path, size: int, sizes: tuple[int, ...]) -> None:
    """Create a store of this size: a copy of the next smaller one with the rest of the events appended."""
    folder = root / kind.name / str(size)
    smaller = [s for s in sizes if s < size]
    if smaller:
        shutil.copytree(root / kind.name / str(smaller[-1]), folder)
    else:
        folder.mkdir(parents=True)
    store = kind(folder, 0)
    first = smaller[-1] if smaller else 0
    for start in range(first, size, BLOCK):
        block = scans(start, min(BLOCK, size - start))
        if kind is Eventfold:
            store.store.extend(map(event_of, block))
        else:
            for at in range(0, len(block), 1000):
                store.write(block[at : at + 1000])
    store.close()
    for path in [p for p in folder.rglob("*") if p.is_file()]:
        with path.open("rb+") as file:
            os.fsync(file.fileno())


Measure = tuple[str, str, Any, Callable[[Any, int], Cell]]


def _measures(seconds: float) -> list[Measure]:
    """Return the measurements, reads first: appends change the sizes, by at most a twentieth in a turn."""

    def appends(events: int) -> Callable[[Any, int], Cell]:
        def cell(contender: Any, size: int) -> Cell:
            call = contender.caller(events)
            most = max(1, size // 20 // events)
            return lambda: rate(call, seconds, events, most)

        return cell

    kinds = [(f"append of {events:,} event{'s' if events > 1 else ''}", appends(events)) for events in (1, 100, 1000)]
    return [
        ("tag read: a parcel of about ten events, first touch", "µs", "lower", _first_reads),
        ("tag read: the same parcels again", "µs", "lower", _reads),
        ("condition check, when nothing matches", "µs", "lower", _checks),
        ("count of one tag and type", "µs", "lower", _counts),
        *[(f"{who}{name}", "events/s", "higher", cell) for name, cell in kinds for who in ("", RAW)],
    ]


def _drawn(size: int) -> Callable[[], str]:
    draw = random.Random(size)
    return lambda: f"p-{draw.randrange(max(1, size // NEW)):08d}"


def _first_reads(contender: Eventfold, size: int) -> Cell:
    """Read parcels that were not read recently: their pages come from the system's cache, or from the disk."""
    parcel = _drawn(size)
    return lambda: took(lambda: contender.load(parcel()), LOADS) * 1000


def _reads(contender: Eventfold, size: int) -> Cell:
    """Read parcels that were just read: the cost of the library and its b-trees, without the disk."""
    parcel = _drawn(size)

    def measured() -> float:
        parcels = [parcel() for _ in range(LOADS)]
        for each in parcels:
            contender.load(each)
        again = iter(parcels)
        return took(lambda: contender.load(next(again)), LOADS) * 1000

    return measured


def _counts(contender: Eventfold, size: int) -> Cell:
    parcel, store = _drawn(size), contender.store
    return lambda: took(lambda: store.count(question(parcel())), LOADS) * 1000


def _checks(contender: Eventfold, size: int) -> Cell:
    """Return how many µs more a refused append takes with nine clauses that hold, than without them, per clause.

    Both write nothing and wait for no disk, so the difference is the checks: the median of many such differences.
    """
    parcel, store = _drawn(size), contender.store
    head = store.head()
    refusing = (question("p-00000000"), 0)
    event = event_of(contender.traffic.one())

    def refused(clauses: list[tuple[ef.Query, int]]) -> float:
        start = time.perf_counter()
        try:
            store.append(event, unless=clauses)
        except ef.AppendConflict:
            return (time.perf_counter() - start) * 1e6
        raise RuntimeError("an append that had to be refused was not")

    def measured() -> float:
        more: list[float] = []
        for _ in range(LOADS):
            holding = [(question(parcel()), head) for _ in range(9)]
            more.append(refused([*holding, refusing]) - refused([refusing]))
        return max(statistics.median(more) / 9, 0.01)

    return measured


def _figure(name: str, unit: str, better: Any, sizes: tuple[int, ...], found: dict[str, Sample]) -> Figure:
    """Compare the largest size with the others; met if its cost grows at most as the logarithm of the size."""
    labels = [f"{size:,}" for size in sizes]
    ours = found[labels[-1]]
    others: dict[str, Sample | str] = {label: found[label] for label in labels[:-1]}
    figure = Figure(GROUP, f"{name}, at {labels[-1]}", unit, ours, others, better)
    costs = [found[label].median if better == "lower" else 1 / found[label].median for label in labels]
    figure.note = (
        f"log-log slope of its cost {slope(sizes, costs):+.3f} (the logarithm itself: {_log_slope(sizes):+.3f})"
    )
    if name.startswith(RAW) or name.endswith("first touch"):
        return figure
    allowed = math.log(sizes[-1]) / math.log(sizes[0])
    return figure.aim(f"costs ≤ {allowed:.2f} × the least size", costs[-1] / costs[0] <= allowed)


def _log_slope(sizes: tuple[int, ...]) -> float:
    return slope(sizes, [math.log(size) for size in sizes])


def _bytes(root: Path, sizes: tuple[int, ...]) -> Figure:
    each = {
        f"{size:,}": Sample((sum(p.stat().st_size for p in (root / Eventfold.name / str(size)).glob("*.db")) / size,))
        for size in sizes
    }
    ours = each.pop(f"{sizes[-1]:,}")
    others: dict[str, Sample | str] = {**each}
    return Figure(
        GROUP,
        f"bytes on disk for an event, at {sizes[-1]:,}",
        "bytes",
        ours,
        others,
        "lower",
    )
