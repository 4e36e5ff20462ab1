"""A decision under contention: two agents request a gate for each flight, and 32 tasks process the requests at once.

Knows: the rule, the order of steps of a request. Does not know: where flights come from, how results are shown.

The rule spans two things, and no table row or aggregate holds both: a flight gets one gate, and a gate holds one
flight at a time. Each decision therefore reads two states, by two tags, and its consistency boundary is exactly that: a
concurrent assignment of the same gate or flight makes it decide again, any other does not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import msgspec

import eventfold as ef
from eventfold.demo.flights.checks import overlaps
from eventfold.demo.flights.events import GateAssigned
from eventfold.demo.flights.models import FlightGate, GateDay, Line

TASKS = 32
AGENTS = 2
ATTEMPTS = 100  # 31 other tasks may request the same gate at the same time, repeatedly
STAY_BEFORE_DEPARTURE = timedelta(minutes=45)  # a flight is at its gate from this time before departure until it leaves


class GateRequest(NamedTuple):
    """A flight that needs a gate from `since` (inclusive) until `until` (exclusive)."""

    flight: str
    since: datetime
    until: datetime


class Contest(msgspec.Struct, frozen=True, kw_only=True):
    """The result: `requests` made; `assigned` got a gate, `second` found one assigned by the other agent,
    `unplaced` found no free gate; `decisions` were made, and `conflicts` of them were repeated.
    """

    plan: str
    flights: int
    gates: int
    tasks: int
    requests: int
    assigned: int
    second: int
    unplaced: int
    decisions: int
    conflicts: int


class GateTaken(Exception):
    """Another flight has the gate at that time."""


class NoGateFree(Exception):
    """No gate is free."""


def assign(gate: GateDay, flight: FlightGate, since: datetime, until: datetime) -> list[GateAssigned]:
    """The decision: one gate for the flight, and no other flight there at the same time."""
    if flight.gate is not None:
        return []
    if not gate.free(since, until):
        raise GateTaken
    return [GateAssigned(gate.plan, gate.gate, flight.flight, since, until)]


def gate_requests(lines: Sequence[Line]) -> list[GateRequest]:
    """The requests of the flights of a day that left."""
    return [
        GateRequest(line.flight, line.departs - STAY_BEFORE_DEPARTURE, line.departs + timedelta(minutes=line.delay))
        for line in lines
        if line.delay is not None
    ]


def gates_needed(wanted: Sequence[GateRequest]) -> int:
    """A tenth more than the largest number of flights at gates at once."""
    ends = sorted([(each.since, 1) for each in wanted] + [(each.until, -1) for each in wanted])
    standing = most = 0
    for _, change in ends:
        standing += change
        most = max(most, standing)
    return most + most // 10 + 1


async def contest(url: str, plan: str, airport: str, wanted: Sequence[GateRequest]) -> Contest:
    """Process two requests for each flight, with 32 tasks at once."""
    gates = [f"{airport}-{number:02d}" for number in range(1, gates_needed(wanted) + 1)]
    queue = iter([request for request in wanted for _ in range(AGENTS)])
    async with ef.AsyncStore(url, create=False) as store:
        agents = [GateAgent(store, plan, gates) for _ in range(TASKS)]
        await asyncio.gather(*[agent.work(queue) for agent in agents])
    return Contest(
        plan=plan,
        flights=len(wanted),
        gates=len(gates),
        tasks=TASKS,
        requests=sum(agent.requests for agent in agents),
        assigned=sum(agent.assigned for agent in agents),
        second=sum(agent.second for agent in agents),
        unplaced=sum(agent.unplaced for agent in agents),
        decisions=sum(agent.decisions for agent in agents),
        conflicts=sum(agent.conflicts for agent in agents),
    )


class GateAgent:
    """One of the tasks, with its counts. `conflicts` are decisions that had to be repeated."""

    def __init__(self, store: ef.AsyncStore, plan: str, gates: Sequence[str]) -> None:
        self._store = store.using(attempts=ATTEMPTS)
        self._plan, self._gates = plan, gates
        self.requests = self.assigned = self.second = self.unplaced = self.decisions = self.conflicts = 0

    async def work(self, queue: Iterator[GateRequest]) -> None:
        """Process requests until there are none left."""
        for request in queue:
            self.requests += 1
            try:
                if await self._assign(request):
                    self.assigned += 1
                else:
                    self.second += 1
            except NoGateFree:
                self.unplaced += 1

    async def _assign(self, request: GateRequest) -> bool:
        """Try gate after gate. Returns False if the flight has one already."""
        for gate in self._gates:
            self.decisions += 1
            try:
                place, flight = GateDay(self._plan, gate), FlightGate(self._plan, request.flight)
                decided = await self._store.decide(assign, place, flight, request.since, request.until)
            except GateTaken:
                continue
            self.conflicts += max(0, decided.attempts - 1)
            return bool(decided.events)
        raise NoGateFree


def double_booked(store: ef.Store, plan: str) -> tuple[int, list[str]]:
    """Read the plan from the log: the number of assigned gates, and every breach of the rule as a sentence."""
    stays: dict[str, list[tuple[datetime, datetime, str]]] = {}
    given: dict[str, str] = {}
    breaches: list[str] = []
    for recorded in store.read(ef.Query.of(types=[GateAssigned], tags=[f"plan:{plan}"])):
        event: GateAssigned = recorded.event
        if event.flight in given:
            breaches.append(f"{event.flight} has the gates {given[event.flight]} and {event.gate}")
        given[event.flight] = event.gate
        stays.setdefault(event.gate, []).append((event.since, event.until, event.flight))
    for gate, taken in sorted(stays.items()):
        breaches += [f"{one} and {other} stand at {gate} at once" for one, other in overlaps(taken)]
    return len(given), breaches
