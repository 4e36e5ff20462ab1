"""The conformance suite over HTTP for a client whose calls block, in front of a SQLite file.

The chapters whose outcome depends on threads, on closing or on services; all of them with EVENTFOLD_SLOW=1.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from eventfold.testing.conformance.append import *
from eventfold.testing.conformance.bad_input import *
from eventfold.testing.conformance.capabilities import *
from eventfold.testing.conformance.copying import *
from eventfold.testing.conformance.cursors import *
from eventfold.testing.conformance.engine_under_test import EngineUnderTest
from eventfold.testing.conformance.follow import *
from eventfold.testing.conformance.group_commit import *
from eventfold.testing.conformance.idempotency import *
from eventfold.testing.conformance.inline import *
from eventfold.testing.conformance.locks import *
from eventfold.testing.conformance.snapshots import *
from eventfold.testing.conformance.unconfirmed import *
from tests.support.servers.many_stores import shared

if "EVENTFOLD_SLOW" in os.environ:
    from eventfold.testing.conformance.all_chapters import *


@pytest.fixture
def engine_under_test(folder: Path) -> Iterator[EngineUnderTest]:
    """A store of the server, in front of a new SQLite file."""
    url = shared().add(f"sqlite:{folder / 'log.db'}")
    given = EngineUnderTest(url, "sync")
    yield given
    given.close()
    shared().remove(url)
