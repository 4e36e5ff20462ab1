"""The group "postgres": the PostgreSQL engine beside `eventsourcing` and a raw connection, on one server.

Knows: the measured calls. Does not know: how a server is found, what SQL the floor uses (cluster.py does).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import follow, read, rows
from benchmarks.child import appenders
from benchmarks.cluster import Cluster, RawPsycopg
from benchmarks.measure import Cell, Figure, Missing, Sample, all_met, interleave, rate, rate_of_tasks, rate_of_threads
from benchmarks.peers import Eventsourcing
from benchmarks.stage import Stage
from benchmarks.subject import Eventfold, EventfoldTasks, event_of
from benchmarks.traffic import scans

GROUP = "PostgreSQL"
SINGLE = "one writer"
PEER = Eventsourcing.name
FLOOR = RawPsycopg.name


class Contenders:
    """All contenders on one server, each in a schema of its own with the same events stored."""

    def __init__(self, stage: Stage, cluster: Cluster, opened: ExitStack, announce: Callable[[str], None]) -> None:
        stored = stage.settings.stored
        announce(f"storing {stored:,} events for each ({cluster.facts()})")
        self.url = f"{cluster.url}?schema={cluster.schema()}"
        self.ours = Eventfold(Path(), stored, url=self.url, cache=0, snapshots=0)
        opened.callback(self.ours.close)
        self.ours.store.extend(map(event_of, scans(0, stored)))
        self.tasks = EventfoldTasks(Path(), stored, url=self.url)
        opened.callback(self.tasks.close)
        self.floor = self._floor(cluster, opened, stored)
        self.peer: Eventsourcing | None = None
        self.environment: dict[str, str] | None = None  # of the peer, if it is installed
        try:
            environment = cluster.environment()
            self.peer = Eventsourcing(None, stored, environment)
            self.environment = environment
            opened.callback(self.peer.close)
            self.peer.fill(stored)
        except Missing as reason:
            stage.missing[PEER] = str(reason)

    @staticmethod
    def _floor(cluster: Cluster, opened: ExitStack, stored: int) -> RawPsycopg:
        floor = RawPsycopg(cluster, cluster.schema(), stored)
        opened.callback(floor.close)
        floor.fill(stored)
        return floor

    def all(self) -> dict[str, Any]:
        """Return the contenders by name."""
        found: dict[str, Any] = {Eventfold.name: self.ours, FLOOR: self.floor}
        return found | ({PEER: self.peer} if self.peer else {})


def run(stage: Stage, announce: Callable[[str], None]) -> Iterator[Figure]:
    """Yield the figures of this group; none, with a message, where there is no server."""
    try:
        cluster = Cluster()
    except Missing as reason:
        announce(f"left out: {reason}")
        return
    with ExitStack() as opened:
        opened.callback(cluster.close)
        them = Contenders(stage, cluster, opened, announce)
        announce("appends")
        yield from _appends(stage, them)
        announce("concurrent appends")
        yield from _concurrent(stage, them)
        announce("four processes")
        yield _processes(stage, them)
        announce("reads")
        yield from _reads(stage, them)
        announce("append to receipt")
        yield from _latency(stage, them)
        yield from rows.figures(stage, cluster, them.ours.store, them.environment, announce)


def _others(stage: Stage, found: dict[str, Sample], *names: str) -> dict[str, Sample | str]:
    return {name: found.get(name) or stage.missing.get(name, "") for name in names}


def _appends(stage: Stage, them: Contenders) -> Iterator[Figure]:
    for events in (1, 100, 1000):
        callers = {name: each.caller(events) for name, each in them.all().items()}
        cells: dict[str, Cell] = {n: _rate(call, stage.settings.seconds, events) for n, call in callers.items()}
        found = interleave(cells, stage.settings.rounds)
        name = f"{events:,} event{'s' if events > 1 else ''} an append, one writer"
        figure = Figure(GROUP, name, "events/s", found[Eventfold.name], _others(stage, found, FLOOR, PEER))
        if events == 1:
            figure.aim("≥ 0.8 of raw psycopg", figure.against(FLOOR) >= 0.8)
        elif events == 1000:
            figure.aim("> 30,000/s", figure.ours.median > 30_000)
        yield figure


def _rate(call: Callable[[], Any], seconds: float, events: int) -> Cell:
    return lambda: rate(call, seconds, events)


def _concurrent(stage: Stage, them: Contenders) -> list[Figure]:
    seconds, ours, tasks = stage.settings.seconds, them.ours, them.tasks
    single = ours.caller()

    def threads(make: Callable[[], Callable[[], Any]]) -> Cell:
        calls = [make() for _ in range(32)]
        return lambda: rate_of_threads(calls, seconds)

    def tasked(make: Callable[[], Callable[[], Any]]) -> Cell:
        calls = [make() for _ in range(32)]
        return lambda: tasks.loop.run(rate_of_tasks(calls, seconds))

    cells: dict[str, Cell] = {SINGLE: lambda: rate(single, seconds), "32 threads": threads(ours.caller)}
    cells["32 tasks"] = tasked(tasks.caller)
    cells["32 tasks, own parcels"] = tasked(tasks.owner)
    cells["32 tasks, conditional"] = tasked(tasks.conditional)
    if them.peer:
        cells[PEER] = threads(them.peer.caller)
    found = interleave(cells, stage.settings.rounds)
    figures: list[Figure] = []
    for name in ("32 threads", "32 tasks"):
        figure = Figure(GROUP, f"{name}, one event each", "events/s", found[name], _others(stage, found, SINGLE, PEER))
        peer = figure.against(PEER)
        met = all_met(figure.ours.median > 20_000, peer if peer != peer else peer >= 8)
        figures.append(figure.aim("> 20,000/s; ≥ 8 × eventsourcing", met))
    plain: dict[str, Sample | str] = {"unconditional": found["32 tasks, own parcels"]}
    name = f"32 tasks, each append conditional (DCB), {stage.settings.stored:,} stored"
    figure = Figure(GROUP, name, "events/s", found["32 tasks, conditional"], plain)
    return [*figures, figure.aim("≥ 0.7 of unconditional", figure.against("unconditional") >= 0.7)]


def _processes(stage: Stage, them: Contenders) -> Figure:
    seconds, stored = 0.3 if stage.settings.quick else max(1.0, stage.settings.seconds * 3), stage.settings.stored
    one: list[float] = []
    four: list[float] = []
    for _ in range(1 if stage.settings.quick else 3):
        one.append(sum(reached for reached, _ in appenders(them.url, stored, 1, seconds, 32)))
        four.append(sum(reached for reached, _ in appenders(them.url, stored, 4, seconds, 8)))
    other: dict[str, Sample | str] = {"one process of 32 threads": Sample(tuple(one))}
    figure = Figure(GROUP, "four processes of 8 threads each, together", "events/s", Sample(tuple(four)), other)
    return figure.aim("≥ 0.5 of one process", statistics.median(four) >= 0.5 * statistics.median(one))


def _reads(stage: Stage, them: Contenders) -> list[Figure]:
    whole = interleave(read.log_cells(them.all(), (FLOOR,)), stage.settings.repeats)
    log = Figure(
        GROUP, "whole log as typed objects", "events/s", whole[Eventfold.name], _others(stage, whole, FLOOR, PEER)
    )
    log.aim("> 150,000/s", log.ours.median > 150_000)
    found = interleave(read.entity_cells(them.all(), 100, 20), stage.settings.repeats)
    others = _others(stage, found, FLOOR, PEER)
    entity = Figure(GROUP, "entity of 100 events loaded and folded", "ms", found[Eventfold.name], others, "lower")
    return [log, entity.aim("< 1.5 ms", entity.ours.median < 1.5)]


def _latency(stage: Stage, them: Contenders) -> list[Figure]:
    contenders: dict[str, Any] = {PEER: them.peer} if them.peer else {}
    taken = follow.ways(stage, them.ours, contenders)
    missing = {PEER: stage.missing[PEER]} if PEER in stage.missing else {}
    return follow.figures(GROUP, "in one process", (2.0, 10.0), taken, missing)
