"""The events of every benchmark: parcels that are scanned on their way, 200 bytes of JSON each.

Knows: the fields, their sizes, which parcel comes next. Does not know: stores, clocks.

One event in ten is the first of a new parcel, the others belong to a parcel drawn from all earlier ones, so that writes
to the tag index are spread, as they are in a store in use. Two tags: parcel and depot.
"""

from __future__ import annotations

import itertools
import random
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

PAYLOAD = 200  # bytes of JSON in each event
DEPOTS = 100
NEW = 10  # one event in this many starts a parcel
MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
TYPE = "ParcelScanned"


class Scan(NamedTuple):
    """The values of one event, for any contender's event class."""

    parcel: str
    depot: str
    weight: int
    note: str


def scan(parcel: int, depot: int, weight: int) -> Scan:
    """Return the values of an event whose JSON has 200 bytes, for any numbers."""
    return Scan(f"p-{parcel:08d}", f"d-{depot:03d}", 100_000 + weight % 900_000, _NOTE)


# {"parcel":"p-00000000","depot":"d-000","weight":100000,"scanned":"2026-01-02T03:04:05.678901Z","note":"…"}
_NOTE = "x" * (PAYLOAD - len('{"parcel":"p-00000000","depot":"d-000","weight":100000,"scanned":"","note":""}') - 27)


@lru_cache(maxsize=4)
def scans(first: int, count: int) -> tuple[Scan, ...]:
    """Return events number `first` to `first + count - 1` of the one sequence that all contenders write."""
    draw = random.Random(first)
    made: list[Scan] = []
    for number in range(first, first + count):
        newest = number // NEW
        parcel = newest if number % NEW == 0 else draw.randrange(newest + 1)
        made.append(scan(parcel, draw.randrange(DEPOTS), draw.randrange(900_000)))
    return tuple(made)


class Traffic:
    """The sequence from some number on, long enough for any benchmark; threads may share it."""

    def __init__(self, stored: int, count: int | None = None) -> None:
        # Drawn before the clock runs, few beside a small store; if they run out, the same events are used once more.
        self._scans = itertools.cycle(scans(stored, count or (200_000 if stored >= 10_000 else 20_000)))

    def one(self) -> Scan:
        """Return the next event."""
        return next(self._scans)

    def some(self, count: int) -> list[Scan]:
        """Return the next `count` events."""
        return [next(self._scans) for _ in range(count)]
