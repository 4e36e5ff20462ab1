"""Cuts of the network between nodes, each on a host of its own, while clients on two further hosts reach all of them.

Knows: which nodes are cut from which, and that a minority acknowledges nothing. Does not know: how a network is cut.
"""

from __future__ import annotations

from functools import partial

import eventfold as ef
from eventfold.errors import AppendUnconfirmed, EventfoldError
from soak import children
from soak.cluster.clients import Place
from soak.cluster.facts import TYPES, fact
from soak.cluster.network import networked
from soak.cluster.record import Recorder
from soak.cluster.rounds import Stand, create, wait
from soak.rounds import Round
from tests.support.servers.nats import Node


def cuts(turn: Round) -> None:
    """Cut the leader from the others, or a follower, or the leader from one follower, in both directions or in one.

    A client that reaches only the minority gets no acknowledgement there; after the network heals, all goes on.
    """
    with networked(hosts=5, advertise=False) as (cluster, network):
        stand = Stand(turn, cluster, create(cluster, turn.folder))
        stand.start(network.hosts[3:])
        for number in range(2):
            leader = cluster.nodes.index(stand.leader())
            others = [host for host in range(3) if host != leader]
            some, from_these, one_way = [
                ([leader], others, False),
                ([others[0]], [leader, others[1]], False),
                ([leader], [others[0]], False),
                ([leader], others, True),
            ][(turn.index * 2 + number) % 4]
            hosts = network.hosts
            stand.fault(
                "cuts",
                partial(network.cut, [hosts[i] for i in some], [hosts[i] for i in from_these], one_way=one_way),
            )
            stand.await_progress()
            if len(from_these) == 2:
                refused_by(stand, cluster.nodes[some[0]], number)
            wait(turn.dice.uniform(0.0, 6.0))
            network.heal()
            stand.await_progress()
        stand.finish()


def refused_by(stand: Stand, node: Node, number: int) -> None:
    """Append by a client that reaches only this node, which has no majority: there must be no acknowledgement."""
    pid = stand.crowd.add(_append_once, f"minority-{number}", node.address, name="minority")
    stand.crowd.pids.remove(pid)
    if children.wait([pid], 60.0):
        stand.turn.findings.add(f"an append was acknowledged by {node.name}, which was cut from the others, or failed")


def _append_once(place: Place, name: str, address: str) -> None:
    """Append one event at one node only. Raises AssertionError if it is acknowledged."""
    recorder = Recorder(place.folder, name)
    hosts = place.url.partition("@")[2].partition("/")[0]
    alone = Place(place.url.replace(hosts, address), place.folder, place.options | {"timeout": 4.0})
    event = fact(TYPES[0], "minority", "i0", name)
    try:
        with ef.Store(alone.url, **alone.on("minority")) as store:
            call = recorder.call(name, [event])
            try:
                receipt = store.append_encoded(event)
            except AppendUnconfirmed as error:
                recorder.failed(name, call, "unknown", error)
            except EventfoldError as error:
                recorder.failed(name, call, "refused", error)
            else:
                recorder.acknowledged(name, call, receipt)
                raise AssertionError(f"acknowledged at {receipt.first}")
    except EventfoldError:
        return  # it was not even opened
