"""What came of a comparison: totals, and the keys that differ.

Knows: numbers. Does not know: events, rows.
"""

from __future__ import annotations

from decimal import Context, Decimal

import msgspec

EXACT = Context(prec=1_000)  # digits; numbers that are read have fewer: values.py


class Total(msgspec.Struct):
    """How many, and their sum."""

    count: int = 0
    sum: Decimal = Decimal(0)

    def add(self, count: int, amount: Decimal) -> None:
        """Add."""
        self.count += count
        self.sum = EXACT.add(self.sum, amount)


class Difference(msgspec.Struct, frozen=True):
    """A key, and perhaps a period, of which both sides say something different.

    `events`, `rows`: how many there are here and outside; `sum` and `sum_outside` are None without sums. `positions`:
    of the newest events here, at most 10, oldest first.
    """

    key: str
    period: str
    events: int
    rows: int
    sum: Decimal | None
    sum_outside: Decimal | None
    positions: tuple[int, ...] = ()


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a comparison.

    `equal`: whether nothing differs. `keys`: how many keys, with periods, there are on either side; `differing`: how
    many of them differ; `differences`: the first of them, the largest first. `head`: the position up to which events
    were compared, inclusive. `verdict`: one sentence.
    """

    equal: bool
    verdict: str
    head: int
    events: int
    rows: int
    keys: int
    differing: int
    differences: tuple[Difference, ...]
