"""Random histories with faults on each source: `compare` says equal, or the fault was named. Never neither."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.migrate.random_history import RandomHistory
from tests.migrate.shop import WAYS
from tests.support.memory import tmp_path as tmp_path  # no promise here is about a disk
from tests.support.repetitions import repetitions


@pytest.mark.parametrize("way", WAYS)
def test_a_history_ends_equal_or_its_fault_is_named(way: str, tmp_path: Path) -> None:
    """One without faults is equal and nothing stops it; after one with faults, reading again makes it equal."""
    for number in range(repetitions(2, 20)):
        folder = tmp_path / str(number)
        folder.mkdir()
        RandomHistory(way, folder, number, repetitions(15, 40), faulty=number % 2 == 1).run()
