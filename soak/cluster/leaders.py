"""Which node leads a stream, changed on purpose: the leader steps down, or a chosen node becomes the leader.

Knows: the request of nats-server. Does not know: what is written meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator
from typing import Any

import nats
import nats.errors

from tests.support.servers.nats import Cluster, Node

TIMEOUT_S = 3.0
TRIES = 20


async def _quiet(error: Exception) -> None:
    """Let nats-py print nothing: connections are cut on purpose."""


@contextlib.asynccontextmanager
async def connected(*nodes: Node, cluster: Cluster | None = None) -> AsyncGenerator[Any]:
    """Yield a connection of nats-py to these nodes only, or to a cluster."""
    addresses = [f"nats://{node.address}" for node in (cluster.nodes if cluster else nodes)]
    client = await nats.connect(
        addresses, max_reconnect_attempts=-1, reconnect_time_wait=0.1, error_cb=_quiet, allow_reconnect=True,
        connect_timeout=2, max_outstanding_pings=2, ping_interval=2,
    )  # fmt: skip
    try:
        yield client
    finally:
        await client.close()


async def request_step_down(client: Any, stream: str, preferred: Node | None = None) -> None:
    """Ask the leader to step down, once. That there is no answer is no error: there may be no leader."""
    wanted = json.dumps({"placement": {"preferred": preferred.name}}).encode() if preferred else b""
    with contextlib.suppress(TimeoutError, nats.errors.Error):
        await client.request(f"$JS.API.STREAM.LEADER.STEPDOWN.{stream}", wanted, timeout=TIMEOUT_S)


async def lead(client: Any, cluster: Cluster, stream: str, node: Node) -> None:
    """Make a node the leader of a stream. Raises TimeoutError if it does not become one."""
    for _ in range(TRIES):
        if await asyncio.to_thread(cluster.leader, stream) is node:
            return
        await request_step_down(client, stream, node)
        await asyncio.sleep(0.2)
    raise TimeoutError(f"{node.name} does not become the leader of {stream}")


def step_down(cluster: Cluster, stream: str, preferred: Node | None = None) -> None:
    """Let the leader of a stream step down; with a node, make that one the leader."""

    async def main() -> None:
        async with connected(cluster=cluster) as client:
            if preferred is None:
                await request_step_down(client, stream)
            else:
                await lead(client, cluster, stream, preferred)

    asyncio.run(main())
