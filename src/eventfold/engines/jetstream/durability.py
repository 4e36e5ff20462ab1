"""Whether a stream is stored so that a confirmed append is on the disks of a majority of its nodes.

JetStream's default is to confirm first and to write to disk within two minutes; one such node in a cluster is enough
to lose confirmed events. No client is warned of it, so every node is asked: over the connection itself, over one of
the system account, and at the addresses of the monitoring. What no node says is not assumed.
Knows: settings of streams and nodes that lose confirmed events. Does not know: addresses, when it is asked again.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from nats.aio.client import Client
from nats.errors import Error as NatsError

from eventfold.engines.jetstream.nodes import Node, ask_nodes, read_monitoring
from eventfold.errors import StoreUnsafe

VERIFY_AGAIN_S = 15.0  # between two verifications of an open store: a node may be restarted with other settings
ALTERNATIVE = 'Or say durability="unchecked" (?durability=unchecked), if events may be lost in a power failure.'


async def verify_durability(
    client: Client,
    stream: Mapping[str, Any],
    *,
    monitoring: Sequence[str] = (),
    connect_system: Callable[[], Awaitable[Client]] | None = None,
    timeout: float = 5.0,
    tls: ssl.SSLContext | None = None,
) -> frozenset[str]:
    """Verify that every node of a stream writes to disk before it confirms. Raises StoreUnsafe.

    `stream` is the server's answer to `$JS.API.STREAM.INFO.…`. `connect_system` opens a connection of the system
    account, which is closed here. Returns the names of nodes that are offline: they confirm nothing now, but they have
    to be verified when they are back, so call it again, at least every VERIFY_AGAIN_S seconds and at each reconnect.
    """
    _verify_stream(stream)
    leader, offline, expected = _peers(stream)
    online = expected - offline
    found, reasons = await _ask(client, online, monitoring, connect_system, timeout, tls)
    lazy = sorted(name for name, node in found.items() if not node.syncs_always and (name in expected or not expected))
    if lazy:
        raise StoreUnsafe(
            f"The node {', '.join(lazy)} confirms events before they are on its disk, so a power failure loses them.",
            f"Set `jetstream {{ sync_interval: always }}` on every node, and restart it. {ALTERNATIVE}",
            nodes=lazy,
        )
    unseen = sorted(online - found.keys()) if expected else ([] if found else ["of the connection"])
    if unseen:
        why = f" ({'; '.join(reasons)})" if reasons else ""
        raise StoreUnsafe(
            f"It cannot be verified that the node {', '.join(unseen)} writes to disk before it confirms{why}.",
            "Let `eventfold cluster accounts` write the accounts of the servers, or give system=USER:PASSWORD of the "
            f"system account, or monitoring=URL of every node. {ALTERNATIVE}",
            nodes=unseen,
        )
    _verify_replicas(stream, max((node.cluster_nodes for node in found.values()), default=1), leader)
    return frozenset(offline)


def _peers(stream: Mapping[str, Any]) -> tuple[str, set[str], set[str]]:
    """The leader of a stream, the nodes that are offline, and all its nodes: empty where the server has no cluster."""
    cluster: Mapping[str, Any] = stream.get("cluster") or {}
    replicas: Sequence[Mapping[str, Any]] = cluster.get("replicas") or ()
    leader = str(cluster.get("leader") or "")
    offline = {str(each["name"]) for each in replicas if each.get("offline")}
    return leader, offline, {str(each["name"]) for each in replicas} | ({leader} if leader else set())


async def _ask(
    client: Client,
    online: set[str],
    monitoring: Sequence[str],
    connect_system: Callable[[], Awaitable[Client]] | None,
    timeout: float,
    tls: ssl.SSLContext | None,
) -> tuple[dict[str, Node], list[str]]:
    """Ask by one way after the other until every node has answered; also return why a way did not work."""
    found: dict[str, Node] = {}
    reasons: list[str] = []
    given = bool(monitoring) or connect_system is not None
    found |= await ask_nodes(client, online, min(timeout, 1.0) if given else timeout)
    if connect_system is not None and _is_missing(found, online):
        try:
            system = await connect_system()
            try:
                found |= await ask_nodes(system, online, timeout)
            finally:
                await system.close()
        except (NatsError, OSError) as error:
            reasons.append(f"the system account could not be used: {_said(error)}")
    for url in monitoring:
        if not _is_missing(found, online):
            break
        try:
            node = await read_monitoring(url, timeout, tls)
            found[node.name] = node
        except (OSError, ValueError, KeyError) as error:
            reasons.append(f"{url} did not answer: {_said(error)}")
    return found, reasons


def _is_missing(found: Mapping[str, Node], online: set[str]) -> bool:
    return bool(online - found.keys()) or not found


def _said(error: BaseException) -> str:
    return str(error).rstrip(".") or type(error).__name__


def _verify_stream(stream: Mapping[str, Any]) -> None:
    config: Mapping[str, Any] = stream["config"]
    if config.get("storage") != "file":
        raise StoreUnsafe(
            f"The stream {config.get('name')} is kept in memory, so a restart of its nodes loses every event.",
            "Create a stream with file storage by `eventfold init`, and copy the events by `eventfold copy`.",
        )
    if config.get("persist_mode", "default") not in ("", "default"):
        raise StoreUnsafe(
            f"The stream {config.get('name')} confirms events before they are stored (persist_mode "
            f"{config['persist_mode']}).",
            "Create a stream by `eventfold init`, and copy the events by `eventfold copy`.",
        )


def _verify_replicas(stream: Mapping[str, Any], cluster_nodes: int, leader: str) -> None:
    config: Mapping[str, Any] = stream["config"]
    replicas = int(config.get("num_replicas", 1))
    if replicas < 3 <= cluster_nodes:
        raise StoreUnsafe(
            f"The stream {config.get('name')} has {replicas} of 3 replicas although there are {cluster_nodes} nodes, "
            f"so the loss of the node {leader or 'that has it'} loses events.",
            f"Add replicas while it is in use: `eventfold cluster replicas 3`. {ALTERNATIVE}",
            replicas=replicas,
        )
