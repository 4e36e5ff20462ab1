"""A bit of a stored event flips in the files of one node: it is read from another one, or an error says where it is."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import eventfold as ef
from eventfold.core.envelope import NewEvent
from eventfold.errors import StoreDamaged
from soak.cluster.facts import TYPES, fact
from soak.cluster.flips import flip
from soak.cluster.leaders import step_down
from soak.cluster.rounds import STREAM, create
from soak.cluster.stores import whole_log
from tests.support.servers.nats import Cluster, Node, needed, own

pytestmark = needed

EVENTS, ROTTEN = 12, 5  # the position of the event with the bit
HOSTS = 30  # that read with an index of their own: each may be answered by a replica that is well


def _store_and_flip(cluster: Cluster, url: str, folder: Path, node: Node) -> list[NewEvent]:
    events = [fact(TYPES[0], "g", "i", f"op{number}") for number in range(EVENTS)]
    with ef.Store(url, index=str(folder / "writer.db")) as store:
        for event in events:
            store.append_encoded(event)
    node.stop()
    flip(cluster, node, STREAM, events[ROTTEN - 1].data, random.Random(1))
    cluster.start(node)
    return events


def test_an_event_that_the_leader_has_lost_is_read_from_another_node(tmp_path: Path) -> None:
    """The node with the bit leads the stream: every host reads every event, and those that met the gap count it."""
    with own(3) as cluster:
        place = create(cluster, tmp_path)
        node = cluster.followers(STREAM)[0]
        events = _store_and_flip(cluster, place.url, tmp_path, node)
        step_down(cluster, STREAM, node)
        healed = 0
        for number in range(HOSTS):
            with ef.Store(place.url, index=str(tmp_path / f"{number}.db")) as store:
                assert [event.id for event in whole_log(store)] == [event.id for event in events]
                healed += store.stats()["healed"]
            if healed:
                break
        assert healed


def test_an_event_that_no_node_has_is_an_error_that_says_where_it_is(tmp_path: Path) -> None:
    """There is one node, so nothing can be healed: a new host reads nothing, and skips nothing."""
    with own(1) as cluster:
        place = create(cluster, tmp_path)
        _store_and_flip(cluster, place.url, tmp_path, cluster.nodes[0])
        with ef.Store(place.url, index=str(tmp_path / "new.db")) as store:
            with pytest.raises(StoreDamaged) as raised:
                store.head()
            for _ in range(2):
                with pytest.raises(StoreDamaged):
                    list(store.read(raw=True))
        assert raised.value.fields["node"] == "n1"
        assert raised.value.fields["stream"] == STREAM
        assert raised.value.fields["sequence"] == ROTTEN
        assert "n1" in raised.value.what
        assert f"sequence {ROTTEN}" in raised.value.what
