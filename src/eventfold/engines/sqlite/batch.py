"""A batch of append requests: each is judged against the log and earlier requests, given positions, and inserted.

Knows: the order of checks for a request. Does not know: transactions and locks (the writer does), what events mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from zlib import crc32

import apsw

from eventfold.core.envelope import NewEvent, Receipt, StoredEvent, digest, make_receipt
from eventfold.core.query import ConditionClause
from eventfold.engines.sqlite import schema
from eventfold.engines.sqlite.last_commit import run_triggers
from eventfold.engines.sqlite.pending_events import PendingEvents
from eventfold.engines.sqlite.queries import NameLookup, first_match
from eventfold.engines.sqlite.read import decode_request_key
from eventfold.engines.sqlite.schema import encode_row, with_checksum
from eventfold.engines.sqlite.tail import Labels
from eventfold.errors import EventfoldError, EventIdReused, InvalidQuery, Unreadable
from eventfold.ports.inline import AppendMode, InlineProjector, InlineTransaction, missing_code
from eventfold.ports.messages import AppendRequest, Head, Outcome
from eventfold.ports.refusals import base_event_missing, conflict, epoch_ended, id_reused, in_the_future, is_repeat

if TYPE_CHECKING:
    from eventfold.engines.sqlite.writer import Writer


class Batch:
    """The requests of one transaction: judged in order against the log and each other, then inserted together.

    `judged`: id of a clause -> position through which it is already known to hold. `mode`: what to do in
    addition after a failed attempt. Without CHECK_IDS event ids are assumed to be new; if not, `insert` fails.
    `is_judged_together`: whether a condition of a later request is to be compared with events of an earlier one.
    """

    def __init__(
        self,
        writer: Writer,
        connection: apsw.Connection,
        judged: dict[int, int],
        mode: AppendMode,
        is_judged_together: bool,
    ) -> None:
        self._writer, self._connection, self._judged = writer, connection, judged
        self._mode = mode
        self._names: NameLookup | None = None
        self.known = known = writer.last_commit.read(connection)
        self.registrations, self._head_before, self._position = known.registrations, known.head, known.head.position
        run_triggers(connection, known.needs_triggers)
        self._codes: Mapping[str, str] = {}
        self._careful = mode is not AppendMode.OPTIMISTIC and AppendMode.CHECK_IDS in mode
        self.inline: InlineTransaction | None = None
        if self.registrations:
            self._begin_inline(writer.projector)
        self._time = max(writer.clock(), known.head.time)
        self._rows: list[tuple[Any, ...]] = []
        self.labels = Labels([], [], [])  # of the accepted events, for the tail
        self._pending = PendingEvents(self._position, self.labels) if is_judged_together else None
        self._keys: dict[str, int] = {}
        self._accepted: list[tuple[int, Sequence[NewEvent]]] = []
        self._stored: dict[bytes, StoredEvent] = {}
        self._positions: dict[bytes, int] = {}  # of the accepted events, by id

    def _begin_inline(self, projector: InlineProjector | None) -> None:
        if projector is not None:
            self._codes = projector.codes
            self.inline = projector.begin(self._connection, self._position, self.registrations)
        # A repeated append returns its receipt even if this process lacks the code of an inline read model.
        self._careful |= any(self._codes.get(each.name) != each.code for each in self.registrations)

    @property
    def new_head(self) -> Head | None:
        """The head of the log after this batch; None if it writes nothing, not even a request key."""
        if self._rows:
            return Head(self._position, self._time, self._rows[-1][1])
        return self._head_before if self._keys else None

    def judge(self, request: AppendRequest) -> Outcome:
        """Check one request and, if its conditions hold, assign positions to its events."""
        try:
            known = None if request.key is None else self._receipt_by_key(request, request.key)
            if known is None and (self._careful or self._has_repeated_id(request.events)):
                known = self._receipt_by_ids(request)
            if known is not None:
                return known
            for number, clause in enumerate(request.unless):
                refusal = self._check_clause(clause, number, request.epoch)
                if refusal is not None:
                    # A repeated append conflicts with its own earlier events.
                    return (None if self._careful else self._receipt_by_ids(request)) or refusal
        except (EventIdReused, InvalidQuery, Unreadable) as refusal:
            return refusal
        return (self._fold_inline(request) if self.registrations else None) or self._accept(request)

    def _fold_inline(self, request: AppendRequest) -> EventfoldError | None:
        """Fold a request into the inline read models before it is accepted. Returns why it is refused, or None."""
        events, first = request.events, self._position + 1
        refusal = missing_code(self.registrations, self._codes, [event.type for event in events])
        folding = self.inline
        if refusal is not None or folding is None or not any(event.type in folding.types for event in events):
            return refusal
        size = len(events)
        placed = [event.at(first + offset, self._time, offset, size) for offset, event in enumerate(events)]
        return folding.fold(placed, AppendMode.WRITE_EACH in self._mode)

    def _check_clause(self, clause: ConditionClause, number: int, epoch: int | None) -> EventfoldError | None:
        after, head = clause.after, self._head_before.position
        if epoch is not None and epoch != self._writer.head.epoch:
            return epoch_ended(clause, epoch, self._writer.head.epoch)
        if after > self._position:
            return in_the_future(clause, self._position)
        if clause.after_event is not None:
            behind = self._positions.get(clause.after_event) or self._position_in_log(clause.after_event)
            if behind is None:
                return base_event_missing(clause, number)
            after = max(after, behind)
        found = None
        if after < head:
            names = self._names = self._names or self._writer.names.lookup(self._connection, head)
            found = first_match(names, clause.query, max(after, self._judged.get(id(clause), 0)), head)
        if found is None and self._pending is not None:
            found = self._pending.first(clause.query, after, self._position)
        return None if found is None else conflict(clause, found, number)

    def _position_in_log(self, identity: bytes) -> int | None:
        """The position of an event by its id, before this batch."""
        row = self._connection.execute(schema.POSITION_OF, (identity,)).fetchone()
        return None if row is None else row[0]

    def _has_repeated_id(self, events: Sequence[NewEvent]) -> bool:
        """Whether an id occurs twice within this batch, before the trigger of the database can find it."""
        if len(events) == 1:
            return events[0].id in self._positions
        mine = {event.id for event in events}
        return len(mine) < len(events) or not self._positions.keys().isdisjoint(mine)

    def _receipt_by_key(self, request: AppendRequest, key: str) -> Receipt | None:
        """The receipt of the earlier append with the same request key, or None."""
        first = self._keys.get(key)
        if first is None:
            row = self._connection.execute(schema.BY_KEY, (key,)).fetchone()
            if row is None:
                return None
            first = decode_request_key(row)[1]
        if first > self._head_before.position:
            return self._receipt([event for event in self._pending_events().values() if event.first == first])
        return self._receipt(self._writer.rows.append_at(self._connection, first))

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
        found = self._writer.rows.decode_all(self._connection, self._connection.execute(schema.BY_ID, (identity,)))
        return found[0] if found else None

    def _pending_events(self) -> dict[bytes, StoredEvent]:
        """The events accepted so far, as they will be stored, by id."""
        for first, events in self._accepted:
            for offset, event in enumerate(events):
                self._stored[event.id] = event.at(first + offset, self._time, offset, len(events))
        self._accepted.clear()
        return self._stored

    def _receipt(self, events: Sequence[StoredEvent]) -> Receipt:
        return make_receipt(self._writer.head.store_id, self._writer.head.epoch, events, repeated=True)

    def _accept(self, request: AppendRequest) -> Receipt:
        head, events, first = self._writer.head, request.events, self._position + 1
        ids = self._add_rows(events, first)
        self._position += len(ids)
        self._positions.update(zip(ids, range(first, self._position + 1), strict=True))
        if self._pending is not None:
            for position, event in enumerate(events, first):
                self._pending.add(position, event.type, event.tags)
        self._accepted.append((first, events))
        if request.key is not None:
            self._keys[request.key] = first
        return Receipt(
            store=head.store_id,
            epoch=head.epoch,
            first=first,
            last=self._position,
            time=self._time,
            ids=ids,
            digest=digest(events),
        )

    def _add_rows(self, events: Sequence[NewEvent], first: int) -> tuple[bytes, ...]:
        """Add the rows of the events of one append, and their labels. Returns their ids."""
        connection, time, ensure = self._connection, self._time, self._writer.names.types.ensure
        rows, (types, tag_sets, sizes) = self._rows, self.labels
        ids: list[bytes] = []
        size = len(events) if len(events) > 1 else None  # NULL, as the offset, for an append of one event
        last_type, number = "", 0
        for position, event in enumerate(events, first):
            id, type, data, tag_set = event.id, event.type, event.data, event.tags
            tags = "\n".join(tag_set)
            if type != last_type:
                last_type, number = type, ensure(connection, type)
            codec = None if event.codec == "json" else event.codec
            offset = size and position - first
            row = (
                position, id, number, event.version, data, tags, time, event.occurred, event.metadata, offset, size,
                codec, event.key,
            )  # fmt: skip
            rows.append((*row, crc32(encode_row(row))))
            ids.append(id)
            types.append(type)
            tag_sets.append(tag_set)
            sizes.append(len(data) + len(tags))
        return tuple(ids)

    def insert(self) -> None:
        """Insert the accepted events and the rows of inline read models.

        Raises StaleRows, InlineFailed, and apsw.ConstraintError for a duplicate event id.
        """
        rows, connection = self._rows, self._connection
        if rows and not self.known.needs_triggers:
            # SQLite assigns the first position, the next one of the log: it must be the one that was promised.
            connection.execute(schema.INSERT_EVENT, (None, *rows[0][1:]))
            if connection.last_insert_rowid() != rows[0][0]:
                raise apsw.ConstraintError(f"eventfold: position {rows[0][0]} is not the next one")
            rows = rows[1:]
        if rows:
            connection.executemany(schema.INSERT_EVENT, rows)
        if self._keys:
            self._connection.executemany(schema.INSERT_REQUEST, map(with_checksum, self._keys.items()))
        if self.inline is not None and self._rows:
            self.inline.write()
