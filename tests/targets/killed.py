"""A process that forks a runner of a read model in another target for each input line, to be killed while it works.

    python -m tests.targets.killed STORE TARGET

Knows: how to run a read model. Does not know: who kills a runner, or when.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import eventfold as ef
from tests.projections.flights import Cancelled, CarrierMonth, Departed
from tests.targets.receiver import SECRET


def elsewhere(address: Any) -> type[CarrierMonth]:
    """CarrierMonth, in the target of an address."""

    class ElsewhereMonth(CarrierMonth, name="carrier_month", target=address):
        def evolve(self, event: Departed | Cancelled) -> None:
            super().evolve(event)

    return ElsewhereMonth


def forking_process(store: str, address: str) -> subprocess.Popen[str]:
    """Start this module as a process."""
    root = Path(__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.targets.killed", store, address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=root,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'src'}"},
    )


def dawdle(sink: Any) -> Any:
    """Make a sink slow before and after it writes, so that a kill hits these moments."""
    write = sink.write

    def slowly(batch: Any) -> bool:
        time.sleep(0.004)
        taken = write(batch)
        time.sleep(0.004)
        return bool(taken)

    sink.write = slowly
    return sink


def place(address: str) -> Any:
    """The target for a class: an address, or a slow sink."""
    if address.startswith("redis"):
        from eventfold.targets.sinks.redis import RedisSink

        return dawdle(RedisSink(address))
    if address.startswith("http"):
        from eventfold.targets.sinks.http import HttpSink

        return dawdle(HttpSink(address, secret=SECRET))
    import eventfold.targets.duckdb.parquet

    assert eventfold.targets.duckdb.parquet.DATABASE_FILE
    return address


if __name__ == "__main__":
    import eventfold.engines.sqlite
    import eventfold.targets.sql.target
    import eventfold.targets.sqlite.driver

    kept = elsewhere(place(sys.argv[2]))
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            with ef.Store(sys.argv[1]) as here, here.run(kept) as runner:
                os.write(1, f"{os.getpid()}\n".encode())
                runner.wait()
            os._exit(0)
        os.waitpid(child, 0)
