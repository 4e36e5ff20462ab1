"""Run the tests that failed in a run of the whole suite again, each three times in a process of its own.

A test fails for one of two reasons: its assertion does not hold, or its surroundings were not as it expects (the load
of the machine, objects that another test left in the process). In the first case it fails again; in the second it
passes. A few tests of the second kind are printed under UNSTEADY and do not fail the run. Each is a defect of the test,
or a rare defect of the library, and must be repaired. The run fails if more than three tests failed, if it ended early,
or if one of the repetitions fails.

    python scripts/again.py CACHE        CACHE: pytest's cache directory of the run that failed
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

MOST_TESTS = 3
RUNS = 3
LIMIT_S = 600


def main(cache: Path) -> int:
    """Return the exit code: 0 if at most MOST_TESTS tests had failed and each passes now, every time."""
    file = cache / "v" / "cache" / "lastfailed"
    failed: list[str] = sorted(json.loads(file.read_text("utf-8"))) if file.exists() else []
    if not failed:
        print("The run ended without naming a failed test: nothing is run again.", file=sys.stderr)
        return 1
    if len(failed) > MOST_TESTS:
        print(f"{len(failed)} tests failed, more than {MOST_TESTS}: nothing is run again.", file=sys.stderr)
        return 1
    for test in failed:
        for run in range(1, RUNS + 1):
            command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test]
            if subprocess.run(command, timeout=LIMIT_S).returncode != 0:
                print(f"{test} failed alone, too (run {run} of {RUNS}).", file=sys.stderr)
                return 1
    print(f"UNSTEADY: failed in the suite, passed {RUNS} times alone. Find the cause, and repair it:")
    print("\n".join(f"  {test}" for test in failed))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
