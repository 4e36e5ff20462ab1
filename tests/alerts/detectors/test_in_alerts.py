"""Every detector as a field of one alert: stored, rebuilt, replayed and proved, on a store in a file."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest

import eventfold as ef


class DetectorsOrder(ef.Event, type="detectors-order"):
    """An order of a shop."""

    shop: ef.Tag
    cents: int


class EveryDetector(ef.Alert, name="every_detector", by="occurred"):
    """All statistics over the same events."""

    shop: ef.Tag
    rate: ef.Rate = ef.rate(per=ef.minutes(5), more_than=8)
    usual: ef.Rate = ef.rate(per=ef.hours(1), factor=3, warm=12)
    last: ef.Absence = ef.absence(times_usual=5, calendar=ef.office_hours("Europe/Berlin", days="mon-sun"))
    season: ef.Seasonal = ef.seasonal(zone="Europe/Berlin")
    rare: ef.Outlier = ef.outlier(warm=64)
    recent: ef.Outlier = ef.outlier(window=21)
    level: ef.Drift = ef.drift(warm=30)

    def evolve(self, event: DetectorsOrder) -> None:
        for each in (self.rate, self.usual, self.season):
            each.add()
        for each in (self.rare, self.recent, self.level):
            each.add(event.cents)
        self.last.mark()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ef.Store]:
    """A store with six weeks of orders of two shops, in a file."""
    random, now = Random(8), datetime(2026, 3, 2, tzinfo=UTC)
    drafts: list[ef.Draft] = []
    for number in range(2_000):
        now += timedelta(minutes=random.expovariate(1 / 30))
        cents = 10_000_000 if number == 1_500 else int(random.lognormvariate(6, 0.6))
        drafts.append(ef.Draft(DetectorsOrder(f"s-{number % 2}", cents), occurred=now))
    with ef.Store(str(tmp_path / "s.db")) as opened:
        opened.extend(drafts)
        yield opened


def test_rows_with_every_detector_are_proved_as_often_as_one_likes(store: ef.Store) -> None:
    """Rows folded again equal the stored ones, twice: a new row shares nothing with the rows before it."""
    store.run_until_idle(EveryDetector)
    for _ in range(2):
        (proof,) = store.projections.verify_rows(EveryDetector)
        assert proof.proved, proof.verdict


def test_a_replay_is_the_same_each_time_and_names_the_planted_value(store: ef.Store) -> None:
    """Replays share nothing either, and the one value that is far away is among the reasons."""
    first, second = store.alerts.replay(EveryDetector), store.alerts.replay(EveryDetector)
    assert first == second
    assert any(each.reason.startswith("10,000,000 is higher than each of its ") for each in first)
