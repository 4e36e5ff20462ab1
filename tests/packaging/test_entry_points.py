"""The engine among the examples, built and installed by pip: another distribution adds a scheme to eventfold."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from tests.packaging.environments import ROOT, new_environment, pip, run

PROGRAM = """
import eventfold as ef

class Opened(ef.Event):
    account: ef.Tag

with ef.Store("jsonl:log.jsonl") as store:
    store.append(Opened("a-1"))
    print(type(store.engine).__module__, store.count())
"""


def test_an_installed_distribution_adds_its_scheme(wheel: Path, tmp_path: Path) -> None:
    """A program that names neither the distribution nor its module opens a store by the scheme."""
    project = tmp_path / "project"  # a build writes beside the sources
    shutil.copytree(ROOT / "examples" / "jsonl_engine", project)
    pip(sys.executable, "wheel", "--no-deps", "-w", tmp_path, project)
    (engine,) = tmp_path.glob("eventfold_jsonl-*.whl")
    python = new_environment(tmp_path / "env", wheel, engine)
    assert run([python, "-c", PROGRAM], tmp_path) == "eventfold_jsonl 1\n"
