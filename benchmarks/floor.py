"""The raw floor: what the SQLite drivers reach when they maintain the same tables as the SQLite engine.

Knows: the engine's schema and its indispensable statements. Does not know: eventfold's appender, reader, registry.
It does the least possible work: it receives ready payloads, looks up tag and type ids in a dict, and validates, checks,
digests and combines nothing.
"""

from __future__ import annotations

import itertools
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

import apsw

from benchmarks.peers import DECODE, payload_of
from benchmarks.traffic import TYPE, Scan, Traffic, scans
from eventfold.engines.sqlite.schema import COLUMNS, CREATE, INSERT_EVENT, INSERT_TAGGED

PAGE = f"SELECT {COLUMNS} FROM event WHERE position > ? ORDER BY position LIMIT 1000"
ENTITY = (
    f"SELECT {', '.join('event.' + column.strip() for column in COLUMNS.split(','))} FROM tagged JOIN event"
    " USING (position) WHERE tag = ? AND tagged.type = 1 AND position > ? ORDER BY position LIMIT 1000"
)
TAG = "INSERT INTO tag (id, name) VALUES (?, ?)"
TRIGGERS = "SELECT name FROM sqlite_schema WHERE type = 'trigger'"
DATA = 4  # the column of the payload
SETTINGS = ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL")


class Raw:
    """A connection, the dictionaries, the next position: a writer by hand. One thread at a time."""

    name = "raw"

    def __init__(self, folder: Path, stored: int) -> None:
        self.path = folder / "raw.db"
        self.connection: Any = self._connect(self.path)
        self.execute: Callable[..., Any] = self.connection.execute
        for setting in SETTINGS:
            self.execute(setting)
        if not self.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            self._create()
        self.position: int = self.execute("SELECT ifnull(max(position), 0) FROM event").fetchone()[0]
        self.tags: dict[str, int] = {name: number for number, name in self.execute("SELECT id, name FROM tag")}
        self.traffic = Traffic(stored)
        self._tail = itertools.count()

    def _connect(self, path: Path) -> Any:
        raise NotImplementedError

    def _create(self) -> None:
        """Create the engine's tables and indexes; its triggers protect the log and do not belong to a floor."""
        statement = ""
        for line in CREATE.splitlines():
            statement += line.partition("--")[0] + "\n"
            if sqlite3.complete_statement(statement):
                self.execute(statement)
                statement = ""
        for (name,) in self.execute(TRIGGERS).fetchall():
            self.execute(f"DROP TRIGGER {name}")
        self.execute("INSERT INTO type (id, name) VALUES (1, ?)", (TYPE,))

    @classmethod
    def seed(cls, folder: Path, stored: int) -> None:
        """Write the stored events, 1,000 in a transaction."""
        contender = cls(folder, stored)
        everything = scans(0, stored)
        for start in range(0, stored, 1000):
            contender.write(everything[start : start + 1000])
        contender.close()

    def write(self, events: Iterable[Scan], payload: bytes | None = None, parcel: str | None = None) -> None:
        """Write one transaction: the events' rows, the tags' rows, new tags into the dictionary."""
        execute, tags = self.execute, self.tags
        execute("BEGIN IMMEDIATE")
        now = time.time_ns() // 1000
        position = self.position
        for each in events:
            position += 1
            names = (f"depot:{each.depot}", f"parcel:{parcel or each.parcel}")
            identity = time.time_ns().to_bytes(8) + position.to_bytes(8)  # grows with time, as a UUIDv7 does
            data, joined = payload or payload_of(each), "\n".join(names)
            execute(
                INSERT_EVENT,
                (position, identity, 1, 1, data, joined, now, None, None, None, None, None, None, crc32(data)),
            )
            for name in names:
                number = tags.get(name)
                if number is None:
                    number = tags[name] = len(tags) + 1
                    execute(TAG, (number, name))
                execute(INSERT_TAGGED, (number, position, 1))
        execute("COMMIT")
        self.position = position

    def caller(self, events: int = 1) -> Callable[[], Any]:
        """Return a caller: each call writes `events` new rows, with a ready payload."""
        write, traffic = self.write, self.traffic
        payload = payload_of(traffic.one())
        if events == 1:
            return lambda: write((traffic.one(),), payload)
        return lambda: write(traffic.some(events), payload)

    def entity(self, events: int) -> int:
        """Write a parcel with so many events. Returns its tag id."""
        parcel = f"long-{next(self._tail)}"
        for start in range(0, events, 1000):
            self.write(self.traffic.some(min(1000, events - start)), parcel=parcel)
        return self.tags[f"parcel:{parcel}"]

    def load(self, tag: int) -> Any:
        """Read a parcel's payloads by pages, decode them into structs and fold them by hand."""
        weight = count = after = 0
        while page := self.connection.execute(ENTITY, (tag, after)).fetchall():
            for row in page:
                weight = DECODE(row[DATA]).weight
                count += 1
            after = page[-1][0]
            if len(page) < 1000:
                break
        return weight, count

    def rows(self) -> Iterator[Any]:
        """Yield the whole log as bare rows, all columns, in pages of 1,000."""
        after = 0
        while page := self.connection.execute(PAGE, (after,)).fetchall():
            yield from page
            after = page[-1][0]

    def close(self) -> None:
        """Close the connection; SQLite copies the WAL into the file."""
        self.connection.close()


class RawSqlite(Raw):
    """A writer with the standard library's driver."""

    name = "raw sqlite3"

    def _connect(self, path: Path) -> Any:
        return sqlite3.connect(path, isolation_level=None, check_same_thread=False)


class RawApsw(Raw):
    """A writer with the driver that eventfold uses."""

    name = "raw apsw"

    def _connect(self, path: Path) -> Any:
        return apsw.Connection(str(path))
