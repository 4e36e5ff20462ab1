"""Proxies between the nodes, and before them, that pass every byte on after a delay.

The kernels of these machines have no netem, which would do the same below TCP. Knows: bytes in two directions. Does not
know: any protocol.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
from multiprocessing.sharedctypes import RawValue
from pathlib import Path
from typing import Any

from soak import children
from tests.support.servers.nats import Cluster
from tests.support.servers.postgres import free_port

CHUNK = 65_536


class DelayingProxies:
    """One proxy for each target port, in a process of its own. Delays are set while connections are open.

    Each chunk waits for a random time up to `longest` seconds; the order of bytes is kept.
    """

    def __init__(self, folder: Path, targets: list[int], seed: str) -> None:
        self.ports = {target: free_port() for target in targets}
        self._longest: Any = RawValue("d", 0.0)
        self._pid = children.fork(folder, self._serve, seed, name="proxy")

    def delay(self, longest: float) -> None:
        """Set the longest delay, in seconds, from now on."""
        self._longest.value = longest

    def close(self) -> None:
        """End the process."""
        children.kill([self._pid])

    def _serve(self, seed: str) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        asyncio.run(self._listen(random.Random(seed)))

    async def _listen(self, dice: random.Random) -> None:
        for target, port in self.ports.items():

            async def connect(reader: Any, writer: Any, target: int = target) -> None:
                await self._connect(reader, writer, target, dice)

            await asyncio.start_server(connect, "127.0.0.1", port, reuse_address=True)
        await asyncio.Event().wait()

    async def _connect(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: int, dice: random.Random
    ) -> None:
        try:
            to_reader, to_writer = await asyncio.open_connection("127.0.0.1", target)
        except OSError:
            writer.transport.abort()
            return
        pumps = [self._pump(reader, to_writer, dice), self._pump(to_reader, writer, dice)]
        tasks = [asyncio.ensure_future(pump) for pump in pumps]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        for each in (writer, to_writer):
            each.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, dice: random.Random) -> None:
        """Pass chunks on, each not before its own time; a later one may be read while an earlier one waits."""
        loop = asyncio.get_running_loop()
        waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(1_000)

        async def write() -> None:
            while True:
                due, data = await waiting.get()
                await asyncio.sleep(max(0.0, due - loop.time()))
                writer.write(data)
                await writer.drain()

        writing = asyncio.ensure_future(write())
        with contextlib.suppress(OSError):
            while not writing.done() and (data := await reader.read(CHUNK)):
                await waiting.put((loop.time() + dice.random() * self._longest.value, data))
        writing.cancel()


def between_nodes(folder: Path, seed: str) -> tuple[Cluster, DelayingProxies]:
    """Return a cluster, not started, whose nodes connect to each other through proxies."""
    cluster = Cluster(3)
    proxies = DelayingProxies(folder, [node.ports.routes for node in cluster.nodes], seed)
    for node in cluster.nodes:
        node.route = f"127.0.0.1:{proxies.ports[node.ports.routes]}"
    return cluster, proxies
