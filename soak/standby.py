"""A primary with a synchronous standby is lost under load: the machine killed, the server killed, a planned switchover.

Knows: the cluster of the how-to, its faults. Does not know: what clients check (tests/standby/load.py).
"""

from __future__ import annotations

import time

from soak.rounds import Round
from tests.standby.load import Load
from tests.support.servers.patroni import SOON, PatroniCluster, wait_for

TURNS = 5  # faults in one round


def postgres(turn: Round) -> None:
    """Run clients that live on over several faults; then compare what they were answered with the log."""
    cluster = PatroniCluster(within=str(turn.folder), settings=SOON).start()
    try:
        load = Load(cluster.url(connect_timeout="2"), patience=90.0).start()
        try:
            wait_for(lambda: load.is_writing_since(0.0), "appends")
            for _ in range(TURNS):
                cluster.await_standby()
                time.sleep(turn.dice.uniform(0.0, 1.0))
                _disturb(turn, cluster)
                disturbed = time.monotonic()
                wait_for(lambda since=disturbed: load.is_writing_since(since), "appends after a fault", cluster.log)
                turn.count("failovers")
            load.stop()
            for problem in load.check(cluster.url()):
                turn.findings.add(problem)
            for _, writer, error in load.errors[:3]:
                turn.findings.add(f"{writer} got {error.code}: {error}")
            turn.count("events", max(each.position for each in load.acknowledged))
        finally:
            load.close()
    finally:
        cluster.remove()


def _disturb(turn: Round, cluster: PatroniCluster) -> None:
    primary, chance = cluster.primary(), turn.dice.random()
    if chance < 0.5:
        primary.kill()
        turn.count("kills")
        wait_for(lambda: cluster.find("leader") not in (None, primary), "another primary", cluster.log)
        primary.start()
    elif chance < 0.75:
        primary.kill_server()
        turn.count("kills")
    else:
        cluster.switch_over()
