"""Events: what happens to a flight, as typed facts.

Knows: event classes and their tags. Does not know: the source, stores, read models.

`occurred` is the moment it happened, in UTC; `time`, when it was recorded, is today. Three moments are not in the
source, and each is set to the first one at which the fact is surely known, so that no board knows it too early:

- a flight is announced 24 hours before its scheduled departure, without an aircraft: which one flies is known later;
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
    """A flight left and did not arrive as planned. `clock`: an `arr_time` of which the day and place are unknown."""

    flight: ef.Tag
    carrier: ef.Tag
    origin: ef.Tag
    dest: ef.Tag
    day: ef.Tag
    aircraft: ef.Tag
    clock: int | None = None


class FlightCancelled(ef.Event):
    """A flight never left. The aircraft is known of some."""

    flight: ef.Tag
    carrier: ef.Tag
    origin: ef.Tag
    dest: ef.Tag
    day: ef.Tag
    aircraft: ef.Tag | None = None


class LoadStarted(ef.Event):
    """The first event of the log: what is being loaded, so that an interrupted load can go on where it stopped."""

    source: str
    flights: int
    events: int


class GateAssigned(ef.Event):
    """A gate was given to a flight, from `since` (inclusive) until `until` (exclusive), in a plan for one day."""

    plan: ef.Tag
    gate: ef.Tag
    flight: ef.Tag
    since: datetime
    until: datetime


Happened = FlightScheduled | FlightDeparted | FlightArrived | FlightDiverted | FlightCancelled
