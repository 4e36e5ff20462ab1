"""User code under both type checkers, in their strict modes: the files here, the examples, and what the pages teach.

Each checker runs once over all of it: most of its time is spent on what they share.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, blocks, name, pages
from tests.typing.pages_as_modules import write_modules

FILES = [Path(__file__).with_name(each) for each in ("bank.py", "decisions.py", "queries.py")]
CHECKER = Path(sys.executable).with_name("basedpyright")
EXCEPTED = {
    "docs/how-to/server-beside-django.md",  # Django has no types
    "docs/how-to/read-models-elsewhere.md",  # DuckDB's own types, and a receiver of whatever JSON comes
}


def taught() -> list[Path]:
    """The pages whose Python a reader may copy: the README, tutorials and guides."""
    return [
        page
        for page in pages()
        if (name(page) == "README.md" or name(page).startswith(("docs/tutorial/", "docs/how-to/")))
        and name(page) not in EXCEPTED
        and any(block.language == "python" for block in blocks(page))
    ]


@pytest.fixture
def modules(tmp_path: Path) -> list[str]:
    """Everything that is checked."""
    folder = tmp_path / "pages"
    folder.mkdir()
    written = [module for page in taught() for module in write_modules(page, folder)]
    assert len(written) > len(taught()) > 15, "the bank's tutorial ends with two programs"
    return [*map(str, FILES), *map(str, written)]


def examples() -> list[str]:
    """The examples; of a field, what its reader copies: mypy knows no types of the libraries of the other files."""
    found = sorted((ROOT / "examples").rglob("*.py"))
    return [str(each) for each in found if "fields" not in each.parts or each.name == "app.py"]


def test_pyright_is_content_with_user_code_and_catches_mistakes(modules: list[str], tmp_path: Path) -> None:
    """Strict pyright reports nothing but what the files here say is a mistake, and every one of those."""
    settings = {
        "include": [*modules, str(ROOT / "examples")],
        "typeCheckingMode": "strict",
        "reportUnnecessaryTypeIgnoreComment": "error",
        "enableTypeIgnoreComments": True,
        "extraPaths": [str(ROOT / "src"), str(ROOT)],
    }
    project = tmp_path / "pyrightconfig.json"
    project.write_text(json.dumps(settings), "utf-8")
    ran = subprocess.run(
        [CHECKER, "--project", project, "--pythonpath", sys.executable], capture_output=True, text=True, timeout=170
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_mypy_is_content_with_user_code_and_catches_mistakes(modules: list[str], tmp_path: Path) -> None:
    """Strict mypy reports nothing but what the files here say is a mistake, and every one of those."""
    ran = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--cache-dir",
            tmp_path,
            "--follow-imports",
            "silent",
            *modules,
            *examples(),
        ],
        cwd=ROOT,
        env={**os.environ, "MYPYPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=170,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
