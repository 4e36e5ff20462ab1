"""The table of availability: each deployment's outages are measured here, and written into the page.

    python -m benchmarks.availability measure [DEPLOYMENT …]   measures, into benchmarks/availability.json
    python -m benchmarks.availability publish                  writes the table of docs/explanation/availability.md
    python -m benchmarks.availability record cluster outage=4.1,4.6 planned=0.03 throughput=9000 recovery=7.0

`record` is for figures of a deployment that were measured elsewhere. Knows: deployments and their faults. Does not
know: how a gap is measured (outages.py).
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import eventfold as ef
from benchmarks import machine
from benchmarks.outages import Application, Writers, await_true, fill, throughput

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "availability.json"
PAGE = ROOT / "docs" / "explanation" / "availability.md"
BEGIN, END = "<!-- availability -->", "<!-- end -->"
STORED = 100_000
Figures = dict[str, list[float]]  # outage, planned, recovery in s; throughput in appends/s


class Deployment(NamedTuple):
    """A row. The texts are what does not come from a run."""

    title: str
    survives: str
    lost: str
    fault: str  # what was done
    own_appends: str


DEPLOYMENTS = {
    "file": Deployment(
        "one SQLite file",
        "the death of processes; a crash or power cut of the machine",
        "everything with the disk",
        "`kill -9` of the application, started again at once",
        "always",
    ),
    "file-backup": Deployment(
        "a file, and a copy elsewhere by `eventfold backup`",
        "also the loss of the disk or the machine",
        "what was appended since the last copy",
        "the file is gone, the copy is put in its place and opened",
        "always",
    ),
    "postgres": Deployment(
        "PostgreSQL",
        "the loss of application machines; a crash or power cut of the server",
        "everything with the server's disk",
        "`kill -9` of the server, started again at once",
        "always; on a replica with `read_your_writes=True`",
    ),
    "postgres-standby": Deployment(
        "[PostgreSQL with a standby](../how-to/postgresql-standby.md)",
        "also the loss of either database machine",
        "nothing",
        "everything on the primary's machine killed; `ttl: 20`",
        "always; on the standby with `remote_apply`",
    ),
    "cluster": Deployment(
        "a NATS cluster of three nodes",
        "the loss of any one of its machines",
        "nothing",
        "`kill -9` of the stream's leader",
        'always, across machines; `consistency="local"` gives it up',
    ),
}


def measure_file(rounds: int) -> Figures:
    """Kill the application, and start it again."""
    with tempfile.TemporaryDirectory(prefix="eventfold-availability-") as folder:
        path = Path(folder) / "store.db"
        with ef.Store(str(path)) as store:
            fill(store, STORED)
            ceiling = throughput(store)
        outages, opened = list[float](), list[float]()
        running = Application(path)
        for _ in range(rounds):
            running.await_appends(500)
            running.kill()
            last, began = running.times[-1], time.monotonic()
            with ef.Store(str(path)) as store:
                store.head()
                opened.append(time.monotonic() - began)
            running, last = Application(path), last + time.monotonic() - began  # the look before it is no outage
            running.await_appends(1)
            outages.append(running.times[0] - last)
        running.kill()
        return {"outage": outages, "recovery": opened, "throughput": [ceiling]}


def measure_file_backup(rounds: int) -> Figures:
    """Lose the file, and put the last copy in its place."""
    with tempfile.TemporaryDirectory(prefix="eventfold-availability-") as folder:
        path, copy = Path(folder) / "store.db", Path(folder) / "copy.db"
        with ef.Store(str(path)) as store:
            fill(store, STORED)
            ceiling = throughput(store)
        outages, copied = list[float](), list[float]()
        for _ in range(rounds):
            with ef.Store(str(path)) as store:
                began = time.monotonic()
                store.backup(str(copy))
                copied.append(time.monotonic() - began)
            began = time.monotonic()
            for each in Path(folder).glob("store.db*"):
                each.unlink()
            shutil.copyfile(copy, path)
            running = Application(path)
            running.await_appends(1)
            outages.append(running.times[0] - began)
            running.kill()
            copy.unlink()
        return {"outage": outages, "copy": copied, "throughput": [ceiling]}


def measure_postgres(rounds: int) -> Figures:
    """Kill the server, and start it again."""
    from tests.support.servers.postgres import own

    with own() as server, ef.Store(server.url(), patience=60.0) as store:
        fill(store, STORED)
        ceiling = throughput(store)
        writers = Writers(store)

        def crash() -> None:
            server.kill()
            server.start()

        def restart() -> None:
            server.stop()
            server.start()

        outages = [writers.gap_over(crash) for _ in range(rounds)]
        planned = [writers.gap_over(restart) for _ in range(rounds)]
        writers.stop()
        return {"outage": outages, "planned": planned, "throughput": [ceiling], "errors": [len(writers.failed)]}


def measure_postgres_standby(rounds: int) -> Figures:
    """Lose the machine of the primary, with the files of the how-to as they are."""
    from tests.support.servers.patroni import PatroniCluster

    cluster = PatroniCluster().start()
    try:
        with ef.Store(cluster.url(connect_timeout="2"), patience=120.0) as store:
            fill(store, STORED)
            ceiling = throughput(store)
            writers = Writers(store)
            outages, planned, recovered = list[float](), list[float](), list[float]()
            for _ in range(rounds):
                cluster.await_standby()
                lost = cluster.primary()
                outages.append(writers.gap_over(lost.kill))
                began = time.monotonic()
                lost.start()
                await_true(lambda: cluster.find("sync_standby"), "the machine to be a standby again")
                recovered.append(time.monotonic() - began)
                planned.append(writers.gap_over(cluster.switch_over))
            writers.stop()
            found = {"outage": outages, "planned": planned, "recovery": recovered}
            return found | {"throughput": [ceiling], "errors": [len(writers.failed)]}
    finally:
        cluster.remove()


def measure_cluster(rounds: int) -> Figures:
    """Kill the node that leads the stream; as a planned change, let it hand its leaderships over and end."""
    from tests.support.servers.nats import own
    from tests.support.stores import new_stream, stream_of

    outages, planned, recovered = list[float](), list[float](), list[float]()
    with (
        tempfile.TemporaryDirectory(prefix="eventfold-availability-") as folder,
        own(3, folder=Path(folder)) as cluster,
    ):
        url = new_stream(cluster, index=f"{folder}/index.db")
        with ef.Store(url, timeout=90.0) as store:
            fill(store, STORED)
            ceiling = throughput(store)
            writers = Writers(store)
            for _ in range(rounds):
                for done, gaps in (("kill", outages), ("retire", planned)):
                    leader = cluster.leader(stream_of(url))
                    gaps.append(writers.gap_over(getattr(leader, done)))
                    began = time.monotonic()
                    cluster.start(leader)
                    if done == "kill":
                        recovered.append(time.monotonic() - began)
            writers.stop()
            found = {"outage": outages, "planned": planned, "recovery": recovered}
            return found | {"throughput": [ceiling], "errors": [len(writers.failed)]}


MEASURES: dict[str, tuple[Callable[[int], Figures], int]] = {
    "file": (measure_file, 15),
    "file-backup": (measure_file_backup, 10),
    "postgres": (measure_postgres, 10),
    "postgres-standby": (measure_postgres_standby, 4),
    "cluster": (measure_cluster, 4),
}


def read_results() -> dict[str, Any]:
    """The figures of each deployment that was measured so far."""
    return json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}


def keep(name: str, figures: Figures) -> None:
    """Add the figures of a deployment, with the machine and the commit."""
    facts = machine.machine(Path(tempfile.gettempdir()))
    found = read_results() | {
        name: {
            "figures": {key: [round(value, 3) for value in values] for key, values in figures.items()},
            "date": time.strftime("%Y-%m-%d"),
            "machine": f"{facts['processor']}, {facts['cores']} cores",
            "commit": machine.commit()[0],
        }
    }
    RESULTS.write_text(json.dumps(dict(sorted(found.items())), indent=1) + "\n", "utf-8")


def seconds(values: list[float] | None) -> str:
    """The median and the largest of times, as text."""
    if not values:
        return "–"
    text = [
        f"{value:.1f} s" if value >= 1 else f"{value * 1000:.0f} ms"
        for value in (statistics.median(values), max(values))
    ]
    return text[0] if len(values) == 1 else f"{text[0]}, at most {text[1]} ({len(values)} rounds)"


def row(name: str, results: dict[str, Any]) -> str:
    """A line of the table."""
    it = DEPLOYMENTS[name]
    figures: Figures = results.get(name, {}).get("figures", {})
    ceiling = f"{statistics.median(figures['throughput']):,.0f}/s" if figures.get("throughput") else "–"
    outage = f"{seconds(figures['outage'])}: {it.fault}" if figures.get("outage") else "not measured yet"
    recovery = seconds(figures.get("recovery"))
    cells = (it.title, it.survives, it.lost, outage, seconds(figures.get("planned")), recovery, ceiling, it.own_appends)
    return f"| {' | '.join(cells)} |"


def table(results: dict[str, Any]) -> str:
    """The table, and where its figures come from."""
    head = (
        *("deployment", "survives", "acknowledged events that can be lost", "no appends for", "planned change"),
        *("recovery", "appends/s of 8 writers", "reads its own appends"),
    )
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *(row(name, results) for name in DEPLOYMENTS)]
    measured = sorted({(each["date"], each["machine"], each["commit"]) for each in results.values()})
    runs = "; ".join(f"{date}, {where}, commit {commit}" for date, where, commit in measured)
    return "\n".join([*lines, "", f"Measured: {runs}." if runs else "Nothing was measured yet."])


def with_table(text: str, begin: str, end: str, lines: str) -> str:
    """The text of a page with these lines between two marks."""
    before, rest = text.split(begin)
    return f"{before}{begin}\n{lines}\n{end}{rest.split(end)[1]}"


def publish() -> None:
    """Write the table into the page."""
    PAGE.write_text(with_table(PAGE.read_text("utf-8"), BEGIN, END, table(read_results())), "utf-8")


def main(arguments: list[str] | None = None) -> None:
    """Run a verb."""
    parser = argparse.ArgumentParser("python -m benchmarks.availability", description="The table of availability.")
    parser.add_argument("verb", choices=("measure", "publish", "record"))
    parser.add_argument("words", nargs="*", metavar="DEPLOYMENT or KEY=VALUE,…")
    parser.add_argument("--rounds", type=int, default=0, help="instead of each deployment's own number")
    asked = parser.parse_args(arguments)
    if asked.verb == "measure":
        for name in asked.words or MEASURES:
            run, rounds = MEASURES[name]
            figures = run(asked.rounds or rounds)
            print(name, figures, flush=True)
            keep(name, figures)
    elif asked.verb == "record":
        name, *pairs = asked.words
        if name not in DEPLOYMENTS:
            raise SystemExit(f"no deployment is called {name}: {', '.join(DEPLOYMENTS)}")
        given = dict(pair.split("=", 1) for pair in pairs)
        keep(name, {key: [float(value) for value in values.split(",")] for key, values in given.items()})
    publish()


if __name__ == "__main__":
    main()
