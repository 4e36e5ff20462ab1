"""The group "projections": read models of the log, beside the raw work of writing the same rows.

Knows: two read models over events like the stored parcels'. Does not know: how rows are stored. The floor is unfair on
purpose: it has its rows in memory and only writes them; eventfold reads, decodes, folds, counts the ledger and writes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import apsw

import eventfold as ef
from benchmarks import rebuilds
from benchmarks.measure import Figure, Sample, interleave
from benchmarks.stage import Stage

GROUP = "projections"
PAGE = 2_000  # rows in one transaction of the floor


class Departed(ef.Event, type="bench-departed"):
    """A flight left."""

    flight: ef.Tag
    carrier: str
    month: int
    delay: int


class Carriers(ef.Projection, name="carriers"):
    """Few rows, each updated often."""

    carrier: str
    month: int
    flights: int = 0
    delay: int = 0

    def evolve(self, event: Departed) -> None:
        """Add one."""
        self.flights += 1
        self.delay += event.delay


class Flights(ef.Projection, name="flights"):
    """Many rows, each written once."""

    flight: str
    departures: int = 0
    delay: int = 0

    def evolve(self, event: Departed) -> None:
        """Add one."""
        self.departures += 1
        self.delay += event.delay


def run(stage: Stage, announce: Callable[[str], None]) -> Iterator[Figure]:
    """Yield the figures of this group."""
    count, rounds = stage.settings.stored, stage.settings.repeats
    folder = stage.folder / "projections"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "flights.db"
    with ef.Store(str(path)) as store:
        if not store.head():
            store.extend(Departed(_flight(n, count), f"C{n % 16}", n % 12 + 1, n % 90) for n in range(count))
        announce("folds in memory")
        views = interleave({"eventfold": lambda: _rate(count, lambda: store.view(Carriers))}, rounds)
        yield _figure("fold in memory", views, "fold").aim("≥ 100,000/s", views["eventfold"].median >= 100_000)
        announce("keyed rows")
        few = interleave({"eventfold": lambda: _rate(count, lambda: _rebuilt(store, Carriers))}, rounds)
        yield _figure("rebuild, 192 rows", few)
        many = interleave(
            {
                "eventfold": lambda: _rate(count, lambda: _rebuilt(store, Flights)),
                "raw upsert": lambda: _rate(count, lambda: _raw(folder / "raw.db", count)),
            },
            rounds,
        )
        upsert = _figure("rebuild, a row for each event", many, "row an event")
        yield upsert.aim("≥ 0.6 of raw", upsert.against("raw upsert") >= 0.6)
        announce("proof")
        proofs = interleave({"eventfold": lambda: _rate(count, lambda: store.projections.verify(Carriers))}, rounds)
        yield _figure("verify", proofs)
    yield from rebuilds.figures(stage, announce)


def _flight(number: int, count: int) -> str:
    return f"f{number * 7919 % count}"


def _figure(name: str, found: dict[str, Sample], key: str = "") -> Figure:
    others: dict[str, Sample | str] = {n: sample for n, sample in found.items() if n != "eventfold"}
    return Figure(GROUP, name, "events/s", found["eventfold"], others, key=key)


def _rate(count: int, work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return count / (time.perf_counter() - began)


def _rebuilt(store: ef.Store, projection: type[ef.Projection]) -> None:
    """Make all rows: the first time by `project`, later by a rebuild that is discarded again."""
    if projection.__name__.lower() not in {known.name for known in store.projections.list()}:
        store.project(projection)
        return
    store.projections.rebuild(projection)
    store.projections.discard(projection)


def _raw(path: Path, count: int) -> None:
    """Write the same rows without a log: a batched upsert."""
    path.unlink(missing_ok=True)
    with closing(apsw.Connection(str(path))) as connection:
        connection.pragma("journal_mode", "wal")
        connection.pragma("synchronous", "normal")
        connection.execute(
            "CREATE TABLE raw (flight TEXT NOT NULL, departures INTEGER NOT NULL, delay INTEGER NOT NULL, "
            "PRIMARY KEY (flight)) STRICT, WITHOUT ROWID"
        )
        sql = "INSERT INTO raw VALUES (?,?,?) ON CONFLICT (flight) DO UPDATE SET departures = excluded.departures"
        for first in range(0, count, PAGE):
            rows = [(_flight(n, count), 1, n % 90) for n in range(first, min(first + PAGE, count))]
            with connection:
                connection.executemany(f"{sql}, delay = excluded.delay", rows)
