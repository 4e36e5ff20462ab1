"""A few faults of the soak programme on a cluster, so that it works when it is needed; `make soak` has the others.

Knows: rounds, and that they find no problem. Does not know: how faults are caused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from soak.cluster import races
from soak.cluster.rounds import Stand, create
from soak.rounds import Round
from tests.cluster.conftest import Isolated
from tests.support.servers.nats import needed, own

pytestmark = needed


def _result(turn: Round) -> dict[str, Any]:
    return {"counts": turn.counts, "problems": turn.findings.problems}


def _kill_the_leader(folder: Path) -> dict[str, Any]:
    turn = Round("few", 0, "few:0", folder)
    with own(3) as cluster:
        stand = Stand(turn, cluster, create(cluster, folder))
        stand.start(processes=2)
        node = stand.leader()
        stand.fault("leaders killed", node.kill)
        stand.await_progress()
        cluster.start(node)
        stand.finish()
    return _result(turn)


def test_the_leader_is_killed_under_four_writers(isolated_without_mounts: Isolated) -> None:
    """Two processes on two hosts append, two follow, one runs a read model; everything that they saw is checked."""
    found = isolated_without_mounts(_kill_the_leader)
    assert found["problems"] == []
    assert found["counts"]["leaders killed"] == 1
    assert found["counts"]["events"] > 50


def _race(folder: Path) -> dict[str, Any]:
    turn = Round("few", 1, "few:1", folder)
    races.racing(turn, races=3)
    return _result(turn)


def test_of_fifty_racers_over_three_nodes_one_wins(isolated_without_mounts: Isolated) -> None:
    """Four processes, each at another node; the leader steps down in the middle of the second race."""
    found = isolated_without_mounts(_race)
    assert found["problems"] == []
    assert found["counts"]["races"] == 3
    assert found["counts"]["step-downs"] == 1
