"""Clients of an operator's cluster on nats-py alone: requests of every kind, and a writer that runs meanwhile.

Knows: nats-py, the requests of JetStream. Does not know: eventfold.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections import Counter
from collections.abc import AsyncGenerator
from typing import Any
from uuid import uuid4

import nats
import nats.errors

from tests.cluster.operations.deployed import Deployed
from tests.support.servers.nats import wait_until

ANSWER_S = 3.0
STREAM = {
    "retention": "limits", "storage": "file", "discard": "new", "allow_direct": True, "allow_atomic": True,
    "deny_delete": True, "deny_purge": True,
}  # fmt: skip


async def _quiet(error: Exception) -> None:
    """Let nats-py print nothing: connections are cut on purpose."""


@contextlib.asynccontextmanager
async def connected(cluster: Deployed, user: str, **options: Any) -> AsyncGenerator[Any]:
    """Yield a connection of a user."""
    servers = [f"{'tls' if cluster.is_encrypted else 'nats'}://{node.address}" for node in cluster.nodes]
    settings: dict[str, Any] = {
        "max_reconnect_attempts": -1, "reconnect_time_wait": 0.1, "error_cb": _quiet, "connect_timeout": 2,
    } | options  # fmt: skip
    client = await nats.connect(servers, user=user, password=cluster.passwords[user], **settings)
    try:
        yield client
    finally:
        await client.close()


async def api(client: Any, subject: str, body: Any = None) -> dict[str, Any]:
    """Return the answer of JetStream, or `{"refused": why}` if none came."""
    try:
        payload = b"" if body is None else json.dumps(body).encode()
        answer = await client.request(f"$JS.API.{subject}", payload, timeout=ANSWER_S)
        return json.loads(answer.data) if answer.data else {"refused": str(answer.headers)}
    except (nats.errors.Error, TimeoutError) as error:
        return {"refused": type(error).__name__}


async def create_stream(client: Any, store: str, replicas: int = 3) -> dict[str, Any]:
    """Create the stream of a store, as `eventfold init` does, or fail."""
    name = f"EF_{store}"
    config = {**STREAM, "name": name, "subjects": [f"ef.{store}.>"], "num_replicas": replicas}
    for _ in range(4):  # while a cluster starts, an answer may be lost; the same request again is answered the same
        made = await api(client, f"STREAM.CREATE.{name}", config)
        if "config" in made:
            return made["config"]
    raise AssertionError(made)


async def create_bucket(client: Any, name: str) -> None:
    """Create a bucket of keys and values."""
    await client.jetstream(timeout=10).create_key_value(bucket=name, replicas=3, direct=True)


async def state(client: Any, stream: str) -> dict[str, Any]:
    """Return how many messages a stream has, and which limits, as its leader says."""
    info = await api(client, f"STREAM.INFO.{stream}")
    assert "state" in info, info
    return {
        "first": info["state"]["first_seq"],
        "messages": info["state"]["messages"],
        "limit": info["config"]["max_msgs"],
    }


async def read_all(client: Any, stream: str, subject: str) -> list[tuple[int, bytes]]:
    """Return every message with its sequence, read in batches without a consumer."""
    found: list[tuple[int, bytes]] = []
    while True:
        inbox = client.new_inbox()
        answers = await client.subscribe(inbox, pending_msgs_limit=-1, pending_bytes_limit=-1)
        start = found[-1][0] + 1 if found else 1
        body = json.dumps({"seq": start, "batch": 1000, "next_by_subj": subject}).encode()
        await client.publish(f"$JS.API.DIRECT.GET.{stream}", body, reply=inbox)
        while not (message := await answers.next_msg(timeout=ANSWER_S)).headers.get("Status"):
            found.append((int(message.headers["Nats-Sequence"]), message.data))
        await answers.unsubscribe()
        if message.headers.get("Nats-Num-Pending", "0") == "0":
            return found


class Load:
    """Writers in a thread that append one event after the other to a store, each with an expected last sequence.

    An append whose answer is lost is looked for in the log before it is repeated, as the engine does. `confirmed` has
    the ids that the cluster confirmed; `gaps`, the seconds between two confirmations that were longer than 0.2.
    """

    def __init__(
        self, cluster: Deployed, store: str = "bank", user: str = "application", payload_bytes: int = 100
    ) -> None:
        self._cluster, self._store = cluster, store
        self.user = user
        self._padding = "x" * payload_bytes
        self.confirmed: list[str] = []
        self.gaps: list[float] = []
        self.refusals: list[str] = []
        self._ending = threading.Event()
        self._failed: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Load:
        self._thread.start()
        self.wait_for(5)
        return self

    def __exit__(self, *error: object) -> None:
        self._ending.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    def wait_for(self, more: int) -> None:
        """Wait until the cluster has confirmed that many further events."""
        until = len(self.confirmed) + more
        wait_until(lambda: len(self.confirmed) >= until or bool(self._failed), f"{more} confirmed events")
        assert not self._failed, self._failed

    def _run(self) -> None:
        try:
            asyncio.run(self._write())
        except BaseException as error:  # noqa: BLE001 - shown by the test that waits
            self._failed.append(error)

    async def _write(self) -> None:
        last: int | None = None
        at = time.monotonic()
        while not self._ending.is_set():
            user = self.user
            try:
                async with connected(self._cluster, user, allow_reconnect=True) as client:
                    while not self._ending.is_set() and self.user == user and not client.is_closed:
                        last = await self._append(client, last)
                        if last is not None and (gap := time.monotonic() - at) > 0.2:
                            self.gaps.append(round(gap, 2))
                        at = time.monotonic() if last is not None else at
            except (nats.errors.Error, OSError, TimeoutError) as error:
                self.refusals.append(type(error).__name__)
                await asyncio.sleep(0.05)

    async def _append(self, client: Any, last: int | None) -> int | None:
        """Append one event after `last`, or after what the leader says; None if it could not be confirmed."""
        try:
            if last is None:
                info = await api(client, f"STREAM.INFO.EF_{self._store}")
                if "state" not in info:
                    await asyncio.sleep(0.05)
                    return None
                last = int(info["state"]["last_seq"])
            name = uuid4().hex
            answer = await client.request(
                f"ef.{self._store}.Deposited", f"{name} {self._padding}".encode(), timeout=1.0,
                headers={"Nats-Expected-Last-Sequence": str(last)},
            )  # fmt: skip
        except (nats.errors.Error, TimeoutError) as error:
            self.refusals.append(type(error).__name__)
            await asyncio.sleep(0.02)
            return None
        said = json.loads(answer.data)
        if "error" in said:
            self.refusals.append(said["error"]["description"])
            await asyncio.sleep(0.02)
            return None
        self.confirmed.append(name)
        return int(said["seq"])


async def lost(client: Any, load: Load, store: str = "bank") -> list[str]:
    """Return which confirmed events are not in the log; its sequences must have no gap, and no event may be twice."""
    head = (await api(client, f"STREAM.INFO.EF_{store}"))["state"]["last_seq"]
    log: list[tuple[int, bytes]] = []
    for _ in range(200):  # a page may come from a copy that is behind
        log = await read_all(client, f"EF_{store}", f"ef.{store}.>")
        if len(log) >= head:
            break
        await asyncio.sleep(0.05)
    assert [sequence for sequence, _ in log] == list(range(1, len(log) + 1))
    times = Counter(data.split(b" ")[0].decode() for _, data in log)
    return sorted(name for name in load.confirmed if times[name] != 1)
