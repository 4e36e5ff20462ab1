"""A round on a cluster: a store, its clients, faults while they work, and the check of everything that they recorded.

Knows: which clients a round has, what is compared at its end. Does not know: the faults.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import eventfold as ef
from eventfold.core.envelope import StoredEvent
from soak.cluster import clients
from soak.cluster.checker import check_history
from soak.cluster.clients import Crowd, Place
from soak.cluster.facts import PerGroup, fold
from soak.cluster.network import Host
from soak.cluster.record import Answered, now, read_records
from soak.cluster.stores import whole_log
from soak.rounds import Round
from tests.support.servers.nats import Cluster, Node

STORE, STREAM = "soak", "EF_soak"
ROOT = Path(__file__).parents[2]
CREATE = """
import sys
from eventfold.concurrency import run
from eventfold.engines import create_store, open_engine
run(create_store(open_engine(sys.argv[1], "sync", True, {})))
"""
START_S = 60.0  # for the first acknowledgement
OUTAGE_S = 60.0  # until appends go on after a fault, or the round has a problem
CALL_TIMEOUT_S = 15.0  # of a client's call: longer than most elections, so that some outcomes are unknown
SOME = 25  # appends between two faults


def create(cluster: Cluster, folder: Path, **options: str) -> Place:
    """Create the store in a process of its own, and return where it is."""
    url = cluster.url(STORE, **options)
    command = [sys.executable, "-c", CREATE, url]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise OSError(f"the store was not created: {done.stdout}{done.stderr}")
    return Place(url, folder, {"timeout": CALL_TIMEOUT_S, "target": f"sqlite:{folder / 'rows.db'}"})


class Stand:
    """A store on a cluster with its clients, and what faults need to know of it."""

    def __init__(self, turn: Round, cluster: Cluster, place: Place) -> None:
        self.turn, self.cluster, self.place = turn, cluster, place
        self.crowd = Crowd(place)
        self._faults: list[int] = []

    def start(self, hosts: Sequence[Host] = (), pace: float = 0.0, processes: int = 4) -> None:
        """Start eight writers in four processes, two followers and the runner of a read model, on two hosts."""
        seed, on = self.turn.seed, [*hosts, None, None]
        modes = (clients.write_async, clients.write, clients.write_async, clients.write)
        for number, function in enumerate(modes[:processes]):
            host = number % 2
            arguments = (f"w{number}", f"{seed}/{number}", f"h{host + 1}", 2, pace)
            self.crowd.add(function, *arguments, within=on[host], name="write")
        self.crowd.add(clients.follow, "follow-1", "h1", within=on[0], name="follow")
        self.crowd.add(clients.follow, "follow-2", "h2", within=on[1], name="follow")
        self.crowd.add(clients.project, "h1", within=on[0], name="project")
        if not self.crowd.await_progress(SOME, START_S):
            self.turn.findings.add("no append was acknowledged before the first fault")

    def leader(self) -> Node:
        """Return the node that leads the stream."""
        return self.cluster.leader(STREAM)

    def fault(self, what: str, cause: Callable[[], object]) -> None:
        """Cause a fault, and count it."""
        self._faults.append(now())
        cause()
        self.turn.count(what)
        self.turn.count("cluster faults")

    def await_progress(self, appends: int | None = None, seconds: float = OUTAGE_S) -> None:
        """Wait for some more appends; it is a problem of the round if they take too long."""
        wanted = self.turn.dice.randrange(5, SOME) if appends is None else appends
        if not self.crowd.await_progress(wanted, seconds):
            self.turn.findings.add(f"no append was acknowledged within {seconds:.0f} s")

    def finish(self) -> list[StoredEvent]:
        """End the clients, and check everything. Returns the log."""
        self.await_progress()
        if failed := self.crowd.end():
            self.turn.findings.add(f"{failed} clients failed, or did not end")
        self._measure()
        log = check(self.turn, self.cluster, self.place)
        self.turn.count("events", len(log))
        return log

    def _measure(self) -> None:
        """Count how long no append was acknowledged around each fault, in ms."""
        lines = read_records(self.place.folder)
        ends = sorted(line.ended for line in lines if isinstance(line, Answered) and line.answer == "acknowledged")
        for at, fault in enumerate(self._faults):
            until = self._faults[at + 1] if at + 1 < len(self._faults) else fault + int(OUTAGE_S * 1e9)
            times = [fault, *(end for end in ends if fault < end < until)]
            gaps = [later - earlier for earlier, later in pairwise(times)]
            self.turn.count("outage ms", max(gaps, default=0) // 1_000_000)


def check(turn: Round, cluster: Cluster, place: Place) -> list[StoredEvent]:
    """Check the log, as a new host and as both hosts see it, what clients recorded, rows, and the replicas."""
    findings, log = turn.findings, list[StoredEvent]()
    with findings.within("reading the log on a new host"), ef.Store(place.url, **place.on("new")) as store:
        log = whole_log(store)
        findings.problems += check_history(log, read_records(place.folder))
    for host in ("new", "h1", "h2"):
        with findings.within(f"checking host {host}"), ef.Store(place.url, **place.on(host)) as store:
            if host != "new" and whole_log(store) != log:
                findings.add(f"host {host} has another log than a new host")
            proof = store.projections.verify_log()
            if not proof.proved:
                findings.add(f"host {host} does not prove its log: {[flaw.what for flaw in proof.flaws[:3]]}")
    with findings.within("checking the read model"), ef.Store(place.url, **place.on("h1")) as store:
        store.run_until_idle(PerGroup)
        found = {row.group: (row.events, row.total) for row in store.rows(PerGroup)}
        if found != fold(log):
            findings.add(f"the rows are not the fold of the log: {found} in place of {fold(log)}")
    with findings.within("comparing the nodes"):
        last = cluster.wait_until_equal(STREAM)
        counts = {node.name: cluster.streams(node)[STREAM]["state"]["messages"] for node in cluster.nodes}
        if last != len(log) or set(counts.values()) != {last}:
            findings.add(f"the nodes have {counts} messages until {last}, and the log has {len(log)} events")
    return log


def wait(seconds: float) -> None:
    """Let clients work, or a timeout of the cluster pass."""
    time.sleep(seconds)
