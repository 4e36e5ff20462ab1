"""Documents, names, docstrings and messages are spelt as the dictionary of codespell has it."""

from __future__ import annotations

import subprocess
import sys

from tests.docs.pages import ROOT

SPELT = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "ARCHITECTURE.md", "docs", "src", "scripts", "examples")


def test_no_word_is_misspelt() -> None:
    """Words that are meant as they are written are in `ignore-words-list` of pyproject.toml."""
    command = [sys.executable, "-m", "codespell_lib", *SPELT]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
