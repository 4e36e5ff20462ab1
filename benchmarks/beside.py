"""The group "beside": the rate of one writer while others read the log: read models, a rebuild, long reports.

Knows: which reader works in which process, and for how long. Does not know: how a runner paces itself. Every case has a
store of its own with the same events. A reader works only during the turns of its own case.
"""

from __future__ import annotations

import itertools
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import eventfold as ef
from benchmarks.child import Child
from benchmarks.cluster import Cluster
from benchmarks.measure import Figure, Missing, Sample, interleave, percentile, rate_and_waits
from benchmarks.stage import Stage
from benchmarks.subject import Eventfold, ParcelScanned, event_of
from benchmarks.traffic import scans

GROUP = "beside"
ALONE = "no reader"
BOUND, BOUND_ON_A_SERVER = 0.9, 0.85
STORED_ON_A_SERVER = 1_000
LAG_EVERY_S = 0.01


def run(stage: Stage, announce: Callable[[str], None]) -> Iterator[Figure]:
    """Yield the figures of this group."""
    announce("a writer beside read models, a rebuild and reports")
    yield from _on_sqlite(stage)
    announce("from an append to the row of a read model")
    yield from _lags(stage)
    announce("a writer beside read models on PostgreSQL")
    try:
        yield from _on_postgresql(stage)
    except Missing as reason:
        announce(f"left out: {reason}")


def read_model(number: int, target: str = "") -> type[ef.Projection]:
    """Return a read model with a row for each depot. The same number gives the same one in every process."""

    def evolve(self: Any, event: ParcelScanned) -> None:
        self.scans += 1
        self.weight += event.weight

    evolve.__annotations__ = {"event": ParcelScanned, "return": None}
    fields: dict[str, Any] = {"depot": str, "scans": int, "weight": int}
    body = {"__module__": __name__, "__annotations__": fields, "scans": 0, "weight": 0, "evolve": evolve}
    options = {"target": target} if target else {}
    return type(ef.Projection)(f"Depot{number}", (ef.Projection,), body, **options)


class _Case:
    """A writer with a store of its own, beside a reader in another process, or alone."""

    def __init__(self, url: str, stored: int, seconds: float, reader: Child | None, **options: Any) -> None:
        self.ours, self.reader, self.seconds = Eventfold(Path(), stored, url=url, **options), reader, seconds
        self.waits: list[float] = []  # milliseconds
        self._call = self.ours.caller()
        if reader is not None:
            reader.answer()

    def turn(self) -> float:
        """Return the events per second of one turn, during which the reader works."""
        if self.reader is not None:
            self.reader.send("begin")
            self.reader.answer()
        reached, waits = rate_and_waits(self._call, self.seconds)
        self.waits += waits
        if self.reader is not None:
            self.reader.send("end")
            self.reader.answer()
        return reached

    def wal(self) -> float:
        """Return the size of the write-ahead log in MiB: how large it has become."""
        path = Path(f"{self.ours.path}-wal")
        return path.stat().st_size / 2**20 if path.exists() else 0.0

    def close(self) -> None:
        """End the reader and close the store."""
        if self.reader is not None:
            self.reader.send(None)
            self.reader.end()
        self.ours.close()


def _turns(pipe: Connection) -> Iterator[None]:
    """Yield when a turn begins. The caller sends "begun" once it is at work, and receives the word that ends it."""
    pipe.send("ready")
    while pipe.recv() is not None:
        yield
        pipe.send("ended")


def _follow(pipe: Connection, url: str, count: int, target: str) -> None:
    models = [read_model(number, target) for number in range(count)]
    with ef.Store(url) as store:
        store.project(*models)
        for _ in _turns(pipe):
            with store.run(*models):
                pipe.send("begun")
                pipe.recv()


def _rebuild(pipe: Connection, url: str) -> None:
    model = read_model(0)
    with ef.Store(url) as store:
        store.project(model)
        for _ in _turns(pipe):
            pipe.send("begun")
            while not pipe.poll():
                store.projections.rebuild(model)
                store.projections.discard(model)
            pipe.recv()


def _report(pipe: Connection, url: str) -> None:
    """Read the whole log again and again."""
    with ef.Store(url) as store:
        for _ in _turns(pipe):
            pipe.send("begun")
            while not pipe.poll():
                for number, _event in enumerate(store.read()):
                    if number % 1_000 == 0 and pipe.poll():
                        break
            pipe.recv()


def _snapshot(pipe: Connection, url: str) -> None:
    """Hold one transaction of another program open, as a report in SQL does."""
    connection = sqlite3.connect(url, isolation_level=None)
    for _ in _turns(pipe):
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM event").fetchone()
        pipe.send("begun")
        pipe.recv()
        connection.execute("ROLLBACK")
    connection.close()


def _on_sqlite(stage: Stage) -> Iterator[Figure]:
    cases: dict[str, _Case] = {}
    with ExitStack() as opened:

        def add(name: str, reader: Callable[..., None] | None, *arguments: Any, **options: Any) -> None:
            url = str(stage.copy(Eventfold) / "eventfold.db")
            child = None
            if reader is not None:
                child = Child(reader, url, *(a if a != "apart" else f"{url}.rows" for a in arguments))
            cases[name] = _Case(url, stage.settings.stored, stage.settings.append, child, **options)
            opened.callback(cases[name].close)

        add(ALONE, None)
        for count in (1, 5, 20):
            add(f"{count} in the log's file", _follow, count, "")
        for count in (1, 5):
            add(f"{count} in another file", _follow, count, "apart")
        for count in (1, 5):
            add(f"{count} inline", None, inline=[read_model(number) for number in range(count)])
        add("a rebuild", _rebuild)
        add("a report that reads the whole log", _report)
        add("a transaction of another program", _snapshot)
        yield from _rates(stage, cases, {"1 in the log's file": BOUND, "5 in the log's file": BOUND})


def _on_postgresql(stage: Stage) -> Iterator[Figure]:
    with ExitStack() as opened:
        cluster = Cluster()
        opened.callback(cluster.close)
        cases: dict[str, _Case] = {}
        for count in (0, 1, 5):
            url = f"{cluster.url}?schema={cluster.schema()}"
            with ef.Store(url) as store:
                store.extend(map(event_of, scans(0, STORED_ON_A_SERVER)))
            name = f"{count} on PostgreSQL" if count else ALONE
            child = Child(_follow, url, count, "") if count else None
            cases[name] = _Case(url, STORED_ON_A_SERVER, stage.settings.append, child)
            opened.callback(cases[name].close)
        bounds = {name: BOUND_ON_A_SERVER for name in cases if name != ALONE}
        yield from _rates(stage, cases, bounds)


def _rates(stage: Stage, cases: dict[str, _Case], bounds: dict[str, float]) -> Iterator[Figure]:
    """Yield the writer's rate beside each reader, as a share of its rate alone."""
    found = interleave({name: case.turn for name, case in cases.items()}, min(5, stage.settings.rounds))
    for name, case in cases.items():
        if name == ALONE:
            continue
        figure = Figure(GROUP, f"one writer beside {_described(name)}", "events/s", found[name], {ALONE: found[ALONE]})
        figure.key = name
        figure.details = {"p50": percentile(case.waits, 0.5), "p99": percentile(case.waits, 0.99)}
        figure.details["longest"] = max(case.waits)
        figure.note = ", ".join(f"{key} {value:.2f} ms" for key, value in figure.details.items())
        if wal := case.wal():
            figure.details["WAL MiB"] = wal
            figure.note += f"; WAL {wal:.0f} MiB"
        if name in bounds:
            figure.aim(f"≥ {bounds[name]} × alone", figure.against(ALONE) >= bounds[name])
        yield figure


def _described(name: str) -> str:
    count, _, rest = name.partition(" ")
    if not count.isdecimal():
        return name
    return f"{count} read model{'s' if count != '1' else ''} {rest}"


def _lags(stage: Stage) -> Iterator[Figure]:
    """Yield the time from an append to its row, on an idle log, and the lag behind a writer that never pauses."""
    url = str(stage.copy(Eventfold) / "eventfold.db")
    reader = Child(_follow, url, 1, "")
    model = read_model(0)
    with ef.Store(url) as store:
        reader.answer()
        reader.send("begin")
        reader.answer()
        idle = _receipt_to_row(store, model, stage.settings.samples)
        load = _under_load(store, url, model, max(2.0, 2 * stage.settings.append))
    reader.send("end")
    reader.answer()
    reader.send(None)
    reader.end()
    name = "from an append to its row, idle log, p50"
    yield Figure(GROUP, name, "ms", Sample((percentile(idle, 0.5),)), better="lower", key="idle p50")
    figure = Figure(GROUP, "lag of a row beside a busy writer, p99", "ms", Sample((percentile(load, 0.99),)))
    figure.better, figure.key = "lower", "lag p99"
    figure.details = {"p50": percentile(load, 0.5), "longest": max(load)}
    yield figure.aim("< 100 ms", figure.ours.median < 100)


def _receipt_to_row(store: ef.Store, model: type[ef.Projection], samples: int) -> list[float]:
    """Return, for appends with pauses between them, the ms from before the append to when its row is there."""
    taken: list[float] = []
    for each in itertools.islice(scans(0, samples), samples):
        time.sleep(0.03)
        began = time.perf_counter()
        position = store.append(event_of(each)).last
        _reach(store, model, position)
        taken.append((time.perf_counter() - began) * 1000)
    return taken


def _reach(store: ef.Store, model: type[ef.Projection], position: int) -> None:
    """Return as soon as the rows of a read model, which another process runs, include a position."""
    ends = time.perf_counter() + 30
    while store.projections.checkpoints(model)[0].position < position and time.perf_counter() < ends:
        time.sleep(0.0005)


def _under_load(store: ef.Store, url: str, model: type[ef.Projection], seconds: float) -> list[float]:
    """Return, every few ms, how many ms later the rows include the event that is the last one in the log now."""
    taken = list[float]()
    writer = Child(_write, url)
    writer.answer()
    ends = time.perf_counter() + seconds
    while time.perf_counter() < ends:
        began, head = time.perf_counter(), store.head()
        _reach(store, model, head)
        taken.append((time.perf_counter() - began) * 1000)
        time.sleep(LAG_EVERY_S)
    writer.send("end")
    writer.end()
    return taken


def _write(pipe: Connection, url: str) -> None:
    contender = Eventfold(Path(), 0, url=url)
    call = contender.caller()
    pipe.send("ready")
    while not pipe.poll():
        call()
    contender.close()
