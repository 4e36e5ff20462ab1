"""Room: the group "follow": catching up, the way of one event from an append to a follower, and being idle.

Knows: who follows whom. Does not know: how a follower is woken. Latency runs from just before the append is
called until the follower holds the event, so it includes the append and its fsync.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from benchmarks.child import Child, follower, idle_follower
from benchmarks.measure import Figure, Missing, Sample, interleave, percentile
from benchmarks.peers import Eventsourcing, Umadb
from benchmarks.stage import Stage
from benchmarks.subject import Eventfold, event_of
from benchmarks.traffic import Traffic

GROUP = "follow"
MEMORY = "eventsourcing memory"
GAP = 0.004  # seconds between two appends whose way is timed


def run(stage: Stage, tell: Callable[[str], None]) -> list[Figure]:
    """The figures of this group."""
    ours = stage.open(Eventfold)
    peers: dict[str, Any] = stage.those(Umadb)
    try:
        peers[MEMORY] = _memory(stage)
    except Missing as reason:
        stage.missing[MEMORY] = str(reason)
    tell("catching up")
    figures = [_catch_up(stage, ours, peers)]
    tell("append to receipt, in one process")
    figures += _latency(stage, ours, peers)
    tell("append to receipt, across processes")
    figures += _across(stage, ours)
    tell("an idle follower")
    return [*figures, _idle(stage, ours)]


def _memory(stage: Stage) -> Eventsourcing:
    """An eventsourcing application in memory, since on SQLite it has no subscriptions."""
    app = Eventsourcing(None, stage.settings.stored)
    calls = stage.settings.stored // 100
    call = app.caller(100)
    for _ in range(calls):
        call()
    return app


def _reach(things: Iterable[Any], last: int) -> None:
    for count, _ in enumerate(things, 1):
        if count >= last:
            return


def _catch_up(stage: Stage, ours: Eventfold, peers: dict[str, Any]) -> Figure:
    stored = stage.settings.stored

    def eventfold() -> float:
        start = time.perf_counter()
        with ours.store.follow() as following:
            _reach(following, stored)
        return stored / (time.perf_counter() - start)

    def peer(contender: Any) -> Callable[[], float]:
        def measured() -> float:
            start = time.perf_counter()
            subscription = contender.subscription(None)
            _reach(subscription, stored)
            elapsed = time.perf_counter() - start
            _end(subscription)
            return stored / elapsed

        return measured

    found = interleave({ours.name: eventfold} | {n: peer(c) for n, c in peers.items()}, stage.settings.repeats)
    others = {name: found.get(name) or stage.missing.get(name, "") for name in (MEMORY, Umadb.name)}
    figure = Figure(GROUP, "catch-up of a new follower", "events/s", found[ours.name], others)
    figure.note = (
        "eventsourcing has no subscriptions on SQLite, so its memory is shown; umadb's payloads stay undecoded"
    )
    return figure.aim("> 100,000/s", figure.ours.median > 100_000)


def _end(subscription: Any) -> None:
    stop = getattr(subscription, "stop", None) or subscription.cancel
    stop()


def _timed(append: Callable[[], Any], things: Iterable[Any], samples: int, stop: Callable[[], None]) -> list[float]:
    """Milliseconds from before each append until a thread that iterates over `things` holds its event."""
    came: list[int] = []

    def receive() -> None:
        for _ in things:
            came.append(time.monotonic_ns())
            if len(came) >= samples:
                return

    thread = threading.Thread(target=receive, daemon=True)
    thread.start()
    time.sleep(0.2)
    sent: list[int] = []
    for _ in range(samples):
        sent.append(time.monotonic_ns())
        append()
        time.sleep(GAP)
    thread.join(10)
    stop()
    return [(c - s) / 1e6 for s, c in zip(sent, came, strict=False)]


def _figures(
    where: str, unit_bounds: tuple[float, float], taken: dict[str, list[list[float]]], missing: dict[str, str]
) -> list[Figure]:
    """p50 and p99 as two figures; `taken`: for each contender the milliseconds, run by run."""
    figures: list[Figure] = []
    for label, share, bound in (("p50", 0.5, unit_bounds[0]), ("p99", 0.99, unit_bounds[1])):
        samples = {n: Sample(tuple(percentile(run, share) for run in runs)) for n, runs in taken.items()}
        ours = samples.pop(Eventfold.name)
        others: dict[str, Sample | str] = {**samples, **missing}
        figure = Figure(GROUP, f"append to receipt, {where}, {label}", "ms", ours, others, "lower")
        figures.append(figure.aim(f"< {bound:g} ms", ours.median < bound) if bound else figure)
    return figures


def _latency(stage: Stage, ours: Eventfold, peers: dict[str, Any]) -> list[Figure]:
    samples, runs = stage.settings.samples, 2 if stage.settings.quick else 3
    taken: dict[str, list[list[float]]] = {Eventfold.name: []} | {name: [] for name in peers}
    for _ in range(runs):
        following = ours.store.follow(after=ours.store.head())
        taken[ours.name].append(_timed(ours.caller(), following, samples, following.close))
        for name, peer in peers.items():
            head = peer.client.head() if name == Umadb.name else peer.app.recorder.max_notification_id()
            subscription = peer.subscription(head)
            taken[name].append(_timed(peer.caller(), subscription, samples, lambda s=subscription: _end(s)))
    missing = {n: stage.missing[n] for n in (MEMORY, Umadb.name) if n in stage.missing}
    return _figures("in one process", (1.0, 0.0), taken, missing)


def _across(stage: Stage, ours: Eventfold) -> list[Figure]:
    samples, runs = stage.settings.samples, 2 if stage.settings.quick else 3
    taken: list[list[float]] = []
    traffic = Traffic(stage.settings.stored)
    for _ in range(runs):
        child = Child(follower, str(ours.path), ours.store.head(), samples)
        try:
            child.answer()
            time.sleep(0.3)
            sent: list[int] = []
            for _ in range(samples):
                event = event_of(traffic.one())
                sent.append(time.monotonic_ns())
                ours.store.append(event)
                time.sleep(GAP)
            came: list[int] = child.answer()
        finally:
            child.end()
        taken.append([(c - s) / 1e6 for s, c in zip(sent, came, strict=True)])
    return _figures("across processes", (5.0, 0.0), {Eventfold.name: taken}, {})


def _idle(stage: Stage, ours: Eventfold) -> Figure:
    shares: list[float] = []
    for _ in range(1 if stage.settings.quick else 2):
        child = Child(idle_follower, str(ours.path), ours.store.head(), stage.settings.idle)
        try:
            shares.append(child.answer() * 100)
        finally:
            child.end()
    figure = Figure(GROUP, "an idle follower's share of a core", "%", Sample(tuple(shares)), better="lower")
    return figure.aim("< 1 %", figure.ours.median < 1)
