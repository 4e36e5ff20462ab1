"""Loads the readings of 30 car parks in Birmingham, and evaluates the rule of fullness on the way.

Knows: the file, the order of steps. Does not know: how an alert is decided.

- 35,717 readings between 2016-10-04 and 2016-12-19, about every half hour from 8:00 to 16:30, in local time, no zone.
- 216 of them repeat one with the same time and number: their id is the same, and the second writes nothing.
- 373 exceed the capacity, 12 are negative, and a counter stood still for six readings of a day or more 5 times. Such
  readings are loaded, with a doubt beside them. One above the capacity counts as full; a negative one is not judged.
- Four days are missing for all car parks at once: 20 and 21 October, 3 and 4 December.
- Chosen: the rule (90 %, from 15 November on 97 %) and who changed it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import groupby, islice
from typing import Any, BinaryIO, NamedTuple, cast
from zoneinfo import ZoneInfo

import eventfold as ef
from eventfold.demo.data import open_source
from eventfold.demo.fields import LoadCount, id_from, write
from examples.fields.carparks.app import (
    ZONE,
    Alerting,
    CollectorSilent,
    Doubt,
    OccupancyReported,
    ParkSilent,
    Reading,
    Rule,
    Rulebook,
    RuleChanged,
    SensorDoubted,
    judge,
    raise_alert,
    resolve,
)

SOURCE = "parking"
RULE, SILENT = "nearly-full", "silent"
ALL_PARKS = "all"
STUCK_READINGS = 6
SILENT_US = 2 * 3_600_000_000  # a park that closed earlier fell silent earlier than the last one
VERSIONS = (
    (datetime(2016, 10, 1, tzinfo=UTC), Rule(RULE, 1, 90, 85), "operations"),
    (datetime(2016, 11, 15, tzinfo=UTC), Rule(RULE, 2, 97, 92), "operations"),
)


class Row(NamedTuple):
    """A row of the file."""

    at: datetime
    park: str
    cars: int
    capacity: int

    @property
    def percent(self) -> float:
        """The share of the places that are taken; more cars than places count as full."""
        return min(self.cars, self.capacity) * 100 / self.capacity


def rows(limit: int | None = None) -> list[Row]:
    """The rows by time, then park; the first `limit` of the file."""
    zone = ZoneInfo(ZONE)
    with io.TextIOWrapper(cast("BinaryIO", open_source(SOURCE)), "utf-8") as lines:
        found = [
            Row(datetime.fromisoformat(row["LastUpdated"]).replace(tzinfo=zone), row["SystemCodeNumber"],
                int(row["Occupancy"]), int(row["Capacity"]))
            for row in islice(csv.DictReader(lines), limit)
        ]  # fmt: skip
    return sorted(found, key=lambda row: (row.at, row.park))


class Doubts:
    """The doubts that a park's readings raise, one reading after the other."""

    def __init__(self) -> None:
        self._runs: dict[str, list[Row]] = {}
        self._last: dict[str, Row] = {}

    def of(self, row: Row) -> list[Doubt]:
        """Why a reading is in doubt. A repeated reading raises none."""
        if self._last.get(row.park) == row:
            return []
        self._last[row.park] = row
        run = self._runs.setdefault(row.park, [])
        if run and (run[-1].cars != row.cars or run[-1].at.date() != row.at.date()):
            run.clear()
        run.append(row)
        doubts: dict[Doubt, bool] = {
            "negative": row.cars < 0,
            "above capacity": row.cars > row.capacity,
            "stuck": len(run) == STUCK_READINGS,
        }
        return [why for why, holds in doubts.items() if holds]

    def since(self, row: Row) -> datetime:
        """When a counter that stands still began to."""
        return self._runs[row.park][0].at


def drafts(taken: list[Row], doubts: Doubts) -> Iterator[tuple[ef.Draft[Any], int]]:
    """Yield the readings and the doubts about them, with the number of rows that each stands for."""
    for row in taken:
        found = doubts.of(row)
        at, utc = row.at, row.at.astimezone(UTC)
        yield ef.Draft(OccupancyReported(row.park, utc, row.cars, row.capacity), id=_id(row), occurred=at), 1
        for why in found:
            since = doubts.since(row) if why == "stuck" else at
            doubt = SensorDoubted(row.park, why, row.cars, since.astimezone(UTC))
            yield ef.Draft(doubt, id=id_from(at, SOURCE, row.park, at.isoformat(), why), occurred=at), 0


def _id(row: Row) -> Any:
    return id_from(row.at, SOURCE, row.park, row.at.isoformat(), row.cars, row.capacity)


def load(store: ef.Store, limit: int | None = None) -> LoadCount:
    """Load day by day; after each day's readings the evaluator judges them."""
    count, doubts = LoadCount(), Doubts()
    taken = rows(limit)
    count.read = len(taken)
    changes = [
        (ef.Draft(RuleChanged(RULE, terms, by), id=id_from(since, RULE, terms.version), occurred=since), 0)
        for since, terms, by in VERSIONS
    ]
    write(store, changes, count)
    evaluator, decided = Evaluator(store), 0
    for _, day in groupby(taken, key=lambda row: row.at.date()):
        readings = list(day)
        write(store, drafts(readings, doubts), count)
        decided += evaluator.evaluate(readings)
    decided += raise_silences(store)
    count.events, count.made = count.events + decided, count.made + decided
    return count


class Evaluator:
    """Judges readings in order. It asks the log only where its own copy of what is open says that something changes."""

    def __init__(self, store: ef.Store) -> None:
        self._store = store
        self._book = store.state(Rulebook(RULE))
        self._open: dict[str, bool] = {}

    def evaluate(self, readings: list[Row]) -> int:
        """Judge readings; returns the number of events written."""
        written = 0
        for row in readings:
            terms = self._book.at(row.at)
            is_open = self._open.get(row.park, False)
            if terms is None or row.cars < 0:
                continue
            if row.percent < terms.cleared_below if is_open else row.percent >= terms.raised_at:
                alerting = Alerting(row.park, RULE)
                decided = self._store.decide(judge, alerting, Rulebook(RULE), Reading(row.at, row.percent))
                self._open[row.park] = decided.state(alerting).open is not None
                written += len(decided.events)
        return written


def raise_silences(store: ef.Store) -> int:
    """Raise and resolve an alert for each silence: one for all parks where the collector was down."""
    collector = store.alerts.replay(CollectorSilent)
    down = [(each.at, each.cleared_at or each.at) for each in collector]
    parks = [
        each for each in store.alerts.replay(ParkSilent)
        if not any(since - SILENT_US <= each.at < until for since, until in down)
    ]  # fmt: skip
    written = 0
    for each in sorted([*collector, *parks], key=lambda episode: episode.at):
        alerting = Alerting(each.key or ALL_PARKS, SILENT)
        at = datetime.fromtimestamp(each.at / 1e6, UTC)
        now = store.state(alerting)
        if now.changed_at is not None and at <= now.changed_at:
            continue
        written += len(store.decide(raise_alert, alerting, at, 1, each.reason).events)
        if each.cleared_at is not None:
            ended = datetime.fromtimestamp(each.cleared_at / 1e6, UTC)
            written += len(store.decide(resolve, alerting, ended).events)
    return written
