"""Maintenance of a real cluster while events are appended: nothing that was confirmed is lost, and appends go on."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from eventfold.cluster.control import Replica, StreamPlace
from eventfold.cluster.placement import plan_moves
from tests.cli.commands import Ran, run
from tests.cluster.operations.clients import Load, api, connected, create_stream, lost
from tests.cluster.operations.deployed import Deployed
from tests.support.servers.nats import needed

pytestmark = needed


def cluster(deployed: Deployed, *words: str, user: str = "operator", store: str = "", **options: str) -> Ran:
    """Run a command of `eventfold cluster` on this cluster."""
    return run("cluster", *words, deployed.url(store, user, **options))


def assert_whole(deployed: Deployed) -> None:
    """Wait until `cluster status` finds nothing wrong."""
    ran = cluster(deployed, "status", "--wait", "60")
    assert ran.code == 0, ran.out


def not_lost(deployed: Deployed, load: Load, store: str = "bank") -> list[str]:
    """Return which confirmed events are not in the log."""

    async def reading() -> list[str]:
        async with connected(deployed, "operator") as client:
            return await lost(client, load, store)

    return asyncio.run(reading())


def test_status_shows_nodes_streams_and_what_cannot_be_seen(deployed: Deployed) -> None:
    """Leaders, copies, whether nodes write before they confirm, what they store, their clocks; exit code 0."""
    ran = cluster(deployed, "status", "--wait", "30")
    assert ran.code == 0, ran.out
    shown: dict[str, Any] = ran.lines[0]
    assert [node["name"] for node in shown["nodes"]] == ["n1", "n2", "n3"]
    assert all(node["syncs_always"] and node["stores"] and node["version"] for node in shown["nodes"])
    assert sum(node["leads_metadata"] for node in shown["nodes"]) == 1
    assert all(abs(node["clock_ahead"]) < 60 for node in shown["nodes"])
    assert {node["limit_bytes"] for node in shown["nodes"]} == {1 << 30}
    bank = next(stream for stream in shown["streams"] if stream["name"] == "EF_bank")
    assert {bank["leader"], *(each["name"] for each in bank["replicas"])} == {"n1", "n2", "n3"}
    assert shown["problems"] == []
    assert any("free space of the disks" in text for text in shown["unseen"])
    table = run("cluster", "status", deployed.url(user="operator"), "--table")
    assert "leads metadata" in table.out and "Nothing is wrong with what can be seen." in table.out


def test_an_application_sees_its_own_store(deployed: Deployed) -> None:
    """It may not list streams: with the name of its store it sees that; without, the output says what is not seen."""
    ran = cluster(deployed, "status", user="application", store="bank")
    assert ran.code == 0, ran.out
    assert [stream["name"] for stream in ran.lines[0]["streams"]] == ["EF_bank", "KV_EF_bank_locks"]
    ran = cluster(deployed, "status", user="application", timeout="1")
    assert any("which streams there are" in text for text in ran.lines[0]["unseen"])
    assert len(ran.lines[0]["nodes"]) == 3


def test_status_of_a_cluster_that_is_not_there_is_an_error(deployed: Deployed) -> None:
    """Wrong passwords, and no server: exit code 5, two sentences, no password."""
    ran = run("cluster", "status", deployed.url(user="operator", password="wrong-one"))
    assert ran.code == 5 and "refused the credentials" in ran.err and "wrong-one" not in ran.err
    assert run("cluster", "status", "nats://127.0.0.1:9").code == 5
    assert run("cluster", "status", "bank.db").code == 2


def test_copies_are_added_online(deployed: Deployed) -> None:
    """A stream with one copy, which is written to meanwhile, gets three; an application may not do that."""

    async def create() -> None:
        async with connected(deployed, "operator") as client:
            await create_stream(client, "grown", replicas=1)

    asyncio.run(create())
    deployed.add_store("grown")
    ran = cluster(deployed, "status", store="grown")
    assert ran.code == 1 and "EF_grown has 1 of 3 copies" in ran.out
    with Load(deployed, "grown") as load:
        assert cluster(deployed, "replicas", "3", user="application", store="grown", timeout="2").code != 0
        ran = cluster(deployed, "replicas", "3", store="grown")
        assert ran.lines == [{"replicas": 3, "changed": ["EF_grown"]}], ran
        load.wait_for(20)
    assert_whole(deployed)
    assert not_lost(deployed, load, "grown") == []
    assert cluster(deployed, "replicas", "2").code == 2


def test_leaders_are_spread_while_events_are_appended(deployed: Deployed) -> None:
    """All are moved to one node first; afterwards no node leads two streams more than another."""

    async def gather() -> None:
        async with connected(deployed, "operator") as client:
            for store in ("s1", "s2", "s3"):
                await create_stream(client, store)
            for stream in ("EF_bank", "EF_s1", "EF_s2", "EF_s3"):
                await api(client, f"STREAM.LEADER.STEPDOWN.{stream}", {"placement": {"preferred": "n1"}})

    asyncio.run(gather())
    with Load(deployed) as load:
        assert_whole(deployed)
        ran = cluster(deployed, "balance")
        assert ran.code == 0, ran
        load.wait_for(20)
    streams = cluster(deployed, "status", "--wait", "30").lines[0]["streams"]
    counts = Counter(stream["leader"] for stream in streams)
    assert max(counts.values()) - min(counts[name] for name in ("n1", "n2", "n3")) <= 1, streams
    assert not_lost(deployed, load) == []


def test_nodes_are_upgraded_one_after_the_other(deployed: Deployed) -> None:
    """Lame duck mode, a restart, and waiting until the status is whole: for each node, while events are appended."""
    with Load(deployed) as load:
        for node in deployed.nodes:
            node.retire()
            load.wait_for(20)
            deployed.start(node)
            assert_whole(deployed)
        load.wait_for(20)
    assert not_lost(deployed, load) == []
    assert max(load.gaps, default=0.0) < 4.0, load.gaps  # less than an election: the leader was passed on


def test_a_dead_node_is_replaced_by_an_empty_one_of_its_name(deployed: Deployed) -> None:
    """Its disk is lost; the new node is filled by the others, and then has every event and may lead."""
    leader = deployed.leader("EF_bank")
    with Load(deployed) as load:
        leader.kill()
        leader.wipe()
        load.wait_for(50)
        ran = cluster(deployed, "status")
        assert ran.code == 1 and f"The node {leader.name} does not answer." in ran.lines[0]["problems"]
        deployed.start(leader)
        assert_whole(deployed)
        load.wait_for(20)

    async def lead() -> None:
        async with connected(deployed, "operator") as client:
            await api(client, "STREAM.LEADER.STEPDOWN.EF_bank", {"placement": {"preferred": leader.name}})

    asyncio.run(lead())
    assert deployed.leader("EF_bank").name
    assert not_lost(deployed, load) == []


def _stream(name: str, leader: str, *others: str) -> StreamPlace:
    return StreamPlace(name, 3, leader, [Replica(each, current=True) for each in others], 0, 0, {})


@pytest.mark.parametrize(
    ("streams", "moves"),
    [
        ([], 0),
        ([_stream("a", "n1", "n2", "n3")], 0),
        ([_stream("a", "n1", "n2", "n3"), _stream("b", "n1", "n2", "n3"), _stream("c", "n1", "n2", "n3")], 2),
        ([_stream("a", "n1", "n2", "n3"), _stream("b", "n2", "n1", "n3")], 0),
        ([StreamPlace("a", 3, "n1", [Replica("n2"), Replica("n3", offline=True)], 0, 0, {})] * 3, 0),
        ([_stream("a", "", "n2", "n3")] * 3, 0),
    ],
)
def test_only_needed_moves_are_planned(streams: list[StreamPlace], moves: int) -> None:
    """To copies that are current; a stream without a leader stays."""
    planned = plan_moves(streams)
    assert len(planned) == moves
    assert len({move.target for move in planned}) == moves
