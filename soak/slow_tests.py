"""Tests of the suite that repeat less there, or take fewer combinations, run in full: with EVENTFOLD_SLOW=1.

Knows: pytest, which tests read that variable. Does not know: what they test.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from soak.rounds import Round

ROOT = Path(__file__).parents[1]
# Each is one round: together they take most of an hour, apart they can be repeated by `--round`.
SUITES: tuple[tuple[str, ...], ...] = (
    ("tests/conformance/test_merging.py",),
    ("tests/conformance/test_remote_blocking.py",),
    ("tests/conformance/test_remote_postgres.py",),
    ("tests/examples/test_jsonl_conformance.py",),
    ("tests/engines/sqlite/test_kill.py", "tests/engines/sqlite/test_fork.py"),
    ("tests/projections/test_killed.py", "tests/projections/inline/test_races.py"),
    ("tests/processes/test_killed.py",),
    ("tests/migrate/test_killed.py", "tests/migrate/test_cutover_killed.py"),
    ("tests/migrate/test_cutover.py",),
    ("tests/migrate/test_flights.py", "tests/migrate/test_random_histories.py"),
    ("tests/targets/test_duckdb.py", "tests/targets/test_sinks.py"),
    ("tests/targets/conformance/test_random_queries.py", "tests/targets/test_interleaved.py"),
    ("tests/packaging/test_extras.py",),
)


def full(turn: Round) -> None:
    """Run one of the suites."""
    suite = SUITES[turn.index % len(SUITES)]
    turn.count("suites")
    variables = {name: value for name, value in os.environ.items() if name != "EVENTFOLD_SOAK"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *suite]
    done = subprocess.run(
        command, cwd=ROOT, env=variables | {"EVENTFOLD_SLOW": "1"}, capture_output=True, text=True, check=False
    )
    last = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""
    for number, outcome in re.findall(r"(\d+) (passed|skipped|failed|error)", last):
        turn.count(outcome, int(number))
    if done.returncode or not turn.counts["passed"]:
        said = done.stdout + done.stderr
        turn.findings.add(f"EVENTFOLD_SLOW=1 python -m pytest {' '.join(suite)}: {said[-2_000:]}")
