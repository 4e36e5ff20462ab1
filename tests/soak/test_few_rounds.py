"""A few rounds of the soak programme, so that it works when it is needed.

Knows: its command line and its results. Does not know: how faults are caused.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from soak.slow_tests import SUITES

ROOT = Path(__file__).parents[2]
OWN = {Path(__file__).relative_to(ROOT).as_posix()}

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the soak programme needs Linux")


def soak(results: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the programme, as a process of its own."""
    command = [sys.executable, "-m", "soak", "--results", str(results), "--jobs", "2", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=150, check=False)


def counted(results: Path) -> dict[str, Counter[str]]:
    """Return the counts of each family."""
    found: dict[str, Counter[str]] = {}
    for line in results.read_text().splitlines():
        result = json.loads(line)
        found.setdefault(result["family"], Counter()).update(result["counts"])
    return found


def test_a_few_rounds_cause_their_faults_and_find_no_violation(tmp_path: Path) -> None:
    """Kills, a power cut, faults of calls and a storm of signals happen, are counted, and break no promise."""
    results = tmp_path / "results.jsonl"
    words = ["--scale", "0.001", "--only", "kills-sqlite", "--only", "power-sectors", "--only", "nth-calls"]
    ran = soak(results, *words, "--only", "storms-sqlite")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = counted(results)
    assert found["kills-sqlite"]["kills"] >= 5
    assert found["kills-sqlite"]["events"] > 0
    assert found["power-sectors"]["power cuts"] >= 1
    assert found["nth-calls"]["faults"] >= 1
    assert found["storms-sqlite"]["signals"] >= 10
    assert "rounds with violations: 0" in ran.stdout


def test_a_run_is_resumed(tmp_path: Path) -> None:
    """Rounds in the results are not run again; another seed starts from the beginning."""
    results = tmp_path / "results.jsonl"
    line = {"family": "nth-calls", "index": 0, "seed": "1:nth-calls:0", "seconds": 1.0}
    results.write_text(json.dumps({**line, "counts": {"faults": 500}, "violations": []}) + "\n")
    ran = soak(results, "--only", "nth-calls", "--minutes", "0.1")
    assert ran.returncode == 0
    assert len(results.read_text().splitlines()) == 1


def test_a_violation_fails_with_the_command_that_repeats_it(tmp_path: Path) -> None:
    """A round with problems makes the exit code 1, and prints the seed that repeats it."""
    results = tmp_path / "results.jsonl"
    line = {"family": "nth-calls", "index": 3, "seed": "7:nth-calls:3", "seconds": 1.0}
    results.write_text(json.dumps({**line, "counts": {"faults": 500}, "violations": ["something is lost"]}) + "\n")
    ran = soak(results, "--only", "nth-calls", "--seed", "7", "--minutes", "0")
    assert ran.returncode == 1
    assert "something is lost" in ran.stdout
    assert "python -m soak --only nth-calls --seed 7 --round 3" in ran.stdout


def test_each_test_that_does_less_in_the_suite_is_run_in_full_here() -> None:
    """Files that read EVENTFOLD_SLOW, themselves or by tests/support/repetitions.py, are the ones that soak runs."""
    listed = {name for suite in SUITES for name in suite}
    texts = {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in ROOT.glob("tests/**/test_*.py")}
    less = ('"EVENTFOLD_SLOW" in os.environ', "tests.support.repetitions import")
    assert {name for name, text in texts.items() if any(words in text for words in less)} - OWN == listed
