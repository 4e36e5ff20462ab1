"""The group "follow": catching up, the latency from an append to a follower, and idle followers.

Knows: which follower follows which log. Does not know: how a follower is woken. Latency is measured from just before
the append to the follower's receipt of the event, so it includes the append and its fsync.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from benchmarks.child import Child, follower, idle_follower
from benchmarks.measure import Figure, Missing, Sample, interleave, percentile
from benchmarks.peers import Eventsourcing, Umadb
from benchmarks.stage import Stage
from benchmarks.subject import Eventfold

GROUP = "follow"
MEMORY = "eventsourcing memory"
GAP = 0.004  # seconds between two appends whose latency is measured


def run(stage: Stage, announce: Callable[[str], None]) -> Iterator[Figure]:
    """Yield the figures of this group."""
    ours = stage.open(Eventfold)
    peers: dict[str, Any] = stage.those(Umadb)
    try:
        peers[MEMORY] = _memory(stage)
    except Missing as reason:
        stage.missing[MEMORY] = str(reason)
    announce("catching up")
    yield _catch_up(stage, ours, peers)
    announce("append to receipt, in one process")
    yield from _latency(stage, ours, peers)
    announce("append to receipt, across processes")
    yield from _across(stage, ours)
    announce("an idle follower")
    yield _idle(stage, ours)


def _memory(stage: Stage) -> Eventsourcing:
    """Return an eventsourcing application in memory, since on SQLite it has no subscriptions."""
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


Way = tuple[list[float], list[float]]  # milliseconds: from before each append to receipt; and the part of the append


def _timed(append: Callable[[], Any], things: Iterable[Any], samples: int, stop: Callable[[], None]) -> Way:
    """Append with pauses, while a thread iterates over `things`."""
    came: list[int] = []

    def receive() -> None:
        for _ in things:
            came.append(time.monotonic_ns())
            if len(came) >= samples:
                return

    thread = threading.Thread(target=receive, daemon=True)
    thread.start()
    time.sleep(0.2)
    sent, acknowledged = _sent(append, samples)
    thread.join(10)
    stop()
    return _way(sent, acknowledged, came)


def _sent(append: Callable[[], Any], samples: int) -> tuple[list[int], list[int]]:
    """Return the monotonic ns before and after each of some appends, a few milliseconds apart."""
    sent: list[int] = []
    acknowledged: list[int] = []
    for _ in range(samples):
        sent.append(time.monotonic_ns())
        append()
        acknowledged.append(time.monotonic_ns())
        time.sleep(GAP)
    return sent, acknowledged


def _way(sent: list[int], acknowledged: list[int], came: list[int]) -> Way:
    return (
        [(c - s) / 1e6 for s, c in zip(sent, came, strict=False)],
        [(a - s) / 1e6 for s, a in zip(sent, acknowledged, strict=True)],
    )


def figures(
    group: str, where: str, bounds: tuple[float, float], taken: dict[str, list[Way]], missing: dict[str, str]
) -> list[Figure]:
    """Return p50 and p99 as two figures, each with a bound in ms (0: none); `taken`: each contender's runs."""
    made: list[Figure] = []
    for label, share, bound in (("p50", 0.5, bounds[0]), ("p99", 0.99, bounds[1])):
        samples = {n: Sample(tuple(percentile(way, share) for way, _ in runs)) for n, runs in taken.items()}
        ours = samples.pop(Eventfold.name)
        others: dict[str, Sample | str] = {**samples, **missing}
        figure = Figure(group, f"append to receipt, {where}, {label}", "ms", ours, others, "lower")
        figure.key = f"receipt {where}, {label}"
        append = Sample(tuple(percentile(of_it, share) for _, of_it in taken[Eventfold.name]))
        figure.note = f"of which the append, until it was acknowledged: {append.median:.2f} ms"
        made.append(figure.aim(f"< {bound:g} ms", ours.median < bound) if bound else figure)
    return made


def ways(stage: Stage, ours: Eventfold, peers: dict[str, Any]) -> dict[str, list[Way]]:
    """Return each contender's runs, in turns: one thread appends, another one of the same process receives."""
    samples, runs = stage.settings.samples, 2 if stage.settings.quick else 3
    taken: dict[str, list[Way]] = {Eventfold.name: []} | {name: [] for name in peers}
    for _ in range(runs):
        following = ours.store.follow(after=ours.store.head())
        taken[ours.name].append(_timed(ours.caller(), following, samples, following.close))
        for name, peer in peers.items():
            head = peer.client.head() if name == Umadb.name else peer.app.recorder.max_notification_id()
            subscription = peer.subscription(head)
            taken[name].append(_timed(peer.caller(), subscription, samples, partial(_end, subscription)))
    return taken


def _latency(stage: Stage, ours: Eventfold, peers: dict[str, Any]) -> list[Figure]:
    missing = {n: stage.missing[n] for n in (MEMORY, Umadb.name) if n in stage.missing}
    return figures(GROUP, "in one process", (1.0, 0.0), ways(stage, ours, peers), missing)


def _across(stage: Stage, ours: Eventfold) -> list[Figure]:
    samples, runs = stage.settings.samples, 2 if stage.settings.quick else 3
    taken: list[Way] = []
    for _ in range(runs):
        child = Child(follower, ours.path, ours.store.head(), samples)
        try:
            child.answer()
            time.sleep(0.3)
            sent, acknowledged = _sent(ours.caller(), samples)
            taken.append(_way(sent, acknowledged, child.answer()))
        finally:
            child.end()
    return figures(GROUP, "across processes", (5.0, 0.0), {Eventfold.name: taken}, {})


def _idle(stage: Stage, ours: Eventfold) -> Figure:
    shares: list[float] = []
    for _ in range(1 if stage.settings.quick else 2):
        child = Child(idle_follower, ours.path, ours.store.head(), stage.settings.idle)
        try:
            shares.append(child.answer() * 100)
        finally:
            child.end()
    figure = Figure(GROUP, "an idle follower's share of a core", "%", Sample(tuple(shares)), better="lower")
    return figure.aim("< 1 %", figure.ours.median < 1)
