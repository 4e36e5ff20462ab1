"""Judging of append requests: each against the log up to its head, and against the requests accepted before it.

Knows: the order of checks for a request. Does not know: transactions and locks, how events are written.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import apsw
import msgspec

from eventfold.core.envelope import NewEvent, Receipt, StoredEvent, make_receipt
from eventfold.core.query import ConditionClause
from eventfold.engines.sqlite import schema
from eventfold.engines.sqlite.pending_events import PendingEvents
from eventfold.engines.sqlite.queries import NameLookup, first_match
from eventfold.engines.sqlite.read import Names, RowDecoder, decode_request_key
from eventfold.engines.sqlite.tail import Labels
from eventfold.errors import EventfoldError, EventIdReused, InvalidQuery, Unreadable
from eventfold.ports.messages import AppendRequest, Head
from eventfold.ports.refusals import base_event_missing, conflict, epoch_ended, id_reused, in_the_future, is_repeat


class HeadMoved(Exception):
    """Something that was committed after the head was read decides a request: the head is to be read again."""


class Log(msgspec.Struct, frozen=True):
    """The log that requests are judged against: its index, its rows, its identity."""

    names: Names
    rows: RowDecoder
    store_id: str
    epoch: int


class Judge:
    """Judges requests in order, as of `head`: call `verdict`, and `accept` for a request that is accepted.

    `time`: when the accepted events are recorded. `judged`: id of a clause -> position through which it is already
    known to hold. `is_careful`: whether every event id is looked up; otherwise they are assumed to be new to the log.
    `is_alone`: whether there is one request only, so that nothing of it is kept for later ones. `is_judged_together`:
    whether a condition of a later request is to be compared with events of an earlier one.
    """

    def __init__(
        self,
        log: Log,
        connection: apsw.Connection,
        head: Head,
        time: int,
        judged: dict[int, int],
        *,
        is_careful: bool,
        is_alone: bool,
        is_judged_together: bool,
    ) -> None:
        self._log, self._connection, self._judged = log, connection, judged
        self._names: NameLookup | None = None
        self._head_before, self._position, self._time = head, head.position, time
        self._is_careful, self._is_alone = is_careful, is_alone
        self.labels = Labels([], [], [])  # of the accepted events
        self._pending = PendingEvents(self._position, self.labels) if is_judged_together else None
        self._keys: dict[str, int] = {}  # of the accepted requests, and of repeats that are assigned a key
        self._accepted: list[tuple[int, Sequence[NewEvent]]] = []
        self._stored: dict[bytes, StoredEvent] = {}
        self._positions: dict[bytes, int] = {}  # of the accepted events, by id

    @property
    def keys(self) -> dict[str, int]:
        """The request keys to be assigned, each with the first position of its append."""
        return self._keys

    def verdict(self, request: AppendRequest) -> Receipt | EventfoldError | None:
        """The receipt of a repeat, the error of a refusal, or None if the request can be accepted."""
        try:
            known = None if request.key is None else self._receipt_by_key(request.key)
            if known is None and (self._is_careful or self._has_repeated_id(request.events)):
                known = self._receipt_by_ids(request)
            if known is not None:
                return known
            for number, clause in enumerate(request.unless):
                refusal = self._check_clause(clause, number, request.epoch)
                if refusal is not None:
                    # A repeated append conflicts with its own earlier events.
                    return (None if self._is_careful else self._receipt_by_ids(request)) or refusal
        except (EventIdReused, InvalidQuery, Unreadable) as refusal:
            return refusal
        return None

    def accept(self, request: AppendRequest, ids: Iterable[bytes]) -> int:
        """Assign positions to the events of a request, whose ids are given. Returns the first position."""
        events, first = request.events, self._position + 1
        self._position += len(events)
        if request.key is not None:
            self._keys[request.key] = first
        if self._is_alone:
            return first
        self._positions.update(zip(ids, range(first, self._position + 1), strict=True))
        self._accepted.append((first, events))
        return first

    def _check_clause(self, clause: ConditionClause, number: int, epoch: int | None) -> EventfoldError | None:
        after, head = clause.after, self._head_before.position
        if epoch is not None and epoch != self._log.epoch:
            return epoch_ended(clause, epoch, self._log.epoch)
        if after > self._position:
            return in_the_future(clause, self._position)
        if clause.after_event is not None:
            behind = self._positions.get(clause.after_event) or self._position_in_log(clause.after_event)
            if behind is None:
                return base_event_missing(clause, number)
            after = max(after, behind)
        found = None
        if after < head:
            names = self._names = self._names or self._log.names.lookup(self._connection, head)
            start = max(after, self._judged.get(id(clause), 0)) if self._judged else after
            found = first_match(names, clause.query, start, head)
        if found is None and self._pending is not None:
            found = self._pending.first(clause.query, after, self._position)
        return None if found is None else conflict(clause, found, number)

    def _position_in_log(self, identity: bytes) -> int | None:
        """The position of an event by its id, before the first request."""
        row = self._connection.execute(schema.POSITION_OF, (identity,)).fetchone()
        return None if row is None else self._up_to_head(row[0])

    def _up_to_head(self, position: int) -> int:
        """The position. Raises HeadMoved if it is beyond the head; within a write transaction none is."""
        if position > self._head_before.position:
            raise HeadMoved
        return position

    def _has_repeated_id(self, events: Sequence[NewEvent]) -> bool:
        """Whether an id occurs twice within the requests, before the trigger of the database can find it."""
        if len(events) == 1:
            return events[0].id in self._positions
        mine = {event.id for event in events}
        return len(mine) < len(events) or not self._positions.keys().isdisjoint(mine)

    def _receipt_by_key(self, key: str) -> Receipt | None:
        """The receipt of the earlier append with the same request key, or None."""
        first = self._keys.get(key)
        if first is not None and first > self._head_before.position:
            return self._receipt([event for event in self._pending_events().values() if event.first == first])
        if first is None:
            row = self._connection.execute(schema.BY_KEY, (key,)).fetchone()
            if row is None:
                return None
            first = self._up_to_head(decode_request_key(row)[1])
        return self._receipt(self._log.rows.append_at(self._connection, first))

    def _receipt_by_ids(self, request: AppendRequest) -> Receipt | None:
        """The receipt of the append that wrote exactly these events; the request's key is stored for it.

        Raises EventIdReused if a different append wrote some of them.
        """
        events = request.events
        stored = [self._find_event(event.id) for event in events]
        unique = len({event.id for event in events}) == len(events)
        if unique and not any(stored):
            return None
        if not unique or not is_repeat(events, stored):
            raise id_reused(events, [event.position if event else None for event in stored])
        done = self._receipt([event for event in stored if event])
        if request.key is not None:
            self._keys[request.key] = done.first
        return done

    def _find_event(self, identity: bytes) -> StoredEvent | None:
        pending = self._pending_events().get(identity)
        if pending is not None:
            return pending
        rows = self._connection.execute(schema.BY_ID, (identity,))
        found = self._log.rows.decode_all(self._connection, rows)
        if not found:
            return None
        self._up_to_head(found[0].position)
        return found[0]

    def _pending_events(self) -> dict[bytes, StoredEvent]:
        """The events accepted so far, as they will be stored, by id."""
        for first, events in self._accepted:
            for offset, event in enumerate(events):
                self._stored[event.id] = event.at(first + offset, self._time, offset, len(events))
        self._accepted.clear()
        return self._stored

    def _receipt(self, events: Sequence[StoredEvent]) -> Receipt:
        return make_receipt(self._log.store_id, self._log.epoch, events, repeated=True)
