"""The group "migrate": rows a second of `load` and `compare`, and what recording changes costs the writers of a source.

Rows a second are of CPU of the process, so that they mean the same on a busy machine; what the source's own process
does is not counted. A row has eight columns: numbers, texts, a decimal, two times. Writers are four connections that
each change 500 rows a second, a row in a transaction, while `eventfold migrate capture` runs in a process of its own;
they take turns with the same writers of a database in which nothing is recorded.
Knows: tables, mappings, clocks. Does not know: how rows are read, how changes are recorded.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from uuid import uuid4

import eventfold as ef
from benchmarks.cluster import Cluster
from benchmarks.measure import Figure, Missing, Sample, interleave
from benchmarks.stage import Stage
from eventfold.migrate.connection import Connection, connect
from eventfold.migrate.inspection import inspect
from eventfold.migrate.mapping import Mapping, Moment, TableMapping
from eventfold.migrate.mapping_text import mapping_text
from eventfold.migrate.progress import Way
from eventfold.migrate.session import Session, open_session

GROUP = "migrate"
ROWS, CHANGED_ROWS, QUICK_ROWS = 100_000, 20_000, 2_000
LOAD_GOAL, COMPARE_GOAL, INSPECT_GOAL_S, COST_GOAL = 10_000, 50_000, 3.0, 1.10
TABLES = 100
WRITERS, EACH_S, PACED_S = 4, 500, 5.0  # writers, changes a second of each, seconds of a turn
COLUMNS = ("id", "customer_id", "status", "total", "placed_at", "shipped_at", "note", "quantity")
TIMES = {"sqlite": "datetime", "postgresql": "timestamp"}


def run(stage: Stage, announce: Callable[[str], None]) -> Iterator[Figure]:
    """Yield the figures, of SQLite and, where there is a server, of PostgreSQL."""
    count = QUICK_ROWS if stage.settings.quick else ROWS
    source = stage.folder / "source.db"
    source.touch()
    announce(f"{count:,} rows of SQLite")
    yield from _speeds(stage, str(source), "SQLite", count)
    try:
        cluster = Cluster(wal_level="logical")
    except Missing as reason:
        announce(f"left out: {reason}")
        return
    with ExitStack() as opened:
        opened.callback(cluster.close)
        announce(f"{count:,} rows of PostgreSQL")
        yield from _speeds(stage, _database(cluster, opened), "PostgreSQL", count)
        announce(f"{TABLES} tables of PostgreSQL")
        yield _inspected(stage, _database(cluster, opened))
        announce(f"{WRITERS * EACH_S:,} changes a second on PostgreSQL")
        yield from _costs(stage, cluster, min(count, CHANGED_ROWS))


# Rows a second


def _speeds(stage: Stage, address: str, name: str, count: int) -> Iterator[Figure]:
    """Load into new stores, and compare, in turns."""
    _fill(address, count)
    rounds = min(stage.settings.rounds, 3)
    with ExitStack() as opened:
        numbers = iter(range(1_000))

        def load() -> float:
            path = stage.folder / f"loaded-{name}-{next(numbers)}.db"
            with ef.Store(str(path)) as store, open_session(store, _mapping(address), address) as session:
                return _timed(lambda: session.load(recorded=False), count)

        store = opened.enter_context(ef.Store(str(stage.folder / f"compared-{name}.db")))
        session = opened.enter_context(open_session(store, _mapping(address), address))
        session.load(recorded=False)
        compared = interleave({"compare": lambda: _timed(lambda: _equal(session), count), "load": load}, rounds)
    for what, goal in (("load", LOAD_GOAL), ("compare", COMPARE_GOAL)):
        figure = Figure(GROUP, f"{what}, {name}, by CPU", "rows/s", compared[what])
        yield figure.aim(f"≥ {goal:,}", compared[what].median >= goal)


def _timed(call: Callable[[], object], count: int) -> float:
    """Return rows a second of CPU of this process: others read the source at the same time, on another core."""
    began = time.process_time()
    call()
    return count / (time.process_time() - began)


def _equal(session: Session) -> None:
    found = session.compare()
    if not found.equal:
        raise RuntimeError(found.verdict)


def _inspected(stage: Stage, address: str) -> Figure:
    """Inspect as many tables as django-oscar has, each with a reference to the one before."""
    source = connect(address, readonly=False)
    for number in range(TABLES):
        refers = f"REFERENCES entity_{number - 1} (id)" if number else ""
        source.run(
            f"CREATE TABLE entity_{number} (id integer PRIMARY KEY, previous_id integer {refers}, status varchar(10), "
            "email varchar(90), created_at timestamp, closed_at timestamp, total numeric(10,2))"
        )
    source.close()
    folders = iter(range(1_000))

    def once() -> float:
        began = time.perf_counter()
        inspect(address, stage.folder / f"inspected-{next(folders)}")
        return time.perf_counter() - began

    found = interleave({"inspect": once}, min(stage.settings.rounds, 3))["inspect"]
    figure = Figure(GROUP, f"inspect, {TABLES} tables of PostgreSQL", "s", found, better="lower")
    return figure.aim(f"< {INSPECT_GOAL_S:g} s", found.median < INSPECT_GOAL_S)


# What writers notice


class Recorded:
    """A database whose changes are recorded in one way, or not at all, and the process that captures them."""

    def __init__(self, stage: Stage, address: str, way: Way | None, count: int) -> None:
        self.address, self._process = address, None
        self.store = str(stage.folder / f"captured-{way}.db")
        _fill(address, count)
        if way is None:
            return
        mapping = _mapping(address)
        with ef.Store(self.store) as store, open_session(store, mapping, address) as session:
            session.install(way)
            session.load()
        file = stage.folder / f"{way}.toml"
        file.write_text(mapping_text(mapping), "utf-8")
        self._process: subprocess.Popen[bytes] | None = subprocess.Popen(
            [sys.executable, "-m", "eventfold", "migrate", "capture", self.store, address, "--mapping", str(file)]
        )

    def captured(self) -> int:
        """Return how many changes are events."""
        with ef.Store(self.store) as store:
            return store.count(ef.Query.of(types="OrderChanged"))

    def behind_s(self, changes: int) -> float:
        """Return how long it takes until so many changes are events."""
        began = time.perf_counter()
        while self.captured() < changes:
            if self._process is None or self._process.poll() is not None or time.perf_counter() - began > 60:
                raise RuntimeError("the capture does not keep up")
            time.sleep(0.01)
        return time.perf_counter() - began

    def close(self) -> None:
        """End the process, and remove what it needed in the source."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)
            with ef.Store(self.store) as store, open_session(store, _mapping(self.address), self.address) as session:
                session.remove()


def _costs(stage: Stage, cluster: Cluster, count: int) -> Iterator[Figure]:
    quick = stage.settings.quick
    lasts = 0.5 if quick else PACED_S
    ways: dict[str, Way | None] = {"nothing recorded": None, "triggers": "triggers"}
    with cluster.connect() as connection:
        if connection.execute("SHOW wal_level").fetchone()[0] == "logical":
            ways["decoding"] = "decoding"
    behind: dict[str, float] = {}
    with ExitStack() as opened:
        made: dict[str, Recorded] = {}
        for name, way in ways.items():
            made[name] = Recorded(stage, _database(cluster, opened), way, count)
            opened.callback(made[name].close)
        counts = dict.fromkeys(ways, 0)

        def turn(name: str) -> float:
            times = _paced(made[name].address, lasts, count, counts[name])
            counts[name] += len(times)
            if ways[name] is not None:
                behind[name] = max(behind.get(name, 0.0), made[name].behind_s(counts[name]))
            return statistics.median(times) * 1e3

        cells = {name: (lambda name=name: turn(name)) for name in ways}
        found = interleave(cells, 1 if quick else min(stage.settings.rounds, 5))
    without = found.pop("nothing recorded")
    for name, sample in found.items():
        rise = statistics.median([a / b for a, b in zip(sample.values, without.values, strict=True)])
        others: dict[str, Sample | str] = {"nothing recorded": without}
        details = {"rise": rise, "behind": behind[name]}
        label = f"p50 of a writer at {WRITERS * EACH_S:,} changes/s, recorded by {name}"
        figure = Figure(GROUP, label, "ms", sample, others, better="lower", details=details)
        figure.note = f"{rise - 1:+.1%}; all captured {behind[name]:.2f} s after the last change"
        yield figure.aim(f"rises by < {COST_GOAL - 1:.0%}", rise < COST_GOAL)


def _paced(address: str, lasts: float, count: int, offset: int) -> list[float]:
    """Change rows at a steady pace for so long, each to another value. Returns the seconds that each change took."""
    times: list[float] = []
    connections: list[Connection] = [connect(address, readonly=False) for _ in range(WRITERS)]

    def write(number: int, connection: Connection) -> None:
        began = time.perf_counter()
        for at in range(int(lasts * EACH_S)):
            ahead = began + at / EACH_S - time.perf_counter()
            if ahead > 0:
                time.sleep(ahead)
            row = (at * WRITERS + number + offset) % count
            start = time.perf_counter()
            connection.run(
                "UPDATE orders SET quantity = quantity + 1, note = %s WHERE id = %s", [f"{offset} {at}", row]
            )
            times.append(time.perf_counter() - start)

    threads = [threading.Thread(target=write, args=pair) for pair in enumerate(connections)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    for each in connections:
        each.close()
    return times


# Tables


def _database(cluster: Cluster, opened: ExitStack) -> str:
    """Make a database, which is dropped at the end. Returns its address."""
    name = f"bench_{uuid4().hex[:12]}"
    with cluster.connect() as connection:
        connection.execute(f'CREATE DATABASE "{name}"')

    def drop() -> None:
        with cluster.connect() as connection:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    opened.callback(drop)
    base, _, _ = cluster.url.rpartition("/")
    return f"{base}/{name}"


def _fill(address: str, count: int) -> None:
    source = connect(address, readonly=False)
    time_type = TIMES[source.dialect]
    source.run(
        "CREATE TABLE orders (id integer PRIMARY KEY, customer_id integer NOT NULL, status varchar(10) NOT NULL, "
        f"total numeric(10,2) NOT NULL, placed_at {time_type}, shipped_at {time_type}, note text, quantity integer)"
    )
    statement = f"INSERT INTO orders VALUES ({', '.join([source.mark] * len(COLUMNS))})"  # noqa: S608 - marks
    source.begin()
    for first in range(0, count, 1_000):
        source.run_many(statement, [_row(number) for number in range(first, min(count, first + 1_000))])
    source.commit()
    source.close()


def _row(number: int) -> list[Any]:
    day, is_shipped = number % 28 + 1, number % 3 > 0
    return [
        number,
        number % 1_000,
        "shipped" if is_shipped else "new",
        f"{number % 500}.50",
        f"2024-01-{day:02d} 10:00:{number % 60:02d}",
        f"2024-02-{day:02d} 08:30:00" if is_shipped else None,
        "rang twice" if number % 5 == 0 else None,
        number % 7,
    ]


def _mapping(address: str) -> Mapping:
    table = TableMapping(
        role="entity",
        tag="order",
        key=("id",),
        opening="OrderImported",
        changed="OrderChanged",
        removed="OrderRemoved",
        occurred=Moment(column="placed_at"),
        keep=COLUMNS,
    )
    return Mapping(dialect="postgresql" if "://" in address else "sqlite", tables={"orders": table})
