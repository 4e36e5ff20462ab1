"""Faults of nodes, disks and clients: what is killed, paused, delayed or without power while clients work.

Knows: the faults of each family of rounds. Does not know: clients, and what must hold afterwards.
"""

from __future__ import annotations

import os
import signal
import time
from functools import partial

from soak.cluster import clients
from soak.cluster.delays import between_nodes
from soak.cluster.disks import on_disks
from soak.cluster.rounds import STREAM, Stand, create, wait
from soak.rounds import Round
from tests.support.servers.nats import Cluster, Node, own

LEADERS = 3  # killed in one round
PAUSE_S = 12.0  # longer than an election, which takes 4 to 9 s


def leaders(turn: Round) -> None:
    """Kill the leader of the stream three times under eight writers."""
    with own(3) as cluster:
        stand = Stand(turn, cluster, create(cluster, turn.folder))
        stand.start()
        for _ in range(LEADERS):
            node = stand.leader()
            stand.fault("leaders killed", node.kill)
            began = time.monotonic()
            stand.leader()
            turn.count("election ms", round((time.monotonic() - began) * 1000))
            stand.await_progress()
            cluster.start(node)
        stand.finish()


def nodes(turn: Round) -> None:
    """Kill all nodes at once; retire each in turn, as a rolling upgrade does; or kill and wipe a follower."""
    with own(3) as cluster:
        stand = Stand(turn, cluster, create(cluster, turn.folder))
        stand.start()
        act = (_kill_all, _roll, _wipe)[turn.index % 3]
        act(stand, cluster)
        stand.finish()


def _kill_all(stand: Stand, cluster: Cluster) -> None:
    for _ in range(2):
        stand.fault("all nodes killed", cluster.kill)
        wait(stand.turn.dice.uniform(0.0, 1.0))
        cluster.start()
        stand.await_progress()


def _roll(stand: Stand, cluster: Cluster) -> None:
    for node in cluster.nodes:
        stand.fault("nodes retired", node.retire)
        stand.await_progress()
        cluster.start(node)
        stand.await_progress()


def _wipe(stand: Stand, cluster: Cluster) -> None:
    for _ in range(2):
        node = stand.turn.dice.choice(cluster.followers(STREAM))
        stand.fault("nodes wiped", partial(_kill_and_wipe, node))
        stand.await_progress()
        cluster.start(node)
        stand.await_progress()


def _kill_and_wipe(node: Node) -> None:
    node.kill()
    node.wipe()


def power(turn: Round) -> None:
    """Cut the power of all nodes at once, twice; in each third round of one node at a time."""
    with on_disks(turn.folder) as cluster:
        stand = Stand(turn, cluster, create(cluster, turn.folder))
        stand.start()
        for _ in range(2):
            chosen = (stand.turn.dice.choice(cluster.nodes),) if turn.index % 3 == 2 else ()
            stand.fault("power cuts", partial(cluster.cut_power, *chosen))
            if chosen:
                stand.await_progress()
            cluster.start()
            stand.await_progress()
        stand.finish()


def pauses(turn: Round) -> None:
    """Pause the leader for longer than an election, or a follower, or two nodes, and let them continue."""
    with own(3) as cluster:
        stand = Stand(turn, cluster, create(cluster, turn.folder))
        stand.start()
        for number in range(2):
            leader = stand.leader()
            others = [node for node in cluster.nodes if node is not leader]
            chosen = [[leader], [turn.dice.choice(others)], others][(turn.index + number) % 3]
            stand.fault("pauses", lambda chosen=chosen: [node.pause() for node in chosen])
            if len(chosen) == 1:
                stand.await_progress()
            wait(PAUSE_S)
            for node in chosen:
                node.resume()
            stand.await_progress()
        stand.finish()


def delays(turn: Round) -> None:
    """Delay what nodes send to each other by up to 20, 80, 300 ms, and kill the leader meanwhile."""
    cluster, proxies = between_nodes(turn.folder, turn.seed)
    try:
        with cluster:
            cluster.start()
            stand = Stand(turn, cluster, create(cluster, turn.folder))
            stand.start()
            for longest in (0.02, 0.08, 0.3):
                stand.fault("delays", partial(proxies.delay, longest))
                stand.await_progress()
                wait(2.0)
            node = stand.leader()
            stand.fault("leaders killed", node.kill)
            stand.await_progress()
            cluster.start(node)
            proxies.delay(0.0)
            stand.finish()
    finally:
        proxies.close()


def writers(turn: Round) -> None:
    """Kill writers, pause writers, and kill a follower process, while the cluster works; others go on at once."""
    with own(3) as cluster:
        stand = Stand(turn, cluster, create(cluster, turn.folder))
        stand.start()
        for number in range(6):
            pid = turn.dice.choice(stand.crowd.pids[:4])
            if number % 2:
                stand.fault("writers paused", partial(os.kill, pid, signal.SIGSTOP))
                stand.await_progress()
                wait(turn.dice.uniform(0.5, 6.0))
                os.kill(pid, signal.SIGCONT)
            else:
                stand.fault("writers killed", partial(stand.crowd.kill, pid))
                host = f"h{number % 2 + 1}"
                new = stand.crowd.add(
                    clients.write_async, f"n{number}", f"{turn.seed}/n{number}", host, 2, name="write"
                )
                stand.crowd.pids.insert(0, stand.crowd.pids.pop(stand.crowd.pids.index(new)))
            stand.await_progress()
        stand.finish()
