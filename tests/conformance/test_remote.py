"""The conformance suite over HTTP: a server in front of a SQLite file, and an async client, which runs all chapters.

The blocking client (test_remote_blocking.py) and PostgreSQL (test_remote_postgres.py) differ in parts only.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from eventfold.testing.conformance.all_chapters import *
from eventfold.testing.conformance.engine_under_test import EngineUnderTest
from tests.support.servers.many_stores import shared


@pytest.fixture
def engine_under_test(folder: Path) -> Iterator[EngineUnderTest]:
    """A store of the server, in front of a new SQLite file."""
    url = shared().add(f"sqlite:{folder / 'log.db'}")
    given = EngineUnderTest(url, "async")
    yield given
    given.close()
    shared().remove(url)
