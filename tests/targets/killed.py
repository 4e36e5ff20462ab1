"""Room: a process that forks runners of a read model kept elsewhere, one whenever it is told to, to be killed at work.

    python -m tests.targets.killed STORE TARGET

Knows: nothing but how to run. Does not know: who kills, or when.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import eventfold as ef
from tests.projections.flights import Cancelled, CarrierMonth, Departed


def elsewhere(address: Any) -> type[CarrierMonth]:
    """CarrierMonth, kept at an address."""

    class ElsewhereMonth(CarrierMonth, name="carrier_month", target=address):
        def evolve(self, event: Departed | Cancelled) -> None:
            super().evolve(event)

    return ElsewhereMonth


def nursery(store: str, address: str) -> subprocess.Popen[str]:
    """This module as a process of its own."""
    root = Path(__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.targets.killed", store, address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=root,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'src'}"},
    )


if __name__ == "__main__":
    import eventfold.engines.sqlite
    import eventfold.targets.sql
    import eventfold.targets.sqlite

    kept = elsewhere(sys.argv[2])
    if sys.argv[2].startswith(("duckdb", "parquet")):
        import eventfold.targets.duck.parquet
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            with ef.Store(sys.argv[1]) as here, here.run(kept) as runner:
                os.write(1, f"{os.getpid()}\n".encode())
                runner.wait()
            os._exit(0)
        os.waitpid(child, 0)
