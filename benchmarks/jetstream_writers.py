"""Several writers of one store in a cluster: their rate together beside that of one, each one's share, latencies.

`python -m benchmarks.jetstream_writers` measures, in turns: one process; four processes on its host, which share its
local index; two hosts with an index each; and four processes that compete, as they do without forwarding. All have
equally many appends on their way together. Nodes and hosts are network namespaces; it needs root and nats-server.
Knows: processes, hosts. Does not know: how writers agree.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import eventfold as ef

TASKS = 256  # appends on their way, of all processes together
ROUNDS = 3
WARM_S, SECONDS = 1.5, 4.0
PATIENCE_S = 60.0
MIN_SHARE = 0.8  # of the rate of one writer


class Measured(ef.Event, type="benchmarks.measured"):
    """One event of about 240 bytes with its envelope."""

    entity: ef.Tag
    text: str


class Case(NamedTuple):
    """How many processes write, on how many hosts, and whether they forward."""

    name: str
    processes: int
    hosts: int
    forwards: bool = True


ONE = Case("one process", 1, 1)
CASES = (
    ONE,
    Case("four processes on one host", 4, 1),
    Case("two hosts, a process each", 2, 2),
    Case("four processes that compete", 4, 1, forwards=False),
)


async def append_for(url: str, index: str, tasks: int, *, forwards: bool) -> dict[str, float]:
    """Append from tasks of this process. Returns how many were acknowledged, latencies in ms, how many forwarded."""
    from eventfold.engines.jetstream import forwarding

    if not forwards:
        forwarding.WINDOW_S = 0.0
    took: list[float] = []
    async with ef.AsyncStore(url, index=index) as store:
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        begin = time.monotonic() + WARM_S
        end = begin + SECONDS

        async def work(number: int) -> None:
            while (before := time.monotonic()) < end:
                await store.append(Measured(f"e-{number}", "x" * 120))
                now = time.monotonic()
                if begin <= now < end:
                    took.append(now - before)

        await asyncio.gather(*(work(number) for number in range(tasks)))
        stats = store.engine._session.forwarding  # type: ignore[attr-defined]
        forwarded = stats.forwarded
    took.sort()
    return {
        "count": len(took),
        "p50": took[len(took) // 2] * 1_000,
        "p99": took[len(took) * 99 // 100] * 1_000,
        "forwarded": forwarded,
    }


def run_case(case: Case, url: str, hosts: Sequence[Any], folder: Path) -> list[dict[str, float]]:
    """Run the processes of a case at once, and return what each has measured."""
    running: list[subprocess.Popen[str]] = []
    try:
        for number in range(case.processes):
            host = hosts[number % case.hosts]
            index = folder / f"{case.name.replace(' ', '-')}-{number % case.hosts}.db"
            command = [
                *host.within,
                *(sys.executable, "-m", "benchmarks.jetstream_writers", url, str(index)),
                *(str(TASKS // case.processes), str(case.forwards)),
            ]
            running.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        for each in running:
            assert each.stdout is not None
            if each.stdout.readline() != "ready\n":
                raise RuntimeError("a writer did not start")
        for each in running:
            assert each.stdin is not None
            each.stdin.write("go\n")
            each.stdin.flush()
        return [json.loads(each.communicate(timeout=PATIENCE_S)[0]) for each in running]
    finally:
        for each in running:
            each.kill()
            each.wait()


def main() -> None:
    """Measure every case in turns, and print a table."""
    from eventfold.concurrency import run
    from eventfold.engines import create_store, open_engine
    from soak.cluster.network import networked

    rates: dict[Case, list[float]] = {case: [] for case in CASES}
    shares: dict[Case, list[float]] = {case: [] for case in CASES}
    last: dict[Case, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as at, networked(5) as (cluster, network):
        for turn in range(ROUNDS):
            for case in CASES if turn % 2 == 0 else reversed(CASES):
                url = cluster.url(f"bench-{turn}-{CASES.index(case)}")
                run(create_store(open_engine(url, "sync", True, {})))
                folder = Path(tempfile.mkdtemp(dir=at))
                found = last[case] = run_case(case, url, network.hosts[3:], folder)
                rates[case].append(sum(each["count"] for each in found) / SECONDS)
                shares[case].append(min(each["count"] for each in found) / max(each["count"] for each in found))
    print(f"{TASKS} appends of one event on their way, R3, every node syncs; medians of {ROUNDS} turns")
    for case in CASES:
        ratio = statistics.median(a / b for a, b in zip(rates[case], rates[ONE], strict=True))
        each = "; ".join(f"p50 {one['p50']:.0f} p99 {one['p99']:.0f} ms" for one in last[case])
        goal = "" if case is ONE or not case.forwards else "  met" if ratio >= MIN_SHARE else "  NOT MET"
        print(
            f"{case.name:30} {statistics.median(rates[case]):8,.0f}/s  {ratio:5.2f} of one{goal}"
            f"  slowest/fastest {statistics.median(shares[case]):.2f}  ({each})"
        )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        result = asyncio.run(append_for(sys.argv[1], sys.argv[2], int(sys.argv[3]), forwards=sys.argv[4] == "True"))
        print(json.dumps(result), flush=True)
    else:
        main()
