"""The checker of histories on a cluster that is used wrongly, by writers on nats-py alone: it reports each violation.

What is wrong is what the defaults of JetStream offer: conditions judged by a wildcard at the server, fsync every two
minutes, reads that do not check for gaps, streams from which messages can be deleted, repeats that are recognised for
two minutes. Each is beside a right use of the same cluster, on which the checker finds nothing.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from uuid import uuid4

from eventfold.core.envelope import StoredEvent
from eventfold.core.query import Query
from soak.cluster import workload
from soak.cluster.checker import check_history
from soak.cluster.disks import on_disks
from soak.cluster.facts import TYPES, fact
from soak.cluster.flips import flip
from soak.cluster.leaders import connected, lead
from soak.cluster.record import Recorder, read_records
from soak.cluster.workload import Step, Writer
from soak.machine import own_mounts
from tests.cluster.conftest import in_child, needs_root
from tests.cluster.raw import RawLog, create
from tests.support.servers.nats import Cluster, needed, own, shared

pytestmark = needed

ROUNDS = 600  # of a race that need not be lost at every try; the first that is ends it
Log = list[StoredEvent]


def _stream() -> str:
    return f"raw{uuid4().hex[:12]}"


def _one(op: str, group: str = "g1", item: str = "i1", *, only_if: Query | None = None) -> Step:
    return Step(op, (fact(TYPES[0], group, item, op),), (only_if,) if only_if else ())


async def _write(log: RawLog, folder: Path, name: str, steps: int) -> None:
    remaining, recorder = iter(range(steps)), Recorder(folder, name)
    await workload.work(log, recorder, name, name, lambda: next(remaining, None) is None, planned=_without_keys)
    recorder.close()


def _without_keys(dice: random.Random, name: str, number: int) -> Step:
    step = workload.plan(dice, name, number)
    return Step(step.op, step.events, step.queries)


def _problems(log: Sequence[StoredEvent], folder: Path) -> list[str]:
    return check_history(log, read_records(folder))


def test_a_right_writer_has_no_problem(tmp_path: Path) -> None:
    """Writers on three nodes, whose conditions are the last sequence of the whole stream."""

    async def main() -> Log:
        stream = _stream()
        async with connected(cluster=shared()) as client:
            await create(client, stream)
            writers = [RawLog(client, stream) for _ in range(4)]
            await asyncio.gather(*(_write(log, tmp_path, f"w{n}", 25) for n, log in enumerate(writers)))
            return await writers[0].until(await writers[0].head())

    log = asyncio.run(main())
    assert len(log) > 50
    assert _problems(log, tmp_path) == []


def test_conditions_by_a_wildcard_are_found_to_be_broken(tmp_path: Path) -> None:
    """Two writers, each with its own wildcard over the group: both win, which the checker reports."""

    async def main() -> Log:
        stream, dice = _stream(), random.Random(1)
        async with connected(shared().nodes[0]) as one, connected(shared().nodes[1]) as two:
            await create(one, stream)
            writers = [
                Writer(RawLog(client, stream, "wildcard", filter), Recorder(tmp_path, f"w{n}"), dice, pause=0.01)
                for n, (client, filter) in enumerate([(one, "*"), (two, ">")])
            ]
            for race in range(ROUNDS):
                group = f"g{race}"
                racers = [
                    writer.perform(_one(f"{race}-{n}", group, f"i{n}", only_if=Query.of(tags=f"group:{group}")), 0)
                    for n, writer in enumerate(writers)
                ]
                if await asyncio.gather(*racers) == [True, True]:
                    break
            reader = RawLog(one, stream)
            return await reader.until(await reader.head())

    problems = _problems(asyncio.run(main()), tmp_path)
    assert any("the condition of" in problem and "was broken" in problem for problem in problems), problems


def _after_power_cut(folder: Path, sync_interval: str) -> list[str]:
    """Append 40 events one by one, cut the power of all nodes, and return the problems of what is left."""
    stream = _stream()

    async def write(cluster: Cluster) -> None:
        async with connected(cluster=cluster) as client:
            await create(client, stream)
            writer = Writer(RawLog(client, stream), Recorder(folder, "w"), random.Random(1))
            for number in range(40):
                assert await writer.perform(_one(f"op{number}"))

    async def read(cluster: Cluster) -> Log:
        if not any(stream in cluster.streams(node) for node in cluster.nodes):
            return []
        cluster.leader(stream)
        async with connected(cluster=cluster) as client:
            reader = RawLog(client, stream)
            return await reader.until(await reader.head())

    with on_disks(folder, sync_interval=sync_interval) as cluster:
        asyncio.run(write(cluster))
        cluster.cut_power()
        cluster.start()
        log = asyncio.run(read(cluster))
    return _problems(log, folder)


@needs_root
def test_the_default_fsync_is_found_to_lose_what_was_acknowledged(tmp_path: Path) -> None:
    """All nodes lose their power. What the default had not synced is gone and is reported; with `always` nothing is."""
    settings = ("2m", "always")  # each on a cluster of its own, at the same time: most of it is waiting for elections
    for each in settings:
        (tmp_path / each).mkdir()
    with ThreadPoolExecutor() as threads:
        default, always = threads.map(
            lambda each: in_child(tmp_path / each, partial(_after_power_cut, sync_interval=each), own_mounts), settings
        )
    assert any("was acknowledged at position" in each and "not there" in each for each in default), default
    assert always == []


def test_a_deleted_message_is_found(tmp_path: Path) -> None:
    """A stream without deny_delete loses a message to whom may delete it: a gap, and an event that is gone."""

    async def main() -> Log:
        stream = _stream()
        async with connected(cluster=shared()) as client:
            await create(client, stream)
            log = RawLog(client, stream)
            writer = Writer(log, Recorder(tmp_path, "w"), random.Random(1))
            for number in range(10):
                assert await writer.perform(_one(f"op{number}"))
            assert await client.jetstream().delete_msg(stream, 5)
            return await log.log()

    problems = _problems(asyncio.run(main()), tmp_path)
    assert "position 6 follows position 4" in problems
    assert any("op4 was acknowledged at position 5, and is not there" in problem for problem in problems), problems


def test_a_repeat_beyond_the_window_of_the_server_is_found(tmp_path: Path) -> None:
    """An event with a Nats-Msg-Id is stored again when the window is over: the checker counts two."""

    async def main() -> Log:
        stream = _stream()
        async with connected(cluster=shared()) as client:
            await create(client, stream, duplicate_window=0.2)
            log = RawLog(client, stream, "none")
            writer = Writer(log, Recorder(tmp_path, "w"), random.Random(1))
            step = Step("op", (fact(TYPES[0], "g1", "i1", "op"),), again=True)
            assert await writer.perform(step)
            assert len(await log.log()) == 1
            await asyncio.sleep(0.5)
            assert await writer.perform(step)
            return await log.until(await log.head())

    problems = _problems(asyncio.run(main()), tmp_path)
    assert any("is in the log 2 times" in problem for problem in problems), problems
    assert any("was acknowledged at several positions" in problem for problem in problems), problems


def test_a_rotten_replica_that_skips_an_event_is_found(tmp_path: Path) -> None:
    """One bit of a follower's file was flipped while it was stopped: no node notices, and its readers see a gap."""
    steps = [_one(f"op{number}") for number in range(20)]

    async def main(cluster: Cluster) -> Log:
        stream = _stream()
        async with connected(cluster=cluster) as client:
            await create(client, stream)
            log = RawLog(client, stream)
            writer = Writer(log, Recorder(tmp_path, "w"), random.Random(1))
            for step in steps:
                assert await writer.perform(step)
            follower = cluster.followers(stream)[0]
            await asyncio.to_thread(follower.stop)
            flip(cluster, follower, stream, steps[9].events[0].data, random.Random(1))
            cluster.start(follower)
            assert cluster.streams(follower)[stream]["state"]["messages"] == len(steps)
            await lead(client, cluster, stream, follower)
            return await log.by_leader()

    with own(3) as cluster:
        problems = _problems(asyncio.run(main(cluster)), tmp_path)
    assert "position 11 follows position 9" in problems
    assert any("op9 was acknowledged at position 10, and is not there" in problem for problem in problems), problems
