"""A bit that flips in the files of one node: readers find the event elsewhere, or report it; never do they skip it.

Knows: the repair of a node that the documents give. Does not know: how a bit is flipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import eventfold as ef
from eventfold.core.envelope import StoredEvent
from eventfold.errors import StoreDamaged
from soak.cluster.flips import flip
from soak.cluster.leaders import step_down
from soak.cluster.rounds import STREAM, Stand, check, create, wait
from soak.cluster.stores import whole_log
from soak.rounds import Round
from tests.support.servers.nats import Node, own

REJOIN_S = 2.0  # until a node that was started answers reads again
HOSTS = 6  # that read the log with an index of their own


def flips(turn: Round) -> None:
    """Flip a bit in a file of one node, make it the leader, and read: the event is found, or the error names it."""
    with own(3) as cluster:
        stand = Stand(turn, cluster, create(cluster, turn.folder))
        stand.start()
        stand.await_progress(60)
        if failed := stand.crowd.end():
            turn.findings.add(f"{failed} clients failed, or did not end")
        with ef.Store(stand.place.url, **stand.place.on("before")) as store:
            log = whole_log(store)
        for number in range(2):
            node = turn.dice.choice(cluster.followers(STREAM))
            victim = turn.dice.choice(log[:-1])
            node.stop()
            stand.fault("flips", partial(flip, cluster, node, STREAM, victim.data, turn.dice))
            cluster.start(node)
            wait(REJOIN_S)
            if number:
                step_down(cluster, STREAM, node)
            read_on_new_hosts(stand, node, victim.position, log, f"rotten{number}")
            node.stop()  # the documented repair: an empty node is filled by the others
            node.wipe()
            cluster.start(node)
            cluster.wait_until_equal(STREAM)
            read_on_new_hosts(stand, node, 0, log, f"repaired{number}")
        check(turn, cluster, stand.place)
        turn.count("events", len(log))


def read_on_new_hosts(stand: Stand, rotten: Node, position: int, log: Sequence[StoredEvent], name: str) -> None:
    """Read everything with new indexes: any replica answers, so that some of them meet the rotten one.

    `position`: where an error may say that the event could not be read; 0: nowhere.
    """
    findings = stand.turn.findings
    for number in range(HOSTS):
        host = f"{name}-{number}"
        try:
            with ef.Store(stand.place.url, **stand.place.on(host)) as store:
                found = whole_log(store)
                stand.turn.count("healed", store.stats().get("healed", 0))
            if found != list(log):
                findings.add(f"host {host} reads {len(found)} events, others than the {len(log)} that were appended")
        except StoreDamaged as error:
            stand.turn.count("reported")
            named = [rotten.name, STREAM, str(position)]
            if not position or any(word not in error.what for word in named):
                findings.add(f"host {host} reports damage, and not at {named}: {error}")
