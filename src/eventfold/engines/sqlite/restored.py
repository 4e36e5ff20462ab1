"""A new epoch for a file that other tools have put back: what came after the copy is gone, and its positions are free.

Knows: the store's own row, the writers' lock, the note of the last event that was acknowledged. Does not know: events.
"""

from __future__ import annotations

from eventfold.engines.sqlite.connect import File
from eventfold.engines.sqlite.identity import identity_of, take_identity
from eventfold.ports.engine import RestoreResult


def begin_epoch(file: File, timeout: float) -> RestoreResult:
    """Let a new epoch begin, greater than any that was noted here. Raises the errors of opening a store.

    An older copy lacks the last event that was acknowledged, so that it cannot be opened in the usual way before this.
    """
    file.open(create=False)
    try:
        file.lock.acquire()
        connection = file.writer()
        try:
            connection.set_busy_timeout(int(timeout * 1000))
            connection.execute("BEGIN IMMEDIATE")
            before = identity_of(connection)
            epoch = max(before.epoch, _noted(file, before.id)) + 1
            take_identity(connection, before.id, epoch)
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            file.pool.written(connection)
            file.lock.release()
    finally:
        file.close()
    return RestoreResult(before.id, before.epoch, epoch)


def _noted(file: File, store_id: str) -> int:
    """The epoch in which the last event was acknowledged here: the copy may be from before it. 0 if none is known."""
    words = file.lock.noted().split(" ")
    return int(words[1]) if len(words) > 1 and words[0] == store_id and words[1].isdigit() else 0
