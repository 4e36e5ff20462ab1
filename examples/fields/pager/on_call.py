"""Who is called: a timer that survives restarts calls the second person when no one acknowledges an alert.

Knows: the alerts of app.py, timers. Does not know: failures, releases.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import eventfold as ef
from eventfold.processes import after, cancel, decide
from examples.fields.pager.app import AlertAcknowledged, AlertRaised, AlertResolved, Budget

ESCALATE_AFTER_MINUTES = 15


class EscalationDue(ef.Event, type="pager-escalation-due"):
    """A timer: no one has acknowledged in time."""

    system: ef.Tag
    alert: ef.Tag


class AlertEscalated(ef.Event, type="pager-alert-escalated"):
    """The next person is called."""

    system: ef.Tag
    alert: ef.Tag
    to: str


def escalate(budget: Budget, alert: str, to: str) -> list[ef.Event]:
    """Call the next person, if the alert is still open and no person has it."""
    waits = budget.alert == alert and budget.acknowledged_by is None
    return [AlertEscalated(budget.system, alert, to)] if waits else []


class OnCall(ef.Process, start="now", name="pager_on_call"):
    """Calls the second person fifteen minutes after an alert that no one acknowledged."""

    alert: ef.Tag

    def evolve(self, event: AlertRaised | AlertAcknowledged | AlertResolved) -> None: ...

    def react(self, event: AlertRaised | AlertAcknowledged | AlertResolved | EscalationDue) -> Iterator[Any]:
        match event:
            case AlertRaised():
                yield after(EscalationDue(event.system, self.alert), minutes=ESCALATE_AFTER_MINUTES)
            case EscalationDue():
                yield decide(escalate, Budget(event.system), self.alert, "second on call")
            case _:
                yield cancel(EscalationDue)
