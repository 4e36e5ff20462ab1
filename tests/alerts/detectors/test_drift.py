"""Drift: lasting changes of a level in both directions, and what is none."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

import eventfold as ef
from eventfold.errors import InvalidInput
from tests.alerts.detectors.every import HOUR, feed


class Delays(ef.State):
    """A state with a drift, to build one as users do."""

    level: ef.Drift = ef.drift()


def changes(values: list[float]) -> tuple[list[int], list[str]]:
    """The indexes at which the level was found to have changed, and the reasons."""
    detector = Delays().level
    found: list[int] = []
    reasons: list[str] = []
    for number, value in enumerate(values):
        feed(detector, number, value)
        if detector.is_changed:
            found.append(number)
            reasons.append(detector.reason)
    return found, reasons


@pytest.mark.parametrize(("shift", "direction"), [(1.5, "up"), (-1.5, "down")])
def test_a_change_is_found_soon_and_its_direction_is_named(shift: float, direction: str) -> None:
    """A shift by one and a half standard deviations is found within 80 values, once."""
    random = Random(5)
    values = [random.gauss(10, 1) + (shift if number >= 1_000 else 0) for number in range(3_000)]
    found, reasons = changes(values)
    assert len(found) == 1
    assert 1_000 < found[0] < 1_080
    assert reasons[0].startswith(f"The level went {direction}, from ")
    assert "its standard deviation was" in reasons[0]


def test_a_spike_is_no_change() -> None:
    """One value, however large, and three in a row, are not enough."""
    values: list[float] = [10 + number % 3 for number in range(1_000)]
    values[500] = 1e300
    values[700:703] = [-1e9] * 3
    assert changes(values) == ([], [])


def test_a_constant_series_may_change_by_a_little() -> None:
    """Without any variance, a thousandth of the level is the deviation: 7 to 8 is found after six values."""
    found, reasons = changes([7.0] * 500 + [8.0] * 100)
    assert found == [505]
    assert reasons == [
        "The level went up, from 7 to 8, the mean of its last 6 values; its standard deviation was 0.007."
    ]


def test_a_change_is_held_for_an_hour() -> None:
    """It fires from the value that proves it until an hour later."""
    detector = Delays().level
    for number in range(505):
        feed(detector, number, 7.0 if number < 300 else 9.0)
        if detector.is_changed:
            break
    assert detector.fires(detector.now) is not None
    assert detector.due(detector.now) == detector.changed_at + HOUR
    assert detector.fires(detector.changed_at + HOUR) is None


@pytest.mark.parametrize(
    "arguments", [{"warm": 1}, {"tolerance": 0}, {"threshold": -1}, {"threshold": float("inf")}, {"hold": ef.hours(0)}]
)
def test_what_cannot_be_a_drift_is_refused_at_its_declaration(arguments: dict[str, Any]) -> None:
    """A threshold that nothing or everything passes is named where it is written."""
    with pytest.raises(InvalidInput):
        ef.drift(**arguments)
