"""The raw floor and the prototype: what the SQLite driver reaches by hand, with the tables of the SQLite engine.

Knows: the engine's schema and its indispensable statements. Does not know: eventfold's appender, reader, registry.

The floor writes the rows of events and their unique ids, and nothing else: no index of tags, no conditions. The
prototype also makes events findable by their tags, in the way of the engine: an index in memory for the newest events,
merged into the tables in the order of their keys. Both receive ready payloads; they encode, validate and hash nothing.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import apsw

from benchmarks.peers import DECODE, payload_of
from benchmarks.traffic import TYPE, Scan, Traffic, scans
from eventfold.engines.sqlite.schema import COLUMNS, CREATE, INSERT_EVENT

PAGE = f"SELECT {COLUMNS} FROM event WHERE position > ? ORDER BY position LIMIT 1000"
ENTITY = (
    f"SELECT {', '.join('event.' + column.strip() for column in COLUMNS.split(','))} FROM tagged JOIN event"
    " USING (position) WHERE tag = ? AND tagged.type = 1 AND position > ? ORDER BY position LIMIT 1000"
)
# An index of one row for each tag of an event, in one tree.
CREATE_TAGGED = """CREATE TABLE IF NOT EXISTS tagged (
    tag INTEGER NOT NULL, position INTEGER NOT NULL, type INTEGER NOT NULL, PRIMARY KEY (tag, position, type)
) STRICT, WITHOUT ROWID"""
INSERT_TAGGED = "INSERT OR IGNORE INTO tagged (tag, position, type) VALUES (?,?,?)"
TAG = "INSERT INTO tag (id, name) VALUES (?, ?)"
TRIGGERS = "SELECT name FROM sqlite_schema WHERE type = 'trigger'"
DATA = 4  # the column of the payload
CHECKSUM = 0x5EED5EED  # the same for every row: it takes its place on disk, and no time
SETTINGS = ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL")
MERGE = 4_096  # events of the prototype that are merged at once


class RawApsw:
    """The floor: a connection and the next position. One thread at a time."""

    name = "raw apsw"

    def __init__(self, folder: Path, stored: int) -> None:
        self.path = folder / "raw.db"
        self.connection = apsw.Connection(str(self.path))
        for setting in SETTINGS:
            self.connection.execute(setting)
        if not self.connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            self._create()
        self.position: int = self.connection.execute("SELECT ifnull(max(position), 0) FROM event").fetchone()[0]
        self.traffic = Traffic(stored)

    def _create(self) -> None:
        """Create the engine's tables; its triggers protect the log and do not belong to a floor."""
        self.connection.execute(CREATE)
        for (name,) in self.connection.execute(TRIGGERS).fetchall():
            self.connection.execute(f"DROP TRIGGER {name}")
        self.connection.execute("INSERT INTO type (id, name) VALUES (1, ?)", (TYPE,))

    @classmethod
    def seed(cls, folder: Path, stored: int) -> None:
        """Write the stored events."""
        contender = cls(folder, stored)
        contender.fill(scans(0, stored))
        contender.close()

    def fill(self, events: Sequence[Scan]) -> None:
        """Write many events, 1,000 in a transaction."""
        for start in range(0, len(events), 1000):
            self.write(events[start : start + 1000])

    def write(self, events: Sequence[Scan], payload: bytes | None = None, parcel: str | None = None) -> None:
        """Write one transaction."""
        rows = self._rows(events, payload, parcel)
        self.connection.execute("BEGIN IMMEDIATE")
        self._insert(rows)
        self.connection.execute("COMMIT")

    def _insert(self, rows: list[tuple[Any, ...]]) -> None:
        self.connection.executemany(INSERT_EVENT, rows)

    def _rows(self, events: Sequence[Scan], payload: bytes | None, parcel: str | None) -> list[tuple[Any, ...]]:
        now = time.time_ns()
        time_us, identity = now // 1000, now.to_bytes(8)  # ids grow with time, as a UUIDv7 does
        size = len(events) if len(events) > 1 else None
        rows: list[tuple[Any, ...]] = []
        for offset, each in enumerate(events):
            self.position += 1
            rows.append(
                (
                    self.position,
                    identity + self.position.to_bytes(8),
                    1,
                    1,
                    payload or payload_of(each),
                    f"depot:{each.depot}\nparcel:{parcel or each.parcel}",
                    time_us,
                    None,
                    None,
                    offset if size else None,
                    size,
                    None,
                    None,
                    CHECKSUM,
                )
            )
        return rows

    def caller(self, events: int = 1) -> Callable[[], Any]:
        """Return a caller: each call writes `events` new rows, with a ready payload."""
        write, traffic = self.write, self.traffic
        payload = payload_of(traffic.one())
        if events == 1:
            return lambda: write((traffic.one(),), payload)
        return lambda: write(traffic.some(events), payload)

    def rows(self) -> Iterator[Any]:
        """Yield the whole log as bare rows, all columns, in pages of 1,000."""
        after = 0
        while page := self.connection.execute(PAGE, (after,)).fetchall():
            yield from page
            after = page[-1][0]

    def close(self) -> None:
        """Close the connection; SQLite copies the WAL into the file."""
        self.connection.close()


class Prototype(RawApsw):
    """The floor, with tags that are merged later: the newest in a dictionary, the others in the engine's tables."""

    name = "prototype"

    def __init__(self, folder: Path, stored: int) -> None:
        super().__init__(folder, stored)
        self.connection.execute(CREATE_TAGGED)
        self.tags: dict[str, int] = {n: number for number, n in self.connection.execute("SELECT id, name FROM tag")}
        self._newest: dict[str, list[int]] = {}
        self._merged = self.position
        self._numbers = itertools.count()

    def _insert(self, rows: list[tuple[Any, ...]]) -> None:
        super()._insert(rows)
        newest = self._newest
        for row in rows:
            for name in row[5].split("\n"):
                newest.setdefault(name, []).append(row[0])
        if self.position - self._merged >= MERGE:
            self._merge()

    def _merge(self) -> None:
        """Write the newest events' tags into the tables, in the order of their keys, within the open transaction."""
        tags, newest = self.tags, self._newest
        fresh = [name for name in sorted(newest) if name not in tags]
        tags.update(zip(fresh, range(len(tags) + 1, len(tags) + 1 + len(fresh)), strict=True))
        self.connection.executemany(TAG, ((tags[name], name) for name in fresh))
        entries = sorted((tags[name], position, 1) for name, positions in newest.items() for position in positions)
        types = ((-1, position, 1) for position in range(self._merged + 1, self.position + 1))
        self.connection.executemany(INSERT_TAGGED, itertools.chain(types, entries))
        newest.clear()
        self._merged = self.position

    def merge(self) -> None:
        """Merge what is left."""
        self.connection.execute("BEGIN IMMEDIATE")
        self._merge()
        self.connection.execute("COMMIT")

    def entity(self, events: int) -> int:
        """Write a parcel with so many events, and merge it. Returns its tag's id."""
        parcel = f"long-{next(self._numbers)}"
        for start in range(0, events, 1000):
            self.write(self.traffic.some(min(1000, events - start)), parcel=parcel)
        self.merge()
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

    def close(self) -> None:
        """Merge what is left, and close the connection."""
        self.merge()
        super().close()
