"""One detector of each kind, and how to feed it with an event: for tests of what all of them promise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

import eventfold as ef
from eventfold.alerts.detectors.quantiles import QuantileHistory
from eventfold.alerts.detectors.recent import RecentValues

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

CALENDAR = ef.office_hours("Europe/Berlin", days="mon-sat")

MAKERS: dict[str, Callable[[], ef.Detector]] = {
    "rate": lambda: ef.Rate(per=5 * MINUTE),
    "rate-more": lambda: ef.Rate(per=5 * MINUTE, more_than=3),
    "rate-fewer": lambda: ef.Rate(per=HOUR, fewer_than=2),
    "rate-factor": lambda: ef.Rate(per=10 * MINUTE, factor=2.0, at_least=2, warm=3),
    "absence": lambda: ef.Absence(expect=HOUR),
    "absence-usual": lambda: ef.Absence(expect=MINUTE, factor=3.0, warm=10),
    "absence-calendar": lambda: ef.Absence(expect=2 * HOUR, calendar=CALENDAR),
    "absence-both": lambda: ef.Absence(expect=MINUTE, factor=3.0, calendar=CALENDAR, warm=10),
    "seasonal": lambda: ef.Seasonal(zone="America/New_York", z=2.0),
    "seasonal-day": lambda: ef.Seasonal(zone="Australia/Lord_Howe", by="day", z=2.0),
    "outlier": lambda: ef.Outlier(QuantileHistory(0.05), warm=64),
    "outlier-window": lambda: ef.Outlier(RecentValues(21, 3.0, 1.0), warm=21),
    "drift": lambda: ef.Drift(warm=30, threshold=5.0),
}


def feed(detector: ef.Detector, now: int, value: Any = 1) -> None:
    """Give a detector one event at `now`."""
    detector.now = now
    if isinstance(detector, ef.Absence):
        detector.mark()
    elif isinstance(detector, (ef.Rate, ef.Seasonal, ef.Outlier, ef.Drift)):
        detector.add(value)
    else:
        raise AssertionError(f"{detector!r} is of no known kind")


def stored(detector: ef.Detector) -> ef.Detector:
    """The detector after it was stored as JSON and read again."""
    return msgspec.json.decode(msgspec.json.encode(detector), type=type(detector))
