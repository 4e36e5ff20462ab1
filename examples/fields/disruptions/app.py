"""Disruptions: which of an aircraft's next legs are late because of this one, and which spare aircraft helps.

    store.state(Rotation("N14228", days)).because_of("UA1545-EWR-2013-01-01")
    store.decide(assign_spare, SparePlan("plan", "SPARE-1"), Cover("plan", flight), since, until)

A leg is late because of the one before if the aircraft cannot be ready in time. It has to fly back first, which the
source does not show: **chosen** are half an hour on the ground at each end, and a way back as long as the planned way
out.
Knows: the flights' events, the rules of dispatchers. Does not know: the source, how flights were loaded.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated

import msgspec

import eventfold as ef
from eventfold.demo.flights import FlightArrived, FlightCancelled, FlightDeparted

TURNAROUND = timedelta(minutes=30)  # on the ground, at each end
MINUTE = timedelta(minutes=1)


class SpareAssigned(ef.Event):
    """A spare aircraft flies a leg in place of the late one, and is away from `since` (inclusive) until `until`."""

    plan: ef.Tag
    spare: ef.Tag
    flight: ef.Tag
    since: datetime
    until: datetime


class SpareReleased(ef.Event):
    plan: ef.Tag
    spare: ef.Tag
    flight: ef.Tag


class Refused(Exception): ...


class Leg(msgspec.Struct):
    """A flight of an aircraft. `late`: minutes of its arrival; `back`: when the aircraft can leave New York again."""

    flight: str
    planned: datetime
    delay: int
    late: int = 0
    back: datetime | None = None


class Carried(msgspec.Struct, frozen=True):
    """Minutes by which a leg was late because of an earlier one."""

    flight: str
    minutes: int
    delay: int


class Rotation(ef.State):
    """The legs of an aircraft out of New York on some days, in the order in which it left."""

    aircraft: ef.Tag
    days: Annotated[tuple[str, ...], ef.tag("day")]
    legs: list[Leg] = []

    def evolve(self, event: FlightDeparted | FlightArrived) -> None:
        if isinstance(event, FlightDeparted):
            self.legs.append(departed(event))
        elif leg := next((leg for leg in self.legs if leg.flight == event.flight), None):
            land(leg, event)

    def because_of(self, flight: str) -> list[Carried]:
        """The next legs that were late because of a flight: the minutes that it passed on, leg after leg."""
        rest = iter(self.legs)
        before = next((leg for leg in rest if leg.flight == flight), None)
        found: list[Carried] = []
        late = before.late if before else 0
        for leg in rest:
            minutes = carried(before, leg, late)
            if not minutes:
                break
            found.append(Carried(leg.flight, minutes, leg.delay))
            before, late = leg, min(minutes, leg.late)
        return found


def departed(event: FlightDeparted) -> Leg:
    return Leg(event.flight, event.at - event.delay * MINUTE, event.delay)


def land(leg: Leg, event: FlightArrived) -> None:
    """An aircraft is back after its turnaround, the way back, and another turnaround."""
    way = event.at - event.delay * MINUTE - leg.planned
    leg.late, leg.back = max(0, event.delay), event.at + TURNAROUND + way + TURNAROUND


def carried(before: Leg | None, leg: Leg, late: int) -> int:
    """The minutes of a leg's delay that `late` minutes of the leg before explain."""
    if before is None or before.back is None:
        return 0
    with_it = max(timedelta(0), before.back - leg.planned)
    without = max(timedelta(0), before.back - late * MINUTE - leg.planned)
    return max(0, min(leg.delay, (with_it - without) // MINUTE))


class SparePlan(ef.State):
    """When a spare aircraft is away, and for which flight."""

    plan: ef.Tag
    spare: ef.Tag
    away: dict[str, tuple[datetime, datetime]] = {}

    def evolve(self, event: SpareAssigned | SpareReleased) -> None:
        if isinstance(event, SpareAssigned):
            self.away[event.flight] = (event.since, event.until)
        else:
            self.away.pop(event.flight, None)


class Cover(ef.State):
    """The spare aircraft of a flight in a plan."""

    plan: ef.Tag
    flight: ef.Tag
    spare: str | None = None

    def evolve(self, event: SpareAssigned | SpareReleased) -> None:
        self.spare = event.spare if isinstance(event, SpareAssigned) else None


class Gone(ef.State):
    """Whether a flight has left, or never will."""

    flight: ef.Tag
    gone: bool = False

    def evolve(self, event: FlightDeparted | FlightCancelled) -> None:
        self.gone = True


def assign_spare(
    spare: SparePlan, cover: Cover, flight: Gone, since: datetime, until: datetime
) -> list[ef.Draft[SpareAssigned]]:
    """One leg at a time for a spare, one spare for a leg, and none for a flight that is gone."""
    if flight.gone:
        raise Refused(f"{flight.flight} is gone")
    if cover.spare is not None:
        raise Refused(f"{cover.flight} has {cover.spare}")
    if any(since < other_until and other_since < until for other_since, other_until in spare.away.values()):
        raise Refused(f"{spare.spare} is away")
    return [ef.Draft(SpareAssigned(spare.plan, spare.spare, cover.flight, since, until), occurred=since)]


def release_spare(spare: SparePlan, flight: str) -> list[SpareReleased]:
    return [SpareReleased(spare.plan, spare.spare, flight)] if flight in spare.away else []


class Knock(ef.Projection):
    """How much an aircraft's late legs passed on to the next one; `last` is what the next departure is judged by."""

    aircraft: str
    legs: int = 0
    late_because: int = 0
    minutes: int = 0
    last: Leg | None = None

    def evolve(self, event: FlightDeparted | FlightArrived) -> None:
        if isinstance(event, FlightDeparted):
            leg = departed(event)
            minutes = carried(self.last, leg, self.last.late) if self.last else 0
            self.legs, self.last = self.legs + 1, leg
            self.late_because, self.minutes = self.late_because + bool(minutes), self.minutes + minutes
        elif self.last is not None and self.last.flight == event.flight:
            land(self.last, event)
