"""Tests whose program is missing are skipped by name and listed, or fail where every program is required."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.programs import REQUIRED

ROOT = Path(__file__).parents[2]
TESTS = """
import pytest
from tests.support.programs import Missing, needs_ability, needs_program

@pytest.fixture(scope="module")
def server():
    raise Missing("no-such-server", "no-such-package")

@needs_program("no-such-program", "no-such-package")
def test_marked(): raise AssertionError

def test_fixture(server): raise AssertionError

def test_within(): raise Missing("no-such-server", "no-such-package")

@needs_ability("wings", lambda: False)
def test_ability(): raise AssertionError

@needs_program("python-of-the-tests", "-", lambda: True)
def test_present(): pass
"""


def run(folder: Path, *, required: bool, workers: int = 0) -> tuple[int, str]:
    """Run pytest on TESTS. Returns its exit code and output."""
    (folder / "test_sample.py").write_text(TESTS, "utf-8")
    environment = {key: value for key, value in os.environ.items() if key != REQUIRED and "PYTEST" not in key}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-c",
        os.devnull,
        "--rootdir",
        str(folder),
        "-p",
        "tests.support.programs",
    ]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", f"-n{workers}", str(folder)],
        cwd=ROOT,
        env={**environment, **({REQUIRED: "1"} if required else {})},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("workers", [0, 1])
def test_a_missing_program_skips_by_name(tmp_path: Path, workers: int) -> None:
    """The names and the numbers of tests are listed at the end, in one process and in several."""
    code, output = run(tmp_path, required=False, workers=workers)
    assert code == 0 and "1 passed, 4 skipped" in output, output
    assert "no-such-program (Debian: no-such-package): 1 test\n" in output
    assert "no-such-server (Debian: no-such-package): 2 tests\n" in output
    assert "wings, not possible here: 1 test\n" in output


def test_a_missing_program_fails_where_all_are_required(tmp_path: Path) -> None:
    """A mark, a fixture or the test itself misses it. What a machine does not permit is skipped there too."""
    code, output = run(tmp_path, required=True)
    assert code == 1, output
    assert output.count("needs no-such-server (Debian: no-such-package): EVENTFOLD_REQUIRE_PROGRAMS is set") >= 2
    assert "needs no-such-program (Debian: no-such-package): EVENTFOLD_REQUIRE_PROGRAMS is set" in output
    assert "1 passed, 1 skipped" in output and "wings, not possible here: 1 test\n" in output


def test_continuous_integration_requires_every_program() -> None:
    """`.ci/run` sets the variable for the tests."""
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    assert f"\nexport {REQUIRED}=1\n" in script and "\nmake test" in script.partition(f"{REQUIRED}=1")[2]
