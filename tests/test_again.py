"""What `.ci/run` makes of a few tests that failed: `scripts/again.py`, on small suites written here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

SUITE = """
from pathlib import Path
import pytest

def runs(name):
    file = Path(name)
    count = int(file.read_text()) if file.exists() else 0
    file.write_text(str(count + 1))
    return count

@pytest.mark.parametrize("n", range({tests}))
def test_it(n):
    assert {condition}
"""


def run_again(folder: Path, *, tests: int, condition: str) -> subprocess.CompletedProcess[str]:
    """Run a suite of so many tests that hold if a condition does, then the script on its cache."""
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "test_small.py").write_text(SUITE.format(tests=tests, condition=condition))
    bare = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # the plugins' imports take most of the time of a run
    suite = [sys.executable, "-m", "pytest", "-q"]
    assert subprocess.run(suite, cwd=folder, capture_output=True, env=bare).returncode == 1
    script = [sys.executable, str(ROOT / "scripts" / "again.py"), ".pytest_cache"]
    return subprocess.run(script, cwd=folder, capture_output=True, text=True, env=bare)


def test_a_test_that_passes_by_itself_is_printed_as_unsteady(tmp_path: Path) -> None:
    """It failed once, then passed three times: the run is no failure, and the name stands at its end."""
    ran = run_again(tmp_path, tests=1, condition="runs('count') > 0")
    assert ran.returncode == 0, ran.stderr
    assert "UNSTEADY" in ran.stdout and ran.stdout.endswith("test_small.py::test_it[0]\n")
    assert (tmp_path / "count").read_text() == "4"


@pytest.mark.parametrize("passes_before", [0, 1, 2])
def test_a_test_that_fails_once_more_is_a_failure(tmp_path: Path, passes_before: int) -> None:
    """Whether in its first, second or third run alone."""
    ran = run_again(tmp_path, tests=1, condition=f"0 < runs('count') <= {passes_before}")
    assert ran.returncode == 1 and "failed alone, too" in ran.stderr


def test_more_than_three_failed_tests_are_a_failure(tmp_path: Path) -> None:
    """They are not run again: so many have a common cause."""
    ran = run_again(tmp_path, tests=4, condition="runs(str(n)) > 0")
    assert ran.returncode == 1 and "4 tests failed" in ran.stderr
    assert (tmp_path / "0").read_text() == "1"


def test_a_run_that_names_no_failed_test_is_a_failure(tmp_path: Path) -> None:
    """As one that was ended before its end."""
    script = [sys.executable, str(ROOT / "scripts" / "again.py"), str(tmp_path)]
    ran = subprocess.run(script, capture_output=True, text=True)
    assert ran.returncode == 1 and "without naming" in ran.stderr
