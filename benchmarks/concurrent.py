"""The group "concurrent": many appenders of one event each, in threads, tasks and processes.

Knows: which contenders append, how many at once. Does not know: how appends are combined.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.child import appenders
from benchmarks.floor import RawApsw
from benchmarks.measure import Cell, Figure, Missing, Sample, all_met, interleave, rate, rate_of_tasks, rate_of_threads
from benchmarks.peers import Eventsourcing, EventsourcingMemory, Umadb
from benchmarks.stage import Stage
from benchmarks.subject import Eventfold, EventfoldTasks

GROUP = "concurrent appenders of one event"
CONDITIONAL = "conditional (DCB) appends of one event"
PROCESSES = "two processes on one file"
SINGLE = "one writer"
FLOOR = "raw apsw, as many a commit"  # one thread with all events ready: the upper bound of combining
PLAIN = "unconditional"
THREADS = (8, 32)
TASKS = (32, 512)
CLIENTS = (8, 32, 512)
AHEAD = 1.5  # times umadb, for 32 threads, 32 tasks and 512 tasks
MIN_RATE_512 = 30_000  # events/s of 512 tasks


def run(stage: Stage, announce: Callable[[str], None]) -> Iterator[Figure]:
    """Yield the figures of this group."""
    ours = stage.open(Eventfold)
    tasks = stage.open(EventfoldTasks)
    peers = stage.those(Eventsourcing, Umadb)
    announce("threads and tasks")
    if stage.wanted("512 tasks"):
        yield from _many(stage, ours, tasks, stage.open(RawApsw), peers)
    if stage.wanted("512 tasks, conditional"):
        announce("conditional appends")
        yield from _conditional(stage, ours, tasks, peers)
    announce("two processes on one file")
    yield from _processes(stage)


def _threads(stage: Stage, make: Callable[[], Callable[[], Any]], count: int) -> Cell:
    calls = [make() for _ in range(count)]
    return lambda: rate_of_threads(calls, stage.settings.seconds)


def _batches(stage: Stage, call: Callable[[], Any], events: int) -> Cell:
    return lambda: rate(call, stage.settings.seconds, events)


def _tasks(stage: Stage, tasks: EventfoldTasks, make: Callable[[], Callable[[], Any]], count: int) -> Cell:
    calls = [make() for _ in range(count)]
    return lambda: tasks.loop.run(rate_of_tasks(calls, stage.settings.seconds))


def _many(stage: Stage, ours: Eventfold, tasks: EventfoldTasks, floor: RawApsw, peers: dict[str, Any]) -> list[Figure]:
    seconds = stage.settings.seconds
    single = ours.caller()
    cells: dict[str, Cell] = {SINGLE: lambda: rate(single, seconds)}
    cells |= {f"{n} threads": _threads(stage, ours.caller, n) for n in THREADS}
    cells |= {f"{n} tasks": _tasks(stage, tasks, tasks.caller, n) for n in TASKS}
    cells |= {f"{FLOOR} {n}": _batches(stage, floor.caller(n), n) for n in CLIENTS}
    if Umadb.name in peers:
        cells |= {f"{Umadb.name} {n}": _threads(stage, peers[Umadb.name].caller, n) for n in CLIENTS}
    if Eventsourcing.name in peers:
        cells |= {f"{Eventsourcing.name} {n}": _threads(stage, peers[Eventsourcing.name].caller, n) for n in (8, 32)}
    found = interleave(cells, stage.settings.rounds)
    figures: list[Figure] = []
    for kind, counts in (("threads", THREADS), ("tasks", TASKS)):
        for count in counts:
            others: dict[str, Sample | str] = {SINGLE: found[SINGLE]}
            others[FLOOR] = found.get(f"{FLOOR} {count}", "")
            for peer in (Eventsourcing.name, Umadb.name):
                others[peer] = found.get(f"{peer} {count}") or stage.missing.get(peer, "")
            name = f"{count} {kind}"
            figures.append(_aimed(Figure(GROUP, name, "events/s", found[name], others, key=name), count))
    return figures


def _aimed(figure: Figure, count: int) -> Figure:
    if count < 32:
        return figure
    times = figure.against(Umadb.name)
    ahead: bool | float = times if times != times else times >= AHEAD
    text = f"≥ {AHEAD:g} × umadb"
    if count < 512:
        return figure.aim(text, all_met(ahead))
    return figure.aim(f"{text}; > {MIN_RATE_512:,}/s", all_met(ahead, figure.ours.median > MIN_RATE_512))


def _conditional(stage: Stage, ours: Eventfold, tasks: EventfoldTasks, peers: dict[str, Any]) -> list[Figure]:
    seconds = stage.settings.seconds
    one, one_if = ours.owner(), ours.conditional()
    cells: dict[str, Cell] = {"one": lambda: rate(one, seconds), "one if": lambda: rate(one_if, seconds)}
    for count in (32,):
        cells[f"{count} threads"] = _threads(stage, ours.owner, count)
        cells[f"{count} threads if"] = _threads(stage, ours.conditional, count)
    for count in (32, 512):
        cells[f"{count} tasks"] = _tasks(stage, tasks, tasks.owner, count)
        cells[f"{count} tasks if"] = _tasks(stage, tasks, tasks.conditional, count)
    if Umadb.name in peers:
        cells |= {f"umadb {n}": _threads(stage, peers[Umadb.name].conditional, n) for n in (1, 32, 512)}
    try:
        memory = stage.open(EventsourcingMemory)
        cells |= {f"{memory.name} {n}": _threads(stage, memory.conditional, n) for n in (1, 32)}
    except Missing:
        pass
    found = interleave(cells, max(3, stage.settings.rounds - 2))
    figures: list[Figure] = []
    for name, count in (("one", 1), ("32 threads", 32), ("32 tasks", 32), ("512 tasks", 512)):
        others: dict[str, Sample | str] = {PLAIN: found[name]}
        for peer in (EventsourcingMemory.name, Umadb.name):
            others[peer] = found.get(f"{peer} {count}") or stage.missing.get(peer, "")
        label = "one writer" if name == "one" else name
        figure = Figure(CONDITIONAL, label, "events/s", found[f"{name} if"], others, key=f"{label}, conditional")
        bound = 0.85 if count == 512 else 0.8
        figures.append(
            figure.aim(f"≥ {bound:g} of unconditional", figure.against(PLAIN) >= bound) if count > 1 else figure
        )
    return figures


def _processes(stage: Stage) -> list[Figure]:
    """Measure one process, then two on the same file, in turns: their sum, and their shares."""
    seconds = 0.3 if stage.settings.quick else max(1.0, stage.settings.seconds * 3)
    folder = str(stage.copy(Eventfold) / "eventfold.db")
    turns = 2 if stage.settings.quick else 4
    one: list[float] = []
    both: list[float] = []
    fair: list[float] = []
    longest: list[float] = []
    for _ in range(turns):
        one += [rate for rate, _ in appenders(folder, stage.settings.stored, 1, seconds)]
        pair = appenders(folder, stage.settings.stored, 2, seconds)
        both.append(sum(rate for rate, _ in pair))
        fair.append(min(rate for rate, _ in pair) / max(rate for rate, _ in pair))
        longest.append(max(wait for _, wait in pair))
    alone: dict[str, Sample | str] = {"one process": Sample(tuple(one))}
    total = Figure(PROCESSES, "both together", "events/s", Sample(tuple(both)), alone)
    share = Figure(PROCESSES, "the slower, for one event of the faster", "events", Sample(tuple(fair)))
    share.note = f"longest wait of any append {max(longest):.0f} ms"
    return [total, share.aim("≥ 0.5 (no starving)", statistics.median(fair) >= 0.5)]
