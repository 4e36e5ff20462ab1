"""The conformance suite over HTTP: a server in front of SQLite and of PostgreSQL, in both modes of the client.

Every chapter for SQLite. For PostgreSQL the chapters in which the server's own engine decides what a client gets; all
of them with EVENTFOLD_SLOW=1.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from eventfold.testing.conformance.all_chapters import *
from eventfold.testing.conformance.engine_under_test import EngineUnderTest
from tests.support.servers.many_stores import shared


@pytest.fixture(params=["sync", "async"])
def engine_under_test(request: pytest.FixtureRequest, folder: Path) -> Iterator[EngineUnderTest]:
    """A store of the server, in front of a new SQLite file."""
    url = shared().add(f"sqlite:{folder / 'log.db'}")
    given = EngineUnderTest(url, request.param)
    yield given
    given.close()
    shared().remove(url)
