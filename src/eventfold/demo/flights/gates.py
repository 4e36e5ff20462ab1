"""Gates: a decision under contention. Two agents ask for each flight's gate; 32 tasks carry the requests out at once.

Knows: the rule, the order of steps of a request. Does not know: where flights come from, how anything is shown.

The rule spans two things, and no table row or aggregate holds both: a flight gets one gate, and a gate holds one
flight at a time. Each decision is therefore over two states, asked by two tags, and its boundary is exactly that:
whoever assigned the same gate or the same flight meanwhile makes it decide again, anyone else does not.
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
ATTEMPTS = 100  # 31 others may want the same gate at the same moment, again and again
STAY_BEFORE_DEPARTURE = timedelta(
    minutes=45
)  # a flight stands at its gate from here before its schedule until it leaves


class GateRequest(NamedTuple):
    """A flight that needs a gate from `since` (inclusive) until `until` (exclusive)."""

    flight: str
    since: datetime
    until: datetime


class Contest(msgspec.Struct, frozen=True, kw_only=True):
    """How it went: `requests` made; `assigned` got a gate, `second` found that the other agent had been faster,
    `unplaced` found no gate free; `decisions` were taken for it, and `conflicts` of them decided again.
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
    """Someone else stands there at that time: try the next gate."""


class NoGateFree(Exception):
    """No gate was free."""


def assign(gate: GateDay, flight: FlightGate, since: datetime, until: datetime) -> list[GateAssigned]:
    """The decision: one gate for the flight, nobody else there meanwhile."""
    if flight.gate is not None:
        return []
    if not gate.free(since, until):
        raise GateTaken
    return [GateAssigned(gate.plan, gate.gate, flight.flight, since, until)]


def gate_requests(lines: Sequence[Line]) -> list[GateRequest]:
    """What the flights of a day need that left."""
    return [
        GateRequest(line.flight, line.departs - STAY_BEFORE_DEPARTURE, line.departs + timedelta(minutes=line.delay))
        for line in lines
        if line.delay is not None
    ]


def gates_needed(wanted: Sequence[GateRequest]) -> int:
    """A tenth more than the most flights that stand at once; as gates fill in any order, a few more may be short."""
    ends = sorted([(each.since, 1) for each in wanted] + [(each.until, -1) for each in wanted])
    standing = most = 0
    for _, change in ends:
        standing += change
        most = max(most, standing)
    return most + most // 10 + 1


async def contest(url: str, plan: str, airport: str, wanted: Sequence[GateRequest]) -> Contest:
    """Let 32 tasks, all at once, carry out two requests for each flight."""
    gates = [f"{airport}-{number:02d}" for number in range(1, gates_needed(wanted) + 1)]
    queue = iter([wish for wish in wanted for _ in range(AGENTS)])
    async with ef.AsyncStore(url, create=False) as store:
        desks = [GateAgent(store, plan, gates) for _ in range(TASKS)]
        await asyncio.gather(*[desk.work(queue) for desk in desks])
    return Contest(
        plan=plan,
        flights=len(wanted),
        gates=len(gates),
        tasks=TASKS,
        requests=sum(desk.requests for desk in desks),
        assigned=sum(desk.assigned for desk in desks),
        second=sum(desk.second for desk in desks),
        unplaced=sum(desk.unplaced for desk in desks),
        decisions=sum(desk.decisions for desk in desks),
        conflicts=sum(desk.conflicts for desk in desks),
    )


class GateAgent:
    """One of the tasks, with its counts. `conflicts` are decisions that had to be made again."""

    def __init__(self, store: ef.AsyncStore, plan: str, gates: Sequence[str]) -> None:
        self._store = store.using(attempts=ATTEMPTS)
        self._plan, self._gates = plan, gates
        self.requests = self.assigned = self.second = self.unplaced = self.decisions = self.conflicts = 0

    async def work(self, queue: Iterator[GateRequest]) -> None:
        """Take one request after another until there are none left."""
        for wish in queue:
            self.requests += 1
            try:
                if await self._assign(wish):
                    self.assigned += 1
                else:
                    self.second += 1
            except NoGateFree:
                self.unplaced += 1

    async def _assign(self, wish: GateRequest) -> bool:
        """Try gate after gate. False: it had one already."""
        for gate in self._gates:
            self.decisions += 1
            try:
                place, flight = GateDay(self._plan, gate), FlightGate(self._plan, wish.flight)
                decided = await self._store.decide(assign, place, flight, wish.since, wish.until)
            except GateTaken:
                continue
            self.conflicts += max(0, decided.attempts - 1)
            return bool(decided.events)
        raise NoGateFree


def double_booked(store: ef.Store, plan: str) -> tuple[int, list[str]]:
    """The plan read back from the log: how many gates were given, and every breach of the rule, in words."""
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
