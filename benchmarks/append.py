"""The group "append": one writer, 1 to 1,000 events an append, against the raw floor and the peers.

Knows: which contenders append. Does not know: how rounds or tables work.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.floor import RawApsw, RawSqlite
from benchmarks.measure import Cell, Figure, Sample, all_met, interleave, rate
from benchmarks.peers import Eventsourcing, Umadb
from benchmarks.stage import Stage
from benchmarks.subject import Eventfold

GROUP = "append"
RECORDER = "eventsourcing recorder"


def run(stage: Stage, announce: Callable[[str], None]) -> Iterator[Figure]:
    """Yield the figures of this group."""
    floors = stage.those(RawSqlite, RawApsw)
    ours = stage.open(Eventfold)
    peers = stage.those(Eventsourcing, Umadb)
    for events in (1, 10, 100, 1000):
        announce(f"{events} events an append")
        callers = {ours.name: ours.caller(events)}
        callers |= {name: each.caller(events) for name, each in {**floors, **peers}.items()}
        if Eventsourcing.name in peers:
            callers[RECORDER] = peers[Eventsourcing.name].recorder_caller(events)
        yield _figure(stage, events, callers)


def _figure(stage: Stage, events: int, callers: dict[str, Callable[[], Any]]) -> Figure:
    settings = stage.settings

    def cell(call: Callable[[], Any]) -> Cell:
        return lambda: rate(call, settings.seconds, events)

    found = interleave({name: cell(call) for name, call in callers.items()}, settings.rounds)
    shown = [RawSqlite.name, RawApsw.name, Eventsourcing.name, RECORDER, Umadb.name]
    others: dict[str, Sample | str] = {n: found.get(n) or stage.missing.get(n, "not available") for n in shown}
    name = f"{events:,} event{'s' if events > 1 else ''} an append, one writer"
    figure = Figure(GROUP, name, "events/s", found[Eventfold.name], others)
    floor, peer, umadb = (figure.against(n) for n in (RawSqlite.name, Eventsourcing.name, Umadb.name))
    if events == 1:
        met = all_met(floor >= 0.8, *_beats(peer), *_beats(umadb))
        return figure.aim("≥ 0.8 of raw sqlite3; ahead of both peers", met)
    if events >= 100:
        return figure.aim("ahead of both peers", all_met(*_beats(peer), *_beats(umadb)))
    return figure


def _beats(times: float) -> tuple[bool | float, ...]:
    return (times if math.isnan(times) else times > 1,)
