"""The group "hosts": how long a new host takes to open a log of a cluster, by a copy of the index and without one.

Knows: sizes, which steps are timed. Does not know: how a copy is made. One server on this machine (R1): what is
measured is the new host, and one node holds ten million events in half the time of three.
EVENTFOLD_BENCH_LARGE=1 adds the log of ten million events, which takes an hour or more to write and to verify.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import eventfold as ef
from benchmarks.measure import Figure, Missing, Sample, slope
from benchmarks.raw_nats import NatsCluster
from benchmarks.stage import Stage
from benchmarks.subject import event_of
from benchmarks.traffic import scans
from eventfold.cluster.snapshot import publish_snapshot

GROUP = "a new host opens a log in a NATS cluster"
STORE = "grown"
SIZES = (10_000, 100_000, 1_000_000)
LARGEST = 10_000_000
FROM_LOG = 1_000_000  # the largest log that is also read without a copy
BOUND_S = 60.0  # for ten million events
EACH = 1_000


def run(stage: Stage, announce: Callable[[str], None]) -> Iterator[Figure]:
    """Yield the figures of this group."""
    announce("a NATS server")
    try:
        cluster = NatsCluster(stage.folder, nodes=1)
    except Missing as reason:
        stage.missing[NatsCluster.name] = str(reason)
        return
    sizes = (1_000, 2_000) if stage.settings.quick else SIZES
    if os.environ.get("EVENTFOLD_BENCH_LARGE") == "1":
        sizes = (*sizes, LARGEST)
    took: list[float] = []
    try:
        cluster.create(STORE)
        for size in sizes:
            announce(f"{size:,} events")
            _grow(cluster, size)
            figure = _opened(cluster, size)
            took.append(figure.ours.median)
            yield figure
    finally:
        cluster.close()
    if len(took) > 2:
        found = Sample((slope(sizes, took),))
        yield Figure(GROUP, "slope of the curve in log-log: 0 constant, 1 linear", "", found, {}, "lower", key="slope")


def _grow(cluster: NatsCluster, size: int) -> None:
    with ef.Store(cluster.url(STORE, "first")) as store:
        for first in range(store.head(), size, EACH):
            store.append(*map(event_of, scans(first, min(EACH, size - first))))


def _opened(cluster: NatsCluster, size: int) -> Figure:
    start = time.perf_counter()
    copies = cluster.folder / f"copies-{size}"
    published = publish_snapshot(
        cluster.url(STORE, "first"), to=str(copies), keep=1, progress=lambda _done, _all: None
    )  # fmt: skip
    publishing = time.perf_counter() - start
    ours = _seconds(cluster, size, f"copy-{size}", copies=str(copies))
    others: dict[str, Sample | str] = {}
    if size <= FROM_LOG:
        others["from the log"] = Sample((_seconds(cluster, size, f"log-{size}", copies="none"),))
    figure = Figure(GROUP, f"a log of {size:,} events, to its first read", "s", Sample((ours,)), others, "lower")
    figure.key = f"opened, {size}"
    figure.note = (
        f"made, verified and published in {publishing:.0f} s; {published.packed / 1e6:,.0f} MB compressed, "
        f"{published.bytes / 1e6:,.0f} MB on the host"
    )
    return figure.aim(f"< {BOUND_S:g} s", figure.ours.median < BOUND_S) if size == LARGEST else figure


def _seconds(cluster: NatsCluster, size: int, host: str, **options: str) -> float:
    """Open the store on a host without an index, and ask for an entity and for the number of events."""
    start = time.perf_counter()
    with ef.Store(cluster.url(STORE, host, **options)) as store:
        assert store.count() == size
        assert store.count(ef.Query.of(tags="parcel:p-00000000")) > 0
        return time.perf_counter() - start
