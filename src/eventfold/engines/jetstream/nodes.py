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
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.errors import TimeoutError as NatsTimeout

JETSTREAM_SUBJECT = "$SYS.REQ.SERVER.PING.JSZ"
STATISTICS_SUBJECT = "$SYS.REQ.SERVER.PING.STATSZ"
QUIET_S = 0.4  # without another answer, when it is not known how many nodes there are
MAX_BYTES = 4 << 20  # of an answer of the monitoring


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """What one node said of itself.

    `syncs_always`    whether it writes to disk before it confirms: `jetstream { sync_interval: always }`
    `cluster_nodes`   how many nodes its cluster has; 1 where it is alone
    `metadata_leader` the node that leads the cluster's metadata, empty if there is none
    `stored_bytes`    of all streams; `limit_bytes`: what it may store at most
    `clock_ahead`     seconds by which its clock is ahead of this machine's, not more exact than the answer took
    `facts`           its whole answer about JetStream
    """

    name: str
    version: str
    syncs_always: bool
    cluster_nodes: int
    metadata_leader: str
    stored_bytes: int
    limit_bytes: int
    clock_ahead: float
    facts: dict[str, Any]


async def ask_nodes(client: Client, expected: Collection[str], timeout: float) -> dict[str, Node]:
    """Ask every node over a connection, and return those that answered, by name.

    Waits until each of `expected` has answered, at most `timeout` seconds. Where the account of the connection may not
    ask, no node answers: the server refuses at once, or says nothing.
    """
    answers = await request_all(client, JETSTREAM_SUBJECT, lambda found: names_of(found) >= set(expected), timeout)
    nodes = (_node(answer["server"], answer["data"], heard) for answer, heard in answers if "data" in answer)
    return {node.name: node for node in nodes}


async def request_all(
    client: Client, subject: str, is_enough: Callable[[list[Any]], bool], timeout: float, body: bytes = b""
) -> list[tuple[dict[str, Any], float]]:
    """Send a request that several nodes answer; return each answer, with the time at which it came."""
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox)  # pyright: ignore[reportUnknownMemberType]
    answers: list[tuple[dict[str, Any], float]] = []
    ends = time.monotonic() + timeout
    try:
        await client.publish(subject, body, reply=inbox)
        while not is_enough([answer for answer, _ in answers]) or not answers:
            try:
                message = await subscription.next_msg(timeout=max(0.001, ends - time.monotonic()))
            except NatsTimeout:
                break
            if message.headers and "Status" in message.headers:  # no one serves it in this account
                break
            answers.append((msgspec.json.decode(message.data), time.time()))
    finally:
        try:
            await subscription.unsubscribe()
        except NatsError:
            pass  # the connection was closed, and the subscription with it
    return answers


def names_of(answers: Iterable[Any]) -> set[str]:
    """The names of the nodes that sent these answers."""
    return {answer["server"]["name"] for answer in answers}


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
    clock = datetime.fromisoformat(_to_micros(server["time"])).astimezone(UTC).timestamp()
    return Node(
        name=server["name"],
        version=server["ver"],
        syncs_always=bool(config.get("sync_always", False)),
        cluster_nodes=int(meta.get("cluster_size", 1)),
        metadata_leader=str(meta.get("leader", "")),
        stored_bytes=int(about.get("storage", 0)),
        limit_bytes=int(config.get("max_storage", 0)),
        clock_ahead=clock - heard,
        facts=about,
    )


def _to_micros(moment: str) -> str:
    """A time with nanoseconds as one that Python reads: 2026-11-29T17:07:13.615824046Z."""
    head, _, fraction = moment.rstrip("Z").partition(".")
    return f"{head}.{fraction[:6] or '0':0<6}+00:00"
