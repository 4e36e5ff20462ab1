"""The wheel and the source distribution, built as a release is and installed into an environment with nothing else."""

from __future__ import annotations

import subprocess
import tarfile
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.packaging.environments import ROOT, new_environment, pip, run

TARGETS = {  # extra: where a read model is kept that needs it
    "postgres": "postgresql://nowhere.invalid/x",
    "sqlalchemy": "mysql+pymysql://nowhere.invalid/x",
    "duckdb": "duckdb:x.duckdb",
    "redis": "redis://127.0.0.1:1/0",
}


def test_the_wheel_has_the_package_and_nothing_else(wheel: Path) -> None:
    """The package with its type marker, SQL and licence; no test, and no file of a developer's."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(next(name for name in names if name.endswith("METADATA"))).decode()
    tops = {name.split("/")[0] for name in names}
    assert {name for name in tops if not name.endswith(".dist-info")} == {"eventfold"}
    assert "eventfold/py.typed" in names
    assert any(name.startswith("eventfold/engines/postgres/sql/") for name in names)
    assert any(name.endswith("/LICENSE") for name in names)
    in_tree = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src/eventfold").rglob("*.py")}
    assert in_tree <= set(names)
    assert "License-Expression: Apache-2.0" in metadata


def test_an_environment_with_nothing_else_writes_reads_and_proves(python: Path, tmp_path: Path) -> None:
    """From the wheel alone: append, fold, read model, backup and check, in a file."""
    program = tmp_path / "program.py"
    program.write_text(
        """
import eventfold as ef

class Taken(ef.Event):
    seat: ef.Tag

class Seats(ef.Projection):
    seat: str
    taken: int = 0
    def evolve(self, event: Taken) -> None:
        self.taken += 1

with ef.Store("seats.db") as store:
    store.append(Taken("a"), Taken("b"), Taken("a"))
    store.project(Seats)
    print(sorted((row.seat, row.taken) for row in store.rows(Seats)), store.head())
""",
        "utf-8",
    )
    assert run([python, program], tmp_path) == "[('a', 2), ('b', 1)] 3\n"


@pytest.mark.parametrize("extra", TARGETS)
def test_what_needs_an_extra_names_it(extra: str, python: Path, tmp_path: Path) -> None:
    """Without it an error says which one to install; Python's own ModuleNotFoundError says only a module."""
    program = tmp_path / "program.py"
    program.write_text(
        f"""
import eventfold as ef

class Taken(ef.Event):
    seat: ef.Tag

class Seats(ef.Projection, target={TARGETS[extra]!r}):
    seat: str
    taken: int = 0
    def evolve(self, event: Taken) -> None:
        self.taken += 1

try:
    with ef.Store("seats.db") as store:
        store.project(Seats)
except ef.EventfoldError as error:
    print(error)
""",
        "utf-8",
    )
    assert f"eventfold[{extra}]" in run([python, program], tmp_path)


def test_the_command_says_which_extra_it_needs(python: Path, tmp_path: Path) -> None:
    """`eventfold` is there without the extra `cli`; with it, it works: tests/packaging/test_extras.py."""
    command = python.with_name("eventfold")
    assert run([command, "--version"]).startswith("eventfold ")
    init = [command, "init", "seats.db"]
    bare = subprocess.run(init, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert bare.returncode != 0
    assert 'pip install "eventfold[cli]"' in bare.stdout + bare.stderr


def test_a_source_distribution_builds_the_same_package(wheel: Path, tmp_path: Path) -> None:
    """It is made by the same backend, has the tests and documents, and its wheel has the same files."""
    code = f"import hatchling.build, os; os.chdir({str(ROOT)!r}); print(hatchling.build.build_sdist({str(tmp_path)!r}))"
    builder = tmp_path / "builder"
    venv.create(builder, with_pip=True)
    pip(builder / "bin" / "python", "install", "hatchling")
    archive = tmp_path / run([builder / "bin" / "python", "-c", code]).strip().splitlines()[-1]
    with tarfile.open(archive) as opened:
        names = {name.split("/", 1)[1] for name in opened.getnames() if "/" in name}
        safe: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # from Python 3.11.4 on
        opened.extractall(tmp_path / "source", **safe)
    assert {"README.md", "LICENSE", "CHANGELOG.md", "tests/conftest.py", "docs/index.md"} <= names
    (source,) = (tmp_path / "source").iterdir()
    pip(builder / "bin" / "python", "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path / "again", source)
    (again,) = (tmp_path / "again").glob("*.whl")
    with zipfile.ZipFile(wheel) as first, zipfile.ZipFile(again) as second:
        assert set(first.namelist()) == set(second.namelist())
    installed = new_environment(tmp_path / "installed", again)
    assert run([installed.with_name("eventfold"), "--version"], tmp_path).startswith("eventfold ")
