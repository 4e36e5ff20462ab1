"""The group "growth": appends, tag reads and conditions while one store grows a thousandfold, beside the raw floor.

Knows: sizes, and that a store is grown once and measured at each size on the way. Does not know: why a cost grows.
It takes minutes and about 7 GB of disk; with `Settings.memory` the files are in memory, so that no disk takes part.

At small sizes an append changes the size itself, so that each turn there begins with a fresh copy of the store.
"""

from __future__ import annotations

import os
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import eventfold as ef
from benchmarks.floor import RawApsw
from benchmarks.measure import Cell, Figure, Missing, Sample, interleave, rate, took
from benchmarks.stage import Stage
from benchmarks.subject import Eventfold, event_of, question
from benchmarks.traffic import NEW, scans

GROUP = "growth"
MEMORY = Path("/dev/shm")
BLOCK = 100_000  # events that are drawn at once
COPIED = 300_000  # up to this size a turn of appends begins with a copy
MIN_CALLS = 3  # appends in a turn, however small the store is
SHARE = 3  # the part of its size that a store may grow by in one turn: a third
ROUNDS = 5
APPENDS = (1, 1000)
MAX_TIMES = 1.15  # the cost at a size, in costs at the smallest size, for appends of one event and for reads
MAX_TIMES_BULK = 2  # the same for appends of 1,000 events
MAX_BYTES = 340


def run(stage: Stage, announce: Callable[[str], None]) -> Iterator[Figure]:
    """Yield the figures of each size; a resumed run grows past the sizes that were measured before."""
    sizes = stage.settings.growth
    wanted = [size for size in sizes if stage.wanted(_key("bytes", size))]
    if not wanted:
        return
    with tempfile.TemporaryDirectory(prefix="eventfold-growth-", dir=_root(stage)) as root:
        kept = {kind.name: Path(root) / kind.name.replace(" ", "-") for kind in (Eventfold, RawApsw)}
        for folder in kept.values():
            folder.mkdir()
        for size in sizes:
            announce(f"growing to {size:,} events")
            for kind in (Eventfold, RawApsw):
                _grow(kind, kept[kind.name], size)
            if size in wanted:
                announce(f"measuring at {size:,} events")
                yield from _at(stage, kept, size)


def _root(stage: Stage) -> Path:
    if not stage.settings.memory:
        return stage.folder
    if not MEMORY.is_dir():
        raise Missing(f"there is no {MEMORY} to hold files in memory")
    return MEMORY


def _grow(kind: Any, folder: Path, size: int) -> None:
    """Append until the store in the folder has `size` events, and close it, so that the index is merged."""
    contender = kind(folder, 0)
    first = contender.store.head() if kind is Eventfold else contender.position
    for start in range(first, size, BLOCK):
        block = scans(start, min(BLOCK, size - start))
        if kind is Eventfold:
            contender.store.extend(map(event_of, block))
        else:
            contender.fill(block)
    contender.close()
    for path in [p for p in folder.rglob("*") if p.is_file()]:
        with path.open("rb+") as file:
            os.fsync(file.fileno())


def _at(stage: Stage, kept: dict[str, Path], size: int) -> Iterator[Figure]:
    """Yield the figures of one size: reads first, then appends, which change it."""
    yield _bytes(stage, kept, size)
    folder, loads = kept[Eventfold.name], stage.settings.loads
    ours = Eventfold(folder, size, cache=0, snapshots=0)
    try:
        for key, name, cell in (
            ("tag read, first", "a parcel of about ten events, first touch", _first_reads(ours, size, loads)),
            ("tag read", "the same parcels again", _reads(ours, size, loads)),
            ("condition", "a condition that holds", _checks(ours, size, loads)),
        ):
            found = interleave({Eventfold.name: cell}, min(ROUNDS, stage.settings.rounds))
            figure = Figure(GROUP, f"{name}, at {size:,}", "µs", found[Eventfold.name], better="lower")
            figure.key = _key(key, size)
            yield _compared(stage, figure, key, 0 if "first" in key else MAX_TIMES)
    finally:
        ours.close()
    for events in APPENDS:
        yield _appends(stage, kept, size, events)


def _key(what: str, size: int) -> str:
    return f"{what} at {size}"


def _compared(stage: Stage, figure: Figure, what: str, most: float) -> Figure:
    """Compare a figure's cost with the cost at the smallest size; `most` 0 sets no target."""
    smallest = stage.settings.growth[0]
    first = stage.kept.get(_key(what, smallest))
    if first is None:
        return figure
    now, then = figure.ours.median, first.ours.median
    times = now / then if figure.better == "lower" else then / now
    figure.details = {"times": times}
    figure.note = f"{times:.2f} × the cost at {smallest:,}"
    return figure.aim(f"costs ≤ {most:g} × that at {smallest:,}", times <= most) if most else figure


def _bytes(stage: Stage, kept: dict[str, Path], size: int) -> Figure:
    each = {
        name: sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / _stored(folder)
        for name, folder in kept.items()
    }
    others: dict[str, Sample | str] = {RawApsw.name: Sample((each[RawApsw.name],))}
    ours = Sample((each[Eventfold.name],))
    figure = Figure(GROUP, f"bytes on disk for an event of 200, at {size:,}", "bytes", ours, others, "lower")
    figure.key = _key("bytes", size)
    return figure.aim(f"≤ {MAX_BYTES}", ours.median <= MAX_BYTES) if size == stage.settings.growth[-1] else figure


def _stored(folder: Path) -> int:
    with_store = (folder / "eventfold.db").exists()
    contender: Any = Eventfold(folder, 0) if with_store else RawApsw(folder, 0)
    try:
        return contender.store.head() if with_store else contender.position
    finally:
        contender.close()


def _appends(stage: Stage, kept: dict[str, Path], size: int, events: int) -> Figure:
    """Return the rate of appends of so many events; contenders take turns, in a copy where the store is small."""
    most = max(MIN_CALLS, size // SHARE // events)
    seconds = stage.settings.append

    def cell(kind: Any) -> Cell:
        folder = kept[kind.name]
        return lambda: _turn(kind, folder, size, events, (seconds, most))

    found = interleave({kind.name: cell(kind) for kind in (Eventfold, RawApsw)}, min(ROUNDS, stage.settings.rounds))
    name = f"appends of {events:,} event{'s' if events > 1 else ''}, at {size:,}"
    figure = Figure(GROUP, name, "events/s", found[Eventfold.name], {RawApsw.name: found[RawApsw.name]})
    figure.key = _key(f"append {events}", size)
    return _compared(stage, figure, f"append {events}", MAX_TIMES if events == 1 else MAX_TIMES_BULK)


def _turn(kind: Any, folder: Path, size: int, events: int, bounds: tuple[float, int]) -> float:
    """Return the events/s of one turn. Opening, the first append and closing are not in it."""
    copied = size <= COPIED
    place = folder.with_name(f"{folder.name}-copy") if copied else folder
    if copied:
        shutil.copytree(folder, place)
    try:
        contender = kind(place, size)
        try:
            call = contender.caller(events)
            call()
            seconds, most = bounds
            return rate(call, seconds, events, most)
        finally:
            contender.close()
    finally:
        if copied:
            shutil.rmtree(place)


def _drawn(size: int) -> Callable[[], str]:
    draw = random.Random(size)
    return lambda: f"p-{draw.randrange(max(1, size // NEW)):08d}"


def _first_reads(contender: Eventfold, size: int, loads: int) -> Cell:
    """Read parcels that were not read recently: their pages come from the system's cache, or from the disk."""
    parcel = _drawn(size)
    return lambda: took(lambda: contender.load(parcel()), loads) * 1000


def _reads(contender: Eventfold, size: int, loads: int) -> Cell:
    """Read parcels that were just read: the cost of the library and its b-trees, without the disk."""
    parcel = _drawn(size)

    def measured() -> float:
        parcels = [parcel() for _ in range(loads)]
        for each in parcels:
            contender.load(each)
        again = iter(parcels)
        return took(lambda: contender.load(next(again)), loads) * 1000

    return measured


def _checks(contender: Eventfold, size: int, loads: int) -> Cell:
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
        for _ in range(loads):
            holding = [(question(parcel()), head) for _ in range(9)]
            more.append(refused([*holding, refusing]) - refused([refusing]))
        return max(statistics.median(more) / 9, 0.01)

    return measured
