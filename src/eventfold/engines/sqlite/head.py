"""The head of the log as this process last saw it: detects a log that lost acknowledged events.

If an older copy replaces the file, or its write-ahead log is removed, acknowledged events disappear and their positions
are assigned again. So each query of the head verifies that the last event seen before is still there.
Knows: one head, and the note of it in the lock file. Does not know: queries, transactions.
"""

from __future__ import annotations

import apsw

from eventfold.engines.sqlite import schema
from eventfold.engines.sqlite.file import File
from eventfold.engines.sqlite.read import RowDecoder, missing_error
from eventfold.ports.messages import Head

EMPTY_HEAD = Head(0, 0, b"")


class HeadTracker:
    """Tracks the last event that is known to be committed, by this process or an earlier one."""

    def __init__(self, file: File, rows: RowDecoder, store_id: str, epoch: int) -> None:
        self._file, self._rows = file, rows
        self.store_id, self.epoch = store_id, epoch
        self.last_seen = self._read_note()
        file.presence.on_checkpoint = self._reload_note

    def read_head(self, connection: apsw.Connection) -> Head:
        """The current head, verified. Raises StoreDamaged if the head seen before is gone, or the epoch changed.

        After a change of epoch everything cached in this process is invalid: names, recent events, states, progress.
        """
        before = self.last_seen  # read first: other threads can only advance it meanwhile
        row = connection.execute(schema.HEAD_AND_EPOCH).fetchone()
        if row is not None and row[2] != self.epoch:  # an empty log cannot have lost an event
            raise self._file.presence.epoch_changed(self.epoch, row[2])
        if row is not None and row[0] == before.position and row[1] == before.id:
            return before
        head = EMPTY_HEAD if row is None else self._verify(connection, row[0])
        if before.position:
            # By its id alone: other damage of this event is reported by what reads it, and hides no later event.
            known = connection.execute(schema.ID_AT, (before.position,)).fetchone()
            if known is None or known[0] != before.id:
                raise self._file.presence.history_lost(before.position, head.position)
        self.last_seen = head
        return head

    def _verify(self, connection: apsw.Connection, position: int) -> Head:
        event = self._rows.event_at(connection, position)
        if event is None:
            raise missing_error(position)
        return Head(event.position, event.time, event.id)

    def record_commit(self, head: Head) -> None:
        """Record a durable commit of this process up to `head`. Call it only while the writer lock is held."""
        self.last_seen = head
        if self._file.full_sync:
            note = f"{self.store_id} {self.epoch} {head.position} {head.time} {head.id.hex()}"
            self._file.lock.write_note(note)

    def _reload_note(self) -> None:
        """After a change of the file: the last event acknowledged by any process must still be in it."""
        noted = self._read_note()
        if noted.position > self.last_seen.position:
            self.last_seen = noted

    def _read_note(self) -> Head:
        """The head noted in the lock file, if it is of this store and epoch. A backup has an epoch of its own."""
        store_id, _, rest = self._file.lock.read_note().partition(" ")
        try:
            epoch, position, time, identity = rest.split(" ")
            if (store_id, int(epoch)) == (self.store_id, self.epoch):
                return Head(int(position), int(time), bytes.fromhex(identity))
        except ValueError:  # no note, or one that a power failure has cut
            pass
        return EMPTY_HEAD
