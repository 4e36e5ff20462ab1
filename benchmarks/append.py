"""The group "append": one writer, 1 to 1,000 events an append, against the raw floor, the prototype and the peers.

Knows: which contenders append. Does not know: how rounds or tables work.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.floor import Prototype, RawApsw
from benchmarks.measure import Cell, Figure, Sample, all_met, interleave, percentile, rate_and_waits
from benchmarks.peers import Eventsourcing, Umadb
from benchmarks.stage import Stage
from benchmarks.subject import Eventfold

GROUP = "one writer"
RECORDER = "eventsourcing recorder"
PEERS = (Eventsourcing.name, Umadb.name)
GOALS = {1: (0.75, 0.6), 10: (0.6, 0.5), 100: (0.5, 0.35), 1000: (0.4, 0.25)}  # of raw apsw: the aim, the least
MAX_P999_MS = 20  # of appends of one event
ROUNDS = 5


def run(stage: Stage, announce: Callable[[str], None]) -> Iterator[Figure]:
    """Yield the figures of this group."""
    contenders = stage.those(RawApsw, Prototype, Eventfold, Eventsourcing, Umadb)
    for events in GOALS:
        if not stage.wanted(f"{events} an append"):
            continue
        announce(f"{events} events an append")
        callers = {name: each.caller(events) for name, each in contenders.items()}
        if Eventsourcing.name in contenders:
            callers[RECORDER] = contenders[Eventsourcing.name].recorder_caller(events)
        yield from _figures(stage, events, callers)


def _figures(stage: Stage, events: int, callers: dict[str, Callable[[], Any]]) -> Iterator[Figure]:
    waits: dict[str, list[list[float]]] = {name: [] for name in callers}

    def cell(name: str, call: Callable[[], Any]) -> Cell:
        def measured() -> float:
            reached, milliseconds = rate_and_waits(call, stage.settings.append, events)
            waits[name].append(milliseconds)
            return reached

        return measured

    rounds = min(ROUNDS, stage.settings.rounds)
    found = interleave({name: cell(name, call) for name, call in callers.items()}, rounds)
    kept = {name: turns[-rounds:] for name, turns in waits.items()}  # without the turn that is discarded
    yield _rates(stage, events, found)
    yield _slowest(stage, events, kept)


def _others(stage: Stage, found: dict[str, Sample]) -> dict[str, Sample | str]:
    shown = (RawApsw.name, Prototype.name, Eventsourcing.name, RECORDER, Umadb.name)
    return {name: found.get(name) or stage.missing.get(name, "not available") for name in shown}


def _label(events: int) -> str:
    return f"{events:,} event{'s' if events > 1 else ''} an append"


def _rates(stage: Stage, events: int, found: dict[str, Sample]) -> Figure:
    figure = Figure(GROUP, _label(events), "events/s", found[Eventfold.name], _others(stage, found))
    figure.key = f"{events} an append"
    aim, least = GOALS[events]
    floor, peers = figure.against(RawApsw.name), [_beats(figure.against(name)) for name in PEERS]
    return figure.aim(
        f"{aim:g} of raw apsw, at least {least:g}; ahead of both peers",
        all_met(floor >= least, *peers),
        all_met(floor >= aim, *peers),
    )


def _slowest(stage: Stage, events: int, waits: dict[str, list[list[float]]]) -> Figure:
    """The p99 of the turns; beside it, over all turns, the p50, the p99.9 and the longest append."""
    p99 = {name: Sample(tuple(percentile(turn, 0.99) for turn in turns)) for name, turns in waits.items()}
    name = f"{_label(events)}, the p99 of its time"
    figure = Figure(GROUP, name, "ms", p99[Eventfold.name], _others(stage, p99), "lower")
    figure.key = f"{events} an append, p99"
    pooled = [wait for turn in waits[Eventfold.name] for wait in turn]
    figure.details = {"p50": percentile(pooled, 0.5), "p99.9": percentile(pooled, 0.999), "longest": max(pooled)}
    values = ", ".join(f"{name} {value:.2f} ms" for name, value in figure.details.items())
    figure.note = f"of {len(pooled):,} appends of eventfold: {values}"
    if events > 1:
        return figure
    return figure.aim(f"p99.9 < {MAX_P999_MS} ms", figure.details["p99.9"] < MAX_P999_MS)


def _beats(times: float) -> bool | float:
    return times if math.isnan(times) else times > 1
