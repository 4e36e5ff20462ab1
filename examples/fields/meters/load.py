"""Loads a household's meter hour by hour; each month is billed when it is over, and calibrations come between.

Knows: the file, what is chosen. Does not know: how a bill is decided.

- 2,075,259 rows, one for each minute from 2006-12-16 17:24 to 2010-11-26 21:02; the clock of the meter has no zone, and
  never changes to summer time. 25,979 rows are empty, in 71 silences of 1 to 7,226 minutes: rejected, and counted.
- Power has three decimals (watts), voltage two (and a zero), sub-meters none: all are kept as whole numbers.
- 34,168 of 34,589 hours have a reading. An hour without one is no event, since a silent meter sends nothing.
- Chosen: the calibrations, that one is found bad in February 2010, that none covers June and July 2010; when the
  rule for the voltage changes.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import groupby, islice
from typing import Any, BinaryIO, NamedTuple, cast

import eventfold as ef
from eventfold.demo.data import open_source
from eventfold.demo.fields import LoadCount, id_from, write
from examples.fields.meters import fleet_load
from examples.fields.meters.app import (
    CalibrationFoundBad,
    MeterCalibrated,
    MeterFellSilent,
    MeterSpokeAgain,
    Month,
    ReadingsTaken,
    Traceability,
    bill,
    credit,
)
from examples.fields.meters.voltage import (
    EVERY_MINUTE,
    STANDARD,
    Verdicts,
    VoltageRuleAdopted,
    WeekOfVoltage,
    judge_week,
)

SOURCE, METER = "household-power", "household"
EMPTY = "the minute is empty: the meter was silent"
UNKNOWN = "the row is not in the form that the loader knows"
_NONE: list[int | None] = [None] * 60


def day(text: str) -> datetime:
    """Midnight of a date, by the meter's clock."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


CALIBRATIONS = (
    ("C-2006", day("2006-12-01"), day("2008-01-01")),
    ("C-2007", day("2007-12-01"), day("2009-01-01")),
    ("C-2008", day("2008-12-01"), day("2010-01-01")),
    ("C-2009", day("2009-12-01"), day("2010-06-01")),
    ("C-2010", day("2010-08-01"), day("2011-08-01")),
)
BAD, FOUND_BAD = "C-2008", day("2010-02-15")
RULES = ((day("2006-12-01"), EVERY_MINUTE), (day("2009-07-01"), STANDARD))


class Minute(NamedTuple):
    """A row: None in place of the five numbers if it is empty, and `is_known` False if it could not be read."""

    at: datetime
    numbers: tuple[int, int, int, int, int] | None
    is_known: bool = True


def minutes(limit: int | None = None) -> Iterator[Minute]:
    """Yield the rows. A moment that cannot be read is that of the row before, and a minute."""
    date, midnight, at = "", day("2000-01-01"), day("2000-01-01")
    with io.TextIOWrapper(cast("BinaryIO", open_source(SOURCE)), "utf-8", newline="") as lines:
        for row in islice(csv.reader(lines), 1, None if limit is None else limit + 1):
            try:
                if row[0] != date:
                    date = row[0]
                    year, month, number = reversed(date.split("/"))
                    midnight = datetime(int(year), int(month), int(number), tzinfo=UTC)
                at = midnight + timedelta(minutes=int(row[1][:2]) * 60 + int(row[1][3:5]))
                yield Minute(at, None if row[4] in ("?", "") else _numbers(row))
            except (ValueError, IndexError):
                at += timedelta(minutes=1)
                yield Minute(at, None, False)


def _numbers(row: list[str]) -> tuple[int, int, int, int, int]:
    """Watts, hundredths of a volt, and the three sub-meters. Raises ValueError if a number has other decimals."""
    watts, volts = row[2], row[4]
    subs = [each for each in row[6:9] if each.endswith(".000")]
    if watts[-4] != "." or volts[-4] != "." or volts[-1] != "0" or len(subs) != 3:
        raise ValueError(row)
    one, two, three = (int(each[:-4]) for each in subs)
    return int(watts.replace(".", "")), int(volts.replace(".", "")) // 10, one, two, three


def hour_of(minute: Minute) -> datetime:
    """The hour of a minute."""
    return minute.at.replace(minute=0)


def drafts(taken: Iterable[Minute], count: LoadCount) -> Iterator[tuple[ef.Draft[Any], int]]:
    """Yield an event for each hour that has a reading, and two for each silence, in the order of time."""
    silent_since: datetime | None = None
    for hour, group in groupby(taken, key=hour_of):
        columns = [_NONE.copy() for _ in range(5)]
        found, silences = 0, list[tuple[ef.Draft[Any], int]]()
        for minute in group:
            count.read += 1
            if minute.numbers is None:
                count.reject(EMPTY if minute.is_known else UNKNOWN)
                if silent_since is None:
                    silent_since = minute.at
                    silences.append(_draft(MeterFellSilent(METER, minute.at), minute.at))
                continue
            if silent_since is not None:
                length = (minute.at - silent_since) // timedelta(minutes=1)
                silences.append(_draft(MeterSpokeAgain(METER, silent_since, length), minute.at))
                silent_since = None
            found += 1
            for column, number in zip(columns, minute.numbers, strict=True):
                column[minute.at.minute] = number
        if found:
            watts, volts, *subs = columns
            event = ReadingsTaken(METER, f"{hour:%Y-%m}", hour, watts, volts, (subs[0], subs[1], subs[2]))
            yield _draft(event, hour)[0], found
        yield from silences


def _draft(event: ef.Event, at: datetime, *of: object) -> tuple[ef.Draft[Any], int]:
    """An event that no row stands for, with its id and moment."""
    return ef.Draft(event, id=id_from(at, SOURCE, type(event).__name__, at.isoformat(), *of), occurred=at), 0


def load(store: ef.Store, limit: int | None = None) -> LoadCount:
    """Load month by month: readings, calibrations, the bill of the month, credits; then weeks and the fleet."""
    count = LoadCount()
    write(store, [_draft(VoltageRuleAdopted(METER, rule, "operations"), since) for since, rule in RULES], count)
    events = drafts(minutes(limit), count)
    months = groupby(events, key=lambda each: f"{each[0].occurred:%Y-%m}")
    last, billed = "", list[str]()
    for month, group in months:
        if last:
            billed.append(last)
            _end_month(store, last, day(f"{month}-01"), billed, count)
        write(store, group, count)
        last = month
    if last:
        _calibrate(store, day("2100-01-01"), count)
    _count(count, judge_weeks(store))
    fleet_load.load(store, count)
    return count


def _end_month(store: ef.Store, month: str, end: datetime, billed: list[str], count: LoadCount) -> None:
    """Record the calibrations of a month, bill it, and credit what a certificate that was withdrawn in it carried."""
    withdrawn = _calibrate(store, end, count)
    chain = Traceability(METER)
    if store.state(Month(METER, month)).bill is None:
        _count(count, len(store.decide(bill, Month(METER, month), chain).events))
    for each in billed if withdrawn else ():
        _count(count, len(store.decide(credit, Month(METER, each), chain, BAD).events))


def _calibrate(store: ef.Store, until: datetime, count: LoadCount) -> bool:
    """Record what happened to certificates before a moment; returns whether the withdrawal is one of these."""
    known = store.state(Traceability(METER))
    names = {each.name for each in known.chain}
    due = [
        _draft(MeterCalibrated(METER, name, at, valid, "the laboratory"), at, name)
        for name, at, valid in CALIBRATIONS
        if at < until and name not in names
    ]
    is_due = until > FOUND_BAD and not any(each.is_bad for each in known.chain) and until < day("2100-01-01")
    if is_due:
        found = CalibrationFoundBad(METER, BAD, "the reference of the laboratory was wrong", "the laboratory")
        due.append(_draft(found, FOUND_BAD))
    write(store, due, count)
    return is_due


def judge_weeks(store: ef.Store) -> int:
    """Judge every week that is over; returns how many broke the rule of their time."""
    store.project(WeekOfVoltage)
    weeks = [row for page in store.select(WeekOfVoltage, order=["week"]).pages() for row in page]
    return sum(len(store.decide(judge_week, Verdicts(METER), week).events) for week in weeks[:-1])


def _count(count: LoadCount, written: int) -> None:
    count.events, count.made = count.events + written, count.made + written
