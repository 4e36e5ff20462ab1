"""Counters and histograms in memory, by the values of their labels. Safe under threads.

Knows: numbers. Does not know: which metrics there are, how they are written.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

Key = tuple[str, ...]


class Exemplar(NamedTuple):
    """One observed value with the trace it was observed in. `at`: seconds since 1970."""

    trace_id: str
    value: float
    at: float


class Distribution(NamedTuple):
    """What a histogram observed for one key: how many values each bucket has (the last one is without a bound)."""

    counts: list[int]
    sum: float
    exemplars: Mapping[int, Exemplar]


class Counter:
    """A number for each key, 0 at first for those `known`. It may also fall, where it counts what is open."""

    def __init__(self, known: Iterable[Key] = ()) -> None:
        self._mutex = threading.Lock()
        self._values: dict[Key, float] = dict.fromkeys(known, 0.0)

    def __len__(self) -> int:
        return len(self._values)

    def add(self, key: Key = (), amount: float = 1.0) -> None:
        """Add to the number of a key."""
        with self._mutex:
            self._values[key] = self._values.get(key, 0.0) + amount

    def add_all(self, amounts: Mapping[Key, float]) -> None:
        """Add to the numbers of several keys."""
        with self._mutex:
            for key, amount in amounts.items():
                self._values[key] = self._values.get(key, 0.0) + amount

    def values(self) -> dict[Key, float]:
        """Return a copy of all numbers."""
        with self._mutex:
            return dict(self._values)


class Series:
    """What one key of a histogram has observed. `observe` is for a key that one thread alone observes."""

    __slots__ = ("bounds", "counts", "exemplars", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0
        self.exemplars: dict[int, Exemplar] = {}

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class Histogram:
    """How often values fell into each bucket, and their sum, for each key. `bounds`: inclusive upper bounds."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self._mutex = threading.Lock()
        self._series: dict[Key, Series] = {}

    def __len__(self) -> int:
        return len(self._series) * (len(self.bounds) + 3)

    def observe(self, value: float, key: Key = (), trace_id: str | None = None) -> None:
        """Count a value, and keep it as the exemplar of its bucket if it was observed in a trace."""
        bucket = bisect_left(self.bounds, value)
        with self._mutex:
            series = self._series.get(key)
            if series is None:
                series = self._series[key] = Series(self.bounds)
            series.counts[bucket] += 1
            series.sum += value
            if trace_id is not None:
                series.exemplars[bucket] = Exemplar(trace_id, value, time.time())

    def series(self, key: Key) -> Series:
        """Return the series of a key."""
        with self._mutex:
            return self._series.setdefault(key, Series(self.bounds))

    def distributions(self) -> dict[Key, Distribution]:
        """Return a copy of what was observed, by key."""
        with self._mutex:
            return {
                key: Distribution(list(each.counts), each.sum, dict(each.exemplars))
                for key, each in self._series.items()
            }
