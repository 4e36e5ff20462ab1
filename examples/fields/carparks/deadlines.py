"""Deadlines of incidents and alerts, as timers that survive restarts: notices to authorities, and who is called next.

NIS2 (Directive (EU) 2022/2555) art. 23(4): an early warning within 24 hours of becoming aware, a notification within 72
hours, a final report one month after the notification. DORA (Regulation (EU) 2022/2554 art. 19, with the time limits of
Delegated Regulation (EU) 2025/301): an initial notification within 4 hours of the classification as major and 24 hours
of becoming aware, an intermediate report 72 hours after it, a final one a month after that.
Knows: moments, timers, alerts of app.py. Does not know: what an incident is about.
"""

from __future__ import annotations

import calendar
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, Literal

import eventfold as ef
from eventfold.processes import after, at, cancel, decide
from examples.fields.carparks.app import AlertAcknowledged, Alerting, AlertRaised, AlertResolved

Regulation = Literal["NIS2", "DORA"]
ESCALATE_AFTER_MINUTES = 15


class IncidentClassified(ef.Event):
    """An incident has to be reported: known since `aware_at`, classified as significant or major at `at`."""

    incident: ef.Tag
    under: Regulation
    aware_at: datetime
    at: datetime


class NoticeDue(ef.Event):
    """A timer: the deadline of a notice has come."""

    incident: ef.Tag
    stage: str


class NoticeSent(ef.Event):
    """A notice was sent to the authority."""

    incident: ef.Tag
    stage: str
    at: datetime
    by: str


class DeadlineMissed(ef.Event):
    """A notice was not sent in time."""

    incident: ef.Tag
    stage: str


class AlertEscalationDue(ef.Event, type="park-escalation-due"):
    """A timer: no one has acknowledged in time."""

    park: ef.Tag
    rule: ef.Tag
    alert: ef.Tag


class AlertEscalated(ef.Event, type="park-alert-escalated"):
    """The next person is called."""

    park: ef.Tag
    rule: ef.Tag
    alert: ef.Tag
    to: str


def month_after(moment: datetime) -> datetime:
    """The same day of the next month, or its last day."""
    year, month = divmod(moment.year * 12 + moment.month, 12)
    day = min(moment.day, calendar.monthrange(year, month + 1)[1])
    return moment.replace(year=year, month=month + 1, day=day)


def first_deadlines(event: IncidentClassified) -> list[tuple[str, datetime]]:
    """The deadlines that are known when an incident is classified."""
    if event.under == "NIS2":
        return [
            ("early warning", event.aware_at + timedelta(hours=24)),
            ("notification", event.aware_at + timedelta(hours=72)),
        ]
    return [("initial notification", min(event.at + timedelta(hours=4), event.aware_at + timedelta(hours=24)))]


def next_deadline(sent: NoticeSent) -> tuple[str, datetime] | None:
    """The deadline that begins when a notice is sent."""
    match sent.stage:
        case "notification" | "intermediate report":
            return "final report", month_after(sent.at)
        case "initial notification":
            return "intermediate report", sent.at + timedelta(hours=72)
        case _:
            return None


class Incident(ef.State):
    """What was sent about an incident."""

    incident: ef.Tag
    sent: dict[str, datetime] = {}
    missed: list[str] = []

    def evolve(self, event: NoticeSent | DeadlineMissed) -> None:
        if isinstance(event, NoticeSent):
            self.sent[event.stage] = event.at
        else:
            self.missed.append(event.stage)


def miss(incident: Incident, stage: str) -> list[ef.Event]:
    """Record that a deadline passed, unless the notice was sent."""
    return [] if stage in incident.sent else [DeadlineMissed(incident.incident, stage)]


class Notices(ef.Process, start="beginning", name="incident_notices"):
    """Watches the deadlines of one incident."""

    incident: ef.Tag

    def evolve(self, event: IncidentClassified | NoticeSent) -> None: ...

    def react(self, event: IncidentClassified | NoticeSent | NoticeDue) -> Iterator[Any]:
        match event:
            case IncidentClassified():
                for stage, moment in first_deadlines(event):
                    yield at(NoticeDue(self.incident, stage), moment)
            case NoticeSent():
                yield cancel(NoticeDue(self.incident, event.stage))
                following = next_deadline(event)
                if following is not None:
                    yield at(NoticeDue(self.incident, following[0]), following[1])
            case NoticeDue():
                yield decide(miss, Incident(self.incident), event.stage)


def escalate(alerting: Alerting, alert: str, to: str) -> list[ef.Event]:
    """Call the next person, if the alert is still open and no person has it."""
    waits = alerting.open == alert and alerting.acknowledged_by is None
    return [AlertEscalated(alerting.park, alerting.rule, alert, to)] if waits else []


class Escalation(ef.Process, start="now", name="park_escalation"):
    """Calls the next person fifteen minutes after an alert that no one took. The past calls no one."""

    alert: ef.Tag

    def evolve(self, event: AlertRaised | AlertAcknowledged | AlertResolved) -> None: ...

    def react(self, event: AlertRaised | AlertAcknowledged | AlertResolved | AlertEscalationDue) -> Iterator[Any]:
        match event:
            case AlertRaised():
                yield after(AlertEscalationDue(event.park, event.rule, self.alert), minutes=ESCALATE_AFTER_MINUTES)
            case AlertEscalationDue():
                yield decide(escalate, Alerting(event.park, event.rule), self.alert, "the second on call")
            case _:
                yield cancel(AlertEscalationDue)
