"""Which messages are due to a target, and when the next one is. Pure: the time is a parameter.

    raised     the episodes of an alert that were not announced, together, when the first has waited for `group`
    cleared    announced episodes that have ended, in the same way
    reminder   the open episodes of an alert, `remind` after the last message about them, without those that a person
               acknowledged and those whose key is snoozed
    limit      once, when an alert has sent its budget of messages within an hour; what follows waits, and is grouped

Knows: what was announced, the policy. Does not know: the log, how messages are sent.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from eventfold.alerts.delivery.announced import AlertState, Announced, Watched
from eventfold.alerts.delivery.message import LISTED, AlertMessage, Entry, Kind
from eventfold.alerts.delivery.policy import HOUR, Policy


class Plan(msgspec.Struct, frozen=True):
    """The messages that are due now, and when the next one may be: µs since 1970 UTC, None if none is known."""

    messages: list[AlertMessage]
    next_due: int | None


class Due(msgspec.Struct, frozen=True):
    """Something that is due at `at` (µs): a message about episodes; without episodes, only a change of what is due."""

    at: int
    kind: Kind = "raised"
    episodes: Sequence[Watched] = ()
    without: tuple[str, ...] = ()


def plan(announced: Announced, target: str, through: int, now: int) -> Plan:
    """Return what is due to a target. `through`: the position up to which its facts were applied; `now`: µs."""
    messages: list[AlertMessage] = []
    later: list[int] = []
    for alert in announced.alerts.values():
        sent = alert.sent_within_an_hour(now)
        for due in dues(alert, announced.policy, now):
            at = due.at if due.at > now else announced.policy.open_from(alert.severity, now)
            if at > now or not due.episodes:
                later.append(at)
            elif len(sent) < announced.policy.budget:
                messages.append(_message(alert, due, target, through, now))
                sent.append(now)
                if due.kind == "raised" and any(each.cleared_at is not None for each in due.episodes):
                    break  # their end is announced with that of others, by the next plan: a message ends all up to it
            else:
                again = sent[len(sent) - announced.policy.budget] + HOUR  # then the budget has one message again
                later.append(again)
                if alert.limited <= now - HOUR:
                    messages.append(_limit(alert, target, through, now, len(sent), again))
                    break
    return Plan(messages, min((each for each in later if each > now), default=None))


def dues(alert: AlertState, policy: Policy, now: int) -> list[Due]:
    """Return what is due of an alert now or later, in the order in which it is to be sent."""
    group, found = policy.group_of(alert.severity), list[Due]()
    waiting = alert.to_announce()
    snoozed = {each.episode: until for each in waiting if (until := alert.snoozed_until(each.key)) > now}
    if fresh := [each for each in waiting if each.episode not in snoozed]:
        found.append(Due(min(each.seen for each in fresh) + group, "raised", fresh, tuple(snoozed)))
    if snoozed:
        found.append(Due(min(snoozed.values())))
    if ended := alert.to_clear():
        found.append(Due(min(each.cleared_seen for each in ended) + group, "cleared", ended))
    if policy.remind and (reminder := _reminder(alert, policy, now)) is not None:
        found.append(reminder)
    return found


def _reminder(alert: AlertState, policy: Policy, now: int) -> Due | None:
    attended = {each.episode: max(each.acknowledged_until, alert.snoozed_until(each.key)) for each in alert.open()}
    if not attended:
        return None
    at = alert.last + policy.remind
    unattended = [each for each in alert.open() if attended[each.episode] <= max(now, at)]
    return Due(at, "reminder", unattended) if unattended else Due(max(at, min(attended.values())))


def _message(alert: AlertState, due: Due, target: str, through: int, now: int) -> AlertMessage:
    open_now = [each for each in alert.episodes.values() if each.cleared_at is None]
    return AlertMessage(
        target=target,
        alert=alert.alert,
        kind=due.kind,
        severity=alert.severity,
        at=now,
        count=len(due.episodes),
        open=len(open_now),
        entries=tuple(_entry(each, due.kind) for each in due.episodes[:LISTED]),
        through=through,
        without=due.without,
        subject=alert.subject,
        root=due.episodes[0].root,
    )


def _entry(each: Watched, kind: Kind) -> Entry:
    if kind != "cleared":
        return Entry(each.key, each.episode, each.reason, each.at)
    return Entry(each.key, each.episode, each.cleared_because or each.reason, each.at, each.cleared_at)


def _limit(alert: AlertState, target: str, through: int, now: int, sent: int, again: int) -> AlertMessage:
    open_now = sum(each.cleared_at is None for each in alert.episodes.values())
    return AlertMessage(
        target=target,
        alert=alert.alert,
        kind="limit",
        severity=alert.severity,
        at=now,
        count=sent,
        open=open_now,
        entries=(),
        through=through,
        until=again,
    )
