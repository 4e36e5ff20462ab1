"""Figures: the run from the first event to the last check, and all its results as one value.

Knows: the order of the chapters. Does not know: how results are shown (report.py), how they are computed (models.py).
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import msgspec

import eventfold as ef
from eventfold.demo.fields.run import peak_memory, size_of
from eventfold.demo.flights import gates
from eventfold.demo.flights.checks import Checks, Mismatch
from eventfold.demo.flights.events import FlightDeparted
from eventfold.demo.flights.load import Loaded, load
from eventfold.demo.flights.models import (
    NEW_YORK,
    AircraftDay,
    Board,
    Leg,
    Line,
    days_on_board,
)
from eventfold.demo.flights.rebuild import change_the_rule, project
from eventfold.demo.flights.source import Files, Source, unpack
from eventfold.demo.flights.tables import AirportHour, CarrierMonth, RuleChange, busiest, worst

Progress = Callable[[str, int, int], None]  # what is counted, the count so far, the final count
HOUR = timedelta(hours=1)


class BoardView(msgspec.Struct):
    """A departure board at a moment: its lines, and their number by status.

    `waiting`: due and not gone yet; `later`: not due yet.
    """

    origin: str
    moment: datetime
    departed: int
    cancelled: int
    waiting: int
    later: int
    lines: list[Line]


class Aircraft(msgspec.Struct):
    """One aircraft's day."""

    aircraft: str
    day: str
    legs: list[Leg]


class Gates(msgspec.Struct):
    """The contest for gates, and its result as read from the log: `given` gates, and `breaches` of the rule."""

    day: str
    airport: str
    contest: gates.Contest
    given: int
    breaches: list[str]


class Figures(msgspec.Struct):
    """All results of the run. Times are UTC; `seconds` is the duration of each chapter; sizes are bytes."""

    database: str
    flights: int
    limit: int | None
    loaded: Loaded
    counts: dict[str, int]
    months: list[CarrierMonth]
    day_hours: list[int]
    busiest: AirportHour
    worst: AirportHour
    rule: RuleChange
    board: BoardView
    earlier: BoardView
    changed: dict[str, tuple[Line | None, Line]]
    aircraft: Aircraft
    gates: Gates
    compared: int
    mismatches: list[Mismatch]
    airlines: dict[str, str]
    airports: dict[str, str]
    seconds: dict[str, float]
    size: int
    memory: int | None


class Clock:
    """Measures the duration of each chapter, in seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._began = time.perf_counter()

    @contextmanager
    def chapter(self, name: str) -> Generator[None]:
        """Measure the block; several blocks of one name are added."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - began, 3)

    def all(self) -> dict[str, float]:
        """The durations of the chapters, and the time since the clock was created as `total`."""
        return self.seconds | {"total": round(time.perf_counter() - self._began, 3)}


def compute_figures(database: str, limit: int | None, progress: Progress) -> Figures:
    """Run all chapters on one store. Raises EventfoldErrors. A differing figure is a mismatch and raises nothing."""
    clock = Clock()
    with tempfile.TemporaryDirectory(prefix="eventfold-flights-") as folder:
        files = unpack(Path(folder))  # before a store is created, so that a missing extra leaves no empty store
        with ef.Store(database) as store:
            with clock.chapter("load"), closing(Source(files, limit)) as source:
                loaded = load(store, source, partial(progress, "events"))
                names = source.airlines(), source.airports()
            return _run_chapters(store, database, limit, loaded, names, files, clock, progress)


def _run_chapters(
    store: ef.Store,
    database: str,
    limit: int | None,
    loaded: Loaded,
    names: tuple[dict[str, str], dict[str, str]],
    files: Files,
    clock: Clock,
    progress: Progress,
) -> Figures:
    with clock.chapter("tables"):
        project(store, partial(progress, "tables"))
        months, hours = store.rows(CarrierMonth), store.rows(AirportHour)
    with clock.chapter("rule"):
        rule = change_the_rule(store, partial(progress, "rebuild"))
    counts = {each.type: each.count for each in store.types() if each.type.startswith("Flight")}
    peak, late = busiest(hours), worst(hours)
    with clock.chapter("board"):
        now, before = _boards(store, late.origin, late.hour + HOUR)
        day = _day(now, late)
    with clock.chapter("aircraft"):
        flown = store.state(AircraftDay(_hardest_working(store, day), day))
    with clock.chapter("gates"):
        wanted, assigned = _gates(store, database, late.origin, day)
    with clock.chapter("check"), closing(Checks(files, limit)) as checks:
        checks.counts(counts)
        checks.months(months)
        checks.hours(hours)
        checks.rule(rule)
        checks.board(now, late.hour + HOUR)
        checks.board(before, late.hour)
        checks.aircraft(flown)
        checks.departures(late.origin, day, wanted)
        checks.compare(str, _gate_figures(assigned), _expected_gate_figures(assigned))
    return Figures(
        database=database,
        flights=loaded.flights,
        limit=limit,
        loaded=loaded,
        counts=counts,
        months=months,
        day_hours=_by_hour_of_day(hours),
        busiest=peak,
        worst=late,
        rule=rule,
        board=view(now, late.hour + HOUR),
        earlier=view(before, late.hour),
        changed=changed(before, now),
        aircraft=Aircraft(flown.aircraft, day, sorted(flown.legs.values(), key=lambda leg: leg.departed)),
        gates=assigned,
        compared=checks.compared,
        mismatches=checks.mismatches,
        airlines=names[0],
        airports=names[1],
        seconds=clock.all(),
        size=size_of(database),
        memory=peak_memory(),
    )


def _boards(store: ef.Store, origin: str, moment: datetime) -> tuple[Board, Board]:
    """The board at a time and an hour earlier: the same state, bounded by two times of occurrence."""
    question = Board(origin, days_on_board(moment))
    return (
        store.state(question, occurred_until=moment),
        store.state(question, occurred_until=moment - HOUR),
    )


def _day(board: Board, hour: AirportHour) -> str:
    """The day in the schedule of most flights that left in an hour."""
    left = [
        line.day
        for line in board.lines.values()
        if line.delay is not None and hour.hour <= line.departs + timedelta(minutes=line.delay) < hour.hour + HOUR
    ]
    return Counter(left).most_common(1)[0][0]


def _hardest_working(store: ef.Store, day: str) -> str:
    """The aircraft that left New York most often on a day; among equals, the one with the largest total delay."""
    legs: Counter[str] = Counter()
    late: Counter[str] = Counter()
    for recorded in store.read(ef.Query.of(types=[FlightDeparted], tags=[f"day:{day}"])):
        event: FlightDeparted = recorded.event
        legs[event.aircraft] += 1
        late[event.aircraft] += event.delay
    return max(legs, key=lambda aircraft: (legs[aircraft], late[aircraft], aircraft))


def _gates(store: ef.Store, database: str, airport: str, day: str) -> tuple[set[str], Gates]:
    """Assign gates to a day's flights, in a new plan, so that the run can be repeated on one store."""
    wanted = gates.gate_requests(store.state(Board(airport, (day,))).in_order())
    plan = f"{airport}-{day}-{len(store.tags(f'plan:{airport}-{day}-')) + 1}"
    contest = asyncio.run(gates.contest(database, plan, airport, wanted))
    given, breaches = gates.double_booked(store, plan)
    return {request.flight for request in wanted}, Gates(day, airport, contest, given, breaches)


def _gate_figures(assigned: Gates) -> dict[str, int]:
    """The figures of the gates, from the log."""
    return {"flights with a gate, in the log": assigned.given, "gates double-booked": len(assigned.breaches)}


def _expected_gate_figures(assigned: Gates) -> dict[str, int]:
    """The figures that the gates must have."""
    return {"flights with a gate, in the log": assigned.contest.assigned, "gates double-booked": 0}


def view(board: Board, moment: datetime) -> BoardView:
    """A board with its counts at a moment."""
    lines = board.in_order()
    here = [line for line in lines if line.status == "scheduled"]
    return BoardView(
        board.origin,
        moment,
        departed=sum(line.status == "departed" for line in lines),
        cancelled=sum(line.status == "cancelled" for line in lines),
        waiting=sum(line.departs <= moment for line in here),
        later=sum(line.departs > moment for line in here),
        lines=lines,
    )


def changed(before: Board, now: Board) -> dict[str, tuple[Line | None, Line]]:
    """The lines that differ between two moments of a board, in order, as (before, now)."""
    lines = [change.after for change in ef.diff(before, now).values()]
    return {line.flight: (before.lines.get(line.flight), line) for line in sorted(lines, key=Board.place)}


def _by_hour_of_day(hours: Iterable[AirportHour]) -> list[int]:
    """Departures by the hour on the clock in New York, 0 to 23."""
    by_hour = [0] * 24
    for each in hours:
        by_hour[each.hour.astimezone(NEW_YORK).hour] += each.departures
    return by_hour


def total(months: Iterable[CarrierMonth], field: str) -> int:
    """The sum of a figure over several months."""
    return sum(getattr(month, field) for month in months)
