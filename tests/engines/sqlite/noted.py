"""The events these SQLite tests write, and checks of a store file by SQL from outside the library."""

from __future__ import annotations

import os
import sqlite3
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import eventfold as ef
from eventfold.core.envelope import NewEvent, Receipt, new_id
from eventfold.core.query import ConditionClause
from eventfold.engines.sqlite import SqliteEngine
from eventfold.ports.messages import AppendRequest, Outcome


class Noted(ef.Event):
    """A note about someone at some place."""

    who: ef.Tag
    where: ef.Tag
    n: int
    text: str = ""


def noted(n: int, who: str | None = None) -> Noted:
    """Return the nth event of a test."""
    return Noted(who or f"w-{n % 7}", f"p-{n % 3}", n, "x" * (n % 50))


def raw(n: int = 0, *tags: str, type: str = "Noted", id: bytes | None = None) -> NewEvent:
    """Return an encoded event, for tests that call the engine directly."""
    return NewEvent(id or new_id(), type, 1, b'{"n":%d}' % n, tuple(sorted(tags)))


def request(*events: NewEvent, unless: Iterable[ConditionClause] = (), key: str | None = None) -> AppendRequest:
    """Return an append request for the engine."""
    return AppendRequest(events, tuple(unless), key)


def written(outcome: Outcome) -> Receipt:
    """Return the receipt of an append that must have been written."""
    assert isinstance(outcome, Receipt), outcome
    return outcome


def engine_of(store: ef.Store) -> SqliteEngine:
    """Return the engine of a store."""
    assert isinstance(store.engine, SqliteEngine)
    return store.engine


def merge(engine: SqliteEngine) -> None:
    """Merge the whole tail of an engine into the index tables, and forget it."""
    writer = engine._writer
    assert writer is not None
    writer.merging.written += 1_000_000  # as if all of it were its own
    writer._run_alone(writer._final_merge)
    writer.merging.written -= 1_000_000
    engine._names.tail.forget()


def files(path: Path) -> list[Path]:
    """Return a store file and the files that belong to it, as far as they exist."""
    return [found for end in ("", "-wal", "-shm", ".lock") if (found := Path(f"{path}{end}")).exists()]


def opened(folder: str) -> list[str]:
    """Return the paths under a folder that this process has open."""
    found: list[str] = []
    for number in os.listdir("/proc/self/fd"):
        try:
            path = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:  # the descriptor that os.listdir used
            continue
        if path.startswith(folder):
            found.append(path)
    return found


def foreign(path: Path | str, sql: str, *bindings: Any) -> list[tuple[Any, ...]]:
    """Run one statement on the file as another program would: on a connection of the standard library's SQLite."""
    connection = sqlite3.connect(path, timeout=10, isolation_level=None)
    try:
        return connection.execute(sql, bindings).fetchall()
    finally:
        connection.close()


def entries_of_index(connection: sqlite3.Connection) -> list[tuple[int, int, int]]:
    """Tag, position and type of every entry of the complete runs, read from the bytes of their postings."""
    found: list[tuple[int, int, int]] = []
    for tag, last, type, data in connection.execute(
        "SELECT tag, last, type, positions FROM posting WHERE run IN (SELECT id FROM run WHERE state = 1)"
    ).fetchall():
        numbers = struct.unpack(f"<{len(data) // 4}I", data) or (last,)
        size = len(numbers) if type else len(numbers) // 2
        types = [type] * size if type else numbers[size:]
        found += zip([tag] * size, numbers[:size], types, strict=True)
    return found


def assert_whole(path: Path | str) -> int:
    """Check rows, tag index and dictionaries against each other by SQL of its own. Returns the number of events."""
    connection = sqlite3.connect(path, timeout=10, isolation_level=None)
    try:
        connection.execute("BEGIN")  # one snapshot: a process may merge meanwhile
        rows = connection.execute(
            'SELECT position, id, tags, type, ifnull("offset", 0), ifnull(size, 1) FROM event ORDER BY position'
        ).fetchall()
        names = dict(connection.execute("SELECT id, name FROM tag"))
        names |= {-number: number for (number,) in connection.execute("SELECT id FROM type")}
        index = [(position, names[tag], type) for tag, position, type in entries_of_index(connection)]
        ends = connection.execute('SELECT start, "end" FROM run WHERE state = 1 ORDER BY start').fetchall()
        (through,) = connection.execute("SELECT through FROM indexed").fetchone()
        (intact,) = connection.execute("PRAGMA integrity_check").fetchone()
    finally:
        connection.close()
    assert intact == "ok"
    assert [row[0] for row in rows] == list(range(1, len(rows) + 1)), "positions are not contiguous"
    assert len({row[1] for row in rows}) == len(rows), "an id is there twice"
    entries = {(row[0], tag, row[3]) for row in rows for tag in (row[3], *row[2].split("\n")) if tag}
    assert through <= len(rows), "the mark of the index is behind the last event"
    assert set(index) == {each for each in entries if each[0] <= through}, "the index differs"
    assert len(index) == len(set(index)), "the index has entries twice"
    assert [0, *[end for _, end in ends]] == [*[start for start, _ in ends], through], "the runs do not adjoin"
    left = 0
    for position, _, _, _, offset, size in rows:
        assert offset == (0 if left == 0 else size - left), f"an append is cut at {position}"
        left = (size if left == 0 else left) - 1
    assert left == 0, "the last append is cut"
    return len(rows)
