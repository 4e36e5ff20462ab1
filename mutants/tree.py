"""The copy of the sources in which mutants are made: the working tree itself is never changed.

Knows: which folders tests need. Does not know: mutants.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

ROOT = Path(__file__).parents[1]
PARTS = ("src", "tests", "soak", "docs", "examples", "benchmarks", "scripts", "mutants", "pyproject.toml", "README.md")
IGNORED = shutil.ignore_patterns("__pycache__", ".*", "*.db")


def copy(tree: Path) -> str:
    """Copy the sources again, and return the digest of the copy."""
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir(parents=True)
    for name in PARTS:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=IGNORED)
        else:
            shutil.copy2(source, tree / name)
    digest = hashlib.sha256()
    for path in sorted(path for path in tree.rglob("*") if path.is_file()):
        digest.update(path.relative_to(tree).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def environment(tree: Path) -> dict[str, str]:
    """Return variables with which Python, also in child processes, imports the copy and writes no compiled files."""
    path = os.pathsep.join([str(tree / "src"), str(tree)])
    return {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"}
