"""Environments with nothing but the built wheel, and programs run in them.

Knows: pip, venv. Does not know: what is tested.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.programs import Missing

ROOT = Path(__file__).parents[2]
PIP_TIMEOUT_S = 150
UNREACHABLE = (
    "No matching distribution found",
    "Temporary failure in name resolution",
    "dns error",
    "Connection error",
    "Failed to fetch",  # uv, whatever the cause: no route, an unknown certificate, a time limit
    "not found in the package registry",
)


def run(command: Sequence[object], folder: Path = ROOT, more: Mapping[str, str] | None = None) -> str:
    """The output of a command that must succeed. PYTHONPATH is not passed on: only what is installed is imported."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | dict(more or {})
    done = subprocess.run(
        list(map(str, command)),
        cwd=folder, env=environment, capture_output=True, text=True, timeout=PIP_TIMEOUT_S, check=False,
    )  # fmt: skip
    if done.returncode and any(words in done.stdout + done.stderr for words in UNREACHABLE):
        raise Missing("a package index that pip, uv and pipx can reach")
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def pip(python: Path | str, *arguments: object) -> None:
    """Run the pip of an environment. Raises Missing where no package index can be reached."""
    run([python, "-m", "pip", "--disable-pip-version-check", "-q", *arguments])


def new_environment(folder: Path, *packages: object) -> Path:
    """The Python of a new environment with these packages and nothing else, not even pip."""
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    # What is imported once need not be compiled with all the rest.
    pip(sys.executable, "--python", python, "install", "--no-compile", "-c", ROOT / "constraints.txt", *packages)
    return python
