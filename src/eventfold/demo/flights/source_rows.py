"""Rows of the source in order of time, and the events they become.

Knows: rows, event classes. Does not know: where rows come from, SQL, stores.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NamedTuple, TypeVar

import eventfold as ef
from eventfold.demo.flights.events import (
    FlightArrived,
    FlightCancelled,
    FlightDeparted,
    FlightDiverted,
    FlightScheduled,
    Happened,
)

V = TypeVar("V")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SCHEDULED, DEPARTED, ARRIVED, DIVERTED, CANCELLED = range(5)
LEAD_MINUTES = 24 * 60  # a flight is announced one day before its scheduled departure: an assumption, see events.py


class SourceRow(NamedTuple):
    """An occurrence in the life of a flight. Times are minutes since 1970 UTC; delays and air time are minutes."""

    at: int
    kind: int
    flight: str
    carrier: str
    origin: str
    dest: str
    aircraft: str | None
    day: str
    departs: int
    arrives: int
    distance: int
    delay: int | None
    air_time: int | None
    clock: int | None


def moment(minutes: int) -> datetime:
    """Minutes since 1970 as an aware datetime in UTC."""
    return EPOCH + timedelta(minutes=minutes)


def draft(row: SourceRow) -> ef.Draft:
    """The event of a row, with the time it occurred."""
    return ef.Draft(event(row), occurred=moment(row.at))


def event(row: SourceRow) -> Happened:
    """The event of a row."""
    common = (row.flight, row.carrier, row.origin, row.dest, row.day)
    if row.kind == SCHEDULED:
        return FlightScheduled(*common, moment(row.departs), moment(row.arrives), row.distance)
    if row.kind == DEPARTED:
        return FlightDeparted(*common, required(row.aircraft), moment(row.at), required(row.delay))
    if row.kind == ARRIVED:
        return FlightArrived(
            *common, required(row.aircraft), moment(row.at), required(row.delay), required(row.air_time)
        )
    if row.kind == DIVERTED:
        return FlightDiverted(*common, required(row.aircraft), row.clock)
    return FlightCancelled(*common, row.aircraft)


def required(value: V | None) -> V:
    """Return a value that the source has in every row of this kind."""
    assert value is not None
    return value
