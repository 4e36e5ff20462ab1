"""Facts of alerts for the tests of delivery, written as a runner of alerts writes them; and waiting."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import eventfold as ef
from eventfold.alerts.facts import (
    AlertAcknowledged,
    AlertCleared,
    AlertRaised,
    AlertSnoozed,
    AnyFact,
    Severity,
    episode_id,
    new_event_of,
)
from eventfold.concurrency import run
from eventfold.log.append import write
from eventfold.log.context import Options
from eventfold.ports.messages import AppendRequest

SECOND = 1_000_000  # µs
MINUTE, HOUR = 60 * SECOND, 3_600 * SECOND
PATIENCE_S = 15.0


def raised(key: str, at: int, alert: str = "CardTesting", severity: Severity = "page") -> AlertRaised:
    """The fact that raises an episode of a key."""
    episode = str(episode_id(alert, key, str(at), at))
    return AlertRaised(alert, key, episode, f"{key or alert} fails.", severity, at)


def cleared(of: AlertRaised, at: int) -> AlertCleared:
    """The fact that ends an episode."""
    return AlertCleared(of.alert, of.key, of.episode, f"{of.key or of.alert} works.", at)


def acknowledged(of: AlertRaised, until: int) -> AlertAcknowledged:
    """The fact that a person works on an episode."""
    return AlertAcknowledged(of.alert, of.key, of.episode, until, "I am on it")


def snoozed(key: str | None, until: int, alert: str = "CardTesting") -> AlertSnoozed:
    """The fact that a key, or a whole alert, is snoozed."""
    return AlertSnoozed(alert, key, until, "known")


def record(store: ef.Store, *facts: AnyFact) -> None:
    """Append facts, one after the other."""
    for fact in facts:
        run(write(store.projections.log, Options(), AppendRequest((new_event_of(fact),))))


def until(condition: Callable[[], Any], what: str = "it did not come true") -> None:
    """Wait for a condition."""
    ends = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < ends, what
        time.sleep(0.01)


def micros() -> int:
    """The time now, in µs since 1970 UTC."""
    return time.time_ns() // 1000
