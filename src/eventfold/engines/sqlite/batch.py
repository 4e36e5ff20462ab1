"""A batch of append requests: each is judged, given positions, and inserted, within one transaction.

Knows: rows, inline read models. Does not know: the order of checks for a request (judging.py), transactions and locks
(the writer does), what events mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from zlib import crc32

import apsw

from eventfold.core.envelope import NewEvent, Receipt, digest
from eventfold.engines.sqlite import schema
from eventfold.engines.sqlite.judging import Judge, Log
from eventfold.engines.sqlite.last_commit import run_triggers
from eventfold.engines.sqlite.schema import encode_row, with_checksum
from eventfold.errors import EventfoldError
from eventfold.ports.inline import AppendMode, InlineProjector, InlineTransaction, missing_code
from eventfold.ports.messages import AppendRequest, Head, Outcome

if TYPE_CHECKING:
    from eventfold.engines.sqlite.writer import Writer


class Batch(Judge):
    """The requests of one transaction: judged in order against the log and each other, then inserted together.

    `judged`, `is_alone`, `is_judged_together`: see Judge. `mode`: what to do in addition after a failed attempt.
    Without CHECK_IDS event ids are assumed to be new; if not, `insert` fails.
    """

    def __init__(
        self,
        writer: Writer,
        connection: apsw.Connection,
        judged: dict[int, int],
        mode: AppendMode,
        is_alone: bool,
        is_judged_together: bool,
    ) -> None:
        self.known = known = writer.last_commit.read(connection)
        if connection.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, -1) != known.needs_triggers:
            run_triggers(connection, known.needs_triggers)
        super().__init__(
            Log(writer.names, writer.rows, writer.head.store_id, writer.head.epoch),
            connection,
            known.head,
            max(writer.clock(), known.head.time),
            judged,
            is_careful=mode is not AppendMode.OPTIMISTIC and AppendMode.CHECK_IDS in mode,
            is_alone=is_alone,
            is_judged_together=is_judged_together,
        )
        self._mode, self.registrations = mode, known.registrations
        self._codes: Mapping[str, str] = {}
        self.inline: InlineTransaction | None = None
        if self.registrations:
            self._begin_inline(writer.projector)
        self._rows: list[tuple[Any, ...]] = []

    def _begin_inline(self, projector: InlineProjector | None) -> None:
        if projector is not None:
            self._codes = projector.codes
            self.inline = projector.begin(self._connection, self._position, self.registrations)
        # A repeated append returns its receipt even if this process lacks the code of an inline read model.
        self._is_careful |= any(self._codes.get(each.name) != each.code for each in self.registrations)

    def judge(self, request: AppendRequest) -> Outcome:
        """Check one request and, if its conditions hold, assign positions to its events."""
        # Most requests are one event without key and condition in a commit of their own: nothing is to be looked up.
        is_usual = self._is_alone and not request.unless and request.key is None and len(request.events) == 1
        if not is_usual or self._is_careful:
            known = self.verdict(request)
            if known is not None:
                return known
        refusal = self._fold_inline(request) if self.registrations else None
        if refusal is not None:
            return refusal
        ids = self._add_rows(request.events, self._position + 1)
        first = self.accept(request, ids)
        return Receipt(
            store=self._log.store_id,
            epoch=self._log.epoch,
            first=first,
            last=self._position,
            time=self._time,
            ids=ids,
            digest=digest(request.events),
        )

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

    def _add_rows(self, events: Sequence[NewEvent], first: int) -> tuple[bytes, ...]:
        """Add the rows of the events of one append, and their labels. Returns their ids."""
        connection, time, types_by_name = self._connection, self._time, self._log.names.types
        rows, (types, tag_sets, sizes) = self._rows, self.labels
        ids: list[bytes] = []
        size = len(events) if len(events) > 1 else None  # NULL, as the offset, for an append of one event
        last_type, number = "", 0
        for position, event in enumerate(events, first):
            id, type, data, tag_set = event.id, event.type, event.data, event.tags
            tags = "\n".join(tag_set)
            if type != last_type:
                last_type, number = type, types_by_name.cached_id(type) or types_by_name.ensure(connection, type)
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

    def insert(self) -> Head | None:
        """Insert the accepted events and the rows of inline read models.

        Returns the head of the log after this batch; None if it writes nothing, not even a request key.
        Raises StaleRows, InlineFailed, and apsw.ConstraintError for a duplicate event id.
        """
        rows, connection = self._rows, self._connection
        if rows and self.known.needs_triggers:
            connection.executemany(schema.INSERT_EVENT, rows)
        elif rows:
            # SQLite assigns the positions, the next ones of the log: the last must be the one that was promised.
            if len(rows) == 1:
                connection.execute(schema.INSERT_NEXT, rows[0])
            else:
                connection.executemany(schema.INSERT_NEXT, rows)
            if connection.last_insert_rowid() != self._position:
                raise apsw.ConstraintError(f"eventfold: position {self._position} is not the next one")
        if self._keys:
            connection.executemany(schema.INSERT_REQUEST, map(with_checksum, self._keys.items()))
        if self.inline is not None and rows:
            self.inline.write()
        if rows:
            return Head(self._position, self._time, rows[-1][1])
        return self._head_before if self._keys else None
