"""Room: the log in one SQLite file, no server: WAL, one writer at a time, readers that never wait.

Knows: which of its rooms answers which call of the port. Does not know: user classes, colours.
Failure domain: the disk the file is on. An acknowledged append survives kill -9 and power loss of the machine.
"""

from __future__ import annotations

import os
import time as _time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import apsw

from eventfold.engine import AppendRequest, Capabilities, Head, Outcome, Page, Span, TagCount, TypeCount
from eventfold.engines.sqlite import schema, snapshots
from eventfold.engines.sqlite.adopt import adopt, succeed
from eventfold.engines.sqlite.append import Writer
from eventfold.engines.sqlite.connect import File, backup
from eventfold.engines.sqlite.faults import in_our_words, translated
from eventfold.engines.sqlite.lock import WriterLock
from eventfold.engines.sqlite.names import Names
from eventfold.engines.sqlite.queries import Dictionary, positions
from eventfold.engines.sqlite.read import Rows, head_of, read_page
from eventfold.engines.sqlite.watch import Watch
from eventfold.errors import InvalidInput
from eventfold.query import Query
from eventfold.record import Receipt, Stored, receipt
from eventfold.snapshot import Snapshot

T = TypeVar("T")


def now_micros() -> int:
    """The clock: µs since 1970 UTC."""
    return _time.time_ns() // 1000


class SqliteEngine:
    """The port over one file.

    `durability` "full": fsync before every acknowledgement; "normal": up to the last commits may be lost in a
    power cut, none in a crash of the process. `timeout` seconds a writer waits for its turn. `readonly` opens
    the file without the right to write. `clock` gives µs since 1970 UTC.
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
        clock: Callable[[], int] = now_micros,
    ) -> None:
        if durability not in ("full", "normal"):
            raise InvalidInput(f"durability={durability!r} is unknown.", 'Use "full" (the default) or "normal".')
        if not path:
            raise InvalidInput("The path of the store is empty.", "Give a path, for example store.db.")
        self.capabilities = Capabilities(durable=durability == "full", pushes=False)
        self.store_id, self.epoch = "", 0
        self.path = path
        self._create, self._clock, self._timeout = create, clock, timeout
        self._file = File(path, readonly=readonly, full=durability == "full", timeout=timeout)
        self._types, self._tags = Names("type"), Names("tag")
        self._watch = Watch(self._file)
        self._writer: Writer | None = None

    @in_our_words
    async def open(self) -> None:
        """See the port."""
        self.store_id, self.epoch = self._file.open(self._create)
        self._writer = Writer(
            self._file,
            WriterLock(self._file.path, self._timeout),
            self._types,
            self._tags,
            (self.store_id, self.epoch),
            self._clock,
        )

    @in_our_words
    async def append_many(self, requests: Sequence[AppendRequest]) -> list[Outcome]:
        """See the port."""
        self._file.check()
        assert self._writer is not None
        outcomes = self._writer.write(requests)
        self._watch.ring()
        return outcomes

    def _reading(self, work: Callable[[apsw.Connection], T]) -> T:
        connection = self._file.reader()
        try:
            return work(connection)
        finally:
            self._file.done(connection)

    @in_our_words
    async def read(self, query: Query, span: Span) -> Page:
        """See the port."""
        return self._reading(lambda connection: read_page(connection, self._types, self._tags, query, span))

    @in_our_words
    async def head(self) -> Head:
        """See the port."""
        row = self._reading(lambda connection: connection.execute(schema.HEAD).fetchone())
        return Head(*row) if row else Head(0, 0, b"")

    @in_our_words
    async def count(self, query: Query, after: int = 0, until: int | None = None) -> int:
        """See the port."""

        def counted(connection: apsw.Connection) -> int:
            head = head_of(connection)
            end = head if until is None else min(until, head)
            if not query.items:
                return max(0, end - after)
            found = positions(Dictionary(connection, self._types, self._tags), query, after, end)
            if found.nothing:
                return 0
            return connection.execute(f"SELECT count(*) FROM ({found.sql('ASC')})", found.bindings).fetchone()[0]  # noqa: S608

        return self._reading(counted)

    @in_our_words
    async def position_at(self, time: int) -> int:
        """See the port. Time never decreases along the log, so bisecting the positions needs no index."""

        def bisected(connection: apsw.Connection) -> int:
            low, high = 0, head_of(connection)
            while low < high:
                middle = (low + high + 1) // 2
                found = connection.execute("SELECT time FROM event WHERE position = ?", (middle,)).fetchone()[0]
                low, high = (middle, high) if found <= time else (low, middle - 1)
            return low

        return self._reading(bisected)

    @in_our_words
    async def event_id(self, position: int) -> bytes | None:
        """See the port."""
        row = self._reading(lambda c: c.execute("SELECT id FROM event WHERE position = ?", (position,)).fetchone())
        return row[0] if row else None

    @in_our_words
    async def boundary(self, position: int) -> int:
        """See the port."""
        sql = 'SELECT position - ifnull("offset", 0) + ifnull(size, 1) - 1 FROM event WHERE position = ?'
        row = self._reading(lambda connection: connection.execute(sql, (position,)).fetchone())
        return row[0] if row else position

    @in_our_words
    async def request(self, key: str) -> Receipt | None:
        """See the port."""

        def found(connection: apsw.Connection) -> Receipt | None:
            row = connection.execute("SELECT first FROM request WHERE key = ?", (key,)).fetchone()
            if row is None:
                return None
            return receipt(self.store_id, self.epoch, Rows(connection, self._types).append_at(row[0]))

        return self._reading(found)

    @in_our_words
    async def types(self) -> list[TypeCount]:
        """See the port."""
        sql = """SELECT t.name, e.n, e.low, e.high FROM type t JOIN
            (SELECT type, count(*) n, min(position) low, max(position) high FROM event GROUP BY type) e
            ON e.type = t.id ORDER BY t.name"""
        return self._reading(lambda connection: [TypeCount(*row) for row in connection.execute(sql)])

    @in_our_words
    async def tags(self, prefix: str = "", limit: int = 1000, after: str = "") -> list[TagCount]:
        """See the port."""
        sql = """SELECT name, (SELECT count(*) FROM tagged WHERE tag = tag.id) FROM tag
            WHERE name >= ? AND name < ? AND name > ? ORDER BY name LIMIT ?"""
        bindings = (prefix, prefix + "\U0010ffff", after, limit)
        return self._reading(lambda connection: [TagCount(*row) for row in connection.execute(sql, bindings)])

    @in_our_words
    async def keys(self, after: str = "", limit: int = 1000) -> list[tuple[str, int]]:
        """See the port."""
        sql = "SELECT key, first FROM request WHERE key > ? ORDER BY key LIMIT ?"
        return self._reading(lambda connection: [(r[0], r[1]) for r in connection.execute(sql, (after, limit))])

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
        self.store_id, self.epoch = store_id, epoch
        self._writer.named(store_id, epoch)

    @in_our_words
    async def snapshot(self, key: str) -> Snapshot | None:
        """See the port."""
        return self._reading(lambda connection: snapshots.find(connection, key))

    @in_our_words
    async def keep_snapshot(self, key: str, snapshot: Snapshot) -> None:
        """See the port."""
        assert self._writer is not None
        self._writer.take_over(lambda connection, _types, _tags: snapshots.keep(connection, key, snapshot))

    @in_our_words
    async def drop_snapshots(self, prefix: str = "") -> int:
        """See the port."""
        assert self._writer is not None
        count: list[int] = []
        self._writer.take_over(lambda connection, _types, _tags: count.append(snapshots.drop(connection, prefix)))
        return count[0]

    @in_our_words
    async def stats(self) -> dict[str, Any]:
        """See the port."""

        def facts(connection: apsw.Connection) -> dict[str, Any]:
            row = connection.execute(schema.HEAD).fetchone()
            return {
                "engine": self.name,
                "path": self._file.path,
                "store": self.store_id,
                "epoch": self.epoch,
                "events": row[0] if row else 0,
                "types": connection.execute("SELECT count(*) FROM type").fetchone()[0],
                "tags": connection.execute("SELECT count(*) FROM tag").fetchone()[0],
                "bytes": connection.pragma("page_count") * connection.pragma("page_size"),
                "wal_bytes": _size(self._file.path + "-wal"),
                "created": connection.execute("SELECT created FROM store").fetchone()[0],
                "durability": "full" if self.capabilities.durable else "normal",
                "layout": schema.LAYOUT,
                "sqlite": apsw.sqlite_lib_version(),
            }

        return self._reading(facts)

    def watch(self, ring: Callable[[], None]) -> Callable[[], None]:
        """See the port. Commits of other processes are noticed by a poll every few milliseconds."""
        self._file.check()
        return self._watch.add(ring)

    def backup(self, path: str) -> None:
        """A consistent copy at another path, made while the store is in use; it begins a new epoch."""
        try:
            self._reading(lambda connection: backup(connection, path))
        except apsw.Error as error:
            raise translated(error, self._file.path) from error

    async def close(self) -> None:
        """See the port."""
        self._watch.close()
        if self._writer is not None:
            self._writer.close()
        self._file.close()

    def __repr__(self) -> str:
        return f"SqliteEngine({self.path!r})"


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
