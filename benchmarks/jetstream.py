"""The group "jetstream": a store in a cluster of three NATS servers on this machine, beside raw nats-py on the same.

Knows: which call is compared with which publish. Does not know: how the engine writes. Three servers, the raw client
and eventfold share the cores of this machine, so that every figure is a floor and only ratios are compared.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import eventfold as ef
from benchmarks.child import Child, appenders, follower
from benchmarks.measure import (
    Cell,
    Figure,
    Missing,
    Sample,
    all_met,
    interleave,
    percentile,
    rate_of_tasks,
    took,
)
from benchmarks.raw_nats import STREAM, NatsCluster, RawNats
from benchmarks.stage import Stage
from benchmarks.subject import Eventfold, EventfoldTasks, event_of
from benchmarks.traffic import Traffic, scans

GROUP = "a store in a cluster of three NATS servers"
STORE = "bench"
ONE_PROCESS = "one process"
IN_FLIGHT = ((1, 0.8), (256, 0.7))  # callers, and the least share of the raw rate
BULK, BULK_SHARE = 1_000, 0.7
GAP_S = 0.004  # between two appends whose latency is measured
OUTAGE_S = 20.0  # that writers go on after the leader is killed
AGAIN_S = 0.05  # before an append is repeated that failed


def run(stage: Stage, announce: Callable[[str], None]) -> Iterator[Figure]:
    """Yield the figures of this group."""
    announce("three NATS servers")
    try:
        cluster = NatsCluster(stage.folder)
    except Missing as reason:
        stage.missing[NatsCluster.name] = str(reason)
        return
    try:
        cluster.create(STORE)
        ours = EventfoldTasks(Path(), stage.settings.stored, url=cluster.url(STORE, "first"))
        raw = RawNats(cluster, STORE)
        try:
            announce("appends beside raw publishes")
            yield from _appends(stage, ours, raw)
            announce("reads, with and without asking the leader")
            yield from _reads(stage, cluster)
            announce("a new index, caught up from the log")
            yield _catch_up(stage, cluster)
            announce("append to receipt in another process")
            yield _receipt(stage, cluster)
            announce("four processes")
            yield _processes(stage, cluster)
            announce("the leader is killed")
            yield _outage(stage, cluster, ours, raw)
        finally:
            raw.close()
            ours.close()
    finally:
        cluster.close()


def _tasks(loop: asyncio.Runner, make: Callable[[], Callable[[], Awaitable[Any]]], count: int, seconds: float) -> Cell:
    calls = [make() for _ in range(count)]
    return lambda: loop.run(rate_of_tasks(calls, seconds))


def _appends(stage: Stage, ours: EventfoldTasks, raw: RawNats) -> Iterator[Figure]:
    seconds, stored = stage.settings.append, stage.settings.stored
    events = iter(scans(0, stored))
    for _ in range(stored // BULK):
        ours.loop.run(ours.store.append(*[event_of(next(events)) for _ in range(BULK)]))
    cells: dict[str, Cell] = {}
    for count, _ in IN_FLIGHT:
        cells[f"ours {count}"] = _tasks(ours.loop, ours.conditional, count, seconds)
        cells[f"raw {count}"] = _tasks(raw.loop, raw.conditional, count, seconds)
    traffic = Traffic(stored)

    def bulk() -> Callable[[], Awaitable[Any]]:
        return lambda: ours.store.append(*map(event_of, traffic.some(BULK)))

    many = _tasks(ours.loop, bulk, 1, seconds)
    raw_many = _tasks(raw.loop, partial(raw.batch, BULK), 1, seconds)
    cells |= {"ours bulk": lambda: BULK * many(), "raw bulk": lambda: BULK * raw_many()}
    found = interleave(cells, stage.settings.rounds)
    for count, share in IN_FLIGHT:
        others: dict[str, Sample | str] = {RawNats.name: found[f"raw {count}"]}
        figure = Figure(GROUP, f"conditional appends, {count} in flight", "events/s", found[f"ours {count}"], others)
        figure.key = f"conditional, {count}"
        figure.note = "raw: publishes, each with the last sequence of its subject"
        yield figure.aim(f"≥ {share:g} of raw", all_met(_at_least(figure, share)))
    others = {RawNats.name: found["raw bulk"]}
    figure = Figure(GROUP, f"{BULK:,} events an append", "events/s", found["ours bulk"], others, key="bulk")
    figure.note = "raw: atomic batches of as many messages; eventfold's events are indexed by tag when it returns"
    yield figure.aim(f"≥ {BULK_SHARE:g} of raw", all_met(_at_least(figure, BULK_SHARE)))


def _at_least(figure: Figure, share: float) -> bool | float:
    times = figure.against(RawNats.name)
    return times if times != times else times >= share


def _reads(stage: Stage, cluster: NatsCluster) -> Iterator[Figure]:
    settings = stage.settings
    leader = Eventfold(Path(), settings.stored, url=cluster.url(STORE, "first"))
    local = Eventfold(Path(), settings.stored, url=cluster.url(STORE, "first", consistency="local"))
    try:
        parcel = leader.entity(100)
        local.load(parcel)

        def everything() -> float:
            start = time.perf_counter()
            count = sum(1 for _ in local.everything())
            return count / (time.perf_counter() - start)

        loads = max(1, settings.loads // 4)
        cells: dict[str, Cell] = {
            "local": lambda: took(partial(_unfolded, local, parcel), loads),
            "leader": lambda: took(partial(_unfolded, leader, parcel), loads),
            "typed": everything,
        }
        found = interleave(cells, settings.repeats)
    finally:
        leader.close()
        local.close()
    figure = Figure(GROUP, 'an entity of 100 events, consistency="local"', "ms", found["local"], {}, "lower")
    figure.key = "entity, local"
    yield figure.aim("< 1 ms", figure.ours.median < 1)
    figure = Figure(GROUP, 'an entity of 100 events, consistency="leader"', "ms", found["leader"], {}, "lower")
    figure.key, figure.note = "entity, leader", "the leader's last sequence is asked for before each read"
    yield figure
    figure = Figure(GROUP, "the whole log as typed objects, from the local index", "events/s", found["typed"])
    figure.key = "typed"
    yield figure.aim("> 200,000/s", figure.ours.median > 200_000)


def _unfolded(contender: Eventfold, parcel: str) -> int:
    """Load an entity without a state that is cached: its events are read and decoded."""
    return sum(1 for _ in contender.store.read(ef.Query.of(types="ParcelScanned", tags=f"parcel:{parcel}")))


def _catch_up(stage: Stage, cluster: NatsCluster) -> Figure:
    rates: list[float] = []
    for number in range(2 if stage.settings.quick else 3):
        start = time.perf_counter()
        with ef.Store(cluster.url(STORE, f"new-{number}", copies="none")) as store:
            events = store.count()
        rates.append(events / (time.perf_counter() - start))
    figure = Figure(GROUP, "a new index read from the log", "events/s", Sample(tuple(rates)), key="catch-up")
    return figure.aim("> 15,000/s", figure.ours.median > 15_000)


def _receipt(stage: Stage, cluster: NatsCluster) -> Figure:
    samples, found = stage.settings.samples, list[float]()
    with ef.Store(cluster.url(STORE, "first")) as store:
        traffic = Traffic(stage.settings.stored)
        for _ in range(2 if stage.settings.quick else 3):
            child = Child(follower, cluster.url(STORE, "second"), store.head(), samples)
            try:
                child.answer()
                time.sleep(0.3)
                sent: list[int] = []
                for _ in range(samples):
                    sent.append(time.monotonic_ns())
                    store.append(event_of(traffic.one()))
                    time.sleep(GAP_S)
                came: list[int] = child.answer()
            finally:
                child.end()
            ways = [(c - s) / 1e6 for s, c in zip(sent, came, strict=True)]
            found.append(percentile(ways, 0.5))
    figure = Figure(GROUP, "append to receipt in another process, p50", "ms", Sample(tuple(found)), {}, "lower")
    figure.key, figure.note = "receipt, p50", "the other process has an index of its own, as on another host"
    return figure.aim("< 5 ms", figure.ours.median < 5)


def _processes(stage: Stage, cluster: NatsCluster) -> Figure:
    seconds = 1.0 if stage.settings.quick else 3.0
    one: list[float] = []
    four: list[float] = []
    for _ in range(1 if stage.settings.quick else 3):
        for count, into in ((1, one), (4, four)):
            found = appenders(cluster.url(STORE, "first"), 1_000, count, seconds, threads=32)
            into.append(sum(reached for reached, _ in found))
    others: dict[str, Sample | str] = {ONE_PROCESS: Sample(tuple(one))}
    figure = Figure(GROUP, "four processes, 32 threads each", "events/s", Sample(tuple(four)), others, key="processes")
    return figure.aim("≥ 0.8 of one process", figure.against(ONE_PROCESS) >= 0.8)


def _outage(stage: Stage, cluster: NatsCluster, ours: EventfoldTasks, raw: RawNats) -> Figure:
    """Kill the node that leads both streams while a caller of each appends, and compare their longest pauses."""
    pauses: dict[str, list[float]] = {"ours": [], "raw": []}
    for _ in range(1 if stage.settings.quick else 3):
        node = cluster.servers.leader(f"EF_{STORE}")
        _lead_both(cluster, raw, node.name)
        stop = threading.Event()
        threads = [
            threading.Thread(target=_longest_pause, args=(stop, call, pauses[name]), daemon=True)
            for name, call in (
                ("ours", _patient(partial(ours.loop.run), ours.caller())),
                ("raw", _patient(partial(raw.loop.run), raw.patient())),
            )
        ]
        for thread in threads:
            thread.start()
        time.sleep(1.0)
        node.kill()
        time.sleep(6.0 if stage.settings.quick else OUTAGE_S)
        stop.set()
        for thread in threads:
            thread.join(60)
        cluster.servers.start(node)
        cluster.servers.wait_until_equal(f"EF_{STORE}")
    others: dict[str, Sample | str] = {RawNats.name: Sample(tuple(pauses["raw"]))}
    figure = Figure(GROUP, "pause of writes when the leader is killed", "s", Sample(tuple(pauses["ours"])), others)
    figure.better, figure.key = "lower", "outage"
    figure.note = "both streams had the same leader; the pause is the election of the servers"
    return figure


def _patient(run_on: Callable[[Any], Any], call: Callable[[], Awaitable[Any]]) -> Callable[[], None]:
    async def once() -> None:
        await call()

    def repeated() -> None:
        failed: ef.EventfoldError | None = None
        for _ in range(100):
            try:
                return run_on(once())
            except ef.EventfoldError as error:  # not confirmed in time: the next append shows when it goes on
                failed = error
                time.sleep(AGAIN_S)
        raise RuntimeError("the cluster did not come back") from failed

    return repeated


def _longest_pause(stop: threading.Event, call: Callable[[], None], into: list[float]) -> None:
    longest, before = 0.0, time.monotonic()
    while not stop.is_set():
        call()
        now = time.monotonic()
        longest, before = max(longest, now - before), now
    into.append(longest)


def _lead_both(cluster: NatsCluster, raw: RawNats, node: str) -> None:
    """Make a node the leader of the raw stream, as it is of the store's."""

    async def step_down() -> None:
        subject = f"$JS.API.STREAM.LEADER.STEPDOWN.{STREAM}"
        await raw.client.request(subject, b'{"placement":{"preferred":"%s"}}' % node.encode(), timeout=5.0)

    for _ in range(20):
        if cluster.servers.leader(STREAM).name == node:
            return
        raw.loop.run(step_down())
        time.sleep(0.5)
