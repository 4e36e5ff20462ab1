"""The conformance suite over HTTP in front of PostgreSQL, whose engine suspends: the server awaits it on its own loop.

The chapters whose answers depend on how the server calls its engine; all of them, in both modes of the client, with
EVENTFOLD_SLOW=1.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from uuid import uuid4

import pytest

from eventfold.testing.conformance.after_pending import *
from eventfold.testing.conformance.conditions import *
from eventfold.testing.conformance.copying import *
from eventfold.testing.conformance.engine_under_test import EngineUnderTest
from eventfold.testing.conformance.epochs import *
from eventfold.testing.conformance.follow import *
from eventfold.testing.conformance.group_commit import *
from eventfold.testing.conformance.idempotency import *
from eventfold.testing.conformance.locks import *
from eventfold.testing.conformance.paging import *
from eventfold.testing.conformance.unconfirmed import *
from tests.support.servers.many_stores import shared
from tests.support.servers.postgres import shared as shared_postgres

if "EVENTFOLD_SLOW" in os.environ:
    from eventfold.testing.conformance.all_chapters import *


@pytest.fixture(params=["sync", "async"] if "EVENTFOLD_SLOW" in os.environ else ["async"])
def engine_under_test(request: pytest.FixtureRequest) -> Iterator[EngineUnderTest]:
    """A store of the server, in front of a new schema of a PostgreSQL database."""
    url = shared().add(shared_postgres().url(), schema=f"t{uuid4().hex}")
    given = EngineUnderTest(url, request.param)
    yield given
    given.close()
    shared().remove(url)
