"""The group "read": entities loaded and folded, decisions, the whole log as typed objects.

Knows: which contender reads what. Does not know: how a page is fetched.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from benchmarks.floor import Prototype, RawApsw
from benchmarks.measure import Cell, Figure, Sample, interleave, rate, took
from benchmarks.peers import Eventsourcing, Umadb
from benchmarks.stage import Stage
from benchmarks.subject import Eventfold, Totals, event_of

GROUP = "read"
SINGLE = "one event appended"
FOLDED = "folded"
FLOORS = (RawApsw.name,)
PEERS = (Eventsourcing.name, Umadb.name)


def run(stage: Stage, announce: Callable[[str], None]) -> Iterator[Figure]:
    """Yield the figures of this group. Folded states are not cached (cache=0, snapshots=0) where a load is measured."""
    ours: Eventfold = stage.open(Eventfold, cache=0, snapshots=0)
    floor, peers = stage.those(RawApsw), stage.those(Eventsourcing, Umadb)
    announce("the whole log")
    yield from _whole(stage, ours, floor, peers)
    contenders = {Eventfold.name: ours, **stage.those(Prototype), **peers}
    for key, events, bound, each in (("100", 100, 0.4, 20), ("long", stage.settings.long, 30.0, 1)):
        announce(f"an entity of {events:,} events")
        yield _entity(stage, contenders, key, events, (bound, each))
    yield _snapshot(stage)
    announce("decisions")
    yield _decide(stage, contenders)


def _others(stage: Stage, found: dict[str, Sample], names: Iterable[str]) -> dict[str, Sample | str]:
    return {name: found.get(name) or stage.missing.get(name, "") for name in names}


def _count(things: Iterable[Any]) -> int:
    """Count the items, without keeping them."""
    last = deque(enumerate(things, 1), maxlen=1)
    return last[0][0] if last else 0


def log_cells(contenders: dict[str, Any], floors: Sequence[str]) -> dict[str, Cell]:
    """Return cells with events a second of each contender's whole log: of the floors as bare rows."""

    def cell(things: Callable[[], Iterable[Any]]) -> Cell:
        def measured() -> float:
            read: list[int] = []
            milliseconds = took(lambda: read.append(_count(things())))
            return read[0] * 1000 / milliseconds

        return measured

    return {name: cell(each.rows if name in floors else each.everything) for name, each in contenders.items()}


def entity_cells(contenders: dict[str, Any], events: int, each: int) -> dict[str, Cell]:
    """Return cells with the ms to load and fold an entity of so many events, `each` times a turn."""

    def cell(contender: Any) -> Cell:
        entity = contender.entity(events)
        return lambda: took(lambda: contender.load(entity), each)

    return {name: cell(contender) for name, contender in contenders.items()}


def _whole(stage: Stage, ours: Eventfold, floor: dict[str, Any], peers: dict[str, Any]) -> list[Figure]:
    """The whole log, as typed objects and folded, in the turns of the same bare rows."""
    cells = log_cells({Eventfold.name: ours, **floor, **peers}, FLOORS)
    head = ours.store.head()
    cells[FOLDED] = lambda: head * 1000 / took(lambda: ours.store.state(Totals()))
    found = interleave(cells, stage.settings.repeats)
    typed = Figure(GROUP, "whole log as typed objects", "events/s", found[Eventfold.name])
    typed.others, typed.key = _others(stage, found, (*FLOORS, *PEERS)), "typed"
    typed.note = "the floor gives bare rows in pages of 1,000, undecoded; umadb's payloads are decoded by msgspec"
    folded = Figure(GROUP, "whole log folded by a State", "events/s", found[FOLDED], key="folded")
    folded.others = _others(stage, found, FLOORS)
    for figure, aim, least in ((typed, 0.65, 0.55), (folded, 0.55, 0.45)):
        times = figure.against(RawApsw.name)
        figure.aim(f"{aim:g} of raw apsw rows, at least {least:g}", times >= least, times >= aim)
    return [typed, folded]


def _entity(stage: Stage, contenders: dict[str, Any], key: str, events: int, work: tuple[float, int]) -> Figure:
    bound, each = work
    found = interleave(entity_cells(contenders, events, each), stage.settings.repeats)
    name = f"entity of {events:,} events loaded and folded"
    figure = Figure(GROUP, name, "ms", found[Eventfold.name], better="lower", key=f"entity, {key}")
    figure.others = _others(stage, found, (Prototype.name, *PEERS))
    figure.note = "the prototype decodes by msgspec and folds by hand, as umadb's client does"
    return figure.aim(f"< {bound:g} ms", figure.ours.median < bound)


def _snapshot(stage: Stage) -> Figure:
    """Load the long entity by a process that has not cached it and finds another one's snapshot beside the log."""
    ours: Eventfold = stage.open(Eventfold, cache=0)
    entity = ours.entity(stage.settings.long)
    ours.load(entity)
    values = interleave({Eventfold.name: lambda: took(lambda: ours.load(entity), 20)}, stage.settings.repeats)
    return Figure(
        GROUP, f"the same of {stage.settings.long:,}, from its snapshot", "ms", values[ours.name], better="lower"
    )


def _decide(stage: Stage, contenders: dict[str, Any]) -> Figure:
    """Measure a command on a cached entity of 100 events, against a plain append to the same store."""
    ours: Eventfold = stage.open(Eventfold)
    command, seconds = ours.command(ours.entity(100)), stage.settings.seconds
    scan = ours.traffic.one()
    cells: dict[str, Cell] = {
        Eventfold.name: lambda: rate(command, seconds),
        SINGLE: lambda: rate(lambda: ours.store.append(event_of(scan)), seconds),
    }
    if Eventsourcing.name in contenders:
        peer: Eventsourcing = contenders[Eventsourcing.name]
        theirs = peer.command(peer.entity(100))
        cells[Eventsourcing.name] = lambda: rate(theirs, seconds)
    found = interleave(cells, stage.settings.rounds)
    figure = Figure(GROUP, "decide on a warm entity of 100 events", "commands/s", found[Eventfold.name])
    figure.others = _others(stage, found, (SINGLE, Eventsourcing.name))
    figure.note = "eventsourcing loads its aggregate for each command, as its applications do"
    figure.key = "decide"
    return figure.aim("≥ 0.8 of one event appended", figure.against(SINGLE) >= 0.8)
