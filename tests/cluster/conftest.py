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

    def run(function: Callable[[Path], Any]) -> Any:
        def work() -> None:
            machine.own_mounts()
            result = function(tmp_path)
            (tmp_path / "result.json").write_text(json.dumps(result))

        pid = children.fork(tmp_path, work)
        failed = children.wait([pid], LONGEST_S)
        errors = "".join(path.read_text() for path in tmp_path.glob("*.stderr"))
        assert not failed, errors
        return json.loads((tmp_path / "result.json").read_text())

    return run
