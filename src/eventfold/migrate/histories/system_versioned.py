"""System-versioned tables: of MariaDB, and PostgreSQL's tables …_history with a range sys_period.

Knows: their columns and clauses. Does not know: events.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from eventfold.migrate.connection import Connection
from eventfold.migrate.histories.change import Change, column_names, plain_reader, quote, when_of
from eventfold.migrate.mapping import History
from eventfold.migrate.reflection import Schema, Table

NAME = "system-versioned"
PERIOD = "sys_period"


def recognise(schema: Schema) -> dict[str, History]:
    """Return tables …_history with a period. A system-versioned table of MariaDB is its own: see `own_history`."""
    labels = {table.label for table in schema.tables}
    return {
        table.label: History(package=NAME, of=table.label.removesuffix("_history"))
        for table in schema.tables
        if PERIOD in column_names(table)
        and table.label.endswith("_history")
        and table.label.removesuffix("_history") in labels
    }


def own_history(table: Table) -> History | None:
    """Return the history that a table keeps of itself."""
    return History(package=NAME, of=table.label) if table.period is not None else None


def read(connection: Connection, schema: Schema, label: str, history: History) -> Iterator[Change]:
    """Yield the changes: each version of a row is an insert or an update, and the end of the last one a delete."""
    table, own = schema.table(label), schema.table(history.of)
    period = table.period
    names = [each.name for each in own.columns if each.name in column_names(table) and each.name not in (period or ())]
    names = [name for name in names if name != PERIOD]
    chosen, readers = plain_reader(connection.dialect, table, names)
    order = ", ".join(f"h.{quote(name)}" for name in own.key)
    if period is not None:
        start, end = (f"CAST(h.{quote(name)} AS CHAR)" for name in period)
        versions = f"{table.sql} FOR SYSTEM_TIME ALL h"
    else:
        both = ", ".join(map(quote, (*names, PERIOD)))
        start, end = f"lower(h.{PERIOD})::text", f"upper(h.{PERIOD})::text"
        versions = f"(SELECT {both} FROM {table.sql} UNION ALL SELECT {both} FROM {own.sql}) h"  # noqa: S608
    statement = f"SELECT {start}, {end}, {chosen} FROM {versions} ORDER BY {order}, 1"  # noqa: S608
    before: tuple[tuple[Any, ...], Any, dict[str, Any]] | None = None
    for page in connection.pages(statement):
        for begins, ends, *row in page:
            values = {name: reader(value) for name, reader, value in zip(names, readers, row, strict=True)}
            key = tuple(values[name] for name in own.key)
            follows = before is not None and before[0] == key and before[1] == begins
            if before is not None and not follows:
                yield from _ended(history, label, before)
            yield Change(
                table=history.of,
                key=key,
                operation="update" if follows else "insert",
                values=values,
                before=before[2] if follows and before is not None else None,
                when=when_of(begins),
                source=f"{label}/{'/'.join(map(str, key))}/{begins}",
                is_whole=True,
            )
            before = (key, ends, values)
    if before is not None:
        yield from _ended(history, label, before)


def _ended(history: History, label: str, last: tuple[tuple[Any, ...], Any, dict[str, Any]]) -> Iterator[Change]:
    """Yield a delete if the last version of a row has an end: that of one that exists is NULL, or beyond 2037."""
    key, ends, values = last
    moment = when_of(ends)
    if moment is not None and moment.year < 2038:
        source = f"{label}/{'/'.join(map(str, key))}/{ends}"
        yield Change(
            table=history.of, key=key, operation="delete", values={}, before=values, when=moment, source=source
        )
