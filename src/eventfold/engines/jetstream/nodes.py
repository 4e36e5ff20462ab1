"""The nodes of a cluster, asked one by one what they are: by a request of the system account, or by their monitoring.

The request reaches every node only in the system account, or in an account that imports it, as the configuration of
`eventfold cluster accounts` lets applications do. An answer has the same facts by either way.
Knows: the driver, the requests `$SYS.REQ.SERVER.PING.…`, the address `/varz` of a node's monitoring.
Does not know: which answers are safe, streams.
"""

from __future__ import annotations

import asyncio
import http.client
import ssl
import time
import urllib.request
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

import msgspec
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.errors import TimeoutError as NatsTimeout

JETSTREAM_SUBJECT = "$SYS.REQ.SERVER.PING.JSZ"
QUIET_S = 0.5
MAX_BYTES = 4 << 20  # of an answer of the monitoring


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """What one node said of itself.

    `stores`          False where it has disabled JetStream, as it does when its disk is full: it confirms nothing then
    `syncs_always`    whether it writes to disk before it confirms: `jetstream { sync_interval: always }`
    `cluster_nodes`   how many nodes its cluster has; 1 where it is alone
    `metadata_leader` the node that leads the cluster's metadata, empty if there is none
    `stored_bytes`    of all streams; `limit_bytes`: what it may store at most
    `clock_ahead`     seconds by which its clock is ahead of this machine's, not more exact than the answer took
    `members`         the other nodes that it counts among its cluster, also those that are gone
    """

    name: str
    version: str
    stores: bool
    syncs_always: bool
    cluster_nodes: int
    metadata_leader: str
    stored_bytes: int
    limit_bytes: int
    clock_ahead: float
    members: tuple[str, ...]


async def ask_nodes(client: Client, expected: Collection[str], timeout: float) -> dict[str, Node]:
    """Ask every node over a connection, and return those that answered, by name.

    Waits until each of `expected` has answered, or as many as the cluster has if it is empty, at most `timeout`
    seconds; but no longer than QUIET_S after an answer, once a majority has answered: the others may be down. Where the
    account of the connection may not ask, no node answers: the server refuses at once, or says nothing.
    """
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox)  # pyright: ignore[reportUnknownMemberType]
    found: dict[str, Node] = {}
    ends = time.monotonic() + timeout
    try:
        await client.publish(JETSTREAM_SUBJECT, b"", reply=inbox)
        while not _is_enough(found, expected):
            left = ends - time.monotonic()
            try:
                message = await subscription.next_msg(
                    timeout=max(0.001, min(left, QUIET_S) if 2 * len(found) > len(expected) else left)
                )
            except NatsTimeout:
                break
            if message.headers and "Status" in message.headers:  # nothing in this account serves it
                break
            answer, heard = msgspec.json.decode(message.data), time.time()
            if "data" in answer:
                node = _node(answer["server"], answer["data"], heard)
                found[node.name] = node
    finally:
        try:
            await subscription.unsubscribe()
        except NatsError:
            pass  # the connection was closed, and the subscription with it
    return found


def _is_enough(found: dict[str, Node], expected: Collection[str]) -> bool:
    if expected:
        return found.keys() >= set(expected)
    return bool(found) and len(found) >= max(node.cluster_nodes for node in found.values())


async def read_monitoring(url: str, timeout: float, tls: ssl.SSLContext | None = None) -> Node:
    """Read what a node says of itself at its monitoring address. Raises OSError or ValueError if it cannot be read."""
    facts = await asyncio.to_thread(_get, f"{url.rstrip('/')}/varz", timeout, tls)
    heard = time.time()
    if not facts.get("jetstream"):
        raise ValueError("it is no node with JetStream")
    server = {"name": facts["server_name"], "ver": facts["version"], "time": facts["now"]}
    about = facts["jetstream"]
    return _node(server, about.get("stats", {}) | {"config": about["config"], "meta_cluster": about.get("meta")}, heard)


def _get(url: str, timeout: float, tls: ssl.SSLContext | None) -> dict[str, Any]:
    if not url.startswith(("http://", "https://")):
        raise ValueError("it is no address with http:// or https://")
    try:
        with urllib.request.urlopen(url, timeout=timeout, context=tls) as answer:  # noqa: S310 - checked above
            return msgspec.json.decode(answer.read(MAX_BYTES), type=dict[str, Any])
    except (http.client.HTTPException, KeyError) as error:
        raise ValueError(str(error) or type(error).__name__) from error


def _node(server: dict[str, Any], about: dict[str, Any], heard: float) -> Node:
    config: dict[str, Any] = about.get("config") or {}
    meta: dict[str, Any] = about.get("meta_cluster") or {}
    replicas: list[dict[str, Any]] = meta.get("replicas") or []
    clock = datetime.fromisoformat(_to_micros(server["time"])).astimezone(UTC).timestamp()
    return Node(
        name=server["name"],
        version=server["ver"],
        stores=not about.get("disabled", False),
        syncs_always=bool(config.get("sync_always", False)),
        cluster_nodes=int(meta.get("cluster_size", 1)),
        metadata_leader=str(meta.get("leader", "")),
        stored_bytes=int(about.get("storage", 0)),
        limit_bytes=int(config.get("max_storage", 0)),
        clock_ahead=clock - heard,
        members=tuple(str(each["name"]) for each in replicas),
    )


def _to_micros(moment: str) -> str:
    """A time with nanoseconds as one that Python reads: 2026-11-29T17:07:13.615824046Z."""
    head, _, fraction = moment.rstrip("Z").partition(".")
    return f"{head}.{fraction[:6] or '0':0<6}+00:00"
