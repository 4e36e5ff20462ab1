"""Room: a batch of requests: each judged against the log and those before it, given its place, and written.

Knows: the order in which a request is judged. Does not know: transactions, locks (the writer does), what events mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import apsw

from eventfold.core.envelope import NewEvent, Receipt, StoredEvent, digest, make_receipt
from eventfold.core.query import ConditionClause, Query
from eventfold.engines.sqlite import many, schema
from eventfold.engines.sqlite.inline import enrolled
from eventfold.engines.sqlite.queries import Dictionary, positions
from eventfold.engines.sqlite.read import first_of, with_checksum
from eventfold.engines.sqlite.window import MOST
from eventfold.errors import EventfoldError, EventIdReused, InvalidQuery, Unreadable
from eventfold.ports.engine import AppendRequest, Head, InlineTransaction, Outcome
from eventfold.ports.inline import missing_code
from eventfold.ports.refusals import base_event_missing, conflict, epoch_ended, id_reused, in_the_future, is_repeat

if TYPE_CHECKING:
    from eventfold.engines.sqlite.writer import Writer


def first_match(dictionary: Dictionary, query: Query, after: int, until: int) -> int | None:
    """The first position in (after, until] that matches, from the indexes alone."""
    if until <= after:
        return None
    if not query.items:
        return after + 1
    query = dictionary.spelled(query)
    if many.many(query):
        return many.first(dictionary, query, after, until)
    found = positions(dictionary, query, after, until)
    if found.nothing:
        return None
    row = dictionary.connection.execute(f"{found.sql('ASC')} LIMIT 1", found.bindings).fetchone()
    return row[0] if row else None


class Batch:
    """One transaction's requests: judged in order against the log and against each other, then inserted together.

    `judged` tells through which position a long condition (by its id) is known to hold. `careful`: every event id
    is looked up; without it ids are taken to be new, and `insert` fails if one is not.
    """

    def __init__(
        self, writer: Writer, connection: apsw.Connection, judged: dict[int, int], careful: bool, at_once: bool
    ) -> None:
        self._writer, self._connection, self._judged = writer, connection, judged
        self._at_once = at_once
        self._names = Dictionary(connection, writer.types, writer.tags, writing=True)
        before = writer.end.look(connection)
        self._before, self._head = before, before.position
        self._inlined = enrolled(connection)
        self._codes: Mapping[str, str] = writer.folder.codes if writer.folder is not None else {}
        # Whoever repeats an append is told so even where it could not be made any more.
        self._careful = careful or any(self._codes.get(each.name) != each.code for each in self._inlined)
        self.folding: InlineTransaction | None = None
        if self._inlined and writer.folder is not None:
            self.folding = writer.folder.begin(connection, self._head, self._inlined)
        self._time = max(writer.clock(), before.time)
        self._window = window = writer.window
        if window.end != self._head or window.end - window.start > MOST:
            window.restart(self._head)
        self._rows: list[tuple[Any, ...]] = []
        self._tagged: list[tuple[int, int, int]] = []
        self._keys: dict[str, int] = {}
        self._accepted: list[tuple[int, Sequence[NewEvent]]] = []
        self._stored: dict[bytes, StoredEvent] = {}
        self._ids: set[bytes] = set()  # of the events accepted here
        self._written: dict[bytes, int] = {}  # the last event of each append accepted here, and where it will stand

    @property
    def written(self) -> Head | None:
        """The head that the log has with this batch; None if it wrote nothing, not even a request key."""
        if self._rows:
            return Head(self._head, self._time, self._rows[-1][1])
        return self._before if self._keys else None

    def take(self, request: AppendRequest) -> Outcome:
        """Judge one request and, if it holds, give its events their positions."""
        try:
            known = self._by_key(request)
            if known is None and (self._careful or self._repeats(request.events)):
                known = self._by_ids(request)
            if known is not None:
                return known
            for number, clause in enumerate(request.unless):
                refusal = self._judge(clause, number, request.epoch)
                if refusal is not None:
                    # A repeated append conflicts with its own events.
                    return (None if self._careful else self._by_ids(request)) or refusal
        except (EventIdReused, InvalidQuery, Unreadable) as refusal:
            return refusal
        return (self._fold(request) if self._inlined else None) or self._accept(request)

    def _fold(self, request: AppendRequest) -> EventfoldError | None:
        """Have it folded into what every append keeps up; why it cannot be. Before anything of it is accepted."""
        events, first = request.events, self._head + 1
        refusal = missing_code(self._inlined, self._codes, [event.type for event in events])
        folding = self.folding
        if refusal is not None or folding is None or not any(event.type in folding.types for event in events):
            return refusal
        size = len(events)
        placed = [event.at(first + offset, self._time, offset, size) for offset, event in enumerate(events)]
        return folding.take(placed, self._at_once)

    def _judge(self, clause: ConditionClause, number: int, epoch: int | None) -> EventfoldError | None:
        after, window = clause.after, self._window
        if epoch is not None and epoch != self._writer.end.epoch:
            return epoch_ended(clause, epoch, self._writer.end.epoch)
        if after > self._head:
            return in_the_future(clause, self._head)
        if clause.after_event is not None:
            behind = self._written.get(clause.after_event) or self._standing(clause.after_event)
            if behind is None:
                return base_event_missing(clause, number)
            after = max(after, behind)
        found = None
        if after < window.start:
            checked = max(after, self._judged.get(id(clause), 0))
            found = first_match(self._names, clause.query, checked, window.start)
        if found is None:
            found = window.first_match(self._names.spelled(clause.query), after)
        return None if found is None else conflict(clause, found, number)

    def _standing(self, identity: bytes) -> int | None:
        """Where an event stands by its id, in the log or among those accepted here."""
        row = self._connection.execute(schema.POSITION_OF, (identity,)).fetchone()
        pending = None if row is not None else self._pending().get(identity)
        return row[0] if row is not None else pending and pending.position

    def _repeats(self, events: Sequence[NewEvent]) -> bool:
        """Whether an id comes back within this batch: no guard in the database has seen the first one yet."""
        if len(events) == 1:
            return events[0].id in self._ids
        mine = {event.id for event in events}
        return len(mine) < len(events) or not self._ids.isdisjoint(mine)

    def _by_key(self, request: AppendRequest) -> Receipt | None:
        """The receipt of the append that was made under the request's key, if it has one and there was one."""
        if request.key is None:
            return None
        first = self._keys.get(request.key)
        if first is None:
            row = self._connection.execute(schema.BY_KEY, (request.key,)).fetchone()
            if row is None:
                return None
            first = first_of(row)[1]
        if first > self._before.position:
            return self._receipt([event for event in self._pending().values() if event.first == first])
        return self._receipt(self._writer.rows.append_at(self._connection, first))

    def _by_ids(self, request: AppendRequest) -> Receipt | None:
        """The receipt of the append that wrote these very events, which claims the request's key.

        Raises EventIdReused if another one wrote some.
        """
        events = request.events
        stored = [self._find(event.id) for event in events]
        unique = len({event.id for event in events}) == len(events)
        if unique and not any(stored):
            return None
        if not unique or not is_repeat(events, stored):
            raise id_reused(events, [event.position if event else None for event in stored])
        done = self._receipt([event for event in stored if event])
        if request.key is not None:
            self._keys[request.key] = done.first
        return done

    def _find(self, identity: bytes) -> StoredEvent | None:
        pending = self._pending().get(identity)
        if pending is not None:
            return pending
        found = self._writer.rows.all(self._connection, self._connection.execute(schema.BY_ID, (identity,)))
        return found[0] if found else None

    def _pending(self) -> dict[bytes, StoredEvent]:
        """What this batch has accepted so far, as it will stand in the log."""
        for first, events in self._accepted:
            for offset, event in enumerate(events):
                self._stored[event.id] = event.at(first + offset, self._time, offset, len(events))
        self._accepted.clear()
        return self._stored

    def _receipt(self, events: Sequence[StoredEvent]) -> Receipt:
        return make_receipt(self._writer.end.store_id, self._writer.end.epoch, events, repeated=True)

    def _accept(self, request: AppendRequest) -> Receipt:
        writer, connection, window, time = self._writer, self._connection, self._window, self._time
        events, first = request.events, self._head + 1
        size = len(events)
        alone = size == 1
        position = self._head
        for offset, event in enumerate(events):
            position += 1
            type_id = writer.types.ensure(connection, event.type)
            self._rows.append(
                with_checksum(
                    (
                        position,
                        event.id,
                        type_id,
                        event.version,
                        event.data,
                        "\n".join(event.tags),
                        time,
                        event.occurred,
                        event.metadata,
                        None if alone else offset,
                        None if alone else size,
                        None if event.codec == "json" else event.codec,
                        event.key,
                    )
                )
            )
            for tag in event.tags:
                self._tagged.append((writer.tags.ensure(connection, tag), position, type_id))
            window.add(position, event.type, event.tags)
        self._head = position
        self._accepted.append((first, events))
        self._written[events[-1].id] = position
        self._ids.update([event.id for event in events])
        if request.key is not None:
            self._keys[request.key] = first
        return Receipt(
            store=writer.end.store_id,
            epoch=writer.end.epoch,
            first=first,
            last=position,
            time=time,
            ids=tuple([event.id for event in events]),
            digest=digest(events),
        )

    def insert(self) -> None:
        """Write what was accepted, and what was folded from it.

        Raises StaleRows, InlineFailed, apsw.ConstraintError if an id turns out to be known.
        """
        if self._rows:
            self._connection.executemany(schema.INSERT_EVENT, self._rows)
            if self._tagged:
                self._connection.executemany(schema.INSERT_TAGGED, self._tagged)
        if self._keys:
            self._connection.executemany(schema.INSERT_REQUEST, map(with_checksum, self._keys.items()))
        if self.folding is not None and self._rows:
            self.folding.write()
