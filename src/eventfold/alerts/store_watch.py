"""Watching a store itself: a check once a second, whose findings become facts, as those of a rule over events do.

Knows: facts of episodes, when to check. Does not know: what is checked (builtin.py).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Protocol
from weakref import WeakKeyDictionary

from eventfold.alerts.episode_log import EpisodeLog, Step
from eventfold.alerts.facts import AlertWatching, Severity
from eventfold.alerts.rows import Change
from eventfold.ports.target import CheckpointChanged
from eventfold.projections.admin import ProjectionAdmin
from eventfold.projections.statuses import Observed

CHECK_EVERY_S = 1.0
RULE = "built in"


class StoreAlert(Protocol):
    """An alert about a store. `name` is its name in the facts."""

    @property
    def name(self) -> str:
        """The name of the alert."""
        ...

    @property
    def severity(self) -> Severity:
        """The severity of its episodes."""
        ...

    def problems(self, view: StoreView) -> Mapping[str, str]:
        """Return what is wrong now: a reason, one sentence with its numbers, for each key."""
        ...


class StoreView:
    """A store at one moment. `now`: µs since 1970 UTC; `since`: when this alert was first run on the store."""

    def __init__(self, admin: ProjectionAdmin, now: int, since: int) -> None:
        self.admin, self.now, self.since = admin, now, since

    def observed(self) -> list[Observed]:
        """Return the status of all that the store runs, read at most once in a second for all alerts."""
        known = _observed.get(self.admin)
        if known is None or time.monotonic() - known[0] >= CHECK_EVERY_S / 2:
            known = _observed[self.admin] = time.monotonic(), self.admin.observe()
        return known[1]


_observed: WeakKeyDictionary[ProjectionAdmin, tuple[float, list[Observed]]] = WeakKeyDictionary()


class StoreWatch:
    """The steps of one built-in alert. It is a Clocked: see processes/parts.py."""

    def __init__(self, alert: StoreAlert, admin: ProjectionAdmin) -> None:
        self._alert, self._admin = alert, admin
        self._episodes = EpisodeLog(admin.log, alert.name, alert.severity)
        self._is_begun, self._next_s = False, 0.0

    def next_due(self) -> int | None:
        """Return None: it is asked once a second."""
        return None

    async def fire(self, now: int) -> int:
        """Check the store, at most once a second, and append what changed. Returns how many facts may be new.

        Several runners may do so: a fact is appended only if none was appended since the episodes were read.
        """
        if time.monotonic() < self._next_s:
            return 0
        self._next_s = time.monotonic() + CHECK_EVERY_S
        try:
            if not self._is_begun:
                await self._begin(now)
            problems = self._alert.problems(StoreView(self._admin, now, self._episodes.written.first_watched_at))
            steps = self._steps(problems, now)
            if steps:
                await self._episodes.append(steps)
        except CheckpointChanged:  # a backup was restored: read what the log has now
            self._is_begun = False
            return 0
        return len(steps)

    async def _begin(self, now: int) -> None:
        await self._episodes.read()
        if not self._episodes.written.watching:
            head = (await self._admin.log.engine.head()).position
            await self._episodes.append((), AlertWatching(self._alert.name, RULE, 0, 0, head, now))
        self._is_begun = True

    def _steps(self, problems: Mapping[str, str], now: int) -> list[Step]:
        written = self._episodes.written.open
        steps = [
            Step(key, Change("raised", now, f"checked at {now}", reason, now))
            for key, reason in problems.items()
            if key not in written
        ]
        steps += [
            Step(
                key,
                Change("cleared", max(now, fact.at), "", "The store is as it should be again.", episode=fact.episode),
            )
            for key, fact in written.items()
            if key not in problems
        ]
        return steps


__all__ = ["StoreAlert", "StoreView", "StoreWatch"]
