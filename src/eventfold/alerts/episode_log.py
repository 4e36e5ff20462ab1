"""The episodes of one alert in the log: which are open, and appending raised and cleared facts, each once.

A fact is appended on the condition that no other fact of the alert was appended since the episodes were read. Its id is
derived from what it says, so a fact that was written before a crash is not written again.
Knows: facts, conditions, ids. Does not know: rows, verdicts, clocks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from eventfold.alerts.facts import (
    CLEARED,
    RAISED,
    WATCHING,
    AlertCleared,
    AlertRaised,
    AlertWatching,
    Severity,
    alert_tag,
    episode_id,
    new_event_of,
)
from eventfold.alerts.rows import Change
from eventfold.core.backoff import Backoff, with_jitter
from eventfold.core.envelope import NewEvent
from eventfold.core.event import Recorded
from eventfold.core.query import ConditionClause, Item, Query
from eventfold.core.state import State
from eventfold.errors import AppendConflict, EventIdReused
from eventfold.log.append import write
from eventfold.log.context import Log, Options
from eventfold.log.read import load
from eventfold.ports.messages import AppendRequest
from eventfold.ports.services import require
from eventfold.ports.target import CheckpointChanged

MAX_FACTS = 500  # of one append
BACKOFF = Backoff(0.001, 0.1)  # while others append facts of the same alert; each conflict is an append that succeeded

RunnerFact = AlertRaised | AlertCleared | AlertWatching


class Step(NamedTuple):
    """A change of the verdict of one key. `key`: its text."""

    key: str
    change: Change


class WrittenEpisodes(State):
    """What runners have written about an alert: the open episode of each key, and which rule watches each partition.

    `marks`: how often a rule began to watch a partition.
    """

    alert: str
    open: dict[str, AlertRaised] = {}
    watching: dict[int, AlertWatching] = {}
    marks: dict[int, int] = {}
    first_watched_at: int = 0

    def query(self) -> Query:
        """Return the query for the facts that runners write."""
        return Query((Item((RAISED, CLEARED, WATCHING), (alert_tag(self.alert),)),))

    def evolve(self, event: AlertRaised | AlertCleared | AlertWatching, recorded: Recorded[Any]) -> None:
        """Apply a fact."""
        match event:
            case AlertRaised():
                self.open[event.key] = event
            case AlertCleared():
                current = self.open.get(event.key)
                if current is not None and current.episode == event.episode:
                    del self.open[event.key]
            case AlertWatching():
                self.watching[event.partition] = event
                self.marks[event.partition] = self.marks.get(event.partition, 0) + 1
                self.first_watched_at = self.first_watched_at or event.at


class EpisodeLog:
    """Reads and writes the facts of one alert. `written`: as they were when they were last read or written.

    `subject`: the name of the key's field.
    """

    def __init__(self, log: Log, alert: str, severity: Severity, subject: str = "") -> None:
        self._log, self._alert, self._subject = log, alert, subject
        self._severity: Severity = severity
        self.written = WrittenEpisodes(alert)
        self._position, self._epoch = 0, -1

    async def read(self) -> None:
        """Read what is written now."""
        self._epoch = self._log.engine.epoch
        self.written, self._position = await load(self._log, WrittenEpisodes(self._alert))

    async def append(
        self,
        steps: Iterable[Step],
        closing: AlertWatching | None = None,
        goes_on: Callable[[WrittenEpisodes], bool] = lambda _written: True,
    ) -> None:
        """Append the facts of some steps, in order, and then `closing`. A step that changes nothing has no fact.

        After others have written facts, it is continued only if `goes_on` says so. Raises CheckpointChanged if the
        store has begun another epoch, and what an append raises.
        """
        waiting, known, tries = deque(steps), set[bytes](), 0
        while waiting or closing is not None:
            taken, facts = self._next_facts(waiting, known)
            if closing is not None and taken == len(waiting):
                facts.append(closing)
            events = tuple(map(new_event_of, facts))
            try:
                if events:
                    await self._append(events)
            except AppendConflict:
                tries += 1
                if self._log.engine.epoch != self._epoch:
                    raise CheckpointChanged from None  # the events behind these facts may be lost
                await self.read()
                if not goes_on(self.written):
                    return
                await self._log.runtime.sleep(with_jitter(BACKOFF.pause(tries), spread=0.5))
                continue
            except EventIdReused:  # some were written before a crash
                before = len(known)
                for event in events:
                    if await require(self._log.engine, "lookups").position_of(event.id) is not None:
                        known.add(event.id)
                if len(known) == before:
                    raise
                continue
            for fact in facts:
                self.written.evolve(fact, _UNUSED)
            for _ in range(taken):
                waiting.popleft()
            if taken == 0 or not waiting:
                closing = None

    def _next_facts(self, waiting: Sequence[Step], known: set[bytes]) -> tuple[int, list[RunnerFact]]:
        """Return the facts of the first steps, and the number of these steps. `known`: ids that the log has."""
        facts: list[RunnerFact] = []
        changed: dict[str, AlertRaised | None] = {}
        taken = 0
        for key, change in waiting:
            taken += 1
            current = changed[key] if key in changed else self.written.open.get(key)
            identity = episode_id(self._alert, key, change.opening, change.at)
            fact: RunnerFact | None = None
            if change.kind == "raised":
                if current is None and identity.bytes not in known:
                    raised = AlertRaised(
                        self._alert, key, str(identity), change.reason, self._severity, change.at, self._subject
                    )
                    fact = changed[key] = raised
            elif current is not None and self._ends(current, key, change):
                fact = AlertCleared(self._alert, key, current.episode, change.reason, change.at)
                changed[key] = None
            if fact is not None:
                facts.append(fact)
            if len(facts) == MAX_FACTS:
                break
        return taken, facts

    def _ends(self, current: AlertRaised, key: str, change: Change) -> bool:
        """Whether a change ends this episode: its own, or one that began before. Rows may be behind the facts."""
        own = change.episode or str(episode_id(self._alert, key, change.opening, change.began))
        return current.episode == own or current.at < change.at

    async def _append(self, events: tuple[NewEvent, ...]) -> None:
        request = AppendRequest(events, (ConditionClause(self.written.query(), self._position),), None, self._epoch)
        receipt = await write(self._log, Options(), request)
        if not receipt.repeated:
            self._position = receipt.last


_UNUSED: Any = None
