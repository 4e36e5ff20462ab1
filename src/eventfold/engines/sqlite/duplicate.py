"""Room: a copy of a store, made while it is in use.

Knows: SQLite's own way of copying pages. Does not know: what is in them, but for the epoch.
"""

from __future__ import annotations

import os

import apsw

from eventfold.engines.sqlite.faults import translated
from eventfold.engines.sqlite.identity import identity_of, take_identity
from eventfold.errors import NotAStore

STEP = 1_000  # pages between two moments at which an interrupt is heard


def backup(source: apsw.Connection, path: str) -> None:
    """Copy a store page by page; the copy begins a new epoch, so that cursors are verified. All of it, or no file."""
    if os.path.exists(path):
        raise NotAStore(f"{path} exists already.", "Give the backup a path of its own.", path=path)
    try:
        _copy(source, path)
    except BaseException as error:
        for half in (path, f"{path}-journal", f"{path}-wal", f"{path}-shm"):
            if os.path.exists(half):
                os.remove(half)
        if isinstance(error, apsw.Error):
            raise translated(error, path) from error
        raise


def _copy(source: apsw.Connection, path: str) -> None:
    target = apsw.Connection(path)
    try:
        source.execute("BEGIN; SELECT 1 FROM store")  # a snapshot: or every commit meanwhile makes it begin again
        try:
            with target.backup("main", source, "main") as copying:
                while not copying.done:
                    copying.step(STEP)
        finally:
            source.execute("ROLLBACK")
        target.pragma("journal_mode", "wal")
        identity = identity_of(target)
        take_identity(target, identity.id, identity.epoch + 1)
        target.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    finally:
        target.close()
