"""Writes the messages that are due to one target into the log, each once, however many runners do so.

Only facts of alerts and messages to this target are read, each of them once.
Knows: the order of these steps. Does not know: clocks (its caller passes the time), how messages are sent.
"""

from __future__ import annotations

from uuid import UUID

from eventfold.alerts.delivery.announced import Announced, Fact
from eventfold.alerts.delivery.message import MESSAGE, TARGET, AlertMessage, AlertTarget, event_of, target_tag
from eventfold.alerts.delivery.plan import plan
from eventfold.alerts.delivery.policy import Policy
from eventfold.alerts.facts import EPISODE_TYPES, AlertAcknowledged, AlertCleared, AlertRaised, AlertSnoozed
from eventfold.core.envelope import NewEvent, Receipt, StoredEvent
from eventfold.core.event import declaration_of
from eventfold.core.json_values import decoder_of
from eventfold.core.query import ConditionClause, Item, Query
from eventfold.errors import AppendConflict, AppendUnconfirmed, EventIdReused
from eventfold.log.append import submit
from eventfold.log.context import Log
from eventfold.ports.messages import AppendRequest, Span

PAGE = 1_000  # events in one read
MAX_APPEND = 100  # messages in one append
MAX_ROUNDS = 100  # appends, or conflicts with other runners, before `fire` returns, to be called again later
DECODERS = {
    declaration_of(each).type: decoder_of(each).decode
    for each in (AlertRaised, AlertCleared, AlertAcknowledged, AlertSnoozed, AlertMessage, AlertTarget)
}


class Notifier:
    """The messages to one target: `await fire(now)` writes those that are due. See Clocked."""

    def __init__(self, target: str, policy: Policy, log: Log) -> None:
        self.target, self._policy, self._log = target, policy, log
        own = (target_tag(target),)
        self._messages = Query((Item((MESSAGE, TARGET), own),))
        self._query = Query((Item(EPISODE_TYPES, ()), Item((MESSAGE, TARGET), own)))
        self._forget()

    def _forget(self) -> None:
        self.position = 0  # all facts up to here, inclusive, are applied
        self._epoch = self._log.engine.epoch  # in which they were read
        self.announced = Announced(self._policy)
        self._due: int | None = None
        self._is_planned = False  # since the last fact that was applied: nothing is due before `_due`

    def next_due(self) -> int | None:
        """Return when the next message is due, in µs since 1970 UTC; None if none is."""
        return self._due

    async def fire(self, now: int) -> int:
        """Write the messages that are due at `now` (µs since 1970 UTC). Returns how many. Raises what an append raises.

        They are appended under the condition that no other message to the target was since the last read.
        """
        count = 0
        for _ in range(MAX_ROUNDS):
            await self.catch_up(now)
            new = await self._new(now)
            if not new:
                return count
            condition = (ConditionClause(self._messages, self.position),)
            outcome = await submit(self._log.appender, AppendRequest(tuple(new), condition, epoch=self._epoch))
            if isinstance(outcome, Receipt):
                count += 0 if outcome.repeated else len(new)
            elif not isinstance(outcome, AppendConflict | AppendUnconfirmed | EventIdReused):
                raise outcome
        return count

    async def _new(self, now: int) -> list[NewEvent]:
        if not self.announced.started:
            return [event_of(AlertTarget(self.target, now))]
        if self._is_planned and (self._due is None or now < self._due):
            return []
        found = plan(self.announced, self.target, self.position, now)
        self._due, self._is_planned = found.next_due, not found.messages
        return [event_of(each) for each in found.messages[:MAX_APPEND]]

    async def catch_up(self, now: int) -> None:
        """Apply the facts that were recorded since the last call."""
        while True:
            if self._log.engine.epoch != self._epoch:  # applied facts may be lost: read everything again
                self._forget()
            page = await self._log.engine.read(self._query, Span(after=self.position, limit=PAGE))
            if self._log.engine.epoch != self._epoch:
                continue
            if page.scanned < self.position:
                self._forget()
                continue
            for stored in page.events:
                self._apply(stored, now)
                self._is_planned = False
            self.position = page.scanned
            if not page.more:
                return

    def _apply(self, stored: StoredEvent, now: int) -> None:
        fact: Fact = DECODERS[stored.type](stored.data)
        self.announced.apply(fact, str(UUID(bytes=stored.id)), stored.position, min(stored.time, now))
