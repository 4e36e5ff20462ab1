"""What the tests of clusters share: folders in memory, and work in a child that may mount and make namespaces.

Knows: pytest, forks. Does not know: streams.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from soak import children, machine
from tests.support.programs import needs_ability

LONGEST_S = 100.0  # of a child
needs_root = needs_ability("mounts and namespaces of the whole system", machine.root)
Isolated = Callable[[Callable[[Path], Any]], Any]


@pytest.fixture
def isolated(tmp_path: Path) -> Isolated:
    """Run a function with a folder in a child with mounts of its own, which end with it, and return its result."""
    return lambda function: in_child(tmp_path, function, machine.own_mounts)


@pytest.fixture
def isolated_without_mounts(tmp_path: Path) -> Isolated:
    """Do the same in a child that needs no rights: its own children are not the tests'."""
    return lambda function: in_child(tmp_path, function, lambda: None)


def in_child(folder: Path, function: Callable[[Path], Any], prepare: Callable[[], object]) -> Any:
    """Run a function in a child, and return its result. Raises AssertionError with the child's errors."""

    def work() -> None:
        prepare()
        result = function(folder)
        (folder / "result.json").write_text(json.dumps(result))

    failed = children.wait([children.fork(folder, work)], LONGEST_S)
    errors = "".join(path.read_text() for path in folder.glob("*.stderr"))
    assert not failed, errors
    return json.loads((folder / "result.json").read_text())
