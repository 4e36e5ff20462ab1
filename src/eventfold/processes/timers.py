"""The timers of a process that have not fired, read from the log, and firing those that are due, each once.

Only events about timers are read, each of them once.
Knows: the order of these steps. Does not know: clocks (its caller passes the time), threads, other processes that fire
the same timers at the same time.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from uuid import UUID

import msgspec

from eventfold.core.envelope import Receipt, StoredEvent
from eventfold.core.json_values import decoder_of
from eventfold.core.query import ConditionClause
from eventfold.core.snapshot import Snapshot
from eventfold.core.trace_context import trace_of
from eventfold.errors import AppendConflict, AppendUnconfirmed, EventIdReused
from eventfold.log.append import submit
from eventfold.log.context import Log
from eventfold.ports.messages import AppendRequest, Outcome, Span
from eventfold.processes.timer_events import (
    ANY,
    CANCELLED,
    SET,
    TimerCancelled,
    TimerSet,
    fired_event,
    fired_id,
    read_cancelled,
    read_set,
    timer_end_query,
    timer_query,
)

PAGE = 1_000  # events in one read
MAX_APPEND_TIMERS = 500  # timers fired in one append
MAX_APPEND_BYTES = 4_000_000  # payload bytes in one append: with these many the batch ends
MAX_ROUNDS = 100  # conflicts with other processes before `fire` returns, to be called again later
SNAPSHOT_EVERY_EVENTS = 5_000  # events about timers between two snapshots; as many as timers wait, if that is more
FINGERPRINT = "timers-1"  # of the snapshot's format


class PendingTimer(msgspec.Struct, frozen=True):
    """A timer that has not fired: its id, the event that set it, the position and the trace context of that event."""

    id: UUID
    fact: TimerSet
    position: int
    trace: dict[str, str] | None = None

    @property
    def fired_id(self) -> UUID:
        """The id of the event by which it will fire."""
        return fired_id(self.id, self.fact.due)


_unpack = decoder_of(list[PendingTimer]).decode


class TimerQueue:
    """The timers of one process. `await catch_up()` reads new events, `await fire(now)` fires those that are due."""

    def __init__(self, process: str, log: Log) -> None:
        self.process, self._log = process, log
        self._forget()

    def _forget(self) -> None:
        self.position = 0  # all events about timers up to here, inclusive, are applied
        self._epoch = self._log.engine.epoch  # in which they were read
        self._waiting: dict[UUID, PendingTimer] = {}
        self._by_instance: dict[str, set[UUID]] = {}
        self._by_fired: dict[bytes, UUID] = {}
        self._heap: list[tuple[int, int, UUID]] = []  # due, position, id; ended timers are removed when they come first
        self._unsaved = 0  # events applied since the last snapshot

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def waiting(self) -> list[PendingTimer]:
        """The timers that have not fired, ordered by when they are due."""
        return sorted(self._waiting.values(), key=lambda each: (each.fact.due, each.position))

    def next_due(self) -> int | None:
        """Return when the next timer is due, in µs since 1970 UTC; None if there is none."""
        while self._heap and self._heap[0][2] not in self._waiting:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    async def catch_up(self) -> None:
        """Apply the events about timers that were recorded since the last call."""
        while True:
            if self._log.engine.epoch != self._epoch:  # applied events may be lost: read everything again
                self._forget()
            if self.position == 0:
                await self._restore()
            page = await self._log.engine.read(timer_query(self.process), Span(after=self.position, limit=PAGE))
            if self._log.engine.epoch != self._epoch:
                continue
            if page.scanned < self.position:
                self._forget()
                continue
            self._apply(page.events)
            self.position = page.scanned
            self._unsaved += len(page.events)
            if not page.more:
                break
        if self._unsaved >= max(SNAPSHOT_EVERY_EVENTS, len(self._waiting)):
            await self._save_snapshot()

    async def fire(self, now: int) -> int:
        """Fire the timers that are due at `now` (µs since 1970 UTC), in the order of their due times. Returns how many.

        Each fires once: its event has an id derived from the timer's, and is appended under the condition that no timer
        of the process was cancelled or has fired since the last read. Raises what an append raises.
        """
        count = 0
        for _ in range(MAX_ROUNDS):
            await self.catch_up()
            batch = self._due(now)
            while batch:
                outcome = await self._write(batch)
                if isinstance(outcome, Receipt):
                    self._settle(batch)
                    count += 0 if outcome.repeated else len(batch)
                    batch = self._due(now)
                    # Nothing else was written in between, so there is nothing to read before the next batch.
                    if outcome.first == self.position + 1:
                        self.position = outcome.last
                        continue
                elif not isinstance(outcome, AppendConflict | AppendUnconfirmed | EventIdReused):
                    raise outcome
                break
            if not batch:
                return count
        return count

    async def _write(self, batch: Sequence[PendingTimer]) -> Outcome:
        events = tuple([fired_event(each.id, each.fact, each.trace) for each in batch])
        condition = (ConditionClause(timer_end_query(self.process), self.position),)
        return await submit(self._log.appender, AppendRequest(events, condition, epoch=self._epoch))

    def _due(self, now: int) -> list[PendingTimer]:
        """Return the next batch of due timers. They stay on the heap until they are settled."""
        batch: list[PendingTimer] = []
        entries: list[tuple[int, int, UUID]] = []
        size = 0
        while (
            (due := self.next_due()) is not None
            and due <= now
            and len(batch) < MAX_APPEND_TIMERS
            and size < MAX_APPEND_BYTES
        ):
            entry = heapq.heappop(self._heap)
            entries.append(entry)
            pending = self._waiting[entry[2]]
            batch.append(pending)
            size += len(bytes(pending.fact.data))
        for entry in entries:
            heapq.heappush(self._heap, entry)
        return batch

    # Snapshots of the pending timers: without them a restart only takes longer

    async def _restore(self) -> None:
        snapshots = self._log.engine.services.snapshots
        snapshot = None if snapshots is None else await snapshots.get(f"$timers:{self.process}")
        if snapshot is None or snapshot.fingerprint != FINGERPRINT:
            return
        if await self._log.engine.event_id(snapshot.position) != snapshot.event_id:
            return  # of lost history: everything is read again
        try:
            pending = _unpack(snapshot.state)
        except ValueError:  # msgspec's errors are ValueErrors
            return
        for each in pending:
            self._set(each)
        self.position = snapshot.position

    async def _save_snapshot(self) -> None:
        snapshots = self._log.engine.services.snapshots
        identity = await self._log.engine.event_id(self.position)
        if snapshots is None or identity is None or self._log.engine.epoch != self._epoch:
            return
        snapshot = Snapshot(FINGERPRINT, self.position, identity, msgspec.json.encode(list(self._waiting.values())))
        await snapshots.put(f"$timers:{self.process}", snapshot)
        self._unsaved = 0

    # Applying events

    def _apply(self, events: Iterable[StoredEvent]) -> None:
        for stored in events:
            if stored.type == SET:
                trace = trace_of(stored.metadata) or None
                self._set(PendingTimer(UUID(bytes=stored.id), read_set(stored.data), stored.position, trace))
            elif stored.type == CANCELLED:
                self._cancel(read_cancelled(stored.data))
            elif (timer := self._by_fired.get(stored.id)) is not None:
                self._remove(timer)

    def _set(self, pending: PendingTimer) -> None:
        self._waiting[pending.id] = pending
        self._by_instance.setdefault(pending.fact.key, set()).add(pending.id)
        self._by_fired[pending.fired_id.bytes] = pending.id
        heapq.heappush(self._heap, (pending.fact.due, pending.position, pending.id))

    def _cancel(self, fact: TimerCancelled) -> None:
        for timer in tuple(self._by_instance.get(fact.key, ())):
            set_by = self._waiting[timer].fact
            same_type = fact.types is None or set_by.type in fact.types
            if same_type and bytes(fact.data) in (bytes(ANY), bytes(set_by.data)):
                self._remove(timer)

    def _settle(self, batch: Iterable[PendingTimer]) -> None:
        for each in batch:
            self._remove(each.id)

    def _remove(self, timer: UUID) -> None:
        ended = self._waiting.pop(timer, None)
        if ended is None:
            return
        self._by_fired.pop(ended.fired_id.bytes, None)
        others = self._by_instance[ended.fact.key]
        others.discard(timer)
        if not others:
            del self._by_instance[ended.fact.key]
