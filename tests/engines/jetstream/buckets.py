"""Connections with buckets of a new store, for tests of what is stored beside the stream.

Knows: the shared cluster. Does not know: pytest, the engine.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import uuid4

from eventfold.engines.jetstream.buckets import bucket_config
from eventfold.engines.jetstream.connection import ClusterConnection
from eventfold.engines.jetstream.options import parse_address
from tests.support.servers.nats import Cluster, shared

BUCKETS = ("locks", "snapshots", "keys")
TIMEOUT_S = 20.0
LIMIT_S = 60.0


async def check_nothing() -> None:
    """What is checked after a connect, here: nothing."""


def connection_to(store: str, cluster: Cluster, **options: Any) -> ClusterConnection:
    """Return a connection that is not made yet."""
    address, parsed = parse_address(cluster.url(store, monitoring=""), {"timeout": TIMEOUT_S, **options})
    return ClusterConnection(address, parsed, check_nothing)


@asynccontextmanager
async def connected(
    number: int = 1, *, buckets: Sequence[str] = BUCKETS, cluster: Cluster | None = None, **options: Any
) -> AsyncIterator[list[ClusterConnection]]:
    """Yield connections to a new store, as of so many processes, and create its buckets."""
    store, nodes = uuid4().hex, cluster or shared()
    async with AsyncExitStack() as stack:
        made = [connection_to(store, nodes, **options) for _ in range(number)]
        for each in made:
            stack.push_async_callback(each.close)
        for name in buckets:
            bucket = made[0].address.names.bucket(name)
            config = bucket_config(bucket, min(3, len(nodes.nodes)))
            await made[0].ask(f"STREAM.CREATE.KV_{bucket}", config, dict[str, Any])
        yield made
        if cluster is None:
            for name in buckets:
                stream = f"KV_{made[0].address.names.bucket(name)}"
                await made[0].ask(f"STREAM.DELETE.{stream}", None, dict[str, Any])


async def until(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    """Wait for a condition, which may be a coroutine."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            found = condition()
            if found is True or (not isinstance(found, bool) and await found):
                return
            await asyncio.sleep(0.01)
