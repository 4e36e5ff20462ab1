"""The conformance suite over SQLite files whose tail is merged after every three events.

The chapters whose answers come from the tail and the index tables; all of them with EVENTFOLD_SLOW=1.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from eventfold.engines.sqlite import merge_schedule
from eventfold.testing.conformance.conditions import *
from eventfold.testing.conformance.engine_under_test import EngineUnderTest
from eventfold.testing.conformance.paging import *
from eventfold.testing.conformance.summaries import *
from eventfold.testing.conformance.time_zones import *

if "EVENTFOLD_SLOW" in os.environ:
    from eventfold.testing.conformance.all_chapters import *


@pytest.fixture(params=["sync", "async"] if "EVENTFOLD_SLOW" in os.environ else ["sync"])
def engine_under_test(
    request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[EngineUnderTest]:
    """An address where nothing is yet; merges take several commits."""
    monkeypatch.setattr(merge_schedule, "SLICE_POSTINGS", 4)
    monkeypatch.setattr(merge_schedule, "KEEPS_UP", 1)
    monkeypatch.setattr(merge_schedule, "CATCHES_UP", 1)
    given = EngineUnderTest(f"sqlite:{folder / 'log.db'}", request.param, clock=True, merge_events=3)
    yield given
    given.close()
