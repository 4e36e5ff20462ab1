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

from eventfold.engines.jetstream.node_sources import Answers, ask_every_node
from eventfold.errors import StoreUnsafe

VERIFY_AGAIN_S = 15.0  # between two verifications of an open store: a node may be restarted with other settings
ALTERNATIVE = 'Or say durability="unchecked" (?durability=unchecked), if events may be lost in a power failure.'


async def verify_durability(
    client: Client,
    stream: Mapping[str, Any],
    *,
    monitoring: Sequence[str] = (),
    connect_system: Callable[[], Awaitable[Client]] | None = None,
    timeout: float = 3.0,
    tls: ssl.SSLContext | None = None,
) -> frozenset[str]:
    """Verify that every node of a stream writes to disk before it confirms. Raises StoreUnsafe.

    `stream` is the server's answer to `$JS.API.STREAM.INFO.…`. `connect_system` opens a connection of the system
    account, which is closed here. Returns the names of nodes that cannot be reached, or have disabled JetStream: a
    store survives the loss of a minority, and they confirm nothing now. They have to be verified when they are back, so
    call it again, at least every VERIFY_AGAIN_S seconds and at each reconnect.
    """
    _verify_stream(stream)
    leader, offline, expected = _peers(stream)
    answers = await ask_every_node(
        client, expected - offline, monitoring=monitoring, connect_system=connect_system, timeout=timeout, tls=tls
    )
    members = [node for node in answers.found.values() if node.name in expected or not expected]
    lazy = sorted(node.name for node in members if node.stores and not node.syncs_always)
    if lazy:
        raise StoreUnsafe(
            f"The node {', '.join(lazy)} confirms events before they are on its disk, so a power failure loses them.",
            f"Set `jetstream {{ sync_interval: always }}` on every node, and restart it. {ALTERNATIVE}",
            nodes=lazy,
        )
    unseen = expected - {node.name for node in members}
    _verify_unseen(unseen, offline, expected, answers)
    _verify_replicas(stream, max((node.cluster_nodes for node in members), default=1), leader)
    return frozenset(unseen | {node.name for node in members if not node.stores})


def _verify_unseen(unseen: set[str], offline: set[str], expected: set[str], answers: Answers) -> None:
    """Refuse nodes that may run and did not say how they confirm."""
    is_majority = 2 * len(unseen) < len(expected) if expected else bool(answers.found)
    if is_majority and len(unseen - offline) <= answers.unreachable:
        return
    names = sorted(unseen) or ["of the connection"]
    why = f" ({'; '.join(answers.reasons)})" if answers.reasons else ""
    raise StoreUnsafe(
        f"It cannot be verified that the node {', '.join(names)} writes to disk before it confirms{why}.",
        "Let `eventfold cluster accounts` write the accounts of the servers, or give system=USER:PASSWORD of the "
        f"system account, or monitoring=URL of every node. {ALTERNATIVE}",
        nodes=names,
    )


def _peers(stream: Mapping[str, Any]) -> tuple[str, set[str], set[str]]:
    """The leader of a stream, the nodes that are offline, and all its nodes: empty where the server has no cluster."""
    cluster: Mapping[str, Any] = stream.get("cluster") or {}
    replicas: Sequence[Mapping[str, Any]] = cluster.get("replicas") or ()
    leader = str(cluster.get("leader") or "")
    offline = {str(each["name"]) for each in replicas if each.get("offline")}
    return leader, offline, {str(each["name"]) for each in replicas} | ({leader} if leader else set())


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
