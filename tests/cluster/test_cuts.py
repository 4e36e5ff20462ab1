"""The network between nodes is cut: the minority acknowledges nothing, and is not believed when it is read."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import eventfold as ef
from eventfold.concurrency import run
from eventfold.engines.jetstream.stream import ClusterInfo, PeerInfo, StreamInfo, StreamState
from eventfold.errors import AppendUnconfirmed, StoreUnavailable
from eventfold.ports.messages import AppendRequest
from soak.cluster.facts import TYPES, fact
from soak.cluster.network import networked
from soak.cluster.rounds import STREAM, create
from tests.cluster.conftest import Isolated, needs_root
from tests.support.servers.nats import needed, wait_until

SECOND = 1_000_000_000


def _info(leader: str, *active: int, replicas: int = 3) -> StreamInfo:
    peers = [PeerInfo(name=f"n{number}", active=each) for number, each in enumerate(active)]
    return StreamInfo({"num_replicas": replicas}, "", StreamState(), ClusterInfo("c", leader, peers))


@pytest.mark.parametrize(
    ("info", "is_believed"),
    [
        (_info("n9", SECOND, SECOND), True),
        (_info("n9", SECOND, 60 * SECOND), True),  # one of two followers is enough
        (_info("n9", 4 * SECOND, 4 * SECOND), False),  # they may have elected another leader
        (_info("n9", 0, 0), False),  # it has heard from neither since it leads
        (_info("", SECOND, SECOND), False),  # it has stepped down
        (_info("n9", SECOND, 9 * SECOND, 9 * SECOND, 9 * SECOND, replicas=5), False),
        (_info("n9", SECOND, SECOND, 9 * SECOND, 9 * SECOND, replicas=5), True),
        (_info("", replicas=1), True),
        (StreamInfo({"num_replicas": 1}, "", StreamState()), True),
    ],
)
def test_a_leader_is_believed_that_a_majority_answered_lately(info: StreamInfo, is_believed: bool) -> None:
    """A leader that was cut from the others, or paused, goes on answering: what it says may be old."""
    assert info.has_majority is is_believed


def _refused(call: Callable[[], Any]) -> Any:
    """Return the result of a call, or the code of its error."""
    try:
        return call()
    except (AppendUnconfirmed, StoreUnavailable) as error:
        return error.code


def _cut(folder: Path) -> dict[str, Any]:
    """Cut the leader from the others, and use the store by a client that began there, and by one that knows no other.

    Returns what each was answered.
    """
    found, event = dict[str, Any](), fact(TYPES[0], "g", "minority")
    with networked(advertise=False) as (cluster, network):
        place = create(cluster, folder)
        leader = cluster.leader(STREAM)
        at = cluster.nodes.index(leader)
        addresses = [node.address for node in cluster.nodes]
        first = place.url.replace(",".join(addresses), ",".join([leader.address, *addresses]))
        only = place.url.replace(",".join(addresses), leader.address)
        with (
            ef.Store(first, index=str(folder / "a.db"), timeout=60.0) as moving,
            ef.Store(place.url, index=str(folder / "b.db"), timeout=60.0) as other,
            ef.Store(only, index=str(folder / "c.db"), timeout=3.0) as stuck,
            ThreadPoolExecutor() as threads,
        ):
            for store in (moving, other, stuck):
                store.append_encoded(fact(TYPES[0], "g", "i"))
            network.cut([network.hosts[at]], [host for host in network.hosts if host is not network.hosts[at]])
            append = threads.submit(_refused, lambda: run(stuck.engine.append_many([AppendRequest((event,))])))
            found["majority"] = other.append_encoded(fact(TYPES[0], "g", "i")).first
            read = threads.submit(_refused, stuck.head)
            found["read after it"] = moving.head()
            found["append after it"] = moving.append_encoded(fact(TYPES[0], "g", "i")).first
            found["append at the minority"], found["read at the minority"] = append.result(), read.result()
            network.heal()
            wait_until(lambda: _refused(stuck.head) == 5, "the minority to follow")
            found["log"] = [recorded.stored.tag_set[1] for recorded in stuck.read(raw=True)]
    return found


@needed
@needs_root
def test_a_minority_acknowledges_nothing_and_its_clients_go_on_with_the_majority(isolated: Isolated) -> None:
    """The leader is cut from both followers while clients reach all three nodes; then the network heals."""
    found = isolated(_cut)
    assert found["append at the minority"] == "append-unconfirmed", found
    assert found["majority"] == 4
    assert found["read after it"] == 4
    assert found["append after it"] == 5
    assert found["read at the minority"] == "store-unavailable"
    assert found["log"] == ["item:i"] * 5
