"""The one fixture that the conformance suite needs: an engine under test, of each engine in each mode."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from eventfold.testing.conformance.engine_under_test import EngineUnderTest
from eventfold.testing.conformance.fixtures import *
from tests.conformance.engines import ENGINES, MEMORY, MODES
from tests.support.stores import remove_stream


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for one test, in memory where the system has such a file system: no promise here is about a disk."""
    if not os.access(MEMORY, os.W_OK):
        yield tmp_path
        return
    with TemporaryDirectory(prefix="eventfold-", dir=MEMORY) as folder:
        yield Path(folder)


@pytest.fixture(params=[f"{engine}-{mode}" for engine in ENGINES for mode in MODES])
def engine_under_test(request: pytest.FixtureRequest, folder: Path) -> Iterator[EngineUnderTest]:
    """A fresh address without a store, for each engine in each mode."""
    engine, mode = request.param.rsplit("-", 1)
    under_test = EngineUnderTest(mode=mode, **ENGINES[engine](folder))
    yield under_test
    under_test.close()
    remove_stream(under_test.url)
