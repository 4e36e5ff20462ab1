"""The SQLite engine on a file that is a complete local copy of a log that is elsewhere.

Knows: which log the file is a copy of. Does not know: how events are imported (replica.py), where the log is.
"""

from __future__ import annotations

from eventfold.engines.sqlite.engine import SqliteEngine
from eventfold.engines.sqlite.tail import MERGE_EVENTS
from eventfold.ports.services import ReplicaOf


class SqliteReplica(SqliteEngine):
    """A store file that is a copy of the log `of`, filled by `services.replica.import_events`; it takes no appends.

    The file is created if there is none, and takes the identity of the log. `open` raises ReplicaMismatch if it is a
    copy of another log or of another epoch: the caller renames the file. Imports are not synced: a power failure
    may undo the last ones, and never leaves a part of an append. Opened as a plain store, the file can be read.
    """

    def __init__(
        self,
        path: str,
        of: ReplicaOf,
        *,
        timeout: float = 30.0,
        max_idle: float | None = None,
        merge_events: int = MERGE_EVENTS,
    ) -> None:
        super().__init__(path, durability="normal", timeout=timeout, max_idle=max_idle, merge_events=merge_events)
        self._copy_of = of

    def __repr__(self) -> str:
        return f"SqliteReplica({self.path!r})"
