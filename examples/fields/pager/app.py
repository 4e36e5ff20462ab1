"""Failures of software systems: alerts, releases, and the rule that nothing is released while the budget is spent.

The invariant: eight failures in seven days open one alert for a system, whatever the number of evaluators; while it is
open no release goes out, except by a named override. Knows: events, the state, decisions. Does not know: the data, who
is called (on_call.py).
"""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

import eventfold as ef


class Rule(msgspec.Struct, frozen=True):
    """So many failures within so many days spend the budget."""

    name: str = "eight in seven days"
    failures: int = 8
    days: int = 7


class WatchStarted(ef.Event, type="pager-watch-started"):
    """A system is watched from now on, under a rule."""

    system: ef.Tag
    rule: Rule


class RuleChanged(ef.Event, type="pager-rule-changed"):
    """Another rule holds from now on. What was raised and refused under the old one stays as it was."""

    system: ef.Tag
    rule: Rule
    by: str


class FailureReported(ef.Event):
    """A system failed; `number` counts its failures. A fact is recorded, never refused."""

    system: ef.Tag
    number: int


class ServiceRestored(ef.Event):
    """The system works again after that failure."""

    system: ef.Tag
    number: int


class AlertRaised(ef.Event, type="pager-alert-raised"):
    """The budget is spent."""

    system: ef.Tag
    alert: ef.Tag
    rule: Rule
    failures: int


class AlertAcknowledged(ef.Event, type="pager-alert-acknowledged"):
    """A person takes it."""

    system: ef.Tag
    alert: ef.Tag
    by: str


class AlertResolved(ef.Event, type="pager-alert-resolved"):
    """Enough of the window's failures are old enough."""

    system: ef.Tag
    alert: ef.Tag


class ReleaseDeployed(ef.Event):
    """A release went out; `override_by` names who answers for it if the budget was spent."""

    system: ef.Tag
    release: ef.Tag
    override_by: str | None = None


class ReleaseRefused(ef.Event):
    """A release did not go out. The refusal is a fact: with the rule and the number that it was decided on."""

    system: ef.Tag
    release: ef.Tag
    alert: str
    failures: int
    rule: Rule


class WatchEnded(ef.Event, type="pager-watch-ended"):
    """No one watches the system any more."""

    system: ef.Tag


class Budget(ef.State):
    """A system as a release manager sees it: the failures of its window, its open alert, its releases."""

    system: ef.Tag
    rule: Rule = Rule()
    failures: int = 0
    recent: list[datetime] = []
    alert: str | None = None
    alerts: int = 0
    acknowledged_by: str | None = None
    down: set[int] = set()
    releases: dict[str, bool] = {}
    has_ended: bool = False

    def evolve(
        self,
        event: WatchStarted | RuleChanged | FailureReported | ServiceRestored | AlertRaised | AlertAcknowledged
        | AlertResolved | ReleaseDeployed | ReleaseRefused | WatchEnded,
        recorded: ef.Recorded,
    ) -> None:  # fmt: skip
        now = recorded.occurred or recorded.time
        match event:
            case WatchStarted() | RuleChanged():
                self.rule = event.rule
            case FailureReported():
                self.failures = event.number
                self.recent = [each for each in self.recent if each > now - timedelta(days=28)] + [now]
                self.down.add(event.number)
            case ServiceRestored():
                self.down.discard(event.number)
            case AlertRaised():
                self.alert, self.acknowledged_by, self.alerts = event.alert, None, self.alerts + 1
            case AlertAcknowledged():
                self.acknowledged_by = event.by
            case AlertResolved():
                self.alert = None
            case ReleaseDeployed() | ReleaseRefused():
                self.releases[event.release] = isinstance(event, ReleaseDeployed)
            case WatchEnded():
                self.has_ended = True

    def within(self, now: datetime) -> int:
        """How many failures the rule's window has that ends at a moment (inclusive)."""
        return sum(now - timedelta(days=self.rule.days) < each <= now for each in self.recent)

    def clears_at(self) -> datetime:
        """The moment at which an open alert is over, if nothing fails until then."""
        return self.recent[-self.rule.failures] + timedelta(days=self.rule.days)


class Refused(Exception):
    """The release is known, or another person has the alert."""


def report(budget: Budget, failure: ef.Draft[FailureReported]) -> list[ef.Draft]:
    """Record a failure, and in the same append the alert if it is the one that spends the budget."""
    if failure.event.number <= budget.failures or failure.occurred is None:
        return []
    spent = budget.within(failure.occurred) + 1 >= budget.rule.failures
    return [failure, *(_raised(budget, failure.occurred, 1) if spent and budget.alert is None else [])]


def _raised(budget: Budget, now: datetime, new: int = 0) -> list[ef.Draft]:
    alert = f"{budget.system}-{budget.alerts + 1}"
    raised = AlertRaised(budget.system, alert, budget.rule, budget.within(now) + new)
    return [ef.Draft(raised, occurred=now)]


def evaluate(budget: Budget, now: datetime) -> list[ef.Draft]:
    """Raise the alert of a system whose budget is spent, or resolve it: one open alert, however many evaluate."""
    spent = budget.within(now) >= budget.rule.failures
    if spent and budget.alert is None:
        return _raised(budget, now)
    if not spent and budget.alert is not None:
        return [ef.Draft(AlertResolved(budget.system, budget.alert), occurred=now)]
    return []


def release(budget: Budget, name: str, now: datetime, override_by: str | None = None) -> list[ef.Draft]:
    """Deploy a release, or record why not. A release is decided once."""
    if name in budget.releases:
        raise Refused(f"{name} was decided before")
    if budget.alert is None or override_by is not None:
        return [ef.Draft(ReleaseDeployed(budget.system, name, override_by), occurred=now)]
    refused = ReleaseRefused(budget.system, name, budget.alert, budget.within(now), budget.rule)
    return [ef.Draft(refused, occurred=now)]


def acknowledge(budget: Budget, by: str) -> list[ef.Event]:
    """Take the open alert: one person does."""
    if budget.alert is None or budget.acknowledged_by is not None:
        raise Refused(f"{budget.system}: {budget.acknowledged_by or 'nothing is open'}")
    return [AlertAcknowledged(budget.system, budget.alert, by)]
