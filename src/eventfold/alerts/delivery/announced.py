"""What was announced to one target: its open episodes, and the messages of the last hour. A fold over the facts.

Knows: the facts of alerts and messages. Does not know: the log, clocks, when a message is due (plan.py).
"""

from __future__ import annotations

from collections import deque

import msgspec

from eventfold.alerts.delivery.message import AlertMessage, AlertTarget
from eventfold.alerts.delivery.policy import HOUR, Policy
from eventfold.alerts.facts import AlertAcknowledged, AlertCleared, AlertRaised, AlertSnoozed, Severity

Fact = AlertRaised | AlertCleared | AlertAcknowledged | AlertSnoozed | AlertMessage | AlertTarget


class Watched(msgspec.Struct):
    """An episode as a target knows it. Times are µs; `position` and `cleared_position` are those of the facts.

    `seen`: when it was raised or read, whichever is earlier; `cleared_seen`: the same of its end. `root`: the id of the
    message that announced it; "" as long as none did.
    """

    key: str
    episode: str
    reason: str
    at: int
    position: int
    seen: int
    root: str = ""
    acknowledged_until: int = 0
    cleared_at: int | None = None
    cleared_because: str = ""
    cleared_position: int = 0
    cleared_seen: int = 0


class AlertState(msgspec.Struct):
    """One alert as a target knows it. `sent`: times of the messages of the last hour; `last`: of the last message about
    open episodes; `limited`: of the last message that says that the budget is used up; 0: there was none.
    """

    alert: str
    severity: Severity
    subject: str = ""
    episodes: dict[str, Watched] = {}
    snoozed: dict[str | None, int] = {}
    sent: deque[int] = msgspec.field(default_factory=deque[int])
    last: int = 0
    limited: int = 0

    def snoozed_until(self, key: str) -> int:
        """Return until when (exclusive, µs) a key is snoozed; 0: it never was."""
        return max(self.snoozed.get(None, 0), self.snoozed.get(key, 0))

    def to_announce(self) -> list[Watched]:
        """Return the episodes that were not announced."""
        return [each for each in self.episodes.values() if not each.root]

    def to_clear(self) -> list[Watched]:
        """Return the announced episodes that are cleared."""
        return [each for each in self.episodes.values() if each.root and each.cleared_at is not None]

    def open(self) -> list[Watched]:
        """Return the announced episodes that are open."""
        return [each for each in self.episodes.values() if each.root and each.cleared_at is None]

    def sent_within_an_hour(self, now: int) -> list[int]:
        """Return the times of the messages of the last hour before `now`, oldest first."""
        return [each for each in self.sent if each > now - HOUR]


class Announced:
    """What was announced to one target. `started`: whether its first start is recorded."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.alerts: dict[str, AlertState] = {}
        self.started = False

    def apply(self, fact: Fact, identity: str, position: int, seen: int) -> None:
        """Apply a fact. `identity`: the event's id; `seen`: when it was recorded or read, the earlier one, in µs."""
        match fact:
            case AlertRaised():
                self._raise(fact, position, seen)
            case AlertCleared():
                self._clear(fact, position, seen)
            case AlertAcknowledged():
                alert = self.alerts.get(fact.alert)
                if alert is not None and (episode := alert.episodes.get(fact.episode)) is not None:
                    episode.acknowledged_until = fact.until
            case AlertSnoozed():
                self._alert(fact.alert).snoozed[fact.key] = fact.until
            case AlertMessage():
                self._send(fact, identity)
            case AlertTarget():
                self.started = True
                for alert in self.alerts.values():
                    alert.episodes = {k: each for k, each in alert.episodes.items() if each.cleared_at is None}

    def _alert(self, name: str, severity: Severity = "none") -> AlertState:
        found = self.alerts.get(name)
        if found is None:
            found = self.alerts[name] = AlertState(name, severity)
        return found

    def _raise(self, fact: AlertRaised, position: int, seen: int) -> None:
        if not self.policy.includes(fact.alert, fact.severity):
            return
        alert = self._alert(fact.alert)
        alert.severity, alert.subject = fact.severity, fact.subject
        alert.episodes[fact.episode] = Watched(fact.key, fact.episode, fact.reason, fact.at, position, seen)

    def _clear(self, fact: AlertCleared, position: int, seen: int) -> None:
        alert = self.alerts.get(fact.alert)
        episode = None if alert is None else alert.episodes.get(fact.episode)
        if alert is None or episode is None:
            return
        if not episode.root and (not self.started or alert.snoozed_until(episode.key) > seen):
            del alert.episodes[fact.episode]  # it ended before it was to be announced
            return
        episode.cleared_at, episode.cleared_because = fact.at, fact.reason
        episode.cleared_position, episode.cleared_seen = position, seen

    def _send(self, fact: AlertMessage, identity: str) -> None:
        alert = self._alert(fact.alert, fact.severity)
        if fact.kind == "limit":
            alert.limited = fact.at
            return
        alert.sent.append(fact.at)
        while alert.sent and alert.sent[0] <= fact.at - HOUR:
            alert.sent.popleft()
        if fact.kind == "cleared":
            for each in alert.to_clear():
                if each.cleared_position <= fact.through:
                    del alert.episodes[each.episode]
            return
        alert.last = fact.at
        if fact.kind == "raised":
            without = frozenset(fact.without)
            for each in alert.to_announce():
                if each.position <= fact.through and each.episode not in without:
                    each.root = identity
