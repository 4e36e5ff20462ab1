"""The distribution of all values of a series, in at most 256 counted ranges, and which values are rare in it.

Knows: numbers. Does not know: times, verdicts over time.

Ranges are narrow near the middle and grow with the distance from it: each is a twentieth of that distance, so a tail of
any length is kept to 5 %. The middle and the scale come from the first 64 values.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import Literal

import msgspec

from eventfold.alerts.detectors.wording import number

_FIRST = 64
_PER_E = 20  # ranges for each factor of e in the distance from the middle
_RANGES = 256
_REMEMBERED = 100_000  # values; then all counts are halved


class QuantileHistory(msgspec.Struct, tag="quantiles"):
    """Counts of values by range (`keys`, `counts`), and the outermost ranges that are not rare (`high`, `low`).

    `above` and `below` are the numbers of values beyond these: fewer than `rarer_than * total`, but not with `high`
    or `low` itself. After 100,000 values all counts are halved, so recent values count more.
    """

    rarer_than: float
    first: list[int | float] = []  # the first values, until there are 64
    middle: float = 0.0
    scale: float = 0.0
    keys: list[int] = []
    counts: list[float] = []
    total: float = 0
    high: int = 0
    above: float = 0
    low: int = 0
    below: float = 0
    is_halved: bool = False

    @property
    def size(self) -> int:
        """The number of values, of which those before a halving count half."""
        return len(self.first) if self.first else int(self.total)

    def key_of(self, value: float) -> int:
        """Return the number of the range that contains a value; 0 is the middle."""
        distance = (value - self.middle) / self.scale
        return round(math.asinh(min(max(distance, -1e300), 1e300)) * _PER_E)

    def value_of(self, key: int) -> float:
        """Return the middle of a range."""
        return self.middle + self.scale * math.sinh(key / _PER_E)

    def learn(self, value: float) -> None:
        """Add a value."""
        if not self.scale:
            self.first.append(value)
            if len(self.first) == _FIRST:
                self._begin()
            return
        self._count(self.key_of(value))
        if self.total >= _REMEMBERED:
            self._halve()

    def _begin(self) -> None:
        first = sorted(self.first)
        self.middle = float(first[_FIRST // 2])
        spread = float(first[_FIRST * 3 // 4]) - float(first[_FIRST // 4])
        away = max(self.middle - first[0], first[-1] - self.middle)
        scale = spread or away or abs(self.middle) / 1_000
        self.scale = min(scale, 1e300) or 1e-9
        self.high = self.low = self.key_of(self.first[0])
        for value in self.first:
            self._count(self.key_of(value))
        self.first = []

    def _count(self, key: int) -> None:
        keys, counts = self.keys, self.counts
        at = bisect_left(keys, key)
        if at < len(keys) and keys[at] == key:
            counts[at] += 1
        else:
            keys.insert(at, key)
            counts.insert(at, 1)
        self.total += 1
        if key > self.high:
            self.above += 1
        if key < self.low:
            self.below += 1
        if len(keys) > _RANGES:
            self._join()
        else:
            self._move()

    def _move(self) -> None:
        """Move `high` and `low` to where they belong after a change of the counts."""
        keys, counts, rare = self.keys, self.counts, self.rarer_than * self.total
        at = bisect_left(keys, self.high)
        while self.above >= rare:
            at += 1
            self.above -= counts[at]
        while at >= len(keys) or self.above + counts[at] < rare:
            self.above += counts[at] if at < len(keys) else 0
            at -= 1
        self.high = keys[at]
        at = bisect_left(keys, self.low)
        while self.below >= rare:
            at -= 1
            self.below -= counts[at]
        while self.below + counts[at] < rare:
            self.below += counts[at]
            at += 1
        self.low = keys[at]

    def _join(self) -> None:
        """Join the two occupied ranges nearest to the middle, in which no value is rare."""
        at = min(max(bisect_left(self.keys, 0), 1), len(self.keys) - 1)
        self.counts[at] += self.counts[at - 1]
        del self.keys[at - 1], self.counts[at - 1]
        self._recount()

    def _halve(self) -> None:
        kept = [(key, count / 2) for key, count in zip(self.keys, self.counts, strict=True) if count > 0.25]
        self.keys, self.counts = [key for key, _ in kept], [count for _, count in kept]
        self.total = sum(self.counts)
        self.is_halved = True
        self._recount()

    def _recount(self) -> None:
        self.high, self.above = self.keys[-1], 0
        self.low, self.below = self.keys[0], 0
        self._move()

    def judge(self, value: float) -> tuple[Literal["high", "low"], str] | None:
        """Return the side and a sentence if a value is rarer than `rarer_than` among the values so far.

        While there are fewer than 1 / `rarer_than` values, one beyond all of them must be farther out than the
        outermost by the length of the tail, which is the distance from the outermost tenth.
        """
        if not self.scale:
            return None
        key = self.key_of(value)
        if key > self.high:
            side, sign = "high", 1
        elif key < self.low:
            side, sign = "low", -1
        else:
            return None
        early = self.rarer_than * self.total < 1
        if early and abs(value - self.value_of(self._tenth(sign))) <= 2 * self._tail(sign):
            return None
        beyond = sum(count for each, count in zip(self.keys, self.counts, strict=True) if sign * each >= sign * key)
        return side, self._sentence(value, "higher" if sign > 0 else "lower", beyond)

    def _tenth(self, sign: int) -> int:
        """Return the key of the range that a tenth of the values reach, from above or below."""
        rest = self.total / 10
        pairs = list(zip(self.keys, self.counts, strict=True))
        for key, count in reversed(pairs) if sign > 0 else pairs:
            rest -= count
            if rest < 0:
                return key
        return self.keys[0]

    def _tail(self, sign: int) -> float:
        outermost = self.keys[-1] if sign > 0 else self.keys[0]
        return abs(self.value_of(outermost) - self.value_of(self._tenth(sign)))

    def _sentence(self, value: float, word: str, beyond: float) -> str:
        known = f"about {number(round(self.total))}" if self.is_halved else number(self.total)
        if not beyond:
            return f"{number(value)} is {word} than each of its {known} values."
        share = number(round(1 / self.rarer_than))
        return (
            f"{number(value)} is {word} than all but {number(beyond)} of its {known} values, rarer than 1 in {share}."
        )


__all__ = ["QuantileHistory"]
