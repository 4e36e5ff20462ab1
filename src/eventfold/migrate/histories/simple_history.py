"""django-simple-history: tables historical… with a whole row after each change.

Knows: its columns. Does not know: events.
"""

from __future__ import annotations

from collections.abc import Iterator

from eventfold.migrate.connection import Connection
from eventfold.migrate.histories.change import Change, Operation, column_names, plain_reader, quote, text_of, when_of
from eventfold.migrate.mapping import History
from eventfold.migrate.reflection import Schema

NAME = "django-simple-history"
OWN = {"history_id", "history_date", "history_type"}
OPERATIONS: dict[str, Operation] = {"+": "insert", "~": "update", "-": "delete"}


def recognise(schema: Schema) -> dict[str, History]:
    """Return the tables with its columns; the table of which one is the past has the other columns, and a like name."""
    found: dict[str, History] = {}
    for table in schema.tables:
        if column_names(table) >= OWN:
            past = table.label.replace("historical", "", 1)
            of = past if any(each.label == past for each in schema.tables) else ""
            found[table.label] = History(package=NAME, of=of)
    return found


def read(connection: Connection, schema: Schema, label: str, history: History) -> Iterator[Change]:
    """Yield the changes."""
    table, own = schema.table(label), schema.table(history.of)
    names = [each.name for each in own.columns if each.name in column_names(table)]
    chosen, readers = plain_reader(connection.dialect, table, names)
    who = "history_user_id" if "history_user_id" in column_names(table) else "NULL"
    moment = text_of(connection.dialect, "h.history_date")
    statement = (
        f"SELECT h.history_id, {moment}, h.history_type, {who}, {chosen} FROM {table.sql} h "  # noqa: S608
        f"ORDER BY {', '.join(f'h.{quote(name)}' for name in own.key)}, h.history_date, h.history_id"
    )
    for page in connection.pages(statement):
        for number, when, kind, user, *row in page:
            values = {name: reader(value) for name, reader, value in zip(names, readers, row, strict=True)}
            yield Change(
                table=history.of,
                key=tuple(values[name] for name in own.key),
                operation=OPERATIONS[kind],
                values=values,
                when=when_of(when),
                who=None if user is None else str(user),
                source=f"{label}/{number}",
                is_whole=True,
            )
