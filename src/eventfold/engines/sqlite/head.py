"""Room: the end of the log as this process last saw it: how a log that went back is noticed.

An older copy put in the file's place, or a write-ahead log that was removed, takes acknowledged events away and
gives their positions to others. So whoever looks at the end checks that the last event seen before is still there.
Knows: one head, and the note of it beside the file. Does not know: queries, transactions.
"""

from __future__ import annotations

import apsw

from eventfold.engines.sqlite import schema
from eventfold.engines.sqlite.file import File
from eventfold.engines.sqlite.read import RowDecoder, missing_error
from eventfold.ports.engine import Head

EMPTY_HEAD = Head(0, 0, b"")


class HeadTracker:
    """The last event that is known to have been committed, by this process or by one before it."""

    def __init__(self, file: File, rows: RowDecoder, store_id: str, epoch: int) -> None:
        self._file, self._rows = file, rows
        self.store_id, self.epoch = store_id, epoch
        self.last_seen = self._read_note()
        file.on_checkpoint = self._reload_note

    def read_head(self, connection: apsw.Connection) -> Head:
        """The head now, verified. Raises StoreDamaged if the last one seen is no longer in the log, or its epoch ended.

        In another epoch nothing holds that this process remembers: names, recent events, states, how far it had come.
        """
        before = self.last_seen  # taken first: other threads may see more meanwhile, never less
        row = connection.execute(schema.HEAD_AND_EPOCH).fetchone()
        if row is not None and row[2] != self.epoch:  # in an empty log there is nothing that could be lost
            raise self._file.epoch_changed(self.epoch, row[2])
        if row is not None and row[0] == before.position and row[1] == before.id:
            return before
        head = EMPTY_HEAD if row is None else self._verify(connection, row[0])
        if before.position:
            known = self._rows.event_at(connection, before.position)
            if known is None or known.id != before.id:
                raise self._file.history_lost(before.position, head.position)
        self.last_seen = head
        return head

    def _verify(self, connection: apsw.Connection, position: int) -> Head:
        event = self._rows.event_at(connection, position)
        if event is None:
            raise missing_error(position)
        return Head(event.position, event.time, event.id)

    def record_commit(self, head: Head) -> None:
        """This process has committed up to here, durably. Only while the writers' lock is held."""
        self.last_seen = head
        if self._file.full_sync:
            note = f"{self.store_id} {self.epoch} {head.position} {head.time} {head.id.hex()}"
            self._file.lock.write_note(note)

    def _reload_note(self) -> None:
        """The file was written to, by a checkpoint or not: what any process has acknowledged must be in it still."""
        noted = self._read_note()
        if noted.position > self.last_seen.position:
            self.last_seen = noted

    def _read_note(self) -> Head:
        """What the lock file tells of this history. A backup, having an epoch of its own, begins another."""
        store_id, _, rest = self._file.lock.read_note().partition(" ")
        try:
            epoch, position, time, identity = rest.split(" ")
            if (store_id, int(epoch)) == (self.store_id, self.epoch):
                return Head(int(position), int(time), bytes.fromhex(identity))
        except ValueError:  # no note, or what a power cut has left of one
            pass
        return EMPTY_HEAD
