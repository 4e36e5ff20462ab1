"""Tables of states: the old and the new value of one column of another table, with the time, such as django-oscar's.

Knows: the shape of such a table. Does not know: events.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from eventfold.migrate.connection import Connection
from eventfold.migrate.histories.change import Change, column_names, plain_reader, quote, text_of, when_of
from eventfold.migrate.kinds import kind_of
from eventfold.migrate.mapping import History
from eventfold.migrate.reflection import ForeignKey, Schema, Table

NAME = "states"
NEW = re.compile(r"(?:new|to)_(\w+)")


def recognise(schema: Schema) -> dict[str, History]:
    """Return tables with old_X, new_X, one time, and a foreign key to a table that has a column X."""
    found: dict[str, History] = {}
    for table in schema.tables:
        shape = _shape(schema, table)
        if shape is not None:
            found[table.label] = History(package=NAME, of=shape[1].table)
    return found


def _shape(schema: Schema, table: Table) -> tuple[str, ForeignKey, str, str, str] | None:
    """Return the column that it is about, the foreign key, the columns of the old and new value, and of the time."""
    names = column_names(table)
    times = [each.name for each in table.columns if kind_of(schema.dialect, each) in ("datetime", "moment")]
    for name in sorted(names):
        state = NEW.fullmatch(name)
        old = (
            next((f"{prefix}_{state[1]}" for prefix in ("old", "from") if f"{prefix}_{state[1]}" in names), "")
            if state
            else ""
        )
        if state is None or not old or len(times) != 1:
            continue
        for key in table.foreign_keys:
            if len(key.columns) == 1 and any(
                each.label == key.table and state[1] in column_names(each) for each in schema.tables
            ):
                return state[1], key, old, name, times[0]
    return None


def read(connection: Connection, schema: Schema, label: str, history: History) -> Iterator[Change]:
    """Yield the changes."""
    table = schema.table(label)
    shape = _shape(schema, table)
    if shape is None:
        return
    column, key, old, new, time = shape
    chosen, readers = plain_reader(connection.dialect, table, [key.columns[0], old, new])
    identity = quote(table.key[0]) if table.key else "NULL"
    statement = (
        f"SELECT h.{identity}, {text_of(connection.dialect, f'h.{quote(time)}')}, {chosen} FROM {table.sql} h "  # noqa: S608
        f"ORDER BY h.{quote(key.columns[0])}, h.{quote(time)}, 1"
    )
    for page in connection.pages(statement):
        for number, when, *row in page:
            owner, before, after = (reader(value) for reader, value in zip(readers, row, strict=True))
            yield Change(
                table=history.of,
                key=(owner,),
                operation="update",
                values={column: after},
                before={column: before},
                when=when_of(when),
                source=f"{label}/{number}",
            )
