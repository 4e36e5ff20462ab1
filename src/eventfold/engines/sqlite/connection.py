"""Files that can be read without locks: closed ones, in a place where nothing can be created.

A file with a write-ahead log cannot be opened by SQLite where neither the log nor its index is there and neither can be
made: on a read-only mount, or in a folder of another user. If nothing is in the log, the file itself is whole.
Knows: which files stand beside a database, rights. Does not know: connections, events.
"""

from __future__ import annotations

import os
from urllib.parse import quote

import apsw

from eventfold.engines.sqlite.errors import connect
from eventfold.errors import StoreReadOnly

IMMUTABLE_FLAGS = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI


def is_readable_without_locks(path: str) -> bool:
    """Whether a database with a write-ahead log is whole without it, and the process may not create files beside it.

    False also where SQLite can open it in its usual way, with locks: it then sees what others write. Raises
    StoreReadOnly if it is not whole and cannot be opened either.
    """
    folder = os.path.dirname(path) or "."
    if os.access(folder, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        return False
    log, index = size_of(f"{path}-wal"), size_of(f"{path}-shm")
    if not log:
        return log is None or index is None
    if index is not None:
        return False
    raise StoreReadOnly(
        f"{path} has events in its write-ahead log, whose index (-shm) is not there and cannot be made in {folder}.",
        "Copy the file and its log (-wal) to a folder that can be written to, and open it there.",
        path=path,
    )


def connect_immutable(path: str) -> apsw.Connection:
    """A connection by which a file is read that does not change."""
    return connect(immutable_uri(path), flags=IMMUTABLE_FLAGS, statementcachesize=200)


def immutable_uri(path: str) -> str:
    """The name by which SQLite opens a file that does not change."""
    return f"file:{quote(os.fsencode(path))}?immutable=1"


def size_of(path: str) -> int | None:
    """In bytes; None where there is no file."""
    try:
        return os.stat(path).st_size
    except OSError:
        return None
