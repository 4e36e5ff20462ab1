"""The entry point of the soak programme: `python -m soak`, or `make soak`.

Knows: the options. Does not know: what a family does.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
import warnings
from pathlib import Path

import psycopg  # noqa: F401 - forked children import nothing

from soak import machine, report
from soak.families import FAMILIES
from soak.rounds import Family
from soak.schedule import Schedule, Settings
from tests.support.programs import find_program
from tests.support.servers.nats import PROGRAM
from tests.support.servers.postgres import PostgresServer, programs

PLACE = Path("build/soak")


def options(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser("python -m soak", description="Faults by the thousand, and what is promised.")
    names = [family.name for family in FAMILIES]
    parser.add_argument("--only", action="append", metavar="FAMILY", help=f"{', '.join(names)}, or how these begin")
    parser.add_argument("--seed", type=int, default=1, help="another seed is another run (default 1)")
    parser.add_argument("--round", type=int, metavar="N", help="only this round of each family, again")
    parser.add_argument("--scale", type=float, default=1.0, help="0.1 is a tenth of the faults (default 1)")
    parser.add_argument("--jobs", type=int, default=4, help="rounds at a time (default 4)")
    parser.add_argument("--minutes", type=float, default=60.0, help="no round begins later than this (default 60)")
    parser.add_argument("--results", type=Path, default=PLACE / "results.jsonl", help="a line for each round")
    parser.add_argument("--fresh", action="store_true", help="forget the results of earlier runs")
    parser.add_argument("--list", action="store_true", help="the families and what each needs")
    return parser.parse_args(arguments)


def chosen(only: list[str] | None) -> list[Family]:
    """Return the chosen families. Raises SystemExit for an unknown name."""
    if not only:
        return list(FAMILIES)
    found = [family for family in FAMILIES if any(family.name.startswith(name) for name in only)]
    missing = [name for name in only if not any(family.name.startswith(name) for family in FAMILIES)]
    if missing:
        raise SystemExit(f"no family is called {', '.join(missing)}")
    return found


def lacking(families: list[Family]) -> dict[str, str]:
    """Return the families that cannot run on this machine, each with the reason."""
    mounts = machine.root() if any(family.root for family in families) else True
    try:
        programs()
        server = True
    except RuntimeError:
        server = False
    reasons = {}
    for family in families:
        if family.root and not mounts:
            reasons[family.name] = "needs root: mounts and namespaces"
        elif family.postgres and not server:
            reasons[family.name] = "needs the programs of a PostgreSQL server"
        elif family.nats and not PROGRAM:
            reasons[family.name] = "needs nats-server"
        elif family.program and not find_program(family.program):
            reasons[family.name] = f"needs {family.program}"
    return reasons


def main(arguments: list[str] | None = None) -> int:
    """Run the rounds and print the table. Returns 1 if there are violations."""
    asked = options(arguments)
    families = chosen(asked.only)
    if asked.list:
        for each in families:
            words = (each.root and "root", each.postgres and "PostgreSQL", each.nats and "nats-server", each.program)
            needs = [word for word in words if word]
            print(f"{each.name:<20} {each.total} {each.unit}{'; needs ' if needs else ''}{', '.join(needs)}")
        return 0
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    os.environ["EVENTFOLD_SOAK"] = "1"
    if asked.fresh:
        asked.results.unlink(missing_ok=True)
    skipped = lacking(families)
    runnable = [family for family in families if family.name not in skipped]
    server = None
    began = time.monotonic()
    try:
        if any(family.postgres for family in runnable):
            server = PostgresServer(within=str(machine.scratch()), max_connections="400").start()
        settings = Settings(
            asked.seed, asked.scale, asked.jobs, asked.minutes, asked.results, asked.results.parent / "kept",
            server.url() if server else "",
        )  # fmt: skip
        schedule = Schedule(runnable, settings)
        schedule.run(asked.round)
    finally:
        if server is not None:
            server.remove()
        machine.clean()
    lines = [line for line in schedule.lines if line["family"] in {family.name for family in families}]
    print("\n".join(report.violations(lines, asked.seed)))
    print(report.table(families, lines, skipped))
    print(f"{(time.monotonic() - began) / 60:.1f} minutes; results: {asked.results}")
    return 1 if any(line["violations"] for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main())
