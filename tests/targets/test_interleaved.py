"""Interleaved retries, skips and runners, with rows in another target than the log."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.projections.interleaved import BAD, Flaky, every_interleaving, retried_and_run
from tests.support.repetitions import IS_SLOW
from tests.support.servers import mariadb
from tests.targets.conftest import PLACES

# Each driver once; the others run the statements of one of these.
DIFFERENT = ["sqlite+pysqlite", "postgresql", "duckdb", pytest.param("mysql+pymysql", marks=mariadb.needed)]


@pytest.fixture(autouse=True)
def _bearable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("eventfold.projections.rebuilds.CATCH_UP_TIMEOUT_S", 0.05)
    BAD.clear()
    yield
    BAD.clear()


@pytest.mark.parametrize("elsewhere", PLACES if IS_SLOW else DIFFERENT, indirect=True)
@pytest.mark.parametrize("command", ["retry", "skip"])
def test_a_command_and_a_runner_repeat_nothing_in_any_target(elsewhere: str, tmp_path: Path, command: str) -> None:
    """Another operator's retry and the runner's work on it run before each call of the command to its target."""
    assert elsewhere
    calls = every_interleaving(
        lambda: str(tmp_path / f"{uuid4().hex}.db"),
        lambda store: (
            store.projections.retry(Flaky) if command == "retry" else store.projections.skip(Flaky, 2, because="chance")
        ),
        retried_and_run,
        previous=False,
    )
    assert calls >= 3
