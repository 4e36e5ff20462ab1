"""Room: who a store is: its id, the epoch of its history and its day of birth, in one row with a checksum.

Knows: that row. Does not know: events, files.
"""

from __future__ import annotations

import secrets
import time
from typing import NamedTuple

import apsw

from eventfold.engines.sqlite.faults import disagreement
from eventfold.engines.sqlite.read import with_checksum


class Identity(NamedTuple):
    """`id` 32 hex digits; `epoch` from 1; `created` µs since 1970 UTC."""

    id: str
    epoch: int
    created: int


def identity_of(connection: apsw.Connection) -> Identity:
    """Who this store is. Raises StoreDamaged if it is no longer known."""
    row = connection.execute("SELECT id, epoch, created, crc FROM store").fetchone()
    if row is None or with_checksum(row[:-1]) != row:
        raise disagreement("it has lost its id")
    return Identity(*row[:-1])


def give_birth(connection: apsw.Connection) -> None:
    """Make a new store somebody, inside the transaction that creates it."""
    row = with_checksum((secrets.token_hex(16), 1, time.time_ns() // 1000))
    connection.execute("INSERT INTO store (one, id, epoch, created, crc) VALUES (1, ?, ?, ?, ?)", row)


def take_identity(connection: apsw.Connection, store_id: str, epoch: int) -> None:
    """Let a store become another, or begin another epoch. Inside a transaction of the caller's."""
    row = with_checksum((store_id, epoch, identity_of(connection).created))
    connection.execute("UPDATE store SET id = ?, epoch = ?, created = ?, crc = ?", row)
