"""Events: what happens to a flight, as typed facts.

Knows: event classes and their tags. Does not know: the source, stores, read models.

`occurred` is the time at which it happened, in UTC; `time`, the recorded time, is today. Three times are not in the
source. Each is set to the earliest time at which the fact is known for certain, so that no board shows it too early:

- a flight is announced 24 hours before its scheduled departure, without an aircraft, which is known later;
- a flight is cancelled at its scheduled departure;
- a flight is diverted when it was due: its departure plus its scheduled duration.
"""

from __future__ import annotations

from datetime import datetime

import eventfold as ef


class FlightScheduled(ef.Event):
    """A flight was announced. `day` is the date of the scheduled departure in New York; `distance` in miles."""

    flight: ef.Tag
    carrier: ef.Tag
    origin: ef.Tag
    dest: ef.Tag
    day: ef.Tag
    departs: datetime
    arrives: datetime
    distance: int


class FlightDeparted(ef.Event):
    """A flight left its gate; `delay` in minutes against its schedule, negative if early."""

    flight: ef.Tag
    carrier: ef.Tag
    origin: ef.Tag
    dest: ef.Tag
    day: ef.Tag
    aircraft: ef.Tag
    at: datetime
    delay: int


class FlightArrived(ef.Event):
    """A flight reached its destination; `delay` against its schedule and `air_time` in minutes."""

    flight: ef.Tag
    carrier: ef.Tag
    origin: ef.Tag
    dest: ef.Tag
    day: ef.Tag
    aircraft: ef.Tag
    at: datetime
    delay: int
    air_time: int


class FlightDiverted(ef.Event):
    """A flight left and did not arrive as planned. `clock`: an `arr_time` whose day and place are unknown."""

    flight: ef.Tag
    carrier: ef.Tag
    origin: ef.Tag
    dest: ef.Tag
    day: ef.Tag
    aircraft: ef.Tag
    clock: int | None = None


class FlightCancelled(ef.Event):
    """A flight never left. `aircraft` is None if the source does not name it."""

    flight: ef.Tag
    carrier: ef.Tag
    origin: ef.Tag
    dest: ef.Tag
    day: ef.Tag
    aircraft: ef.Tag | None = None


class LoadStarted(ef.Event):
    """The first event of the log: what is being loaded, so that an interrupted load can continue."""

    source: str
    flights: int
    events: int


class GateAssigned(ef.Event):
    """A gate was assigned to a flight, from `since` (inclusive) until `until` (exclusive), in a plan for one day."""

    plan: ef.Tag
    gate: ef.Tag
    flight: ef.Tag
    since: datetime
    until: datetime


Happened = FlightScheduled | FlightDeparted | FlightArrived | FlightDiverted | FlightCancelled
