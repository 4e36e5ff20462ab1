"""Room: user code under both type checkers, in their strict modes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILES = [str(Path(__file__).with_name(name)) for name in ("bank.py", "decisions.py")]
CHECKER = Path(sys.executable).with_name("basedpyright")


def test_pyright_is_content_with_user_code_and_catches_mistakes(tmp_path: Path) -> None:
    """Strict pyright reports nothing but what the files here say is a mistake, and every one of those."""
    settings = {
        "include": FILES,
        "typeCheckingMode": "strict",
        "reportUnnecessaryTypeIgnoreComment": "error",
        "enableTypeIgnoreComments": True,
        "extraPaths": [str(ROOT / "src")],
    }
    project = tmp_path / "pyrightconfig.json"
    project.write_text(json.dumps(settings), "utf-8")
    ran = subprocess.run(
        [CHECKER, "--project", project, "--pythonpath", sys.executable], capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_mypy_is_content_with_user_code_and_catches_mistakes(tmp_path: Path) -> None:
    """Strict mypy reports nothing but what the files here say is a mistake, and every one of those."""
    ran = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", tmp_path, "--follow-imports", "silent", *FILES],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
