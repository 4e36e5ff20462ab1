"""A household's meter: readings by the hour, silences, and bills that calibrations carry.

The invariant: a month is billed once, and only hours that a calibration covers are billed (ISO/IEC 17025: metrological
traceability). A calibration that is found bad later puts in doubt every reading since the last good one; what was
billed for these is credited, once. Readings are facts: those after an expired calibration are kept, too.
Knows: events, states, decisions, rows. Does not know: files, voltage (voltage.py), timers (expiry.py).
"""

from __future__ import annotations

from datetime import datetime

import msgspec

import eventfold as ef


class ReadingsTaken(ef.Event):
    """The minutes of an hour: power in watts, voltage in hundredths of a volt, three sub-meters in watt-hours.

    A minute without a reading is None. One event an hour: a minute of telemetry is no fact that a person asks for.
    """

    meter: ef.Tag
    month: ef.Tag
    hour: datetime
    watts: list[int | None]
    centivolts: list[int | None]
    sub_meters: tuple[list[int | None], list[int | None], list[int | None]]


class MeterFellSilent(ef.Event):
    """The first minute without a reading."""

    meter: ef.Tag
    since: datetime


class MeterSpokeAgain(ef.Event):
    """The first reading after a silence of so many minutes."""

    meter: ef.Tag
    since: datetime
    minutes: int


class MeterCalibrated(ef.Event):
    """A laboratory found the meter right; the certificate covers readings from `at` until `valid_until` (exclusive)."""

    meter: ef.Tag
    certificate: ef.Tag
    at: datetime
    valid_until: datetime
    by: str


class CalibrationFoundBad(ef.Event):
    """The laboratory withdrew a certificate: its reference was wrong."""

    meter: ef.Tag
    certificate: ef.Tag
    because: str
    by: str


class MonthBilled(ef.Event):
    """A bill: energy in watt-minutes (60,000 are a kWh), and how much was kept but not billed."""

    meter: ef.Tag
    month: ef.Tag
    billed: int
    not_billed: int


class CreditIssued(ef.Event):
    """What was billed for hours that turned out to be in doubt, in watt-minutes."""

    meter: ef.Tag
    month: ef.Tag
    certificate: str
    credited: int


class Certificate(msgspec.Struct):
    """A calibration, and whether it was withdrawn."""

    name: str
    at: datetime
    valid_until: datetime
    is_bad: bool = False


class Traceability(ef.State):
    """The chain of calibrations of a meter."""

    meter: ef.Tag
    chain: list[Certificate] = []

    def evolve(self, event: MeterCalibrated | CalibrationFoundBad) -> None:
        if isinstance(event, MeterCalibrated):
            self.chain.append(Certificate(event.certificate, event.at, event.valid_until))
        else:
            for each in self.chain:
                each.is_bad = each.is_bad or each.name == event.certificate

    def covers(self, moment: datetime) -> bool:
        """Whether a calibration that is good, as far as is known, covers a moment."""
        return any(each.at <= moment < each.valid_until and not each.is_bad for each in self.chain) and not any(
            since <= moment < until for since, until in self.doubts()
        )

    def doubts(self) -> list[tuple[datetime, datetime]]:
        """The spans in doubt: for each bad calibration, from the last good one before it to the next good one."""
        spans: list[tuple[datetime, datetime]] = []
        for number, bad in enumerate(self.chain):
            if bad.is_bad:
                before = [each.at for each in self.chain[:number] if not each.is_bad]
                later = [each.at for each in self.chain[number + 1 :] if not each.is_bad]
                spans.append((before[-1] if before else bad.at, later[0] if later else bad.valid_until))
        return spans


class Month(ef.State):
    """A month of a meter: the energy of each hour, and what became of its bill."""

    meter: ef.Tag
    month: ef.Tag
    hours: dict[datetime, int] = {}
    bill: MonthBilled | None = None
    credited: int = 0

    def evolve(self, event: ReadingsTaken | MonthBilled | CreditIssued) -> None:
        match event:
            case ReadingsTaken():
                self.hours[event.hour] = sum(watts for watts in event.watts if watts is not None)
            case MonthBilled():
                self.bill = event
            case CreditIssued():
                self.credited += event.credited


class Refused(Exception):
    """The month is billed, or there is nothing to credit."""


def bill(month: Month, chain: Traceability) -> list[ef.Event]:
    """Bill the hours of a month that are covered, once."""
    if month.bill is not None:
        raise Refused(f"{month.month} is billed")
    billed = sum(energy for hour, energy in month.hours.items() if chain.covers(hour))
    return [MonthBilled(month.meter, month.month, billed, sum(month.hours.values()) - billed)]


def credit(month: Month, chain: Traceability, certificate: str) -> list[ef.Event]:
    """Credit what was billed for hours that are not covered any more, once."""
    if month.bill is None:
        raise Refused(f"{month.month} is not billed")
    covered = sum(energy for hour, energy in month.hours.items() if chain.covers(hour))
    owed = month.bill.billed - month.credited - covered
    return [CreditIssued(month.meter, month.month, certificate, owed)] if owed > 0 else []


class DayOfMeter(ef.Projection, name="meter_day"):
    """A day: minutes with a reading, energy in watt-minutes, and the three sub-meters in watt-hours."""

    meter: ef.Tag
    day: datetime
    minutes: int = 0
    energy: int = 0
    sub_meters: tuple[int, int, int] = (0, 0, 0)

    @staticmethod
    def key(event: ReadingsTaken) -> tuple[str, datetime]:
        return event.meter, event.hour.replace(hour=0)

    def evolve(self, event: ReadingsTaken) -> None:
        self.minutes += sum(watts is not None for watts in event.watts)
        self.energy += sum(watts for watts in event.watts if watts is not None)
        one, two, three = (sum(each for each in minutes if each is not None) for minutes in event.sub_meters)
        self.sub_meters = self.sub_meters[0] + one, self.sub_meters[1] + two, self.sub_meters[2] + three
