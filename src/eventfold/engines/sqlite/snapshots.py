"""Room: snapshots of folded states, in a table beside the log: replaced and dropped at will.

Knows: one table. Does not know: what is in a snapshot.
"""

from __future__ import annotations

import apsw

from eventfold.snapshot import Snapshot

FIND = "SELECT fingerprint, position, event, state FROM snapshot WHERE key = ?"
KEEP = "INSERT OR REPLACE INTO snapshot (key, fingerprint, position, event, state) VALUES (?,?,?,?,?)"
DROP = "DELETE FROM snapshot WHERE key >= ? AND key < ?"


def find(connection: apsw.Connection, key: str) -> Snapshot | None:
    """The snapshot under a key."""
    row = connection.execute(FIND, (key,)).fetchone()
    return Snapshot(*row) if row else None


def keep(connection: apsw.Connection, key: str, snapshot: Snapshot) -> None:
    """Replace it, inside the writer's transaction."""
    bindings = (key, snapshot.fingerprint, snapshot.position, snapshot.event_id, snapshot.state)
    connection.execute(KEEP, bindings)


def drop(connection: apsw.Connection, prefix: str) -> int:
    """Drop those under a prefix, inside the writer's transaction; how many there were."""
    connection.execute(DROP, (prefix, prefix + "\U0010ffff"))
    return connection.changes()
