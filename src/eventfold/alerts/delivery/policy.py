"""When messages are sent to a target: which alerts, grouped for how long, how often, in which hours.

Knows: the options and their limits. Does not know: episodes, messages.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from typing import Protocol

import msgspec

from eventfold.alerts.facts import Severity
from eventfold.errors import InvalidProcess

SECOND = 1_000_000  # µs
HOUR = 3_600 * SECOND
SEVERITIES: tuple[Severity, ...] = ("page", "ticket", "none")
NOTIFIED: tuple[Severity, ...] = ("page", "ticket")  # an alert of the severity "none" is only recorded
LONGEST_GROUP_S = 3_600.0
MAX_BUDGET = 10_000
Duration = float | timedelta


class Hours(Protocol):
    """Hours in which messages may be sent. `ef.office_hours(…)` returns some."""

    def after(self, start: int, open_micros: int) -> int | None:
        """Return the moment by which so much of the hours has passed since `start`, in µs; 0: when they are open."""
        ...


class Policy(msgspec.Struct, frozen=True):
    """When messages are sent to a target. Times are µs.

    `severities`: of the alerts that are sent; `only`: their names, all if it is None. `group`: how long a message waits
    for others of its alert; `group_page`: the same for the severity "page". `remind`: after which time an episode that
    is still open is sent again, 0: never. `budget`: messages an hour for each alert. `hours`: when alerts of other
    severities than "page" may be sent; None: always.
    """

    severities: frozenset[str] = frozenset(NOTIFIED)
    only: frozenset[str] | None = None
    group: int = 30 * SECOND
    group_page: int = 2 * SECOND
    remind: int = 4 * HOUR
    budget: int = 20
    hours: Hours | None = None

    def includes(self, alert: str, severity: str) -> bool:
        """Whether episodes of this alert are sent."""
        return severity in self.severities and (self.only is None or alert in self.only)

    def group_of(self, severity: str) -> int:
        """Return how long a message waits for others of its alert, in µs."""
        return self.group_page if severity == "page" else self.group

    def open_from(self, severity: str, moment: int) -> int:
        """Return from when on a message that is due at `moment` may be sent, in µs."""
        if severity == "page" or self.hours is None:
            return moment
        opens = self.hours.after(moment, 0)
        return moment if opens is None else opens


def policy_of(
    name: str,
    severities: Collection[str] = NOTIFIED,
    only: Collection[str] | None = None,
    group: Duration = 30.0,
    group_page: Duration = 2.0,
    remind: Duration = 4 * 3_600.0,
    budget: int = 20,
    hours: Hours | None = None,
) -> Policy:
    """Return a policy after checking it. Durations are seconds or timedeltas. Raises InvalidProcess."""
    chosen = frozenset([severities] if isinstance(severities, str) else severities)
    names = None if only is None else frozenset([only] if isinstance(only, str) else only)
    unknown = sorted(chosen - frozenset(SEVERITIES))
    if unknown or not chosen:
        raise InvalidProcess(
            f"The target {name} is for the severity {unknown[0]!r}." if unknown else f"The target {name} is for none.",
            f"Write severities={list(NOTIFIED)}, or one of {', '.join(SEVERITIES)}.",
        )
    if names is not None and not names:
        raise InvalidProcess(f"The target {name} is for no alert.", "Leave only=… out, or name alerts.")
    times = {"group": _seconds(group), "group_page": _seconds(group_page), "remind": _seconds(remind)}
    for option, seconds in times.items():
        longest = LONGEST_GROUP_S if option != "remind" else 366 * 86_400.0
        if not 0 <= seconds <= longest:
            raise InvalidProcess(
                f"The target {name} has {option}={seconds:g} seconds.", f"Give 0 to {longest:,.0f} seconds."
            )
    if not 1 <= budget <= MAX_BUDGET:
        raise InvalidProcess(f"The target {name} has budget={budget}.", f"Give 1 to {MAX_BUDGET:,} messages an hour.")
    micros = {option: round(seconds * SECOND) for option, seconds in times.items()}
    return Policy(chosen, names, micros["group"], micros["group_page"], micros["remind"], budget, hours)


def _seconds(given: Duration) -> float:
    return given.total_seconds() if isinstance(given, timedelta) else float(given)
