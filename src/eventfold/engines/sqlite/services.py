"""The services of the SQLite engine: look-ups, snapshots, named locks, replication, replica, inline projections.

Knows: which module does each. Does not know: user classes, sync or async callers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from itertools import pairwise
from typing import Any, Protocol, TypeVar

import apsw

from eventfold.core.envelope import StoredEvent
from eventfold.core.query import Query
from eventfold.core.snapshot import Snapshot
from eventfold.engines.sqlite import replica, replication, schema, snapshots, summaries
from eventfold.engines.sqlite.errors import translate_errors
from eventfold.engines.sqlite.file import File
from eventfold.engines.sqlite.head import HeadTracker
from eventfold.engines.sqlite.inline import read_registrations
from eventfold.engines.sqlite.named_locks import NamedLocks
from eventfold.engines.sqlite.queries import count_ranges
from eventfold.engines.sqlite.read import Names, RowDecoder, decode_request_key
from eventfold.engines.sqlite.watch import Watch
from eventfold.engines.sqlite.writer import Writer
from eventfold.ports.inline import ExclusiveTransaction, InlineProjector, InlineRegistration
from eventfold.ports.messages import AppendRequest
from eventfold.ports.services import Judged, ReplicaOf

T = TypeVar("T")


class RunRead(Protocol):
    """Runs a read on a consistent file. See SqliteEngine."""

    def __call__(self, work: Callable[[apsw.Connection], T]) -> T:
        """Run it."""
        ...


class CopyFile(Protocol):
    """Copies the file. See SqliteEngine."""

    def __call__(self, path: str, *, keep_identity: bool) -> None:
        """Copy it."""
        ...


class Access:
    """What the services use of their engine. The writer and the head are there once the engine is open."""

    def __init__(
        self, path: str, file: File, watch: Watch, run_read: RunRead, writer: Writer | None, head: HeadTracker | None
    ) -> None:
        self.path, self.file, self.watch, self.run_read = path, file, watch, run_read
        self._writer, self._head = writer, head

    @property
    def writer(self) -> Writer:
        """The writer of the open engine."""
        assert self._writer is not None
        return self._writer

    @property
    def head(self) -> HeadTracker:
        """The head of the open engine."""
        assert self._head is not None
        return self._head

    @property
    def store_id(self) -> str:
        """The id of the open store."""
        return self.head.store_id


class _Service:
    def __init__(self, access: Access) -> None:
        self.path = access.path  # for translate_errors
        self._access = access


class SqliteLookups(_Service):
    """See services.Lookups."""

    def __init__(self, access: Access, names: Names) -> None:
        super().__init__(access)
        self._names = names

    @translate_errors
    async def position_of(self, id: bytes) -> int | None:
        """See services.Lookups."""
        row = self._access.run_read(lambda connection: connection.execute(schema.POSITION_OF, (id,)).fetchone())
        return None if row is None else row[0]

    @translate_errors
    async def tag_keys(self, prefix: str = "", limit: int = 1000, after: str = "") -> list[str]:
        """See services.Lookups."""
        names = self._names

        def listed(connection: apsw.Connection) -> list[str]:
            head = self._access.head.read_head(connection).position
            return summaries.list_tag_keys(names.lookup(connection, head), prefix, limit, after)

        return self._access.run_read(listed)

    @translate_errors
    async def tag_names(self, prefix: str = "", limit: int = 1000, after: str = "") -> list[str]:
        """See services.Lookups."""
        names = self._names

        def listed(connection: apsw.Connection) -> list[str]:
            head = self._access.head.read_head(connection).position
            return summaries.list_tags(names.lookup(connection, head), prefix, limit, after)

        return self._access.run_read(listed)

    @translate_errors
    async def counts(self, query: Query, bounds: Sequence[int]) -> list[int]:
        """See services.Lookups."""
        names = self._names

        def counted(connection: apsw.Connection) -> list[int]:
            head = self._access.head.read_head(connection).position
            ends = [min(bound, head) for bound in bounds]
            if not query.items or len(ends) < 2:
                return [high - low for low, high in pairwise(ends)]
            return count_ranges(names.lookup(connection, head), query, ends)

        return self._access.run_read(counted)


class SqliteSnapshots(_Service):
    """See services.Snapshots."""

    @translate_errors
    async def get(self, key: str) -> Snapshot | None:
        """See services.Snapshots."""
        access = self._access
        return access.run_read(lambda connection: snapshots.find(connection, access.store_id, key, self.path))

    @translate_errors
    async def put(self, key: str, snapshot: Snapshot) -> None:
        """See services.Snapshots."""
        access = self._access
        access.writer.transact(lambda connection: snapshots.save(connection, access.store_id, key, snapshot))

    @translate_errors
    async def delete_prefix(self, prefix: str = "") -> int:
        """See services.Snapshots."""
        count: list[int] = []
        self._access.writer.transact(lambda connection: count.append(snapshots.drop(connection, prefix)))
        return count[0]


class SqliteLocks(_Service):
    """See services.Locks."""

    def __init__(self, access: Access, locks: NamedLocks) -> None:
        super().__init__(access)
        self._locks = locks

    @translate_errors
    async def try_acquire(self, name: str, owner: str) -> str | None:
        """See services.Locks."""
        self._access.file.check()
        return self._locks.try_acquire(name, owner)

    @translate_errors
    async def release(self, name: str) -> None:
        """See services.Locks."""
        self._locks.release(name)


class SqliteReplication(_Service):
    """See services.Replication."""

    def __init__(self, access: Access, set_identity: Callable[[str, int], None]) -> None:
        super().__init__(access)
        self._set_identity = set_identity

    @translate_errors
    async def keys(self, after: str = "", limit: int = 1000) -> list[tuple[str, int]]:
        """See services.Replication."""

        def listed(connection: apsw.Connection) -> list[tuple[str, int]]:
            rows: list[Any] = list(connection.execute(schema.KEYS, (after, limit)))
            return [decode_request_key(row) for row in rows]

        return self._access.run_read(listed)

    @translate_errors
    async def import_events(self, events: Sequence[StoredEvent], keys: Sequence[tuple[str, int]] = ()) -> None:
        """See services.Replication."""
        writer = self._access.writer
        writer.refuse_copy()
        writer.transact(lambda connection: replication.import_events(connection, writer.names, events, keys))
        self._access.watch.notify()

    @translate_errors
    async def take_identity(self, store_id: str, epoch: int) -> None:
        """See services.Replication."""
        self._access.writer.refuse_copy()
        self._access.writer.transact(lambda connection: replication.take_identity(connection, store_id, epoch))
        self._set_identity(store_id, epoch)


class SqliteReplicaService(_Service):
    """See services.Replica. `of`: the log of which the file is a copy; None: the file is a log itself."""

    def __init__(self, access: Access, names: Names, rows: RowDecoder, of: ReplicaOf | None, copy: CopyFile) -> None:
        super().__init__(access)
        self._names, self._rows, self._of, self._copy = names, rows, of, copy

    @translate_errors
    async def judge(self, requests: Sequence[AppendRequest], now: int) -> Judged:
        """See services.Replica."""
        access, names, rows = self._access, self._names, self._rows
        return access.run_read(
            lambda connection: replica.judge(connection, names, rows, access.head, requests, now),
        )

    @translate_errors
    async def import_events(self, events: Sequence[StoredEvent], keys: Sequence[tuple[str, int]] = ()) -> None:
        """See services.Replica."""
        self._access.file.check()
        self._access.writer.import_missing(events, keys, self._of)
        self._access.watch.notify()

    @translate_errors
    async def copy_to(self, path: str) -> None:
        """See services.Replica."""
        self._copy(path, keep_identity=True)


class SqliteInlineProjections(_Service):
    """See services.InlineProjections."""

    def set_projector(self, projector: InlineProjector) -> None:
        """See services.InlineProjections."""
        self._access.writer.projector = projector

    @translate_errors
    async def registrations(self) -> list[InlineRegistration]:
        """See services.InlineProjections."""
        return self._access.run_read(read_registrations)

    @translate_errors
    async def exclusive(self, work: Callable[[ExclusiveTransaction], Awaitable[None]]) -> None:
        """See services.InlineProjections."""
        self._access.file.check()
        self._access.writer.refuse_copy()
        self._access.writer.run_exclusive(work)
        self._access.watch.notify()
