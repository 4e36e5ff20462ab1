"""Read models of a million flights: the time and memory of a rebuild, and whether four processes share the work.

Knows: the demonstration's events and tables, processes of their own. Does not know: how rows are stored. The figures
belong to the group "projections", over one file; each is taken in fresh processes, as `eventfold run` is one.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import eventfold as ef
from benchmarks.child import Child
from benchmarks.measure import Figure, Missing, Sample
from benchmarks.stage import Stage
from eventfold.concurrency import run
from eventfold.demo.flights.events import FlightDeparted, FlightScheduled
from eventfold.demo.flights.tables import CarrierMonth
from eventfold.errors import UnknownProjection
from eventfold.ports.target import PartitionKey
from eventfold.projections.catch_up import catch_up, worker_context
from eventfold.projections.definition import projection_definition
from eventfold.projections.generations import register
from eventfold.projections.leases import new_holder_id
from eventfold.projections.worker import PartitionWorker

GROUP = "projections"
QUICK = 3_000  # flights of a quick run: some 9,000 events
FLIGHTS = 336_776  # of the whole year: about a million events
WORKERS = 4
STEPS = 4_000  # loop steps for each event: a handler with work of its own, about 50 µs
TIMEOUT = 600.0


class EachFlight(ef.Projection, name="each_flight"):
    """A row for each flight: a third as many rows as events."""

    flight: str
    scheduled: int = 0
    delay: int = 0

    def evolve(self, event: FlightScheduled | FlightDeparted) -> None:
        """Count the schedule, or store the delay."""
        match event:
            case FlightScheduled():
                self.scheduled += 1
            case FlightDeparted():
                self.delay = event.delay


class Light(ef.Projection, name="light"):
    """A row for each flight that left, by a handler with almost no work of its own."""

    flight: str
    delay: int = 0

    def evolve(self, event: FlightDeparted) -> None:
        """Store the delay."""
        self.delay = event.delay


class LightShared(Light, name="light_shared", partitions=WORKERS):
    """The same, split by flight."""


class Heavy(ef.Projection, name="heavy"):
    """The same rows, by a handler with work of its own."""

    flight: str
    delay: int = 0

    def evolve(self, event: FlightDeparted) -> None:
        """Store the delay, after some work."""
        self.delay = event.delay + sum(range(STEPS)) * 0


class HeavyShared(Heavy, name="heavy_shared", partitions=WORKERS):
    """The same, split by flight."""


def figures(stage: Stage, announce: Callable[[str], None]) -> Iterator[Figure]:
    """Yield all figures; none where the flights' data is not installed."""
    folder = stage.folder / "projections"
    limit = QUICK if stage.settings.quick else None
    try:
        announce("loading the flights")
        events = _loaded(folder / "year.db", limit)
        tenth = _loaded(folder / "weeks.db", (limit or FLIGHTS) // 10)
    except Missing as reason:
        announce(f"left out: {reason}")
        return
    announce("a rebuild of the flights")
    yield _months(stage, folder / "year.db", events)
    announce("memory of a rebuild")
    if Path("/proc/self/status").exists():
        yield _memory(folder, events, tenth)
    announce("four partitions in four processes")
    for pair in ((Light, LightShared), (Heavy, HeavyShared)):
        yield _shared(stage, folder / "weeks.db", *pair)
    announce("an idle runner")
    yield _idle(stage, folder / "weeks.db")


def _loaded(path: Path, limit: int | None) -> int:
    try:
        from eventfold.demo.flights.load import load
        from eventfold.demo.flights.source import Source, unpack

        with (
            tempfile.TemporaryDirectory(prefix="eventfold-flights-") as data,
            closing(Source(unpack(Path(data)), limit)) as source,
            ef.Store(str(path)) as store,
        ):
            return load(store, source, lambda _done, _all: None).events
    except (ImportError, ef.EventfoldError) as error:
        raise Missing(f"{error} (pip install 'eventfold[demo]')") from error


def _months(stage: Stage, path: Path, events: int) -> Figure:
    taken: list[float] = []
    with ef.Store(str(path)) as store:
        store.project(CarrierMonth, timeout=TIMEOUT)
        for _ in range(1 if stage.settings.quick else 3):
            began = time.perf_counter()
            store.projections.rebuild(CarrierMonth)
            taken.append(time.perf_counter() - began)
            store.projections.discard(CarrierMonth)
    name = f"rebuild of {events:,} flight events by carrier and month"
    figure = Figure(GROUP, name, "s", Sample(tuple(taken)), better="lower")
    figure.note = f"{events / figure.ours.median:,.0f} events/s, of five kinds"
    figure.key = "flights"
    return figure.aim("< 20 s for a million", figure.ours.median < 20 * events / 1_000_000)


def _memory(folder: Path, events: int, tenth: int) -> Figure:
    """Measure the peak memory of processes that make a row for each flight, of a tenth of the log and of all of it."""
    whole, part = (_answer(_peak, str(folder / name)) for name in ("year.db", "weeks.db"))
    name = f"peak memory while {events:,} events become {events // 3:,} rows"
    others: dict[str, Sample | str] = {f"{tenth:,} events": Sample((part,))}
    figure = Figure(GROUP, name, "MiB", Sample((whole,)), others, "lower", key="memory")
    return figure.aim("≤ 1.5 × a tenth's", whole <= 1.5 * part)


def _shared(stage: Stage, path: Path, alone: type[ef.Projection], shared: type[ef.Projection]) -> Figure:
    """Compare partitions, each in a process of its own, with one process that has all events. Counts events read."""
    kinds = {"one": alone, "four": shared}
    taken: dict[str, list[float]] = {"one": [], "four": []}
    with ef.Store(str(path)) as store:
        events = store.count(ef.Query.of(types=FlightDeparted))
        for _ in range(1 if stage.settings.quick else 3):
            for name, kind in kinds.items():
                taken[name].append(events / _together(store, str(path), kind))
    one: dict[str, Sample | str] = {"one process": Sample(tuple(taken["one"]))}
    figure = Figure(
        GROUP, f"four partitions, {alone.__name__.lower()} handler", "events/s", Sample(tuple(taken["four"])), one
    )
    figure.key = f"partitions, {alone.__name__.lower()}"
    return figure.aim("≥ 1.3 × one", figure.against("one process") >= 1.3)


def _together(store: ef.Store, path: str, kind: type[ef.Projection]) -> float:
    """Return the seconds until every partition has reached the end, each in a process that was started before."""
    admin, plan = store.projections, projection_definition(kind)
    with suppress(UnknownProjection):
        admin.remove(kind)
    run(register(plan, admin.log, admin.target(kind)))
    children = [Child(_partition, path, kind.__name__, number) for number in range(plan.partitions)]
    try:
        for child in children:
            child.answer()
        began = time.perf_counter()
        for child in children:
            child.send("go")
        for child in children:
            child.answer()
        return time.perf_counter() - began
    finally:
        for child in children:
            child.end()


def _partition(pipe: Connection, path: str, name: str, number: int) -> None:
    kind: type[ef.Projection] = globals()[name]
    with ef.Store(path) as store:
        admin, plan = store.projections, projection_definition(kind)
        means = worker_context(admin.log, admin.target(kind), 10.0)
        work = PartitionWorker(plan, means, PartitionKey(plan.name, 1, number), new_holder_id())
        pipe.send("ready")
        pipe.recv()
        catch_up(work, 5.0)
        pipe.send("done")


def _answer(function: Callable[..., None], *arguments: Any) -> float:
    child = Child(function, *arguments)
    try:
        return float(child.answer(TIMEOUT))
    finally:
        child.end()


def _peak(pipe: Connection, path: str) -> None:
    with ef.Store(path) as store:
        store.project(EachFlight, timeout=TIMEOUT)
    lines = Path("/proc/self/status").read_text("ascii").splitlines()  # getrusage would include the parent's peak
    pipe.send(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024)


def _idle(stage: Stage, path: Path) -> Figure:
    shares = [_answer(_idling, str(path), stage.settings.idle) for _ in range(1 if stage.settings.quick else 2)]
    figure = Figure(GROUP, "an idle runner's share of a core", "%", Sample(tuple(shares)), better="lower")
    return figure.aim("< 1 %", figure.ours.median < 1)


def _idling(pipe: Connection, path: str, seconds: float) -> None:
    with ef.Store(path) as store:
        store.project(CarrierMonth, timeout=TIMEOUT)
        with store.run(CarrierMonth):
            time.sleep(2.5)  # until it polls as rarely as an idle runner does
            cpu, start = time.process_time(), time.perf_counter()
            time.sleep(seconds)
            share = (time.process_time() - cpu) / (time.perf_counter() - start)
    pipe.send(100 * share)
