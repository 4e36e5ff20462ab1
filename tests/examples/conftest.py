"""The engine among the examples, laid out as an installer would."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.distributions import lay_out

PROJECT = Path(__file__).parents[2] / "examples" / "jsonl_engine"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder on `sys.path` with the module and the entry points of `examples/jsonl_engine`."""
    folder = tmp_path_factory.mktemp("site")
    lay_out(PROJECT, folder)
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))
    sys.modules.pop("eventfold_jsonl", None)
