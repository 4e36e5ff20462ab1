"""postgresql-audit: a table of activities, written by triggers, with the old row and what changed as JSON.

Knows: its columns. Does not know: events.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from eventfold.migrate.connection import Connection
from eventfold.migrate.histories.change import Change, as_json, column_names, when_of
from eventfold.migrate.mapping import History
from eventfold.migrate.reflection import Schema, Table

NAME = "postgresql-audit"
OWN = {"verb", "old_data", "changed_data", "table_name", "schema_name", "issued_at"}
VERBS = ("insert", "update", "delete")


def recognise(schema: Schema) -> dict[str, History]:
    """Return its table of activities, and that of transactions beside it."""
    found = {table.label: History(package=NAME) for table in schema.tables if column_names(table) >= OWN}
    if found:
        found |= {
            table.label: History(package=NAME)
            for table in schema.tables
            if table.name == "transaction" and column_names(table) >= {"native_transaction_id", "issued_at"}
        }
    return found


def read(connection: Connection, schema: Schema, label: str, history: History) -> Iterator[Change]:
    """Yield the changes, in the order in which they were written."""
    table = schema.table(label)
    if not column_names(table) >= OWN:
        return
    default = {each.schema: each for each in schema.tables if each.label == each.name}
    by_name = {(each.schema, each.name): each for each in schema.tables}
    statement = (
        "SELECT h.id, h.schema_name, h.table_name, h.verb, h.old_data::text, h.changed_data::text, h.issued_at::text "  # noqa: S608
        f"FROM {table.sql} h ORDER BY h.id"
    )
    for page in connection.pages(statement):
        for number, schema_name, name, verb, old_data, changed, when in page:
            target = by_name.get((schema_name, name)) or by_name.get((next(iter(default), None), name))
            if target is None or verb not in VERBS:
                continue
            where = f"{label}/{number}"
            old, new = (_row(connection, target, text, where) for text in (old_data, changed))
            whole = old | new
            yield Change(
                table=target.label,
                key=tuple(whole.get(column) for column in target.key),
                operation=verb,
                values={} if verb == "delete" else new,
                before=None if verb == "insert" else old,
                when=when_of(when),
                source=where,
                is_whole=verb == "insert",
            )


def _row(connection: Connection, table: Table, text: str | None, where: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(text or "{}", parse_float=Decimal)
    names = column_names(table)
    return {
        name: as_json(connection.dialect, table.column(name), value, where)
        for name, value in content.items()
        if name in names
    }
