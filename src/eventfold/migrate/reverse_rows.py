"""Rows of the source from events that decisions wrote: the mapping read backwards, and the statements for it.

The events of one batch are folded to one effect for each row. Rows that are referred to are written first and deleted
last; a column that refers to a row of a later table (a cycle) is written after the rows are there. Identity columns are
written as they are, and their sequences advanced; generated columns are never written, hidden and dropped ones neither.

Knows: plans, codecs, SQL of rows. Does not know: logs, checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from eventfold.core.envelope import StoredEvent
from eventfold.errors import MigrationError
from eventfold.migrate.connection import Connection
from eventfold.migrate.decided import DecidedEvents
from eventfold.migrate.plan import Plan
from eventfold.migrate.reflection import Table


class RowEffect(msgspec.Struct):
    """What a batch does to one row. `values`: by column, as JSON; `opened`: the row is new, or was removed before."""

    label: str
    key: tuple[Any, ...]
    values: dict[str, Any]
    opened: bool = False
    removed: bool = False
    was_removed: bool = False


def obstacles(plan: Plan) -> list[str]:
    """Return why new rows of a table could not be written back: a column that must have a value is not in events."""
    found: list[str] = []
    for label, table in plan.tables.items():
        own = plan.mapping.tables[label]
        written = set(own.keep)
        found += [f"{label}.{each} is of the key, and is hidden" for each in own.key if each in own.hide]
        for column in table.columns:
            may_be_left_out = column.is_nullable or column.default is not None or column.is_identity
            if column.name not in written and not column.is_generated and not may_be_left_out:
                how = "hidden" if column.name in own.hide else "dropped"
                found.append(f"{label}.{column.name} is {how}, and a row must have a value there")
    return found


class Effects:
    """The effects of a batch of events, by row, in the order in which rows first appear."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.decided = DecidedEvents(plan.events)
        self.rows: dict[tuple[str, str], RowEffect] = {}

    def add(self, event: StoredEvent) -> None:
        """Fold an event. Raises InvalidInput if its key is missing, MappingIncomplete for a field that is no column."""
        decided = self.decided.read(event)
        codec = self._plan.events[decided.label].codec
        by_field = dict(zip(codec.fields, codec.columns, strict=True))
        values = {by_field[field]: value for field, value in decided.values.items()}
        row = self.rows.get((decided.label, decided.key))
        if row is None:
            row = self.rows[decided.label, decided.key] = RowEffect(decided.label, decided.identity, {})
        match decided.effect:
            case "open":
                row.was_removed = row.was_removed or row.removed
                row.values, row.opened, row.removed = values, True, False
            case "change":
                row.values = row.values | values
                row.removed = False
            case "remove":
                row.values, row.removed = {}, True


# ---------------------------------------------------------------------------------------- statements


class RowWriter:
    """Writes the effects of batches into the source, within the caller's transaction."""

    def __init__(self, connection: Connection, plan: Plan) -> None:
        self._connection, self._plan = connection, plan
        self._rank = {label: number for number, label in enumerate(plan.tables)}
        self._late = {label: self._late_columns(table) for label, table in plan.tables.items()}

    def write(self, effects: Iterable[RowEffect]) -> int:
        """Write the rows, and return how many statements changed one. Raises MigrationError, SourceUnavailable."""
        rows = sorted(effects, key=lambda row: self._rank[row.label])  # stable: within a table in the log's order
        written = 0
        for row in reversed([each for each in rows if each.removed or each.was_removed]):
            written += self._delete(row)
        late: list[tuple[RowEffect, dict[str, Any]]] = []
        for row in (each for each in rows if not each.removed):
            postponed = {name: row.values[name] for name in self._late[row.label] if row.values.get(name) is not None}
            if row.opened and postponed:
                late.append((row, postponed))
                self._insert(row, {name: v for name, v in row.values.items() if name not in postponed})
            elif row.opened:
                self._insert(row, row.values)
            else:
                self._update(row, row.values)
            written += 1
        for row, values in late:
            self._update(row, values)
        if self._connection.dialect == "postgresql":
            for label in {row.label for row in rows if row.opened}:
                self._advance_sequences(self._plan.tables[label])
        return written

    def _late_columns(self, table: Table) -> list[str]:
        """Return columns that may be NULL and refer to the table itself, or to one that is written later."""
        own = self._rank[table.label]
        return [
            name
            for key in table.foreign_keys
            if self._rank.get(key.table, -1) >= own and all(table.column(n).is_nullable for n in key.columns)
            for name in key.columns
        ]

    def _insert(self, row: RowEffect, values: dict[str, Any]) -> None:
        table, codec = self._plan.tables[row.label], self._plan.events[row.label].codec
        names = [name for name in values if not table.column(name).is_generated]
        always = "OVERRIDING SYSTEM VALUE " if self._connection.dialect == "postgresql" else ""
        places = ", ".join(codec.parameter(name, self._connection.mark) for name in names)
        self._connection.run(
            f"INSERT INTO {table.sql} ({', '.join(map(_name, names))}) {always}VALUES ({places})",  # noqa: S608
            [codec.codecs[name].from_json(values[name]) for name in names],
        )

    def _update(self, row: RowEffect, values: dict[str, Any]) -> None:
        table, codec = self._plan.tables[row.label], self._plan.events[row.label].codec
        names = [n for n in values if not table.column(n).is_generated and n not in codec.mapping.key]
        where, parameters = self._where(row)
        if not names:  # it says nothing that a column has: the row must be there all the same
            found = bool(self._connection.rows(f"SELECT 1 FROM {table.sql} WHERE {where}", parameters))  # noqa: S608
        else:
            changed = ", ".join(f"{_name(n)} = {codec.parameter(n, self._connection.mark)}" for n in names)
            given = [codec.codecs[name].from_json(values[name]) for name in names]
            statement = f"UPDATE {table.sql} SET {changed} WHERE {where}"  # noqa: S608
            found = self._connection.run(statement, [*given, *parameters]) > 0
        if not found:
            raise MigrationError(
                f"{row.label} has no row {'/'.join(map(str, row.key))}, which an event changes.",
                "Another writer deleted it, or its key was changed: compare, and correct the row before going on.",
                source=row.label,
            )

    def _delete(self, row: RowEffect) -> int:
        where, parameters = self._where(row)
        return min(1, self._connection.run(f"DELETE FROM {self._plan.tables[row.label].sql} WHERE {where}", parameters))  # noqa: S608

    def _where(self, row: RowEffect) -> tuple[str, Sequence[Any]]:
        codec = self._plan.events[row.label].codec
        names = codec.mapping.key
        conditions = [f"{_name(name)} = {codec.parameter(name, self._connection.mark)}" for name in names]
        given = [codec.codecs[name].from_json(value) for name, value in zip(names, row.key, strict=True)]
        return " AND ".join(conditions), given

    def _advance_sequences(self, table: Table) -> None:
        """Let the next row of the old application have a key beyond those written; other databases do so themselves."""
        for column in table.columns:
            if column.is_identity:
                greatest = f"(SELECT max({_name(column.name)}) FROM {table.sql})"  # noqa: S608
                self._connection.rows(
                    "SELECT setval(s, m) FROM (SELECT pg_get_serial_sequence(%s, %s) AS s, "  # noqa: S608
                    f"{greatest} AS m) q WHERE s IS NOT NULL AND coalesce(pg_sequence_last_value(s::regclass), 0) < m",
                    [table.sql, column.name],
                )


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
