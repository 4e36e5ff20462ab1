"""Detectors: updates a second of each, by CPU time: one event folded and judged, as an alert's row does it.

    python -m benchmarks.detectors

Knows: the detectors. Does not know: stores, alerts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from random import Random
from typing import Any

import msgspec

import eventfold as ef
from eventfold.alerts.detectors.quantiles import QuantileHistory
from eventfold.alerts.detectors.recent import RecentValues

EVENTS, ROUNDS = 200_000, 3
SECOND = 1_000_000
MINUTE = 60 * SECOND
OFFICE = ef.office_hours("Europe/Berlin")

# The detector, µs between two events, and whether each has a value.
CASES: dict[str, tuple[Callable[[], Any], int, bool]] = {
    "rate, 40 in the window": (lambda: ef.Rate(per=5 * MINUTE, more_than=100), 7 * SECOND, False),
    "rate, 3,000 in the window": (lambda: ef.Rate(per=5 * MINUTE, more_than=9_999), SECOND // 10, False),
    "rate, times the usual": (lambda: ef.Rate(per=5 * MINUTE, factor=5), SECOND // 10, False),
    "absence, fixed": (lambda: ef.Absence(expect=60 * MINUTE), SECOND, False),
    "absence, in office hours": (lambda: ef.Absence(expect=60 * MINUTE, calendar=OFFICE), SECOND, False),
    "absence, usual gap": (lambda: ef.Absence(expect=MINUTE, factor=5.0), SECOND, False),
    "seasonal, 100 an hour": (lambda: ef.Seasonal("Europe/Berlin"), 36 * SECOND, False),
    "seasonal, 1 an hour": (lambda: ef.Seasonal("Europe/Berlin"), 60 * MINUTE, False),
    "outlier, all values": (lambda: ef.Outlier(QuantileHistory(0.001)), SECOND, True),
    "outlier, the last 201": (lambda: ef.Outlier(RecentValues(201, 10.0, 1.0), warm=201), SECOND, True),
    "drift": (ef.Drift, SECOND, True),
}


def measure(make: Callable[[], Any], step: int, values: list[float] | None) -> tuple[float, int]:
    """Return updates a second, the best of some rounds, and the bytes of the state at the end."""
    best, size = 0.0, 0
    for _ in range(ROUNDS):
        detector, now = make(), 0
        add: Any = detector.mark if isinstance(detector, ef.Absence) else detector.add
        fires = detector.fires
        begun = time.process_time()
        for number in range(EVENTS):
            now += step
            detector.now = now
            if values is None:
                add()
            else:
                add(values[number])
            fires(now)
        best = max(best, EVENTS / (time.process_time() - begun))
        size = len(msgspec.json.encode(detector))
    return best, size


def main() -> None:
    """Print a table."""
    random = Random(1)
    values = [random.lognormvariate(3, 1) for _ in range(EVENTS)]
    for name, (make, step, has_values) in CASES.items():
        rate, size = measure(make, step, values if has_values else None)
        print(f"{name:28} {rate:>10,.0f} a second {size:>7,} bytes")


if __name__ == "__main__":
    main()
