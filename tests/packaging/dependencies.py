"""The page of dependencies and their licences: `python -m tests.packaging.dependencies` writes it.

Knows: the metadata of installed packages. Does not know: an index of packages.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "dependencies.md"
# Markers are judged for one Python, so that the page is the same wherever it is written.
PYTHON = {"python_version": "3.11", "python_full_version": "3.11.9", "sys_platform": "linux", "os_name": "posix"}
PLATFORM = {"platform_system": "Linux", "implementation_name": "cpython", "platform_machine": "x86_64"}

HEAD = """# Dependencies and their licences

What `pip install eventfold` installs besides eventfold, what each extra adds, and what these packages need themselves,
on Linux with Python 3.11. Licences are as the packages declare them in their metadata. eventfold itself is licensed
under Apache-2.0 and contains no code of these packages. What only development needs (the dependency groups of
`pyproject.toml`) is not installed with eventfold, and not listed.

`python -m tests.packaging.dependencies` writes this page from the packages installed in `.venv`. A test compares both,
and fails if a package declares no licence.
"""


def direct() -> dict[str, list[Requirement]]:
    """The requirements of the package itself (under "") and of each extra, without those that only name extras."""
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    groups: dict[str, list[str]] = {"": project["dependencies"], **project["optional-dependencies"]}
    found = {extra: list(map(Requirement, lines)) for extra, lines in groups.items() if extra != "all"}
    return {extra: [need for need in needs if need.name != project["name"]] for extra, needs in found.items()}


def needs_of(package: str, extras: Sequence[str]) -> Iterator[Requirement]:
    """What an installed package requires, under these extras of it."""
    for line in metadata.requires(package) or []:
        need = Requirement(line)
        chosen = ({**PYTHON, **PLATFORM, "extra": extra} for extra in ("", *extras))
        if need.marker is None or any(need.marker.evaluate(each) for each in chosen):
            yield need


def users() -> dict[str, tuple[list[str], list[str]]]:
    """Of each package: the extras that name it, and the packages that need it."""
    found: dict[str, tuple[list[str], list[str]]] = {}
    waiting = [(need, extra, "") for extra, needs in direct().items() for need in needs]
    done = set[tuple[str, frozenset[str]]]()
    while waiting:
        need, extra, package = waiting.pop(0)
        name = canonicalize_name(need.name)
        extras, packages = found.setdefault(name, ([], []))
        if package and package not in packages:
            packages.append(package)
        if not package and extra not in extras:
            extras.append(extra)
        if (key := (name, frozenset(need.extras))) not in done:
            done.add(key)
            waiting += [(deeper, "", name) for deeper in needs_of(name, sorted(need.extras))]
    return found


def licence(package: str) -> str:
    """What the package declares: an expression, else its field of text, else a classifier; "" if there is none."""
    declared = metadata.metadata(package)
    classifiers = [line.rpartition(" :: ")[2] for line in declared.get_all("Classifier") or [] if "License ::" in line]
    text = (declared.get("License") or "").strip()
    short = text if text and len(text) < 80 and "\n" not in text else ""
    return (declared.get("License-Expression") or short or ", ".join(classifiers)).strip()


def page() -> str:
    """The whole page."""
    rows = list[tuple[str, str, str]]()
    for name, (extras, packages) in users().items():
        named = ["eventfold" if extra == "" else f"`eventfold[{extra}]`" for extra in extras]
        rows.append((name, ", ".join(named + [f"through {package}" for package in sorted(packages)]), licence(name)))
    lines = ["| package | installed by | licence |", "|---|---|---|"]
    lines += [f"| {name} | {by} | {declared} |" for name, by, declared in rows]
    return HEAD + "\n" + "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
