"""A pytest plugin: which test runs which line, and how long each test takes.

Knows: coverage's contexts, one for each test. Does not know: mutants.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from pathlib import Path

import coverage
import pytest

TIMES = "EVENTFOLD_MUTANTS_TIMES"  # the file to write the seconds of each test that passed to
_seconds: dict[str, float] = {}
_failed: set[str] = set()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Record the lines that a test runs under its name; lines that run between two tests have no name."""
    measuring = coverage.Coverage.current()
    if measuring is None:
        return (yield)
    measuring.switch_context(item.nodeid)
    try:
        return (yield)
    finally:
        measuring.switch_context("")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add the seconds of setup, call and teardown."""
    if report.outcome != "passed":
        _failed.add(report.nodeid)
    _seconds[report.nodeid] = _seconds.get(report.nodeid, 0.0) + report.duration


def pytest_sessionfinish() -> None:
    """Write the seconds of the tests that passed; a test that fails or is skipped kills no mutant."""
    passed = {test: seconds for test, seconds in _seconds.items() if test not in _failed}
    Path(os.environ[TIMES]).write_text(json.dumps(passed), "utf-8")
