"""The configuration file of one NATS server: what a store needs of it, which its defaults do not give.

    sync_interval: always   an event is on the disks of a majority before an append returns; the default is 2 minutes
    monitoring              on loopback only: it has no password
    cluster                 its other nodes, with a password of their own, and TLS in both directions where it is used
    lame duck               a server that is stopped by SIGUSR2 first passes on what it leads
    limits                  how much disk streams may use, and batches of at most 1,000 events

Knows: the configuration language of nats-server. Does not know: files, processes, who may connect (accounts.py).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from eventfold.errors import InvalidInput

CLIENT_PORT, ROUTE_PORT, MONITORING_PORT = 4222, 6222, 8222
ROUTE_USER = "node"
NODE = re.compile(r"(?P<name>[A-Za-z0-9_-]{1,64})=(?P<host>\[[0-9a-fA-F:.]+\]|[^:\[\]\s]+)(?P<ports>(?::\d{1,5}){0,3})")


class NodeAddress(msgspec.Struct, frozen=True):
    """A node: its name, which stays when its machine is replaced, its host, and its three ports."""

    name: str
    host: str
    client_port: int = CLIENT_PORT
    route_port: int = ROUTE_PORT
    monitoring_port: int = MONITORING_PORT


class Certificates(msgspec.Struct, frozen=True):
    """Paths on the node: its certificate and key, and the authority that signed those of all nodes, as PEM."""

    certificate: str
    key: str
    authority: str


def parse_node(text: str) -> NodeAddress:
    """NAME=HOST[:CLIENT_PORT[:ROUTE_PORT[:MONITORING_PORT]]] as an address. Raises InvalidInput."""
    found = NODE.fullmatch(text)
    ports = [int(each) for each in found["ports"].split(":")[1:]] if found else []
    if found is None or any(not 0 < port < 65_536 for port in ports):
        raise InvalidInput(
            f"{text[:80]!r} does not name a node.",
            "Write NAME=HOST, as in n1=node1.example.com, with ports if they differ: "
            f"n1=node1.example.com:{CLIENT_PORT}:{ROUTE_PORT}:{MONITORING_PORT}.",
        )
    return NodeAddress(found["name"], found["host"], *ports)


def check_nodes(nodes: Sequence[NodeAddress]) -> None:
    """Raises InvalidInput for nodes that cannot form a cluster: two of one name or address, or an even number."""
    names = [node.name for node in nodes]
    addresses = [(node.host, port) for node in nodes for port in (node.client_port, node.route_port)]
    if len(set(names)) < len(names) or len(set(addresses)) < len(addresses):
        raise InvalidInput("Two nodes have the same name, or the same host and port.", "Name each node once.")
    if len(nodes) not in (1, 3, 5):
        raise InvalidInput(
            f"A cluster of {len(nodes)} nodes survives the loss of no more nodes than one of {max(1, len(nodes) - 1)}.",
            "Name 3 nodes, or 5; or 1 for development.",
            nodes=len(nodes),
        )


def node_configuration(
    node: NodeAddress,
    nodes: Sequence[NodeAddress],
    *,
    cluster: str,
    data: str,
    route_password: str,
    disk_limit: str | None = None,
    certificates: Certificates | None = None,
    accounts_file: str = "accounts.conf",
    listen: str | None = None,
) -> str:
    """The text of a node's file, which includes `accounts_file` from its own folder.

    `data` is the folder of its streams. `disk_limit`, such as "50GB": what streams may use at most; without it three
    quarters of the disk. `listen`: the address to listen at, if it is not the host's (behind NAT, in a container).
    """
    host = listen or node.host
    limit = f", max_file_store: {disk_limit}" if disk_limit else ""
    lines = [
        f"# Node {node.name} of the cluster {cluster}. Written by `eventfold cluster nodes`.",
        f"server_name: {quoted(node.name)}",
        f"listen: {quoted(f'{host}:{node.client_port}')}",
        "# The monitoring has no password, so only this machine may open it.",
        f"http: {quoted(f'127.0.0.1:{node.monitoring_port}')}",
        "# An append returns when a majority of the nodes have the events on their disks.",
        f'jetstream {{ store_dir: {quoted(data)}, sync_interval: "always"{limit} }}',
        "# On SIGUSR2 the node passes on what it leads, then closes its connections over this time, and ends.",
        'lame_duck_duration: "30s"',
        'lame_duck_grace_period: "3s"',
        f"include {quoted(accounts_file)}",
    ]
    if certificates is not None:
        lines.append(_tls("tls", certificates, verifies=False))
    if len(nodes) > 1:
        others = [each for each in nodes if each.name != node.name]
        routes = ", ".join(
            quoted(f"nats-route://{ROUTE_USER}:{route_password}@{each.host}:{each.route_port}") for each in others
        )
        lines += [
            "cluster {",
            f"  name: {quoted(cluster)}",
            f"  listen: {quoted(f'{host}:{node.route_port}')}",
            f"  authorization {{ user: {ROUTE_USER}, password: {quoted(route_password)} }}",
            f"  routes: [{routes}]",
        ]
        if certificates is not None:
            lines.append(f"  {_tls('tls', certificates, verifies=True)}")
        lines.append("}")
    return "\n".join(lines) + "\n"


def quoted(text: str) -> str:
    """A text as a string of the configuration language. Raises InvalidInput for one that it cannot express."""
    if any(each in text for each in '"\\\n\r') or not text.isprintable():
        raise InvalidInput(
            f"{text[:80]!r} cannot be written into a server's configuration.",
            "Leave out quotation marks, backslashes and control characters.",
        )
    return f'"{text}"'


def _tls(name: str, certificates: Certificates, *, verifies: bool) -> str:
    verify = "true" if verifies else "false"
    return (
        f"{name} {{ cert_file: {quoted(certificates.certificate)}, key_file: {quoted(certificates.key)}, "
        f"ca_file: {quoted(certificates.authority)}, verify: {verify} }}"
    )
