"""What the documents teach is plainly typed: both strict checkers are content with every example."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.docs.pages import ROOT

CHECKER = Path(sys.executable).with_name("basedpyright")
EXAMPLES = ROOT / "examples"


def test_pyright_is_content_with_the_examples(tmp_path: Path) -> None:
    """Strict pyright finds nothing to say about recipes, banks and web applications."""
    settings = {"include": [str(EXAMPLES)], "typeCheckingMode": "strict", "extraPaths": [str(ROOT / "src"), str(ROOT)]}
    project = tmp_path / "pyrightconfig.json"
    project.write_text(json.dumps(settings), "utf-8")
    ran = subprocess.run(
        [CHECKER, "--project", project, "--pythonpath", sys.executable], capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_mypy_is_content_with_the_examples(tmp_path: Path) -> None:
    """Nor does strict mypy."""
    ran = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", tmp_path, "--follow-imports", "silent", "examples"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
