"""Runners killed at any moment (kill -9): rows equal those of the plain fold, and the ledger proves it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import eventfold as ef
from tests.projections.flights import CarrierMonth, flights, folded, proved, rows
from tests.support.repetitions import repetitions

# A process that forks a runner for each line it reads, so that a hundred runners need not start a hundred interpreters.
PARENT = """
import os, sys
import eventfold.engines.sqlite, eventfold.targets.sqlite.driver, eventfold.targets.sql.target
if "postgresql" in sys.argv[1]:
    import eventfold.engines.postgres, eventfold.targets.postgres
import eventfold as ef
from tests.projections.flights import CarrierMonth

for _ in sys.stdin:
    child = os.fork()
    if child == 0:
        with ef.Store(sys.argv[1]) as store, store.run(CarrierMonth) as runner:
            os.write(1, f"{os.getpid()}\\n".encode())
            runner.wait()
        os._exit(0)
    os.waitpid(child, 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_killed_runners_skip_and_repeat_nothing(shared_url: str) -> None:
    """Runners are started and killed while events are written; the last one finishes, and the rows show no trace."""
    on_a_server = "postgresql" in shared_url  # where a runner needs longer to get to work
    kills, patience = repetitions(40, 100), 0.12 if on_a_server else 0.02
    chance = random.Random(4)
    written = 0
    with ef.Store(shared_url) as store:
        store.project(CarrierMonth)
        parent = parent_of(PARENT, shared_url)
        assert parent.stdin is not None
        assert parent.stdout is not None
        positions: set[int] = set()
        try:
            ends = time.monotonic() + 80
            for number in range(kills):
                if time.monotonic() > ends and len(positions) > 10:
                    break  # on a slow machine all of them take too long
                store.extend(flights(40, written), batch=8)
                written += 40
                parent.stdin.write("\n")
                parent.stdin.flush()
                child = int(parent.stdout.readline())
                while number % 3 == 0 and time.monotonic() < ends:  # when it has begun, however long that takes
                    (held,) = store.projections.checkpoints(CarrierMonth)
                    if held.position > max(positions, default=0):
                        break
                    time.sleep(0.002)
                time.sleep(chance.random() * patience)
                os.kill(child, signal.SIGKILL)
                positions.update(held.position for held in store.projections.checkpoints(CarrierMonth))
        finally:
            parent.stdin.close()
            parent.wait(60)
            parent.stdout.close()
        assert len(positions) > 10  # they were killed while they worked, not before
        store.project(CarrierMonth)
        assert rows(store) == folded(flights(written))
        assert proved(store)


def parent_of(code: str, url: str) -> subprocess.Popen[str]:
    """Start a process that forks runners."""
    root = Path(__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, "-c", code, url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=root,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'src'}"},
    )


# Two runners with a lease of a third of a second, until the parent is stopped.
RIVALS = """
import os, signal, sys, threading
import eventfold as ef
from tests.projections.flights import CarrierMonth

children = []
for _ in range(2):
    child = os.fork()
    if child == 0:
        ended = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: ended.set())
        with ef.Store(sys.argv[1]) as store:
            store.projections.catalog.lease = 0.3
            with store.run(CarrierMonth) as runner:
                os.write(1, f"{os.getpid()}\\n".encode())
                while not ended.wait(0.05):  # a signal may come just before a wait without end, and not be heard
                    pass
                os.write(1, f"{runner.failed or 'well'}\\n".encode())
        os._exit(0)
    children.append(child)
sys.stdin.read()
for child in children:
    os.kill(child, signal.SIGTERM)
for child in children:
    os.waitpid(child, 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_rivals_whose_time_stands_still_are_fenced_off(shared_url: str) -> None:
    """Two processes compete for one lease; one at a time is stopped for longer than the lease, and resumes unaware."""
    chance, written = random.Random(11), 0
    with ef.Store(shared_url) as store:
        store.project(CarrierMonth)
        parent = parent_of(RIVALS, shared_url)
        assert parent.stdin is not None
        assert parent.stdout is not None
        tokens: set[int] = set()
        try:
            rivals = [int(parent.stdout.readline()) for _ in range(2)]
            for _ in range(12):
                (held,) = store.projections.checkpoints(CarrierMonth)
                tokens.add(held.token)
                holding = [pid for pid in rivals if f":{pid}:" in held.holder]
                stalled = holding[0] if holding else chance.choice(rivals)
                store.extend(flights(60, written), batch=4)
                written += 60
                time.sleep(chance.random() * 0.02)
                os.kill(stalled, signal.SIGSTOP)
                ends = time.monotonic() + 5
                time.sleep(0.4)
                while holding and time.monotonic() < ends:  # until the other has noticed
                    (now,) = store.projections.checkpoints(CarrierMonth)
                    if now.token != held.token:
                        break
                    time.sleep(0.02)
                os.kill(stalled, signal.SIGCONT)
            store.wait(CarrierMonth, timeout=60)
        finally:
            parent.stdin.close()
            parent.wait(60)
            output = parent.stdout.read()
            parent.stdout.close()
        assert output == "well\nwell\n"
        assert len(tokens) > 4  # the lease changed its holder
        assert rows(store) == folded(flights(written))
        assert proved(store)
