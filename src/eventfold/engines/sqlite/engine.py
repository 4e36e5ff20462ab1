"""The SQLite engine: the log in one file, without a server. WAL mode, one writer at a time, readers never wait.

Knows: which module answers which call of the engine port. Does not know: user classes, sync or async callers.
Failure domain: the disk that holds the file. An acknowledged append survives kill -9 and a power failure of the
machine.
"""

from __future__ import annotations

import os
import time as _time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import apsw

from eventfold.core.envelope import Receipt, StoredEvent, make_receipt
from eventfold.core.query import Query
from eventfold.engines.sqlite import queries, schema, summaries
from eventfold.engines.sqlite.backup import backup, begin_epoch
from eventfold.engines.sqlite.dictionary import NameDictionary
from eventfold.engines.sqlite.errors import (
    DRIVER_ERRORS,
    NOT_DURABLE,
    as_engine_error,
    memory_file_system,
    record_errno,
    translate_error,
    translate_errors,
)
from eventfold.engines.sqlite.file import File
from eventfold.engines.sqlite.head import HeadTracker
from eventfold.engines.sqlite.integrity import find_problems
from eventfold.engines.sqlite.named_locks import NamedLocks
from eventfold.engines.sqlite.overwrite_detection import Mark
from eventfold.engines.sqlite.read import Names, RowDecoder, decode_request_key, missing_error, read_page
from eventfold.engines.sqlite.reindex import reindex
from eventfold.engines.sqlite.replica import is_copy, mark, read_mark
from eventfold.engines.sqlite.runs import complete_runs, indexed_through
from eventfold.engines.sqlite.saved_segments import read_from
from eventfold.engines.sqlite.schema import read_identity, read_through
from eventfold.engines.sqlite.services import (
    Access,
    SqliteInlineProjections,
    SqliteLocks,
    SqliteLookups,
    SqliteReplicaService,
    SqliteReplication,
    SqliteSnapshots,
)
from eventfold.engines.sqlite.tail import MERGE_EVENTS, Tail
from eventfold.engines.sqlite.upgrade import upgrade
from eventfold.engines.sqlite.watch import Watch
from eventfold.engines.sqlite.writer import Writer
from eventfold.errors import CorruptEvent, EventfoldError, InvalidInput, StoreDamaged, Unreadable
from eventfold.ports.integrity import Problem, Progress
from eventfold.ports.messages import AppendRequest, Capabilities, Head, Outcome, Page, Span, TagCount, TypeCount
from eventfold.ports.services import ReindexResult, ReplicaOf, RestoreResult, Services, UpgradeResult

T = TypeVar("T")
MAX_READ_ATTEMPTS = 5  # attempts at one read, each disturbed by a checkpoint


def now_micros() -> int:
    """The current time: µs since 1970 UTC."""
    return _time.time_ns() // 1000


class SqliteEngine:
    """The engine port, implemented over one file.

    `durability` "full": fsync before every acknowledgement. "normal": a power failure may lose every append since the
    last checkpoint of the WAL; a crash of the process loses none. `timeout`: seconds that a writer waits for the writer
    lock. `readonly`: open the file without write access. A file that is unused for `max_idle` seconds is closed until
    its next use; a follower keeps the store in use. `merge_events`: so many new events are indexed in memory only,
    before they are merged into the index tables. `clock` returns µs since 1970 UTC.
    """

    name = "sqlite"

    def __init__(
        self,
        path: str,
        *,
        create: bool = True,
        readonly: bool = False,
        durability: str = "full",
        timeout: float = 30.0,
        max_idle: float | None = None,
        merge_events: int = MERGE_EVENTS,
        clock: Callable[[], int] = now_micros,
    ) -> None:
        if durability not in ("full", "normal"):
            raise InvalidInput(f"durability={durability!r} is unknown.", 'Use "full" (the default) or "normal".')
        if merge_events < 1:
            raise InvalidInput(f"merge_events={merge_events!r} is too small.", "Use 1 or more.")
        if not path:
            raise InvalidInput("The path of the store is empty.", "Give a path, for example store.db.")
        self.capabilities = Capabilities(durable=durability == "full", pushes=False)
        self.store_id, self.epoch = "", 0
        self.path = path
        self._create, self._clock, self._timeout = create, clock, timeout
        self._file = File(path, readonly=readonly, full_sync=durability == "full", timeout=timeout, max_idle=max_idle)
        types = NameDictionary("type")
        self._rows = RowDecoder(types)
        self._names = Names(
            types, NameDictionary("tag"), Tail(self._rows.between, indexed_through, read_from, merge_events)
        )
        self._watch = Watch(self._file)
        self._head_tracker: HeadTracker | None = None
        self._type_counts = (0, 0, dict[str, TypeCount]())  # cached by `types`: epoch, last counted position, by type
        self._writer: Writer | None = None
        self._copy_of: ReplicaOf | None = None  # see replica_engine.py
        self._locks = NamedLocks(self._file.real_path)

    @property
    def services(self) -> Services:
        """See the port. Built at each call: stored, they would keep an engine that is dropped, and its files, open."""
        access = Access(self.path, self._file, self._watch, self._run_read, self._writer, self._head_tracker)
        return Services(
            lookups=SqliteLookups(access, self._names),
            snapshots=SqliteSnapshots(access),
            locks=SqliteLocks(access, self._locks),
            replication=SqliteReplication(access, self._set_identity),
            replica=SqliteReplicaService(access, self._names, self._rows, self._copy_of, self._copy),
            inline=SqliteInlineProjections(access),
            maintenance=self,
            backup=self.backup,
        )

    @property
    def default_target(self) -> str:
        """See the port. Read models are kept in the store's own file."""
        path = self._file.path
        return f"sqlite:{path[1:] if path.startswith('//') else path}"  # sqlite:// would begin a URL

    @translate_errors
    async def open(self) -> None:
        """See the port."""
        self.store_id, self.epoch, _ = self._file.open(self._create)
        try:
            self._head_tracker = HeadTracker(self._file, self._rows, self.store_id, self.epoch)
            self._writer = Writer(self._file, self._names, self._rows, self._head_tracker, self._clock)
            self._writer.copy_of = self._run_read(read_mark)
            if self._copy_of is not None:
                self._open_as_copy(self._copy_of, self._writer)
            self._run_read(self._head_tracker.read_head)
        except Unreadable:  # if the last event is corrupt, reads report it; earlier events stay readable
            return
        except BaseException:
            self._file.close()
            raise

    def _open_as_copy(self, of: ReplicaOf, writer: Writer) -> None:
        """Mark the file as a copy of a log, unless it is. Raises ReplicaMismatch if it is a copy of another one."""
        is_marked = self._run_read(lambda connection: is_copy(connection, of, self._file.path))
        # Set first: another process may mark the file and import events before this one has the lock.
        self._set_identity(of.store_id, of.epoch)
        if not is_marked:
            writer.transact(lambda connection: mark(connection, of, self._file.path))
        writer.copy_of = of.address

    @translate_errors
    async def upgrade(self, copy: str | None = None, *, copies: bool = True) -> UpgradeResult:
        """Upgrade a store of an older layout to the current one. Call it on an engine that is not open.

        A copy is written first, to `copy` or beside the store, unless `copies` is false. Raises StoreBusy if anything
        else has the file open. If a step fails or the process ends, the store is unchanged.
        """
        return upgrade(self._file, self._timeout, copy, copies)

    @translate_errors
    async def reindex(self) -> ReindexResult:
        """Rebuild the index of tags and types from the events. Call it on an engine that is not open.

        Raises StoreBusy if anything else has the file open, CorruptEvent if an event is damaged. After any error the
        store is unchanged.
        """
        return reindex(self._file, self._timeout)

    @translate_errors
    async def restored(self) -> RestoreResult:
        """Begin a new epoch after other tools restored the file. Call it before the engine is opened.

        The engine is closed afterwards. Raises the errors of `open`, except the one for a lost acknowledged event.
        """
        return begin_epoch(self._file, self._timeout)

    async def append_many(self, requests: Sequence[AppendRequest]) -> list[Outcome]:
        """See the port."""
        try:  # as `translate_errors` does, without another coroutine on the path of every append
            self._file.check()
            assert self._writer is not None
            outcomes = self._writer.append(requests)
        except DRIVER_ERRORS as error:
            raise as_engine_error(error, self.path) from error
        self._watch.notify()
        return outcomes

    def _set_identity(self, store_id: str, epoch: int) -> None:
        assert self._head_tracker is not None
        self.store_id, self.epoch = self._head_tracker.store_id, self._head_tracker.epoch = store_id, epoch

    def _run_read(self, work: Callable[[apsw.Connection], T]) -> T:
        """Run a read on a consistent file: `work` is called again after a checkpoint, and must keep no state."""
        for _ in range(MAX_READ_ATTEMPTS - 1):
            connection, mark = self._file.reader(), self._file.presence.read_mark()
            try:
                result = work(connection)
                settled = self._file.presence.is_unchanged_since(mark)
            except BaseException as error:
                record_errno(error, connection)
                # An unfinished statement would keep this connection in its read snapshot.
                self._file.pool.discard(connection)
                if self._is_genuine(error, mark):
                    raise
                continue
            self._file.pool.return_reader(connection)
            if settled:
                return result
        return self._run_read_once(work)

    def _is_genuine(self, error: BaseException, mark: Mark) -> bool:
        """Whether an error was not caused by a concurrent checkpoint.

        Raises StoreDamaged if the file was overwritten.
        """
        if not isinstance(error, (apsw.Error, StoreDamaged, CorruptEvent)) or error is self._file.presence.overwritten:
            return True
        try:
            settled = self._file.presence.is_unchanged_since(mark)
        except StoreDamaged as damage:
            raise damage from error
        if not settled and self._file.presence.damage is error:
            self._file.presence.damage = None
        return settled

    def _run_read_once(self, work: Callable[[apsw.Connection], T]) -> T:
        connection = self._file.reader()
        try:
            self._file.presence.check_overwritten()
            result = work(connection)
            self._file.presence.check_overwritten()
        except BaseException as error:
            record_errno(error, connection)
            self._file.pool.discard(connection)
            raise
        self._file.pool.return_reader(connection)
        return result

    def _read_head(self, connection: apsw.Connection) -> Head:
        assert self._head_tracker is not None
        return self._head_tracker.read_head(connection)

    def _event_at(self, connection: apsw.Connection, position: int) -> StoredEvent | None:
        event = self._rows.event_at(connection, position)
        if event is None and 0 < position <= self._read_head(connection).position:
            # Another writer may have appended it between the two queries.
            event = self._rows.event_at(connection, position)
            if event is None:
                raise missing_error(position)
        return event

    @translate_errors
    async def read(self, query: Query, span: Span) -> Page:
        """See the port."""

        def page(connection: apsw.Connection) -> Page:
            head = self._read_head(connection).position
            return read_page(connection, self._rows, self._names, head, query, span)

        return self._run_read(page)

    @translate_errors
    async def head(self) -> Head:
        """See the port."""
        return self._run_read(self._read_head)

    @translate_errors
    async def count(self, query: Query, after: int = 0, until: int | None = None) -> int:
        """See the port."""

        def counted(connection: apsw.Connection) -> int:
            head = self._read_head(connection).position
            end = head if until is None else min(until, head)
            if not query.items or end <= after:
                return max(0, end - after)
            return queries.count_matches(self._names.lookup(connection, end), query, after, end)

        return self._run_read(counted)

    @translate_errors
    async def position_at(self, time: int) -> int:
        """See the port. Time never decreases along the log, so bisecting the positions needs no index."""

        def bisected(connection: apsw.Connection) -> int:
            low, high = 0, self._read_head(connection).position
            while low < high:
                middle = (low + high + 1) // 2
                event = self._event_at(connection, middle)
                assert event is not None
                low, high = (middle, high) if event.time <= time else (low, middle - 1)
            return low

        return self._run_read(bisected)

    @translate_errors
    async def event_id(self, position: int) -> bytes | None:
        """See the port."""
        event = self._run_read(lambda connection: self._event_at(connection, position))
        return event.id if event else None

    @translate_errors
    async def boundary(self, position: int) -> int:
        """See the port."""
        event = self._run_read(lambda connection: self._event_at(connection, position))
        return event.last if event else position

    @translate_errors
    async def receipt_of(self, key: str) -> Receipt | None:
        """See the port."""

        def found(connection: apsw.Connection) -> Receipt | None:
            row = connection.execute(schema.BY_KEY, (key,)).fetchone()
            if row is None:
                return None
            return make_receipt(self.store_id, self.epoch, self._rows.append_at(connection, decode_request_key(row)[1]))

        return self._run_read(found)

    @translate_errors
    async def types(self) -> list[TypeCount]:
        """See the port."""

        # Events are never deleted: within an epoch only events after the last count have to be counted.
        def counted(connection: apsw.Connection) -> tuple[dict[str, TypeCount], int, list[TypeCount]]:
            head = self._read_head(connection).position
            names = self._names.lookup(connection, head)
            epoch, through, known = self._type_counts
            until = min(names.indexed, head)
            if epoch != self.epoch or through > until:
                through, known = 0, dict[str, TypeCount]()
            found = summaries.count_types(names, known, through, until)
            return found, until, summaries.types_with_tail(found, names.segments, head)

        epoch = self.epoch
        found, through, types = self._run_read(counted)
        self._type_counts = (epoch, through, found)  # cached only after a consistent read
        return types

    @translate_errors
    async def tags(self, prefix: str = "", limit: int = 1000, after: str = "") -> list[TagCount]:
        """See the port."""

        def counted(connection: apsw.Connection) -> list[TagCount]:
            head = self._read_head(connection).position
            return summaries.count_tags(self._names.lookup(connection, head), prefix, limit, after, head)

        return self._run_read(counted)

    @translate_errors
    async def stats(self) -> dict[str, Any]:
        """See the port."""

        def facts(connection: apsw.Connection) -> dict[str, Any]:
            through, head = read_through(connection), self._read_head(connection).position  # never behind the head
            return {
                "engine": self.name,
                "path": self._file.path,
                "store": self.store_id,
                "epoch": self.epoch,
                **({"copy_of": copy_of} if (copy_of := self._writer and self._writer.copy_of) else {}),
                "events": head,
                "types": connection.execute("SELECT count(*) FROM type").get,
                "tags": summaries.count_all_tags(self._names, connection, head),
                "indexed_through": through,
                "index_runs": len(complete_runs(connection)),
                "tail_events": head - through,
                "tail_bytes": self._names.tail.memory,
                **({"merge_error": error.what} if (error := self._merge_error()) else {}),
                "bytes": connection.pragma("page_count") * connection.pragma("page_size"),
                "wal_bytes": _file_size(self._file.real_path + "-wal"),
                "created": read_identity(connection).created,
                "durability": "full" if self.capabilities.durable else "normal",
                **(
                    {"file_system": f"{kind}: {NOT_DURABLE}"}
                    if (kind := memory_file_system(self._file.real_path))
                    else {}
                ),
                "layout": schema.LAYOUT,
                "sqlite": apsw.sqlite_lib_version(),
            }

        return self._run_read(facts)

    def _merge_error(self) -> EventfoldError | None:
        """Why the tail is not merged, if it is not."""
        return (self._writer and self._writer.merging.error) or self._names.tail.damage

    def check(self, progress: Progress = lambda _done, _all: None) -> Iterator[Problem]:
        """Compare all redundant data in the file and yield each difference.

        Reads verify the rows that they find; only this check finds rows that a damaged index hides. `progress` is
        called with the number of events compared so far and the total. Appends and reads may continue meanwhile.
        """
        try:
            yield from find_problems(self._run_read, progress, self.store_id, self._file.path)
        except apsw.Error as error:
            raise translate_error(error, self._file.path) from error

    def watch(self, notify: Callable[[], None]) -> Callable[[], None]:
        """See the port. Commits of other processes are detected by polling every few milliseconds."""
        self._file.check()
        return self._watch.add(notify)

    def backup(self, path: str) -> None:
        """Write a consistent copy to another path while the store is in use. The copy begins a new epoch."""
        self._copy(path)

    def _copy(self, path: str, *, keep_identity: bool = False) -> None:
        complete = False

        def copy(connection: apsw.Connection) -> None:
            nonlocal complete
            backup(connection, path, keep_identity=keep_identity)
            complete = True

        try:
            self._run_read_once(copy)
        except BaseException as error:
            if complete:  # the file was found overwritten afterwards: pages of two files may be in the copy
                with suppress(OSError):
                    os.remove(path)
            if isinstance(error, apsw.Error):
                raise translate_error(error, self._file.path) from error
            raise

    async def close(self) -> None:
        """See the port. A forked child closes nothing: the file belongs to the parent."""
        if self._file.is_inherited:
            return
        self._watch.close()
        self._locks.close()
        if self._writer is not None:
            self._writer.close()
        self._file.close()
        self._watch.notify()  # last, so that notified followers find the store closed

    def __repr__(self) -> str:
        return f"SqliteEngine({self.path!r})"


def _file_size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
