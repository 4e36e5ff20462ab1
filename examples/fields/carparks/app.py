"""Thirty car parks: occupancy, doubtful sensors, and alerts of which one is open for a park and a rule.

The invariants: one open alert for each park and rule, whatever the number of evaluators; it is acknowledged once; a new
version of a rule never rewrites what was raised under the old one. Readings are facts: a doubtful one is recorded too.
Knows: events, rules, decisions, rows. Does not know: files, deadlines (deadlines.py).
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal, NamedTuple

import msgspec

import eventfold as ef

ZONE = "Europe/London"
OPEN = ef.office_hours(ZONE, opens="08:00", closes="16:30", days="mon-sun")  # the hours of which readings are published
Doubt = Literal["negative", "above capacity", "stuck"]


class Rule(msgspec.Struct, frozen=True):
    """An alert is raised at a share of the places, in percent, and resolved below another one."""

    name: str
    version: int
    raised_at: int
    cleared_below: int


class OccupancyReported(ef.Event):
    """How many cars a park counted, by its own clock."""

    park: ef.Tag
    at: datetime
    cars: int
    capacity: int


class SensorDoubted(ef.Event):
    """A reading that cannot be right. It stays in the log, and the doubt beside it."""

    park: ef.Tag
    why: Doubt
    cars: int
    since: datetime


class RuleChanged(ef.Event, type="park-rule-changed"):
    """A version of a rule holds from now on."""

    rule: ef.Tag
    terms: Rule
    by: str


class AlertRaised(ef.Event, type="park-alert-raised"):
    """An alert was opened, under the version of the rule that held then."""

    park: ef.Tag
    rule: ef.Tag
    alert: ef.Tag
    version: int
    reason: str


class AlertAcknowledged(ef.Event, type="park-alert-acknowledged"):
    """A person takes it."""

    park: ef.Tag
    rule: ef.Tag
    alert: ef.Tag
    by: str


class AlertResolved(ef.Event, type="park-alert-resolved"):
    """What was wrong is over."""

    park: ef.Tag
    rule: ef.Tag
    alert: ef.Tag


class CollectorSilent(ef.Alert, name="collector_silent", by="occurred"):
    """No park reported for two open hours: the collector is down, which is one alert and not thirty."""

    last: ef.Absence = ef.absence(expect=ef.hours(2), calendar=OPEN)

    def evolve(self, event: OccupancyReported) -> None:
        self.last.mark()


class ParkSilent(ef.Alert, name="park_silent", by="occurred"):
    """One park did not report for two open hours."""

    park: ef.Tag
    last: ef.Absence = ef.absence(expect=ef.hours(2), calendar=OPEN)

    def evolve(self, event: OccupancyReported) -> None:
        self.last.mark()


class Rulebook(ef.State):
    """The versions of a rule, each from its moment on."""

    rule: ef.Tag
    versions: list[tuple[datetime, Rule]] = []

    def evolve(self, event: RuleChanged, recorded: ef.Recorded) -> None:
        self.versions.append((recorded.occurred or recorded.time, event.terms))

    def at(self, moment: datetime) -> Rule | None:
        """Return the version that holds at a moment."""
        return next((terms for since, terms in reversed(self.versions) if since <= moment), None)


class Alerting(ef.State):
    """The alerts of one park and rule."""

    park: ef.Tag
    rule: ef.Tag
    open: str | None = None
    raised: int = 0
    acknowledged_by: str | None = None
    changed_at: datetime | None = None

    def evolve(self, event: AlertRaised | AlertAcknowledged | AlertResolved, recorded: ef.Recorded) -> None:
        match event:
            case AlertRaised():
                self.open, self.raised, self.acknowledged_by = event.alert, self.raised + 1, None
            case AlertAcknowledged():
                self.acknowledged_by = event.by
            case AlertResolved():
                self.open = None
        self.changed_at = recorded.occurred or recorded.time


class Reading(NamedTuple):
    """What an evaluator judges: a share of the places in percent, at a moment."""

    at: datetime
    percent: float


class Refused(Exception):
    """Nothing is open, or another person has it."""


def judge(alerting: Alerting, book: Rulebook, reading: Reading) -> list[ef.Draft]:
    """Raise or resolve the alert of a park, by the version of the rule that holds at the reading."""
    terms = book.at(reading.at)
    if terms is None or (alerting.changed_at is not None and reading.at <= alerting.changed_at):
        return []
    if alerting.open is None and reading.percent >= terms.raised_at:
        reason = f"{reading.percent:.1f} % of the places are taken; the limit is {terms.raised_at} %."
        return raise_alert(alerting, reading.at, terms.version, reason)
    return resolve(alerting, reading.at) if reading.percent < terms.cleared_below else []


def raise_alert(alerting: Alerting, at: datetime, version: int, reason: str) -> list[ef.Draft]:
    """Open an alert, unless one is open."""
    if alerting.open is not None:
        return []
    alert = f"{alerting.park}/{alerting.rule}/{alerting.raised + 1}"
    return [ef.Draft(AlertRaised(alerting.park, alerting.rule, alert, version, reason), occurred=at)]


def resolve(alerting: Alerting, at: datetime) -> list[ef.Draft]:
    """End the open alert, if there is one."""
    if alerting.open is None:
        return []
    return [ef.Draft(AlertResolved(alerting.park, alerting.rule, alerting.open), occurred=at)]


def acknowledge(alerting: Alerting, by: str) -> list[ef.Event]:
    """Take the open alert: one person does."""
    if alerting.open is None or alerting.acknowledged_by is not None:
        raise Refused(f"{alerting.park}: {alerting.acknowledged_by or 'nothing is open'}")
    return [AlertAcknowledged(alerting.park, alerting.rule, alerting.open, by)]


class HourOfPark(ef.Projection, name="park_hour"):
    """The occupancy of a park in an hour: readings, and the sum of the cars that they counted."""

    park: ef.Tag
    hour: datetime
    readings: int = 0
    cars: int = 0

    @staticmethod
    def key(event: OccupancyReported) -> tuple[str, datetime]:
        return event.park, event.at.replace(minute=0, second=0)

    def evolve(self, event: OccupancyReported) -> None:
        self.readings += 1
        self.cars += event.cars
