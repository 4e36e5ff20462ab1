"""The state of a cluster: its nodes and streams, what is wrong with them, and what could not be seen.

Knows: what is wrong with a cluster that stores events. Does not know: tables, when it is asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from eventfold.cluster.control import ClusterControl, StreamPlace
from eventfold.engines.jetstream.node_sources import ask_every_node
from eventfold.engines.jetstream.nodes import Node
from eventfold.errors import EventfoldError

MAX_CLOCK_DIFFERENCE_S = 1.0
MAX_DISK_SHARE = 0.85  # of what a node may store


class NodeStatus(msgspec.Struct, frozen=True):
    """A node, as far as it is known: None where it did not say."""

    name: str
    answers: bool
    leads: int
    version: str | None = None
    stores: bool | None = None
    syncs_always: bool | None = None
    stored_bytes: int | None = None
    limit_bytes: int | None = None
    clock_ahead: float | None = None
    leads_metadata: bool = False


class ClusterStatus(msgspec.Struct, frozen=True):
    """Nodes, streams, problems, each as a sentence, and what could not be seen, with the reason."""

    nodes: list[NodeStatus]
    streams: list[StreamPlace]
    problems: list[str]
    unseen: list[str]


async def read_status(control: ClusterControl) -> ClusterStatus:
    """Ask the nodes and the leaders of the streams. What cannot be seen is in the result, not an error."""
    unseen: list[str] = []
    streams: list[StreamPlace] = []
    try:
        streams = await control.streams()
    except EventfoldError as error:
        unseen.append(f"which streams there are, and their leaders: {error.what} {error.remedy}")
    expected = {name for stream in streams for name in stream.nodes}
    connection = control.connection
    offline = {each.name for stream in streams for each in stream.replicas if each.offline}
    asked = expected - offline
    options = connection.options
    answers = await ask_every_node(
        connection.client,
        asked,
        monitoring=[url for url in (options.monitoring or "").split(",") if url],
        connect_system=connection.connect_system if options.system else None,
        tls=connection.trusted(),
    )
    found, reasons = answers.found, answers.reasons
    if not found:
        why = "; ".join(reasons) or "this user may not ask them"
        unseen.append(
            f"the nodes themselves ({why}): give a user of `eventfold cluster accounts`, or ?system=USER:PASSWORD of "
            "the system account, or ?monitoring=URL,URL,URL"
        )
    else:
        unseen.append("the free space of the disks themselves: a node says what it may store, and what it stores")
    nodes = [_status(name, found.get(name), streams) for name in sorted(expected | found.keys() | _members(found))]
    problems = [*_of_nodes(nodes, bool(found)), *_of_streams(streams, found)]
    return ClusterStatus(nodes, streams, problems, unseen)


def _members(found: dict[str, Node]) -> set[str]:
    """Every node that the cluster counts among its members, also those that are gone."""
    return {name for node in found.values() for name in node.members}


def _status(name: str, node: Node | None, streams: Sequence[StreamPlace]) -> NodeStatus:
    leads = sum(stream.leader == name for stream in streams)
    if node is None:
        return NodeStatus(name, answers=False, leads=leads)
    return NodeStatus(
        name=name,
        answers=True,
        leads=leads,
        version=node.version,
        stores=node.stores,
        syncs_always=node.syncs_always,
        stored_bytes=node.stored_bytes,
        limit_bytes=node.limit_bytes,
        clock_ahead=round(node.clock_ahead, 3),
        leads_metadata=node.metadata_leader == name,
    )


def _of_nodes(nodes: Sequence[NodeStatus], were_asked: bool) -> Iterator[str]:
    for node in nodes:
        if not node.answers:
            if were_asked:
                yield f"The node {node.name} does not answer."
            continue
        if not node.stores:
            yield f"The node {node.name} has disabled JetStream, as for a full disk: give it space, and restart it."
        elif not node.syncs_always:
            yield f"The node {node.name} confirms before it writes to disk: set sync_interval: always, and restart it."
        if node.limit_bytes and (node.stored_bytes or 0) > MAX_DISK_SHARE * node.limit_bytes:
            share = 100 * (node.stored_bytes or 0) / node.limit_bytes
            yield f"The node {node.name} uses {share:.0f} % of what it may store."
    versions = sorted({node.version for node in nodes if node.version})
    if len(versions) > 1:
        yield f"The nodes have different versions: {', '.join(versions)}."
    clocks = [node.clock_ahead for node in nodes if node.clock_ahead is not None]
    if clocks and max(clocks) - min(clocks) > MAX_CLOCK_DIFFERENCE_S:
        yield f"The clocks of the nodes differ by {max(clocks) - min(clocks):.1f} s: events get the time of writers."
    if were_asked and nodes and not any(node.leads_metadata for node in nodes) and len(nodes) > 1:
        yield "No node leads the cluster's metadata: a majority of the nodes is missing, and no stream can be changed."


def _of_streams(streams: Sequence[StreamPlace], found: dict[str, Node]) -> Iterator[str]:
    size = max((node.cluster_nodes for node in found.values()), default=1)
    for stream in streams:
        if not stream.leader and stream.replicas:
            yield f"The stream {stream.name} has no leader: nothing can be appended."
        for each in stream.replicas:
            if each.offline:
                yield f"The copy of {stream.name} on {each.name} is offline."
            elif not each.current:
                yield f"The copy of {stream.name} on {each.name} is behind by {each.lag:,} operations."
        if stream.wanted < 3 <= size:
            yield f"The stream {stream.name} has {stream.wanted} of 3 copies: eventfold cluster replicas 3."
        elif len(stream.nodes) < stream.wanted and stream.leader and stream.replicas:
            yield f"The stream {stream.name} has {len(stream.nodes)} of {stream.wanted} copies."
