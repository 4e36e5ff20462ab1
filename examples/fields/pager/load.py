"""Loads the failures of six software systems, as J. D. Musa collected them, and runs alerts and releases beside them.

Knows: the files, what is generated. Does not know: how alerts are counted.

- `pysrat` has the seconds between failures; the last row of a file is the end of watching (`indicator` 0), no failure.
- There is no calendar: the start, 1977-01-01T00:00Z for all, is chosen. Some intervals are 0: ids need the number.
- SS1A to SS4 are watched for 194 to 667 days: 1,430 failures. Other systems of the collection count CPU seconds.
- Generated: a release of each system every seventh day; repairs, log-normal, as Schroeder and Gibson found (DSN
  2006), with a median of one hour and a sigma of 1.2, both chosen, drawn with a seed for each failure.
"""

from __future__ import annotations

import csv
import io
import math
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import BinaryIO, NamedTuple, cast

import eventfold as ef
from eventfold.demo.data import open_source
from eventfold.demo.fields import LoadCount, id_from, write
from examples.fields.pager.app import (
    Budget,
    FailureReported,
    Rule,
    ServiceRestored,
    WatchEnded,
    WatchStarted,
    evaluate,
    release,
    report,
)

SYSTEMS = ("ss1a", "ss1b", "ss1c", "ss2", "ss3", "ss4")
RULE = Rule()
START = datetime(1977, 1, 1, tzinfo=UTC)
RELEASE_EVERY = timedelta(days=7)
REPAIR_MEDIAN_S, REPAIR_SIGMA = 3_600, 1.2


class Row(NamedTuple):
    """A row of a file: the system, the number of the row, its moment, and whether it is a failure."""

    system: str
    number: int
    at: datetime
    is_failure: bool


class Release(NamedTuple):
    """A release of a system that is due."""

    system: str
    name: str
    at: datetime


def rows(limit: int | None = None) -> list[Row]:
    """The rows of all systems, file after file, at most `limit`."""
    return list(islice(_rows(), limit))


def _rows() -> Iterator[Row]:
    for system in SYSTEMS:
        seconds = 0
        with io.TextIOWrapper(cast("BinaryIO", open_source(f"failures-{system}")), "utf-8") as lines:
            for number, row in enumerate(csv.DictReader(lines), 1):
                seconds += int(row["time"])
                at = START + timedelta(seconds=seconds)
                yield Row(system.upper(), number, at, row["indicator"] == "1")


def releases(taken: list[Row]) -> Iterator[Release]:
    """A release of each system every seventh day, while it is watched."""
    ends = {row.system: row.at for row in taken}
    for system, end in ends.items():
        at, number = START + RELEASE_EVERY, 1
        while at <= end:
            yield Release(system, f"{system}-r{number}", at)
            at, number = at + RELEASE_EVERY, number + 1


def load(store: ef.Store, limit: int | None = None, rule: Rule = RULE) -> LoadCount:
    """Go through failures and releases in the order of time; every alert and every release is a decision."""
    count, taken = LoadCount(), rows(limit)
    count.read = len(taken)
    systems = dict.fromkeys(row.system for row in taken)
    write(store, [_draft(WatchStarted(system, rule), START) for system in systems], count)
    repairs: list[tuple[ef.Draft, int]] = []
    for step in sorted([*taken, *releases(taken)], key=lambda each: (each.at, each.system, isinstance(each, Release))):
        budget = Budget(step.system)
        now = store.state(budget)
        if now.alert is not None and now.clears_at() <= step.at:
            _count(count, store.decide(evaluate, budget, now.clears_at()))
        if isinstance(step, Release):
            if step.name not in now.releases:
                _count(count, store.decide(release, budget, step.name, step.at))
        elif step.is_failure:
            failure, _ = _draft(FailureReported(step.system, step.number), step.at, step.number)
            written = _count(count, store.decide(report, budget, failure), rows=1)
            count.loaded, count.repeated = count.loaded + bool(written), count.repeated + (not written)
            repairs.append(_draft(ServiceRestored(step.system, step.number), _repaired(step), step.number))
        else:
            write(store, [(_draft(WatchEnded(step.system), step.at)[0], 1)], count)
    write(store, repairs, count)
    return count


def _draft(event: ef.Event, at: datetime, *of: object) -> tuple[ef.Draft, int]:
    """An event that no row stands for, with its id and moment."""
    system = getattr(event, "system", "")
    return ef.Draft(event, id=id_from(at, "musa", type(event).__name__, system, *of), occurred=at), 0


def _count(count: LoadCount, decided: ef.Decided, rows: int = 0) -> int:
    """Count the events of a decision, of which `rows` stand for rows of the source."""
    written = len(decided.events)
    count.events += written
    count.made += max(0, written - rows)
    return written


def _repaired(failure: Row) -> datetime:
    """When the system works again."""
    draw = random.Random(f"{failure.system}/{failure.number}")  # noqa: S311 - a simulation
    return failure.at + timedelta(seconds=round(draw.lognormvariate(math.log(REPAIR_MEDIAN_S), REPAIR_SIGMA)))
