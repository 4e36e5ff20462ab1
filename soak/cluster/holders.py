"""Faults of the process that writes for the others: killed, or stopped and continued while another has its lease.

Knows: the record of the writers' lease. Does not know: clients, and what must hold afterwards.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import time
from functools import partial

from soak.cluster import clients
from soak.cluster.rounds import STREAM, Stand, create, wait
from soak.rounds import Round
from tests.support.servers.nats import Cluster, own
from tests.support.stores import ask

BUCKET = f"{STREAM}_locks"
AGREE_S = 40.0  # until writers that refuse each other agree on one
FAULTS = 6


def holders(turn: Round) -> None:
    """Kill the holder of the writers' lease; stop it, for less and for longer than its lease; others go on."""
    with own(3) as cluster:
        stand = Stand(turn, cluster, create(cluster, turn.folder))
        stand.start()
        for number in range(FAULTS):
            pid = _holder(cluster, stand.crowd.pids)
            if pid is None:
                turn.findings.add(f"no writer held the lease within {AGREE_S:.0f} s")
                break
            if (turn.index + number) % 2:
                stand.fault("holders stopped", partial(os.kill, pid, signal.SIGSTOP))
                stand.await_progress()
                wait(turn.dice.uniform(0.2, 5.0))
                os.kill(pid, signal.SIGCONT)
            else:
                stand.fault("holders killed", partial(stand.crowd.kill, pid))
                name, host = f"n{number}", f"h{number % 2 + 1}"
                stand.crowd.add(clients.write_async, name, f"{turn.seed}/{name}", host, 2, name="write")
            stand.await_progress()
        stand.finish()


def _holder(cluster: Cluster, pids: list[int]) -> int | None:
    """Wait until one of these processes holds the lease, and return it; None if none does in time."""
    ends = time.monotonic() + AGREE_S
    while time.monotonic() < ends:
        try:
            found = ask(cluster, f"STREAM.MSG.GET.KV_{BUCKET}", {"last_by_subj": f"$KV.{BUCKET}.writer"})
            record = json.loads(base64.b64decode(found["message"].get("data", "")) or b"{}")
            pid = int(record.get("note", "0-").partition("-")[0])
        except (RuntimeError, TimeoutError):  # there is none, or the servers do not answer
            pid = 0
        if pid in pids:
            return pid
        time.sleep(0.1)
    return None
