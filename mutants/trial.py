"""One mutant: the change in the copied file, the tests that run the line, the outcome.

Knows: how cosmic-ray changes and restores a file, pytest's exit codes. Does not know: sessions.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from cosmic_ray.mutating import use_mutation
from cosmic_ray.plugins import get_operator
from cosmic_ray.work_item import MutationSpec, TestOutcome, WorkerOutcome, WorkResult

from mutants import tree
from mutants.covering import PYTEST, SEEDED

SLOWER, GRACE_S = 10.0, 60.0  # the time limit of a mutant: so many times the usual time, plus so many seconds
PASSED = 0
TIMED_OUT = "timed out"


def run_tests(tests: Sequence[str], copied: Path, seconds: float) -> int | None:
    """Run these tests up to the first failure. Return pytest's exit code, or None after a timeout."""
    names = copied.parent / "tests.txt"
    names.write_text("\n".join(tests), "utf-8")
    command = [sys.executable, *PYTEST, *SEEDED, "-x", f"@{names}"]
    with (copied.parent / "pytest.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=copied, env=tree.environment(copied), stdout=log, stderr=log, start_new_session=True
        )
        try:
            return process.wait(seconds * SLOWER + GRACE_S)
        except subprocess.TimeoutExpired:
            return None
        finally:
            with contextlib.suppress(ProcessLookupError):  # processes that the tests started end with them
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def try_mutant(mutant: MutationSpec, tests: Sequence[str], copied: Path, seconds: float) -> WorkResult:
    """Change the file, run the tests, restore the file. If cosmic-ray cannot make the change, the outcome says so."""
    try:
        return _try(mutant, tests, copied, seconds)
    except AttributeError as error:
        return WorkResult(WorkerOutcome.ABNORMAL, output=f"cosmic-ray cannot make this change: {error}")


def _try(mutant: MutationSpec, tests: Sequence[str], copied: Path, seconds: float) -> WorkResult:
    operator = get_operator(mutant.operator_name)(**mutant.operator_args)
    with use_mutation(mutant.module_path, operator, mutant.occurrence) as (before, after):
        if after is None:
            return WorkResult(WorkerOutcome.ABNORMAL, output="cosmic-ray made no change")
        changes = "\n".join(
            line
            for line in difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0)
            if not line.startswith(("---", "+++", "@@"))
        )
        if not tests:
            return WorkResult(WorkerOutcome.NO_TEST, diff=changes)
        code = run_tests(tests, copied, seconds)
    outcome = TestOutcome.SURVIVED if code == PASSED else TestOutcome.KILLED
    return WorkResult(WorkerOutcome.NORMAL, TIMED_OUT if code is None else "", outcome, changes)
