"""Hosts as network namespaces of this process's own, and cuts between them.

Each host has an address in the network of clients and one in the network of nodes, so that nodes can be cut from each
other while clients reach all of them. Knows: the programs ip, unshare and nsenter; it needs root. Does not know: what
runs on a host.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import Any

from soak import machine
from soak.machine import command
from tests.support.servers.nats import Cluster, Ports

NEW_NETWORK = 0x40000000  # CLONE_NEWNET
CLIENTS, NODES = "10.81.0", "10.82.0"  # the two networks, /24
OWN = 254  # this process's last byte in the network of clients
PORTS = Ports(4222, 6222, 8222)  # of every node: each host has all ports to itself


class Host:
    """A namespace that lives as long as the process that holds it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.client_address, self.node_address = f"{CLIENTS}.{number}", f"{NODES}.{number}"
        self._holder: subprocess.Popen[Any] = subprocess.Popen(
            ["unshare", "--net", "sleep", "infinity"], preexec_fn=machine.end_with_parent
        )
        self._path = f"/proc/{self._holder.pid}/ns/net"
        own = os.stat("/proc/self/ns/net").st_ino
        while os.stat(self._path).st_ino == own:
            if self._holder.poll() is not None:
                raise OSError("unshare --net failed")
        self.within = ["nsenter", f"--net={self._path}"]
        self._connect("clients", self.client_address)
        self._connect("nodes", self.node_address)
        self.run("ip", "link", "set", "lo", "up")

    def _connect(self, network: str, address: str) -> None:
        link = f"{network[0]}{self.number}"
        command("ip", "link", "add", link, "type", "veth", "peer", "name", network, "netns", str(self._holder.pid))
        command("ip", "link", "set", link, "master", network, "up")
        self.run("ip", "addr", "add", f"{address}/24", "dev", network)
        self.run("ip", "link", "set", network, "up")

    def run(self, *words: str) -> None:
        """Run a program on this host."""
        command(*self.within, *words)

    def drop(self, *others: Host) -> None:
        """Send nothing to these hosts any more, in the network of nodes: packets are dropped without a notice."""
        for other in others:
            self.run("ip", "route", "add", "blackhole", f"{other.node_address}/32")

    def send(self, *others: Host) -> None:
        """Send to these hosts again."""
        for other in others:
            self.run("ip", "route", "del", "blackhole", f"{other.node_address}/32")

    def enter(self) -> None:
        """Move this process, which must have one thread, to the host. Raises OSError."""
        file = os.open(self._path, os.O_RDONLY)
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(file, NEW_NETWORK):
            raise OSError(ctypes.get_errno(), "setns")
        os.close(file)

    def unplug(self) -> None:
        """Disconnect the host from the network of clients."""
        command("ip", "link", "set", f"c{self.number}", "down")

    def plug(self) -> None:
        """Connect it again."""
        command("ip", "link", "set", f"c{self.number}", "up")

    def remove(self) -> None:
        """End the namespace."""
        self._holder.kill()
        self._holder.wait()


class Network:
    """Some hosts, and this process beside them. It moves this process and its later children into a new namespace."""

    def __init__(self, hosts: int) -> None:
        machine.unshare(NEW_NETWORK)
        command("ip", "link", "set", "lo", "up")
        for network in ("clients", "nodes"):
            command("ip", "link", "add", network, "type", "bridge")
            command("ip", "link", "set", network, "up")
        command("ip", "addr", "add", f"{CLIENTS}.{OWN}/24", "dev", "clients")
        self.hosts = [Host(number) for number in range(1, hosts + 1)]
        self._cut: list[tuple[Host, Host]] = []

    def cut(self, some: Iterable[Host], others: Iterable[Host], *, one_way: bool = False) -> None:
        """Cut these hosts from the others, in the network of nodes; `one_way`: only what these send is lost."""
        others = list(others)
        for host in some:
            for other in others:
                for one, another in ((host, other), (other, host))[: 1 if one_way else 2]:
                    if (one, another) not in self._cut:
                        one.drop(another)
                        self._cut.append((one, another))

    def heal(self) -> None:
        """Let everything pass again."""
        while self._cut:
            one, another = self._cut.pop()
            one.send(another)

    def remove(self) -> None:
        """End all hosts."""
        for host in self.hosts:
            host.remove()


@contextmanager
def networked(hosts: int = 3, *, advertise: bool = True) -> Generator[tuple[Cluster, Network]]:
    """Yield a running cluster with a host for each node, and its network; this process reaches every node.

    `hosts`: further ones, after the first three, have no node: they are for clients. `advertise`: see Cluster.
    """
    network = Network(hosts)
    try:
        with on_hosts(network.hosts[:3], advertise=advertise) as cluster:
            yield cluster.start(), network
    finally:
        network.remove()


def on_hosts(hosts: Sequence[Host], *, advertise: bool = True) -> Cluster:
    """Return a cluster, not started, with a node on each host."""
    addresses = [host.client_address for host in hosts]
    cluster = Cluster(len(hosts), hosts=addresses, within=lambda number: hosts[number].within, advertise=advertise)
    for node, host in zip(cluster.nodes, hosts, strict=True):
        node.ports = PORTS
        node.route = f"{host.node_address}:{PORTS.routes}"
        node.routes_listen = node.route
    return cluster
