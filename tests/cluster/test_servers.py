"""The clusters that tests use: shared by the processes of a run, or of one test that breaks them."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.servers.nats import ROOT, Cluster, Node, needed, own, shared, wait_until

pytestmark = needed

PRINTED = """
import json
from tests.support.servers.nats import shared
print(json.dumps([[node.name, node.address] for node in shared().nodes]))
"""


def _runs(node: Node) -> bool:
    try:
        return bool(node.get("varz"))
    except OSError:
        return False


def test_processes_of_one_run_share_a_cluster_and_the_last_one_ends_it() -> None:
    """Two processes with the same run's identifier get the same nodes; they end when neither process lives."""
    environment = os.environ | {"PYTEST_XDIST_TESTRUNUID": f"test-{os.getpid()}", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", f"{PRINTED}\nimport sys; sys.stdout.flush(); sys.stdin.read()"]
    with contextlib.ExitStack() as ending:
        started = [ending.enter_context(_process(command, environment)) for _ in range(2)]
        first, second = [json.loads(process.stdout.readline()) for process in started if process.stdout]
        assert first == second
        assert [name for name, _ in first] == ["n1", "n2", "n3"]
        assert not {address for _, address in first} & {node.address for node in shared().nodes}
        port = int(first[0][1].rpartition(":")[2])
        for process in started:
            assert _listens(port)
            process.communicate(timeout=60)
        wait_until(lambda: not _listens(port), "the end of the shared cluster")


@contextlib.contextmanager
def _process(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_every_node_of_the_shared_cluster_syncs_before_it_acknowledges() -> None:
    """The monitoring port of each node says `sync_always`."""
    assert [node.get("jsz")["config"]["sync_always"] for node in shared().nodes] == [True] * 3


def test_the_nodes_of_the_shared_cluster_cannot_be_killed_by_a_test() -> None:
    """Other tests use them at the same time."""
    with pytest.raises(RuntimeError, match="shared by all tests"):
        shared().nodes[0].send(9)


def test_a_node_is_killed_paused_wiped_and_started_again() -> None:
    """A node keeps its ports and its name; it is continued where it was paused, and starts empty after a wipe."""
    with own(1) as cluster:
        (node,) = cluster.nodes
        assert node.store.exists()
        node.kill()
        assert not node.is_running
        assert not _runs(node)
        node.wipe()
        assert not node.store.exists()
        cluster.start()
        assert node.get("varz")["server_name"] == "n1"
        node.pause()
        with pytest.raises(OSError, match="timed out"):
            node.get("varz", timeout=0.3)
        node.resume()
        wait_until(lambda: _runs(node), "the node that continues")
        node.retire()
        assert "lame duck" in node.log().lower()


def test_a_single_node_has_no_routes() -> None:
    """One node is a server for development: no cluster is configured."""
    with Cluster(1) as cluster:
        cluster.start()
        assert not cluster.nodes[0].get("varz")["cluster"].get("name")
