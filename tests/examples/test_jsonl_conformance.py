"""The shipped conformance suite over the engine among the examples, which is opened by its scheme."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from eventfold.testing.conformance.all_chapters import *
from eventfold.testing.conformance.engine_under_test import EngineUnderTest
from eventfold.testing.conformance.fixtures import *
from tests.support.repetitions import IS_SLOW

IN_MEMORY = Path("/dev/shm")  # a file system in memory, if the system has one: fsync costs nothing there


@pytest.fixture(params=["sync", "async"] if IS_SLOW else ["sync"])
def engine_under_test(request: pytest.FixtureRequest, site: Path) -> Iterator[EngineUnderTest]:
    """An address without a store; in each mode with EVENTFOLD_SLOW=1, since the engine's coroutines never suspend."""
    with TemporaryDirectory(dir=IN_MEMORY if os.access(IN_MEMORY, os.W_OK) else None) as folder:
        given = EngineUnderTest(f"jsonl:{folder}/log.jsonl", request.param, clock=True)
        yield given
        given.close()
