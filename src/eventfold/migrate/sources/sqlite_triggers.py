"""Recording of changes in a SQLite file by triggers, into a table beside the others.

SQLite has one writer, so that numbers are in the order of commits; it does not say which changes were one transaction.
REPLACE deletes a row without a trigger, unless the writer has set `recursive_triggers`. So a trigger before each insert
records the row that is about to be replaced under the same key; a row that is replaced because of another unique
constraint is found by comparing keys (capture.py).
Knows: SQL and triggers of SQLite. Does not know: events.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from eventfold.errors import InvalidInput, SourceUnavailable
from eventfold.migrate.connection import Connection, connect, quoted
from eventfold.migrate.progress import Way
from eventfold.migrate.reflection import Table
from eventfold.migrate.sources.changes import (
    Backlog,
    Change,
    Image,
    Mark,
    Operation,
    Snapshot,
    Transaction,
    other_columns,
)

OPERATIONS: dict[str, Operation] = {"I": "insert", "U": "update", "D": "delete"}
ABOUT_TO_BE_REPLACED = "P"
LITERAL = re.compile(r"NULL|'(?:[^']|'')*'|X'[0-9A-Fa-f]*'|[-+0-9.eEinfINF]+", re.DOTALL)


class SqliteTriggers:
    """Triggers on some tables of a SQLite file. `name`: of the migration."""

    way: Way = "triggers"

    def __init__(self, address: str, name: str, tables: Sequence[Table]) -> None:
        self._connection: Connection = connect(address, readonly=False)
        self._prefix, self._tables = f"eventfold_{name}", {each.label: each for each in tables}
        self._change = quoted(f"{self._prefix}_change")

    def refuse(self) -> None:
        """Raise InvalidInput for tables on which SQLite has no triggers."""
        for each in self._tables.values():
            if each.kind not in ("table",):
                raise InvalidInput(
                    f"{each.label} is a {each.kind} table, on which SQLite has no triggers.",
                    "Set it to ignored in migration.toml, or migrate the tables behind it.",
                )

    def install(self) -> dict[str, str]:
        """Create the table and the triggers, in one transaction."""
        ask = self._connection
        ask.begin()
        try:
            ask.run(
                f"CREATE TABLE IF NOT EXISTS {self._change} (seq INTEGER PRIMARY KEY AUTOINCREMENT, "
                "at INTEGER NOT NULL, label TEXT NOT NULL, op TEXT NOT NULL, before TEXT, after TEXT)"
            )
            for table in self._tables.values():
                for name, statement in self._triggers(table):
                    ask.run(f"DROP TRIGGER IF EXISTS {name}")
                    ask.run(statement)
            ask.commit()
        except BaseException:
            ask.rollback()
            raise
        return {}

    def remove(self, undo: Mapping[str, str]) -> None:
        """Drop the triggers and the table."""
        del undo
        ask = self._connection
        ask.begin()
        for table in self._tables.values():
            for name, _ in self._triggers(table):
                ask.run(f"DROP TRIGGER IF EXISTS {name}")
        ask.run(f"DROP TABLE IF EXISTS {self._change}")
        ask.commit()

    def is_installed(self) -> bool:
        """Whether the table and every trigger is there."""
        there = {row[0] for row in self._connection.rows("SELECT name FROM sqlite_schema WHERE type = 'trigger'")}
        wanted = {name[1:-1].replace('""', '"') for table in self._tables.values() for name, _ in self._triggers(table)}
        return wanted <= there and self._has_table()

    def snapshot(self, connection: Connection) -> Snapshot:
        """Return the snapshot that sees every change up to the last one."""
        found = connection.rows("SELECT seq FROM sqlite_sequence WHERE name = ?", [f"{self._prefix}_change"])
        last = found[0][0] if found else 0
        return Snapshot(last + 1, last + 1)

    def point(self, connection: Connection) -> str:
        """Return nothing: the snapshot says it all."""
        del connection
        return ""

    def waits(self, snapshot: Snapshot, point: str) -> bool:
        """Whether a recorded change that the snapshot sees is still there."""
        del point
        return bool(self._connection.rows(f"SELECT 1 FROM {self._change} WHERE seq < ? LIMIT 1", [snapshot.end]))

    def changes(self, limit: int) -> list[Transaction]:
        """Return the first changes, each as a transaction of its own."""
        rows = self._connection.rows(
            f"SELECT seq, at, label, op, before, after FROM {self._change} ORDER BY seq LIMIT {limit}"  # noqa: S608
        )
        if len(rows) == limit > 1 and rows[-1][3] == ABOUT_TO_BE_REPLACED:
            rows.pop()  # what follows it says whether it was replaced
        return list(self._transactions(rows))

    def acknowledge(self, transactions: Sequence[Transaction]) -> None:
        """Delete the changes up to the last of these."""
        if transactions:
            self._connection.run(f"DELETE FROM {self._change} WHERE seq <= ?", [transactions[-1].unit])  # noqa: S608

    def backlog(self) -> Backlog:
        """Return how many changes wait."""
        return Backlog(self._connection.rows(f"SELECT count(*) FROM {self._change}")[0][0])  # noqa: S608

    @property
    def unrecorded(self) -> tuple[Sequence[str], Sequence[str]]:
        """Delete at the end what the triggers recorded in this transaction; a file has one writer at a time."""
        mark, since = quoted(f"{self._prefix}_writer"), f"{self._prefix}_change"
        return (
            (f"UPDATE {mark} SET seq = (SELECT seq FROM sqlite_sequence WHERE name = '{since}')",),
            (f"DELETE FROM {self._change} WHERE seq > (SELECT coalesce(seq, 0) FROM {mark})",),
        )

    def close(self) -> None:
        """End the process."""
        self._connection.close()

    def _transactions(self, rows: Sequence[tuple[Any, ...]]) -> Iterator[Transaction]:
        replaced: tuple[int, str, Image] | None = None
        for seq, at, label, op, before, after in rows:
            table = self._tables.get(label)
            if table is None:
                continue
            if op == ABOUT_TO_BE_REPLACED:
                image = _change(table, "delete", (seq, 0), before, None).before
                replaced = None if image is None else (seq, label, image)
                continue
            change = _change(table, OPERATIONS[op], (seq, 0), before, after)
            if op == "I" and replaced is not None and change.after is not None and replaced[:2] == (seq - 1, label):
                old, new = replaced[2], change.after
                if all(old[each] == new[each] for each in table.key):
                    change = msgspec.structs.replace(change, operation="update", before=old)
            replaced = None
            yield Transaction(str(seq), seq, str(seq), at, (change,))

    def _has_table(self) -> bool:
        return bool(self._connection.rows("SELECT 1 FROM sqlite_schema WHERE name = ?", [f"{self._prefix}_change"]))

    def _triggers(self, table: Table) -> Iterator[tuple[str, str]]:
        label = "'" + table.label.replace("'", "''") + "'"
        old, new = _literals(table, "OLD"), _literals(table, "NEW")
        for op, when, before, after in (
            ("I", "AFTER INSERT", "NULL", new),
            ("U", "AFTER UPDATE", old, new),
            ("D", "AFTER DELETE", old, "NULL"),
        ):
            name = _name(f"{self._prefix}_{op}_{table.label}")
            insert = f"INSERT INTO {self._change} (at, label, op, before, after)"
            values = f"VALUES ({NOW_US}, {label}, '{op}', {before}, {after})"
            yield name, f"CREATE TRIGGER {name} {when} ON {table.sql} BEGIN {insert} {values}; END"
        if table.key:
            name = _name(f"{self._prefix}_{ABOUT_TO_BE_REPLACED}_{table.label}")
            same = " AND ".join(f"{_name(each)} IS NEW.{_name(each)}" for each in table.key)
            insert = f"INSERT INTO {self._change} (at, label, op, before)"
            values = f"SELECT {NOW_US}, {label}, '{ABOUT_TO_BE_REPLACED}', {_literals(table, '')}"
            rows = f"FROM {table.sql} WHERE {same}"
            yield name, f"CREATE TRIGGER {name} BEFORE INSERT ON {table.sql} BEGIN {insert} {values} {rows}; END"


NOW_US = "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) * 1000"  # to the millisecond


def _name(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _literals(table: Table, of: str) -> str:
    """Return the expression of an image: each column as a literal of SQL, which is exact for each type."""
    prefix = f"{of}." if of else ""
    return " || ',' || ".join(f"quote({prefix}{_name(each.name)})" for each in table.columns)


def _change(table: Table, op: Operation, mark: Mark, before: str | None, after: str | None) -> Change:
    images: list[Image | None] = []
    for text in (before, after):
        values = None if text is None else literal_values(text)
        if values is not None and len(values) != len(table.columns):
            problem = other_columns(table.label, len(values), len(table.columns))
            return Change(table.label, op, mark, problem=problem)
        images.append(
            None if values is None else {each.name: value for each, value in zip(table.columns, values, strict=True)}
        )
    return Change(table.label, op, mark, images[0], images[1])


def literal_values(text: str) -> list[Any]:
    """Return the values of literals as SQLite's `quote` writes them, with commas between them."""
    found: list[Any] = []
    at = 0
    while at < len(text):
        match = LITERAL.match(text, at)
        if match is None:
            raise SourceUnavailable("A recorded change cannot be read.", "Read its table again with --reread.")
        found.append(_value(match[0]))
        at = match.end() + 1
    return found


def _value(literal: str) -> Any:
    if literal == "NULL":
        return None
    if literal[0] == "'":
        return literal[1:-1].replace("''", "'")
    if literal[0] == "X":
        return bytes.fromhex(literal[2:-1])
    return int(literal) if literal.lstrip("-").isdigit() else float(literal)
