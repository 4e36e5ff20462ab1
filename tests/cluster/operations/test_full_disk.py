"""A full disk of one node: the others go on, the status names it, and with more space it is filled again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from soak.machine import MemoryDisk
from tests.cli.commands import run
from tests.cluster.conftest import Isolated, needs_root
from tests.cluster.operations.clients import Load, api, connected, create_stream, lost
from tests.cluster.operations.deployed import Deployed
from tests.support.servers.nats import needed, wait_until

pytestmark = needed
DISK_KB = 8_000
EVENT_BYTES = 40_000


def _fill(folder: Path) -> dict[str, Any]:
    """Fill the disk of the node that leads, while events are appended, then enlarge it; return what was seen."""
    disk = MemoryDisk(folder, DISK_KB)
    with Deployed(data={"n3": disk.folder / "streams"}, folder=folder) as cluster:
        cluster.start()
        node = cluster.nodes[2]

        async def prepare() -> None:
            async with connected(cluster, "operator") as client:
                await create_stream(client, "bank")
                await api(client, "STREAM.LEADER.STEPDOWN.EF_bank", {"placement": {"preferred": "n3"}})

        async def confirmed_are_lost() -> list[str]:
            async with connected(cluster, "operator") as client:
                return await lost(client, load)

        asyncio.run(prepare())
        with Load(cluster, payload_bytes=EVENT_BYTES) as load:
            wait_until(lambda: "will be DISABLED" in node.log(), "a node that has disabled JetStream")
            load.wait_for(20)
        full = run("cluster", "status", cluster.url(user="operator"))
        disk.grow(200_000)
        node.stop()
        cluster.start(node)
        after = run("cluster", "status", "--wait", "60", cluster.url(user="operator"))
        return {
            "code": full.code,
            "full": full.lines[0],
            "after": after.lines[0],
            "lost": asyncio.run(confirmed_are_lost()),
            "longest_gap": max(load.gaps, default=0.0),
        }


@needs_root
def test_a_full_disk_of_the_leader_stops_its_node_only(isolated: Isolated) -> None:
    """The other two confirm further events; nothing that was confirmed is lost."""
    seen = isolated(_fill)
    assert seen["code"] == 1
    assert any("n3 has disabled JetStream" in problem for problem in seen["full"]["problems"]), seen["full"]
    assert next(stream for stream in seen["full"]["streams"] if stream["name"] == "EF_bank")["leader"] in ("n1", "n2")
    assert seen["after"]["problems"] == []
    assert seen["lost"] == []
