"""The options and the session: copy, coverage, sample, trials, table. A stopped session can be continued.

Knows: the order of these steps. Does not know: how each is done.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from cosmic_ray.work_db import WorkDB
from cosmic_ray.work_item import TestOutcome, WorkerOutcome, WorkItem

from mutants import report, tree, trial
from mutants.covering import Covering
from mutants.sample import all_mutants, sample

PLACE = tree.ROOT / "build" / "mutants"
PACKAGE = Path("src/eventfold")
FOLDERS = ("core", "log")
# Tests that call the modules in their own process, without servers.
TESTS = (
    "tests/core", "tests/log", "tests/model", "tests/conformance", "tests/snapshots", "tests/testing", "tests/epochs",
    "tests/engines/sqlite", "-k", "not postgres",
)  # fmt: skip


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser("python -m mutants", description="Changes to core and log that tests should see.")
    parser.add_argument("--sample", type=int, default=500, metavar="N", help="how many mutants (default 500)")
    parser.add_argument("--seed", type=int, default=1, help="the seed of the sample (default 1)")
    parser.add_argument(
        "--module", action="append", metavar="PATH", help="core/query.py, or a folder; default: core and log"
    )
    parser.add_argument("--tests", nargs="+", metavar="PATH", help="the tests to choose from (default: see the source)")
    parser.add_argument("--minutes", type=float, default=1e9, help="start no mutant after this time")
    parser.add_argument("--fresh", action="store_true", help="discard the session and the coverage of earlier runs")
    return parser.parse_args(arguments)


def modules(names: Sequence[str]) -> list[Path]:
    """Return the named modules, as paths in the repository. Raises SystemExit if there is no such module."""
    paths = list[Path]()
    for name in names:
        path = tree.ROOT / PACKAGE / name
        each = sorted(path.rglob("*.py")) if path.is_dir() else [path]
        if not each or not each[0].is_file():
            raise SystemExit(f"there is no module {name} in {PACKAGE}; name one as core/query.py")
        paths += [module.relative_to(tree.ROOT) for module in each]
    return paths


def open_session(chosen: argparse.Namespace, tests: Sequence[str], copied: Path) -> tuple[WorkDB, Covering]:
    """Open the stopped session if it has the same sources, tests and options, otherwise a new one."""
    sources = tree.copy(copied)
    paths = modules(chosen.module or FOLDERS)
    measured = {"sources": sources, "tests": list(tests)}
    wanted = {**measured, "modules": [str(each) for each in paths], "sample": chosen.sample, "seed": chosen.seed}
    settings, session = PLACE / "settings.json", PLACE / "session.sqlite"
    earlier = json.loads(settings.read_text("utf-8")) if settings.exists() and not chosen.fresh else {}
    if {name: earlier.get(name) for name in measured} != measured:
        for name in ("coverage", "times.json"):
            (PLACE / name).unlink(missing_ok=True)
    if earlier != wanted:
        session.unlink(missing_ok=True)
    settings.write_text(json.dumps(wanted), "utf-8")
    covering = Covering(PLACE, copied)
    covering.measure(tests)
    is_new = not session.exists()
    database = WorkDB(session, WorkDB.Mode.create)
    if is_new:
        mutants = all_mutants(paths, copied)
        print(f"{len(mutants)} mutants in {len(paths)} modules", flush=True)
        database.add_work_items(sample(mutants, chosen.sample, chosen.seed))
    return database, covering


def tests_of(item: WorkItem, covering: Covering, copied: Path) -> list[str]:
    """Return the tests that run the changed lines."""
    mutant = item.mutations[0]
    return covering.tests(mutant.module_path.relative_to(copied), mutant.start_pos[0], mutant.end_pos[0])


def check_control(items: Sequence[WorkItem], covering: Covering, copied: Path) -> None:
    """Run all tests of the sample without a mutant. Raises SystemExit if one fails: it would kill every mutant."""
    needed = sorted({test for item in items for test in tests_of(item, covering, copied)})
    if needed and trial.run_tests(needed, copied, sum(covering.seconds[test] for test in needed)) != trial.PASSED:
        print((PLACE / "pytest.log").read_text("utf-8", "replace")[-3000:])
        raise SystemExit("a test fails without any mutant")


def main(arguments: Sequence[str] | None = None) -> int:
    """Try the mutants that have no result yet. Returns 1 if one is neither killed nor explained."""
    chosen = options(arguments)
    copied = PLACE / "tree"
    PLACE.mkdir(parents=True, exist_ok=True)
    database, covering = open_session(chosen, chosen.tests or TESTS, copied)
    ends = time.monotonic() + chosen.minutes * 60
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    pending = sorted(database.pending_work_items, key=lambda item: item.job_id)
    check_control(pending, covering, copied)
    for number, item in enumerate(pending, 1):
        if time.monotonic() > ends:
            break
        tests = tests_of(item, covering, copied)
        result = trial.try_mutant(item.mutations[0], tests, copied, sum(covering.seconds[test] for test in tests))
        database.set_result(item.job_id, result)
        if result.worker_outcome is WorkerOutcome.NORMAL and result.test_outcome is TestOutcome.KILLED:
            outcome = result.output or "killed"
        else:
            outcome = result.test_outcome.value if result.test_outcome else result.worker_outcome.value
        module, line = item.mutations[0].module_path.name, item.mutations[0].start_pos[0]
        print(f"{number}/{len(pending)} {module}:{line} {outcome} ({len(tests)} tests)", flush=True)
    items = {item.job_id: item.mutations[0] for item in database.work_items}
    tried = [(items[job], result) for job, result in sorted(database.results)]
    text = report.table(tried, len(items))
    database.close()
    (PLACE / "report.txt").write_text(text, "utf-8")
    shutil.rmtree(copied, ignore_errors=True)
    print(text)
    return 1 if "; 0 neither" not in text else 0


if __name__ == "__main__":
    sys.exit(main())
