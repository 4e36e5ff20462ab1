"""An alert without a class: more than so many events that a filter describes, within a time.

Its state is in memory: when it starts it counts the events of the last window, and then follows the log. Its facts are
those of every alert, so it is listed, acknowledged, snoozed and delivered as they are.
Knows: filters, a rate, episodes in the log. Does not know: terminals, targets, threads.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from eventfold.alerts.detectors.rate import Rate
from eventfold.alerts.episode_log import EpisodeLog, Step
from eventfold.alerts.facts import AlertWatching, Severity
from eventfold.alerts.rows import Change
from eventfold.core.annotations import check_component_name
from eventfold.core.envelope import StoredEvent, from_micros
from eventfold.core.query import Query
from eventfold.errors import InvalidInput
from eventfold.log.context import Log
from eventfold.ports.messages import Span
from eventfold.processes.parts import Clocked, Parts
from eventfold.projections.admin import ProjectionAdmin
from eventfold.search.plan import make_plan

PAGE = 1_000  # events in one read


class FilterAlert:
    """More than `more_than` events that match `text` within `per`: give it to `store.run` beside targets."""

    code = f"{__name__}:filter"

    def __init__(self, name: str, text: str, more_than: float, per: timedelta, severity: Severity = "page") -> None:
        check_component_name(name, "an alert", InvalidInput, max_bytes=40, ascii_only=True)
        if per <= timedelta() or more_than < 0:
            raise InvalidInput(
                f"The rate {more_than:g} within {per} is not one.", "Write 20/5m: more than 20 in 5 minutes."
            )
        self.name, self.text, self.more_than, self.per = name, text, more_than, per
        self.severity: Severity = severity

    def __eventfold_parts__(self) -> Parts:
        """Return the part that the runner runs."""
        return Parts((), (self.clocked,))

    def clocked(self, admin: ProjectionAdmin) -> Clocked:
        """Return what follows the log. Raises InvalidInput if the store has a read model of this name."""
        if admin.catalog.target_at().record(self.name) is not None:
            raise InvalidInput(f"The store has a read model named {self.name}.", "Choose another name: --name NAME.")
        return FilterWatcher(self, admin.log)


class FilterWatcher:
    """Follows the log for a FilterAlert. See Clocked."""

    def __init__(self, alert: FilterAlert, log: Log) -> None:
        self._alert, self._log = alert, log
        self._episodes = EpisodeLog(log, alert.name, alert.severity)
        self._rate = Rate(per=int(alert.per / timedelta(microseconds=1)), more_than=alert.more_than)
        self._query: Query | None = None
        self._matches: Callable[[StoredEvent], bool] = lambda _stored: False
        self._position, self._epoch = -1, -1
        self._due: int | None = None
        self._is_raised = False

    def next_due(self) -> int | None:
        """See Clocked."""
        return self._due

    async def fire(self, now: int) -> int:
        """Read what was appended, and write the facts of verdicts that have changed. Returns how many changed."""
        if self._position < 0 or self._epoch != self._log.engine.epoch:
            await self._begin(now)
        steps = await self._follow()
        self._rate.now = max(self._rate.now, now)
        steps += self._judge(str(self._rate.now))
        self._due = self._rate.due(self._rate.now)
        if steps:
            await self._episodes.append(steps)
        return len(steps)

    async def _begin(self, now: int) -> None:
        """Count the events of the last window, and note that the alert is watched from here on."""
        alert, engine = self._alert, self._log.engine
        self._epoch = engine.epoch
        plan = await make_plan(engine, alert.text, now=from_micros(now), live=True)
        self._query, self._matches = plan.query, plan.matches
        await self._episodes.read()
        self._rate = Rate(per=self._rate.per, more_than=alert.more_than)
        self._position = await engine.position_at(now - self._rate.per)
        watching = self._episodes.written.watching.get(0)
        if watching is None or watching.rule != plan.text:
            head = (await engine.head()).position
            await self._episodes.append((), AlertWatching(alert.name, plan.text, 1, 0, head, now))
        await self._follow()
        self._is_raised = bool(self._episodes.written.open)

    async def _follow(self) -> list[Step]:
        """Count the events that were appended, and return the changes of the verdict while they were counted."""
        steps: list[Step] = []
        if self._query is None:
            return steps
        while True:
            page = await self._log.engine.read(self._query, Span(after=self._position, limit=PAGE))
            for stored in page.events:
                if self._matches(stored):
                    self._rate.now = max(self._rate.now, stored.time)
                    self._rate.add()
                    steps += self._judge(str(stored.position))
            self._position = page.scanned
            if not page.more:
                return steps

    def _judge(self, opening: str) -> list[Step]:
        """Return the change of the verdict at the time of the rate, if it has changed."""
        reason, at = self._rate.fires(self._rate.now), self._rate.now
        if (reason is not None) == self._is_raised:
            return []
        self._is_raised = reason is not None
        if reason is not None:
            return [Step("", Change("raised", at, opening, reason))]
        current = self._episodes.written.open.get("")
        count = f"{self._rate.count:g} within the time, no more than {self._alert.more_than:g}."
        return [Step("", Change("cleared", at, "", count, episode="" if current is None else current.episode))]
