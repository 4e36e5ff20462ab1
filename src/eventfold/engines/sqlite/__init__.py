"""Room: the log in one SQLite file, no server: WAL, one writer at a time, readers that never wait.

Knows: which of its rooms answers which call of the port. Does not know: user classes, colours.
Failure domain: the disk the file is on. An acknowledged append survives kill -9 and power loss of the machine.
"""

from __future__ import annotations

import os
import time as _time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import apsw

from eventfold.engine import (
    AppendRequest,
    Capabilities,
    Folder,
    Head,
    Outcome,
    Page,
    Restored,
    Span,
    TagCount,
    Turn,
    TypeCount,
    Upgraded,
)
from eventfold.engines.sqlite import many, schema, snapshots
from eventfold.engines.sqlite.adopt import adopt, succeed
from eventfold.engines.sqlite.check import problems
from eventfold.engines.sqlite.connect import File
from eventfold.engines.sqlite.duplicate import backup
from eventfold.engines.sqlite.end import End
from eventfold.engines.sqlite.faults import disagreement, in_our_words, keep_errno, translated
from eventfold.engines.sqlite.identity import identity_of
from eventfold.engines.sqlite.inline import enrolled
from eventfold.engines.sqlite.layouts import upgrade
from eventfold.engines.sqlite.named import NamedLocks
from eventfold.engines.sqlite.names import Names
from eventfold.engines.sqlite.overwritten import Mark
from eventfold.engines.sqlite.queries import Dictionary, positions
from eventfold.engines.sqlite.read import Rows, first_of, missing, read_page
from eventfold.engines.sqlite.restored import begin_epoch
from eventfold.engines.sqlite.system import NOT_DURABLE, file_system
from eventfold.engines.sqlite.watch import Watch
from eventfold.engines.sqlite.writer import Writer
from eventfold.errors import CorruptEvent, InvalidInput, StoreDamaged, Unreadable
from eventfold.inlined import Inlined
from eventfold.integrity import Problem, Progress
from eventfold.query import Query
from eventfold.record import Receipt, Stored, receipt
from eventfold.snapshot import Snapshot

T = TypeVar("T")
MOST_READS = 5  # of one question, if a checkpoint ran beside every one before


def now_micros() -> int:
    """The clock: µs since 1970 UTC."""
    return _time.time_ns() // 1000


class SqliteEngine:
    """The port over one file.

    `durability` "full": fsync before every acknowledgement; "normal": a power cut may take every append since the last
    checkpoint of the WAL, a crash of the process takes none. `timeout` seconds a writer waits for its turn. `readonly`
    opens the file without the right to write. A file that is not used for `max_idle` seconds is closed until its next
    use; a store that is followed is in use. `clock` gives µs since 1970 UTC.
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
        clock: Callable[[], int] = now_micros,
    ) -> None:
        if durability not in ("full", "normal"):
            raise InvalidInput(f"durability={durability!r} is unknown.", 'Use "full" (the default) or "normal".')
        if not path:
            raise InvalidInput("The path of the store is empty.", "Give a path, for example store.db.")
        self.capabilities = Capabilities(durable=durability == "full", pushes=False, inline=True)
        self.store_id, self.epoch = "", 0
        self.path = path
        self._create, self._clock, self._timeout = create, clock, timeout
        self._file = File(path, readonly=readonly, full=durability == "full", timeout=timeout, max_idle=max_idle)
        self._types, self._tags = Names("type"), Names("tag")
        self._rows = Rows(self._types)
        self._watch = Watch(self._file)
        self._locks = NamedLocks(self._file.real)
        self._end: End | None = None
        self._counted = (0, 0, dict[str, int]())  # events of each type: in which epoch, up to which position
        self._writer: Writer | None = None

    @property
    def default_target(self) -> str:
        """See the port: the file itself."""
        path = self._file.path
        return f"sqlite:{path[1:] if path.startswith('//') else path}"  # sqlite:// would begin a URL

    @in_our_words
    async def open(self) -> None:
        """See the port."""
        self.store_id, self.epoch, _ = self._file.open(self._create)
        try:
            self._end = End(self._file, self._rows, self.store_id, self.epoch)
            self._writer = Writer(self._file, self._types, self._tags, self._rows, self._end, self._clock)
            self._reading(self._end.look)
        except Unreadable:  # a last event that is corrupt is told to whoever reads; the rest can be looked at
            return
        except BaseException:
            self._file.close()
            raise

    @in_our_words
    async def upgrade(self, copy: str | None = None, *, copies: bool = True) -> Upgraded:
        """Bring a store of an older layout to this eventfold's. Call it on an engine that is not open.

        A copy is written first, to `copy` or beside the store, unless `copies` is false. Nothing else may have the
        file open: StoreBusy otherwise. Whatever fails, or ends the process, the store stays as it was.
        """
        return upgrade(self._file, self._timeout, copy, copies)

    @in_our_words
    async def restored(self) -> Restored:
        """Let a new epoch begin, after a restore by other tools. Call it on an engine that is not open, before others.

        The engine is closed afterwards. Raises the errors of opening, but not that the last event acknowledged here
        is gone.
        """
        return begin_epoch(self._file, self._timeout)

    @in_our_words
    async def append_many(self, requests: Sequence[AppendRequest]) -> list[Outcome]:
        """See the port."""
        self._file.check()
        assert self._writer is not None
        outcomes = self._writer.write(requests)
        self._watch.ring()
        return outcomes

    def _reading(self, work: Callable[[apsw.Connection], T]) -> T:
        """What `work` reads, of one moment: it is called again if a checkpoint ran beside it, so it keeps nothing."""
        for _ in range(MOST_READS - 1):
            connection, mark = self._file.reader(), self._file.mark()
            try:
                result = work(connection)
                settled = self._file.is_settled(mark)
            except BaseException as error:
                keep_errno(error, connection)
                # A statement left half done would keep this connection in the snapshot of now.
                self._file.pool.discard(connection)
                if self._is_of_one_moment(error, mark):
                    raise
                continue
            self._file.pool.done(connection)
            if settled:
                return result
        return self._reading_once(work)

    def _is_of_one_moment(self, error: BaseException, mark: Mark) -> bool:
        """Whether an error is not of a read beside a checkpoint. Raises StoreDamaged if the file was overwritten."""
        if not isinstance(error, (apsw.Error, StoreDamaged, CorruptEvent)) or error is self._file.overwritten:
            return True
        try:
            settled = self._file.is_settled(mark)
        except StoreDamaged as damage:
            raise damage from error
        if not settled and self._file.damage is error:
            self._file.damage = None
        return settled

    def _reading_once(self, work: Callable[[apsw.Connection], T]) -> T:
        connection = self._file.reader()
        try:
            self._file.is_settled(self._file.mark())  # raises if it was overwritten
            result = work(connection)
            self._file.is_settled(self._file.mark())
        except BaseException as error:
            keep_errno(error, connection)
            self._file.pool.discard(connection)
            raise
        self._file.pool.done(connection)
        return result

    def _look(self, connection: apsw.Connection) -> Head:
        assert self._end is not None
        return self._end.look(connection)

    def _at(self, connection: apsw.Connection, position: int) -> Stored | None:
        event = self._rows.at(connection, position)
        if event is None and 0 < position <= self._look(connection).position:
            # Between the two looks somebody may have written it.
            event = self._rows.at(connection, position)
            if event is None:
                raise missing(position)
        return event

    @in_our_words
    async def read(self, query: Query, span: Span) -> Page:
        """See the port."""

        def page(connection: apsw.Connection) -> Page:
            head = self._look(connection).position
            return read_page(connection, self._rows, (self._types, self._tags), head, query, span)

        return self._reading(page)

    @in_our_words
    async def head(self) -> Head:
        """See the port."""
        return self._reading(self._look)

    @in_our_words
    async def count(self, query: Query, after: int = 0, until: int | None = None) -> int:
        """See the port."""

        def counted(connection: apsw.Connection) -> int:
            head = self._look(connection).position
            end = head if until is None else min(until, head)
            if not query.items or end <= after:
                return max(0, end - after)
            names = Dictionary(connection, self._types, self._tags)
            asked = names.spelled(query)
            if many.many(asked):
                return many.count(names, asked, after, end)
            found = positions(names, asked, after, end)
            if found.nothing:
                return 0
            return connection.execute(f"SELECT count(*) FROM ({found.sql('ASC')})", found.bindings).get  # noqa: S608

        return self._reading(counted)

    @in_our_words
    async def position_at(self, time: int) -> int:
        """See the port. Time never decreases along the log, so bisecting the positions needs no index."""

        def bisected(connection: apsw.Connection) -> int:
            low, high = 0, self._look(connection).position
            while low < high:
                middle = (low + high + 1) // 2
                event = self._at(connection, middle)
                assert event is not None
                low, high = (middle, high) if event.time <= time else (low, middle - 1)
            return low

        return self._reading(bisected)

    @in_our_words
    async def event_id(self, position: int) -> bytes | None:
        """See the port."""
        event = self._reading(lambda connection: self._at(connection, position))
        return event.id if event else None

    @in_our_words
    async def position_of(self, id: bytes) -> int | None:
        """See the port."""
        row = self._reading(lambda connection: connection.execute(schema.POSITION_OF, (id,)).fetchone())
        return None if row is None else row[0]

    @in_our_words
    async def boundary(self, position: int) -> int:
        """See the port."""
        event = self._reading(lambda connection: self._at(connection, position))
        return event.last if event else position

    @in_our_words
    async def request(self, key: str) -> Receipt | None:
        """See the port."""

        def found(connection: apsw.Connection) -> Receipt | None:
            row = connection.execute(schema.BY_KEY, (key,)).fetchone()
            if row is None:
                return None
            return receipt(self.store_id, self.epoch, self._rows.append_at(connection, first_of(row)[1]))

        return self._reading(found)

    @in_our_words
    async def types(self) -> list[TypeCount]:
        """See the port."""
        # Events are never taken away: of what was counted before, in this epoch, only what came since is counted.
        sql = """SELECT t.id, (SELECT count(*) FROM event WHERE type = t.id AND position > ? AND position <= ?),
            (SELECT min(position) FROM event WHERE type = t.id),
            (SELECT max(position) FROM event WHERE type = t.id AND position <= ?) FROM type t"""

        def counted(connection: apsw.Connection) -> tuple[list[TypeCount], tuple[int, int]]:
            head, epoch = self._look(connection).position, self.epoch
            known_epoch, through, counts = self._counted
            if known_epoch != epoch or through > head:
                through, counts = 0, dict[str, int]()
            found: list[TypeCount] = []
            for type, more, first, last in connection.execute(sql, (through, head, head)):
                if last is not None:
                    name = self._types.name(connection, type)
                    found.append(TypeCount(name, counts.get(name, 0) + more, first, last))
            return found, (epoch, head)

        found, through = self._reading(counted)  # remembered only now: what is read beside a checkpoint is read again
        self._counted = (*through, {each.type: each.count for each in found})
        return sorted(found, key=lambda each: each.type)

    @in_our_words
    async def tags(self, prefix: str = "", limit: int = 1000, after: str = "") -> list[TagCount]:
        """See the port."""
        # The index gives the names in order, the table those that belong to the numbers: they have to agree.
        sql = """SELECT name, (SELECT count(*) FROM tagged WHERE tag = t.id),
            (SELECT min(position) FROM tagged WHERE tag = t.id), (SELECT max(position) FROM tagged WHERE tag = t.id),
            (SELECT name FROM tag WHERE id = t.id)
            FROM tag t WHERE name >= ? AND name < ? AND name > ? ORDER BY name LIMIT ?"""
        bindings = (prefix, prefix + "\U0010ffff", after, limit)

        def counted(connection: apsw.Connection) -> list[TagCount]:
            found: list[TagCount] = []
            for name, count, first, last, again in connection.execute(sql, bindings):
                if name != again:
                    raise disagreement(f"the tags {name!r} and {again!r} have one number")
                if not count:
                    raise disagreement(f"the tag {name!r} has no events")
                found.append(TagCount(name, count, first, last))
            return found

        return self._reading(counted)

    @in_our_words
    async def keys(self, after: str = "", limit: int = 1000) -> list[tuple[str, int]]:
        """See the port."""
        return self._reading(lambda connection: list(map(first_of, connection.execute(schema.KEYS, (after, limit)))))

    @in_our_words
    async def adopt(self, events: Sequence[Stored], keys: Sequence[tuple[str, int]] = ()) -> None:
        """See the port."""
        assert self._writer is not None
        self._writer.take_over(lambda connection, types, tags: adopt(connection, types, tags, events, keys))
        self._watch.ring()

    @in_our_words
    async def succeed(self, store_id: str, epoch: int) -> None:
        """See the port."""
        assert self._writer is not None
        self._writer.take_over(lambda connection, _types, _tags: succeed(connection, store_id, epoch))
        assert self._end is not None
        self.store_id, self.epoch = self._end.store_id, self._end.epoch = store_id, epoch

    @in_our_words
    async def snapshot(self, key: str) -> Snapshot | None:
        """See the port."""
        return self._reading(lambda connection: snapshots.find(connection, self.store_id, key, self.path))

    @in_our_words
    async def keep_snapshot(self, key: str, snapshot: Snapshot) -> None:
        """See the port."""
        assert self._writer is not None
        self._writer.take_over(
            lambda connection, _types, _tags: snapshots.keep(connection, self.store_id, key, snapshot)
        )

    @in_our_words
    async def drop_snapshots(self, prefix: str = "") -> int:
        """See the port."""
        assert self._writer is not None
        count: list[int] = []
        self._writer.take_over(lambda connection, _types, _tags: count.append(snapshots.drop(connection, prefix)))
        return count[0]

    @in_our_words
    async def try_lock(self, name: str, owner: str) -> str | None:
        """See the port."""
        self._file.check()
        return self._locks.take(name, owner)

    @in_our_words
    async def unlock(self, name: str) -> None:
        """See the port."""
        self._locks.give_back(name)

    def fold_with(self, folder: Folder) -> None:
        """See the port."""
        assert self._writer is not None
        self._writer.folder = folder

    @in_our_words
    async def inlined(self) -> list[Inlined]:
        """See the port."""
        return self._reading(enrolled)

    @in_our_words
    async def in_turn(self, work: Callable[[Turn], Awaitable[None]]) -> None:
        """See the port."""
        self._file.check()
        assert self._writer is not None
        self._writer.turn(work)
        self._watch.ring()

    @in_our_words
    async def stats(self) -> dict[str, Any]:
        """See the port."""

        def facts(connection: apsw.Connection) -> dict[str, Any]:
            return {
                "engine": self.name,
                "path": self._file.path,
                "store": self.store_id,
                "epoch": self.epoch,
                "events": self._look(connection).position,
                "types": connection.execute("SELECT count(*) FROM type").get,
                "tags": connection.execute("SELECT count(*) FROM tag").get,
                "bytes": connection.pragma("page_count") * connection.pragma("page_size"),
                "wal_bytes": _size(self._file.real + "-wal"),
                "created": identity_of(connection).created,
                "durability": "full" if self.capabilities.durable else "normal",
                **({"file_system": f"{kind}: {NOT_DURABLE}"} if (kind := file_system(self._file.real)) else {}),
                "layout": schema.LAYOUT,
                "sqlite": apsw.sqlite_lib_version(),
            }

        return self._reading(facts)

    def check(self, progress: Progress = lambda _done, _all: None) -> Iterator[Problem]:
        """Compare everything in the file that is written twice: yields what is not as it was written.

        Reads verify what they find; only this finds what an index hides. `progress` is called with the number of
        events compared so far and in all. Appends and reads may go on meanwhile.
        """
        try:
            yield from problems(self._reading, progress, self.store_id)
        except apsw.Error as error:
            raise translated(error, self._file.path) from error

    def watch(self, ring: Callable[[], None]) -> Callable[[], None]:
        """See the port. Commits of other processes are noticed by a poll every few milliseconds."""
        self._file.check()
        return self._watch.add(ring)

    def backup(self, path: str) -> None:
        """A consistent copy at another path, made while the store is in use; it begins a new epoch."""
        complete = False

        def copy(connection: apsw.Connection) -> None:
            nonlocal complete
            backup(connection, path)
            complete = True

        try:
            self._reading_once(copy)
        except BaseException as error:
            if complete:  # the file was found overwritten afterwards: pages of two files may be in the copy
                with suppress(OSError):
                    os.remove(path)
            if isinstance(error, apsw.Error):
                raise translated(error, self._file.path) from error
            raise

    async def close(self) -> None:
        """See the port. In a forked child nothing is closed: it is the parent's."""
        if self._file.inherited:
            return
        self._watch.close()
        self._locks.close()
        if self._writer is not None:
            self._writer.close()
        self._file.close()
        self._watch.ring()  # only now: whoever looks finds the store closed

    def __repr__(self) -> str:
        return f"SqliteEngine({self.path!r})"


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
