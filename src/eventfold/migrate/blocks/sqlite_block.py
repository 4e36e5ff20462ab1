"""The block of writers on SQLite: triggers that refuse a writer, unless a row says that the transaction is ours.

A file has one writer at a time, so that the row which our transaction inserts and deletes again is seen by no other.
SQLite has no users and no server: a refusal has its table, its operation and its moment. It is kept if the writer does
not roll its transaction back, since nothing in a SQLite file outlives a rollback. RAISE(FAIL) keeps what the statement
did before: that is nothing but the record, unless a trigger or a cascade of the application comes first; on
such tables the statement is undone, and its record with it.
Knows: SQL of SQLite. Does not know: events, when writers are blocked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from eventfold.migrate.blocks.block import ADVICE, Refusal, Refusals
from eventfold.migrate.connection import Connection, quoted
from eventfold.migrate.reflection import Table, reflect
from eventfold.migrate.sources.sqlite_triggers import NOW_US

OPERATIONS = {"I": "INSERT", "U": "UPDATE", "D": "DELETE"}


class SqliteBlock:
    """The block of one migration. `connection` may write."""

    def __init__(self, connection: Connection, name: str) -> None:
        self._connection, self._prefix = connection, f"eventfold_{name}"
        self._writer, self._refused = quoted(f"{self._prefix}_writer"), quoted(f"{self._prefix}_refused")

    def refuse(self, tables: Sequence[Table]) -> None:
        """Do nothing: who may write to a file may block its writers."""

    def install(self, tables: Sequence[Table]) -> None:
        """Create the two tables and the triggers, in one transaction."""
        ask = self._connection
        others = [
            each
            for table in reflect(ask).tables
            for each in (*(t for t in table.triggers if not t.name.startswith("eventfold_")), *_cascades(table))
        ]
        ask.begin()
        try:
            ask.run(f"CREATE TABLE IF NOT EXISTS {self._writer} (one INTEGER PRIMARY KEY, seq INTEGER)")
            ask.run(
                f"CREATE TABLE IF NOT EXISTS {self._refused} (number INTEGER PRIMARY KEY AUTOINCREMENT, "
                "at INTEGER NOT NULL, label TEXT NOT NULL, op TEXT NOT NULL)"
            )
            for table in tables:
                for name, statement in self._triggers(table, keeps=not others):
                    ask.run(f"DROP TRIGGER IF EXISTS {quoted_name(name)}")
                    ask.run(statement)
            ask.commit()
        except BaseException:
            ask.rollback()
            raise

    def remove(self, tables: Sequence[Table]) -> None:
        """Drop the triggers, and the two tables after the last ones."""
        ask = self._connection
        ask.begin()
        try:
            for table in tables:
                for name, _ in self._triggers(table, keeps=True):
                    ask.run(f"DROP TRIGGER IF EXISTS {quoted_name(name)}")
            if not self._installed():
                ask.run(f"DROP TABLE IF EXISTS {self._writer}")
                ask.run(f"DROP TABLE IF EXISTS {self._refused}")
            ask.commit()
        except BaseException:
            ask.rollback()
            raise

    def gaps(self, tables: Sequence[Table]) -> list[str]:
        """Return the tables that do not have every trigger."""
        there = self._installed()
        return [each.label for each in tables if not {name for name, _ in self._triggers(each, keeps=True)} <= there]

    def refusals(self, after: int) -> Refusals:
        """Return the refusals that were not rolled back."""
        if not self._connection.rows("SELECT 1 FROM sqlite_schema WHERE name = ?", [f"{self._prefix}_refused"]):
            return Refusals()
        rows = self._connection.rows(
            f"SELECT number, label, op, at FROM {self._refused} WHERE number > ? ORDER BY number",  # noqa: S608
            [after],
        )
        found = tuple(Refusal(number, label, OPERATIONS[op], at) for number, label, op, at in rows)
        return Refusals(found, found[-1].number if found else after)

    @property
    def permitted(self) -> tuple[Sequence[str], Sequence[str]]:
        """The row by which the triggers know our transaction."""
        return (f"INSERT INTO {self._writer} (one) VALUES (1)",), (f"DELETE FROM {self._writer}",)  # noqa: S608

    def _installed(self) -> set[str]:
        rows = self._connection.rows("SELECT name FROM sqlite_schema WHERE type = 'trigger'")
        return {name for (name,) in rows if name.startswith(f"{self._prefix}_block_")}

    def _triggers(self, table: Table, keeps: bool) -> Iterator[tuple[str, str]]:
        label = table.label.replace("'", "''")
        for op, operation in OPERATIONS.items():
            name = f"{self._prefix}_block_{op}_{table.label}"
            message = f"{label} is written by events since its cutover: this {operation} is refused; {ADVICE}"
            record = f"INSERT INTO {self._refused} (at, label, op) VALUES ({NOW_US}, '{label}', '{op}'); "
            body = f"{record if keeps else ''}SELECT RAISE({'FAIL' if keeps else 'ABORT'}, '{message}');"
            when = f"BEFORE {operation} ON {table.sql} WHEN NOT EXISTS (SELECT 1 FROM {self._writer})"  # noqa: S608
            yield name, f"CREATE TRIGGER {quoted_name(name)} {when} BEGIN {body} END"


def quoted_name(name: str) -> str:
    """Return a name, which may have a dot, as an identifier."""
    return '"' + name.replace('"', '""') + '"'


def _cascades(table: Table) -> list[object]:
    return [key for key in table.foreign_keys if key.cascades]
