"""Distributions as an installer leaves them: modules, and a `*.dist-info` folder with the entry points.

`lay_out` puts a project's modules and entry points there without running its build backend, which is not among the
development tools; `tests/packaging/test_entry_points.py` builds and installs one with pip.
Knows: pyproject.toml, the layout of site-packages. Does not know: what an entry point is for.
"""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def lay_out(project: Path, site: Path) -> None:
    """Put the modules of a project and its metadata into a folder that is, or will be, on `sys.path`."""
    declared: dict[str, Any] = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))["project"]
    for module in project.glob("*.py"):
        shutil.copy(module, site / module.name)
    declare(site, declared["name"], declared["entry-points"])


def declare(site: Path, distribution: str, groups: Mapping[str, Mapping[str, str]]) -> None:
    """Write the metadata of a distribution: for each group its entry points, `name = "module:object"`."""
    info = site / f"{distribution.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n", "utf-8")
    lines = [line for group, entries in groups.items() for line in (f"[{group}]", *map(" = ".join, entries.items()))]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n", "utf-8")
