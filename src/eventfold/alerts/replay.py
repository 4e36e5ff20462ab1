"""Replays: the episodes that a rule would have had over the past, folded in memory. Nothing is written.

Knows: the fold of an alert's rows, moments without events. Does not know: targets, facts in the log, terminals.
"""

from __future__ import annotations

from collections.abc import Callable

from eventfold.alerts.classes import Alert, alert_options
from eventfold.alerts.facts import Episode, episode_id, episode_key
from eventfold.alerts.rows import AlertRow, RulePlan
from eventfold.core.event import Recorded
from eventfold.errors import InvalidProjection
from eventfold.log.context import Log
from eventfold.ports.messages import Span
from eventfold.projections.definition import Key, ProjectionDefinition, projection_definition
from eventfold.projections.page import HandlerFailed, PageDecoder, result_refused

PAGE_EVENTS = 2_000
Progress = Callable[[int, int], None]


def plan_of(definition: ProjectionDefinition) -> RulePlan:
    """Return the plan of an alert's rows. Raises InvalidProjection if the definition is of no alert."""
    cls: type = definition.cls
    if not issubclass(cls, AlertRow):
        raise InvalidProjection(f"{definition.name} is no alert.", "Derive a class from ef.Alert.")
    return cls.plan


class Replay:
    """One replay of an alert: `await run()`, then `episodes`, in the order in which they began.

    `since`, `until`: µs since 1970 UTC, inclusive, by the time that the rule goes by. Episodes that began before
    `since` are left out; events before it are folded, since the rule learns from them. `until` None: the last event.
    `began`: when an alert without a key begins to wait for its first event; None: at its first event.
    """

    def __init__(
        self,
        log: Log,
        alert: type[Alert],
        *,
        since: int | None = None,
        until: int | None = None,
        began: int | None = None,
    ) -> None:
        definition = projection_definition(alert)
        self._log, self._definition, self._alert = log, definition, alert
        self._plan = plan_of(definition)
        self._since, self._until, self._began = since, until, began
        self._rows: dict[Key, AlertRow] = {}
        self._open: dict[Key, Episode] = {}
        self.episodes: list[Episode] = []
        self.events = 0

    async def run(self, progress: Progress = lambda _position, _head: None) -> list[Episode]:
        """Fold the log and return the episodes. `progress(position, head)` is called after every page.

        Raises what the rule raises.
        """
        plan = self._plan
        if self._began is not None and not plan.is_keyed:
            self._row((plan.name,)).begin(self._began)
        decoder = PageDecoder(self._definition, self._log.registry, 0, 1)
        head = (await self._log.engine.head()).position
        position, is_past = 0, False
        while not is_past:
            page = await self._log.engine.read(
                self._definition.query, Span(after=position, until=head, limit=PAGE_EVENTS)
            )
            try:
                items = decoder.items(page.events, {})
            except HandlerFailed as failed:
                raise failed.error from None
            for item in items:
                stored = item.stored
                now = stored.time
                if plan.by_occurred and stored.occurred is not None:
                    now = min(now, stored.occurred)
                if self._until is not None and now > self._until:
                    is_past = is_past or not plan.by_occurred
                    continue
                self.events += 1
                for event, keys in item.parts:
                    for key in keys:
                        row = self._row(key)
                        if row.evolve(event, Recorded(stored, event)) is not None:
                            raise result_refused(self._alert)
                        self._note(key, row)
            position = page.scanned
            progress(position, head)
            if not page.more:
                break
        self._pass_moments()
        return self.episodes

    def _row(self, key: Key) -> AlertRow:
        row = self._rows.get(key)
        if row is None:
            made: AlertRow = self._definition.cls(*key)
            row = self._rows[key] = made
        return row

    def _pass_moments(self) -> None:
        last = self._until if self._until is not None else max((row.clock for row in self._rows.values()), default=0)
        for key, row in self._rows.items():
            row.pass_moments(last)
            self._note(key, row)
        self.episodes.sort(key=lambda each: each.at)

    def _note(self, key: Key, row: AlertRow) -> None:
        if row.changes is None:
            return
        name, severity = self._definition.name, alert_options(self._alert).severity
        for change in row.take_changes():
            if change.kind == "raised":
                text = episode_key(key) if row.plan.is_keyed else ""
                identity = str(episode_id(name, text, change.opening, change.at))
                episode = Episode(name, text, identity, change.reason, severity, change.at)
                self._open[key] = episode
                if self._since is None or change.at >= self._since:
                    self.episodes.append(episode)
            else:
                episode = self._open.pop(key)
                episode.cleared_at, episode.cleared_because = change.at, change.reason
