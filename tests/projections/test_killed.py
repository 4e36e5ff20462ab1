"""Room: runners killed at any moment (kill -9): rows are those of the plain fold, and the ledger proves it."""

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

# A process that forks a runner whenever it is told to, so that a hundred runners need not start a hundred interpreters.
NURSERY = """
import os, sys
import eventfold.engines.sqlite, eventfold.targets.sqlite, eventfold.targets.sql
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
    """Runners are started and killed while events are written; the last one finishes, and nothing shows of it all."""
    on_a_server = "postgresql" in shared_url  # where a runner needs longer to get to work
    kills, patience = (40, 0.3) if on_a_server else (100, 0.02)
    chance = random.Random(4)
    written = 0
    root = Path(__file__).parents[2]
    with ef.Store(shared_url) as store:
        store.project(CarrierMonth)
        nursery = subprocess.Popen(
            [sys.executable, "-c", NURSERY, shared_url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=root,
            text=True,
            env={**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'src'}"},
        )
        assert nursery.stdin is not None
        assert nursery.stdout is not None
        positions: set[int] = set()
        try:
            for _ in range(kills):
                store.extend(flights(40, written), batch=8)
                written += 40
                nursery.stdin.write("\n")
                nursery.stdin.flush()
                child = int(nursery.stdout.readline())
                time.sleep(chance.random() * patience)
                os.kill(child, signal.SIGKILL)
                positions.update(held.position for held in store.projections.checkpoints(CarrierMonth))
        finally:
            nursery.stdin.close()
            nursery.wait(20)
            nursery.stdout.close()
        assert len(positions) > 10  # they were killed at work, not before it
        store.project(CarrierMonth)
        assert rows(store) == folded(flights(written))
        assert proved(store)
