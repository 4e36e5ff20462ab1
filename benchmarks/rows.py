"""Read models on PostgreSQL, log and rows in one database, beside a raw upsert and `eventsourcing`'s runner.

Knows: the parcels' events, SQL of the floor, the peer's documented way to store a view. Does not know: how rows are
stored, rounds. The floor has its rows in memory and only writes them; the peer commits each event, as its runner does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import eventfold as ef
from benchmarks.cluster import Cluster
from benchmarks.measure import Figure, Sample, interleave
from benchmarks.stage import Stage
from benchmarks.subject import ParcelScanned

GROUP = "PostgreSQL"
PAGE = 2_000  # rows in one transaction of the floor
MAX_PEER_EVENTS = 2_000  # events for the peer, which handles them one by one
FLOOR, PEER = "raw upsert", "eventsourcing"
TABLE = "CREATE TABLE {name} (key TEXT PRIMARY KEY, scans BIGINT NOT NULL, weight BIGINT NOT NULL)"
UPSERT = """INSERT INTO {name} SELECT * FROM unnest(%s::text[], %s::bigint[], %s::bigint[])
    ON CONFLICT (key) DO UPDATE SET scans = excluded.scans, weight = excluded.weight"""


class Depots(ef.Projection, name="bench_depots"):
    """Few rows, each updated often."""

    depot: str
    scans: int = 0
    weight: int = 0

    def evolve(self, event: ParcelScanned) -> None:
        """Add one."""
        self.scans += 1
        self.weight += event.weight


class Parcels(ef.Projection, name="bench_parcels"):
    """A row for a tenth of the events."""

    parcel: str
    scans: int = 0
    weight: int = 0

    def evolve(self, event: ParcelScanned) -> None:
        """Add one."""
        self.scans += 1
        self.weight += event.weight


class Scans(ef.Projection, name="bench_scans"):
    """A row for each event."""

    number: str
    weight: int = 0
    depot: int = 0

    @staticmethod
    def key(event: ParcelScanned) -> str:
        """Return a key that is nearly unique."""
        return f"{event.parcel}-{event.depot}-{event.weight}"

    def evolve(self, event: ParcelScanned) -> None:
        """Store the event's values."""
        self.weight += event.weight


def figures(
    stage: Stage, cluster: Cluster, store: ef.Store, peer: Any, announce: Callable[[str], None]
) -> Iterator[Figure]:
    """Yield all figures, over the stored events. `peer`: the environment of `eventsourcing` with them, or None."""
    announce("read models")
    head, repeats = store.head(), stage.settings.repeats
    events = [(f"{r.event.parcel}-{r.event.depot}-{r.event.weight}", r.event.weight, 0) for r in _scanned(store)]
    count = len(events)
    for kind in (Depots, Parcels, Scans):
        store.project(kind, timeout=600)
    folds = interleave({"ours": lambda: _rate(count, lambda: store.view(Depots, at=head))}, repeats)
    fold = Figure(GROUP, "fold in memory", "events/s", folds["ours"])
    yield fold.aim("≥ 70,000/s", fold.ours.median >= 70_000)
    raw = interleave(
        {
            "ours": lambda: _rate(count, lambda: _rebuilt(store, Scans)),
            FLOOR: lambda: _rate(count, lambda: _raw(cluster, events)),
        },
        repeats,
    )
    upsert = Figure(GROUP, "rebuild, a row for each event", "events/s", raw["ours"], {FLOOR: raw[FLOOR]})
    upsert.key = "row an event"
    yield upsert.aim("≥ 0.6 of raw", upsert.against(FLOOR) >= 0.6)
    yield _beside(stage, store, peer, count)


def _beside(stage: Stage, store: ef.Store, peer: Any, count: int) -> Figure:
    cells: dict[str, Callable[[], float]] = {"ours": lambda: _rate(count, lambda: _rebuilt(store, Parcels))}
    others: dict[str, Sample | str] = {}
    if peer is None:
        others[PEER] = stage.missing.get(PEER, "")
    else:
        from benchmarks import viewed

        most = min(MAX_PEER_EVENTS // (10 if stage.settings.quick else 1), count)
        cells[PEER] = lambda: viewed.rate(peer, most)
    found = interleave(cells, stage.settings.repeats)
    if peer is not None:
        others[PEER] = found[PEER]
    figure = Figure(GROUP, "read model from nothing, a row a parcel", "events/s", found["ours"], others)
    figure.key = "row a parcel"
    figure.note = (
        f"eventsourcing's projection runner commits each event by itself; its rate is over {MAX_PEER_EVENTS:,} of them"
    )
    ahead = figure.against(PEER)
    return figure.aim("≥ 2 × eventsourcing", None if ahead != ahead else ahead >= 2)


def _scanned(store: ef.Store) -> Any:
    return store.read(ef.Query.of(types=ParcelScanned))


def _rate(count: int, work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return count / (time.perf_counter() - began)


def _rebuilt(store: ef.Store, kind: type[ef.Projection]) -> None:
    store.projections.rebuild(kind)
    store.projections.discard(kind)


def _raw(cluster: Cluster, rows: list[tuple[str, int, int]]) -> None:
    """Write the same rows without a log: one statement of three arrays for each page."""
    name = f"{cluster.schema()}"
    with cluster.connect() as connection:
        connection.execute(f"CREATE SCHEMA {name}")
        connection.execute(TABLE.format(name=f"{name}.raw"))
        sql = UPSERT.format(name=f"{name}.raw").encode()
        for first in range(0, len(rows), PAGE):
            page = {row[0]: row for row in rows[first : first + PAGE]}
            with connection.transaction():
                connection.execute(sql, [list(values) for values in zip(*page.values(), strict=True)])
