"""What is written in every benchmark: parcels that are scanned on their way, 200 bytes of JSON each.

Knows: the fields, their sizes, which parcel comes next. Does not know: stores, clocks.

One event in ten is the first of a new parcel, the others go to a parcel drawn from all earlier ones, so the
tag index is written all over, as it is in a real store that has run for a while. Two tags: parcel and depot.
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
    """The values of one event, ready to be given to anybody's event class."""

    parcel: str
    depot: str
    weight: int
    note: str


def scan(parcel: int, depot: int, weight: int) -> Scan:
    """The values of an event whose JSON has 200 bytes, whatever the numbers are."""
    return Scan(f"p-{parcel:08d}", f"d-{depot:03d}", 100_000 + weight % 900_000, _NOTE)


# {"parcel":"p-00000000","depot":"d-000","weight":100000,"scanned":"2026-01-02T03:04:05.678901Z","note":"…"}
_NOTE = "x" * (PAYLOAD - len('{"parcel":"p-00000000","depot":"d-000","weight":100000,"scanned":"","note":""}') - 27)


@lru_cache(maxsize=4)
def scans(first: int, count: int) -> tuple[Scan, ...]:
    """Events number `first` to `first + count - 1` of the one sequence that everybody writes."""
    draw = random.Random(first)
    made: list[Scan] = []
    for number in range(first, first + count):
        newest = number // NEW
        parcel = newest if number % NEW == 0 else draw.randrange(newest + 1)
        made.append(scan(parcel, draw.randrange(DEPOTS), draw.randrange(900_000)))
    return tuple(made)


class Traffic:
    """The sequence from a point on, without end as far as any benchmark goes; threads may share it."""

    def __init__(self, stored: int, count: int = 200_000) -> None:
        # Drawn before the clock runs; should they be used up, the same events are written once more.
        self._scans = itertools.cycle(scans(stored, count))

    def one(self) -> Scan:
        """The next event."""
        return next(self._scans)

    def some(self, count: int) -> list[Scan]:
        """The next `count` events."""
        return [next(self._scans) for _ in range(count)]
