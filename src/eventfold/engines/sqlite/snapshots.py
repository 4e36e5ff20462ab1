"""Snapshots of folded states, in a table of their own: replaced and dropped at any time, each with a checksum.

Knows: that table. Does not know: the content of a snapshot.
"""

from __future__ import annotations

import shlex

import apsw

from eventfold.core.snapshot import Snapshot
from eventfold.engines.sqlite.schema import with_checksum
from eventfold.errors import StoreDamaged

FIND = "SELECT fingerprint, position, event, state, crc FROM snapshot WHERE key = ?"
SAVE = "INSERT OR REPLACE INTO snapshot (key, fingerprint, position, event, state, crc) VALUES (?,?,?,?,?,?)"
DROP = "DELETE FROM snapshot WHERE key >= ? AND key < ?"
DROP_ALL = "DELETE FROM snapshot"  # a damaged key may have no known prefix
ALL = "SELECT CAST(key AS BLOB), CAST(fingerprint AS BLOB), position, event, state, crc FROM snapshot"


def _row(store_id: str, key: str, snapshot: Snapshot) -> tuple[str | int | bytes, ...]:
    """The store's id, the columns, and the checksum of all of them."""
    columns = (key, snapshot.fingerprint, snapshot.position, snapshot.event_id, snapshot.state)
    return with_checksum((store_id, *columns))


def find(connection: apsw.Connection, store_id: str, key: str, path: str) -> Snapshot | None:
    """The snapshot with this key, or None. Raises StoreDamaged if its checksum does not match."""
    try:
        row = connection.execute(FIND, (key,)).fetchone()
    except UnicodeDecodeError as error:
        raise damaged_error(key, path) from error
    if row is None:
        return None
    snapshot = Snapshot(*row[:-1])
    if _row(store_id, key, snapshot)[-1] != row[-1]:
        raise damaged_error(key, path)
    return snapshot


def save(connection: apsw.Connection, store_id: str, key: str, snapshot: Snapshot) -> None:
    """Insert or replace a snapshot, inside the writer's transaction."""
    connection.execute(SAVE, _row(store_id, key, snapshot)[1:])


def drop(connection: apsw.Connection, prefix: str) -> int:
    """Drop the snapshots with a prefix, inside the writer's transaction. Returns their number."""
    if prefix:
        connection.execute(DROP, (prefix, prefix + "\U0010ffff"))
    else:
        connection.execute(DROP_ALL)
    return connection.changes()


def damaged_keys(connection: apsw.Connection, store_id: str) -> list[str]:
    """The keys of snapshots whose checksum does not match."""
    found: list[str] = []
    for key, fingerprint, position, event, state, crc in connection.execute(ALL):
        name = key.decode("utf-8", "replace")
        code = fingerprint.decode("utf-8", "replace")
        if _row(store_id, name, Snapshot(code, position, event, state))[-1] != crc:
            found.append(name)
    return found


def damaged_error(key: str, path: str) -> StoreDamaged:
    """The error for a snapshot whose checksum does not match. The log is not affected."""
    return StoreDamaged(
        f"The snapshot of {key} in {path} does not have the checksum it was written with.",
        f"Drop the snapshots, which costs time and no event (eventfold snapshots drop {shlex.quote(path)}), "
        "and check the disk.",
        path=path,
        snapshot=key,
    )
