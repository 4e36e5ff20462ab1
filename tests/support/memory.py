"""A test's folder in memory, where the system has such a file system: for tests whose promise is not about a disk.

A conftest that imports `tmp_path` from here gives it to its tests. A store on a disk synchronises several files when it
is created, which takes longer than most tests. Knows: pytest. Does not know: what a test keeps there.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

MEMORY = Path("/dev/shm")
MIN_FREE_BYTES = 2 << 30


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of the test's own, removed afterwards; on disk where memory has too little free space."""
    if not os.access(MEMORY, os.W_OK) or shutil.disk_usage(MEMORY).free < MIN_FREE_BYTES:
        yield tmp_path_factory.mktemp("test")
        return
    folder = Path(tempfile.mkdtemp(prefix="eventfold-", dir=MEMORY))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def disk_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the test's own where temporary files are: commands warn of stores in memory."""
    return tmp_path_factory.mktemp("test")
