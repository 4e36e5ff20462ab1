"""The types of the installed wheel: `py.typed` is there, and strict checkers see what a user's code may do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging.environments import ROOT, run

USER = """
import eventfold as ef


class Taken(ef.Event):
    seat: ef.Tag


class Seat(ef.State):
    seat: ef.Tag
    taken: bool = False

    def evolve(self, event: Taken) -> None:
        self.taken = True


def take(seat: Seat) -> list[ef.Event]:
    return [] if seat.taken else [Taken(seat.seat)]


with ef.Store("memory:") as store:
    store.decide(take, Seat("1a"))
    taken: bool = store.state(Seat("1a")).taken
    count: str = store.head()
"""


@pytest.fixture
def user_file(tmp_path: Path) -> Path:
    """A small program with one mistake, which a checker must find."""
    path = tmp_path / "user.py"
    path.write_text(USER.lstrip(), "utf-8")
    return path


def mistakes(command: list[object], folder: Path) -> str:
    """What a checker prints about the file; it must find something."""
    done = subprocess.run(list(map(str, command)), cwd=folder, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


def test_mypy_reads_the_types_of_the_wheel(python: Path, user_file: Path, tmp_path: Path) -> None:
    """Strict mypy finds the mistake and nothing else."""
    mypy = [sys.executable, "-m", "mypy", "--strict", "--python-executable", python, "--cache-dir", tmp_path / "cache"]
    printed = mistakes([*mypy, user_file], tmp_path)
    assert printed.count("error:") == 1
    assert 'has type "int", variable has type "str"' in printed


def test_pyright_reads_the_types_of_the_wheel(python: Path, user_file: Path, tmp_path: Path) -> None:
    """Strict pyright finds the mistake and nothing else."""
    (tmp_path / "pyrightconfig.json").write_text(json.dumps({"typeCheckingMode": "strict"}), "utf-8")
    pyright = Path(sys.executable).with_name("basedpyright")
    printed = mistakes([pyright, "--pythonpath", python, "--outputjson", user_file], tmp_path)
    found = json.loads(printed)["generalDiagnostics"]
    assert [each["rule"] for each in found] == ["reportAssignmentType"]


def test_the_checkers_look_at_the_wheel(python: Path) -> None:
    """Not at the working tree: the package is imported from the environment."""
    where = run([python, "-c", "import eventfold, pathlib; print(pathlib.Path(eventfold.__file__).parent)"]).strip()
    assert Path(where, "py.typed").exists()
    assert not Path(where).is_relative_to(ROOT / "src")
