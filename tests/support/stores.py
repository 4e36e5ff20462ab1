"""Stores on servers of the tests: created for one test, and removed after it.

Knows: how each kind of store is created. Does not know: pytest.
"""

from __future__ import annotations

import asyncio
import base64
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

from nats.aio.client import Client
from nats.js.errors import NotFoundError

from eventfold.concurrency import run
from eventfold.engines import create_store, open_engine
from tests.support.servers.nats import Cluster

AT_ONCE = 10  # stores that are created, or removed, together: a cluster takes little longer for them than for one

_STREAMS: dict[str, Cluster] = {}  # by address
_READY: dict[str, list[str]] = {}  # addresses of stores that no test uses yet, by the cluster's name
_OLD: dict[str, list[str]] = {}  # streams that no test uses any more, by the cluster's name


def new_stream(cluster: Cluster, **options: str) -> str:
    """Create a store with a name of its own in a cluster, and return its address. Some more are created for later."""
    ready = _READY.setdefault(cluster.name, [])
    if not ready:
        urls = [cluster.url(f"t{uuid4().hex[:12]}") for _ in range(AT_ONCE)]
        with ThreadPoolExecutor(AT_ONCE) as threads:
            list(threads.map(lambda url: run(create_store(open_engine(url, "sync", True, {}))), urls))
        ready += urls
    name = stream_of(ready.pop()).removeprefix("EF_")
    url = cluster.url(name, **options)
    _STREAMS[url] = cluster
    return url


def remove_stream(url: str, cluster: Cluster | None = None) -> None:
    """Delete the stream of a store, with its buckets: one that `new_stream` created, or one in this cluster.

    It is deleted together with some others.
    """
    cluster = cluster or _STREAMS.pop(url, None)
    if cluster is None:
        return
    old = _OLD.setdefault(cluster.name, [])
    old.append(stream_of(url))
    if len(old) >= AT_ONCE:
        asyncio.run(_remove(cluster, old))
        old.clear()


async def _remove(cluster: Cluster, streams: list[str]) -> None:
    client = Client()
    await client.connect(servers=cluster.servers())
    try:
        context = client.jetstream(timeout=30)
        buckets = [f"KV_{stream}_{name}" for stream in streams for name in ("locks", "snapshots", "keys")]
        done = await asyncio.gather(*map(context.delete_stream, [*streams, *buckets]), return_exceptions=True)
        for each in done:
            if isinstance(each, BaseException) and not isinstance(each, NotFoundError):
                raise each
    finally:
        await client.close()


def stream_of(url: str) -> str:
    """The name of the stream of a store."""
    return "EF_" + url.partition("?")[0].rpartition("/")[2]


def ask(cluster: Cluster, subject: str, message: Any = None) -> Any:
    """Send a request to JetStream as an operator, and return its answer. Raises RuntimeError for an error in it.

    A message of an answer is published again on its subject.
    """
    return asyncio.run(_ask(cluster, subject, message))


async def _ask(cluster: Cluster, subject: str, message: Any) -> Any:
    client = Client()
    await client.connect(servers=cluster.servers())
    try:
        if isinstance(message, dict) and "hdrs" in message:
            lines = base64.b64decode(message["hdrs"]).decode().split("\r\n")[1:]
            headers = {
                name: value for name, _, value in (line.partition(": ") for line in lines) if name.startswith("Ef")
            }
            answer = await client.request(subject, base64.b64decode(message["data"]), 10, headers=headers)
        else:
            payload = b"" if message is None else json.dumps(message).encode()
            answer = await client.request(f"$JS.API.{subject}", payload, 10)
    finally:
        await client.close()
    found = json.loads(answer.data)
    if "error" in found:
        raise RuntimeError(f"{subject}: {found['error']}")
    return found
