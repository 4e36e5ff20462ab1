"""django-auditlog: one table with the old and the new value of each field, as text.

Knows: its columns. Does not know: events. A text "None" is taken for NULL, as the package writes both the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from eventfold.migrate.connection import Connection
from eventfold.migrate.histories.change import (
    Change,
    Operation,
    as_json,
    column_names,
    content_types,
    field_columns,
    text_of,
    when_of,
)
from eventfold.migrate.mapping import History
from eventfold.migrate.reflection import Schema

NAME = "django-auditlog"
OWN = {"object_pk", "content_type_id", "action", "changes", "timestamp", "actor_id"}
OPERATIONS: dict[int, Operation] = {0: "insert", 1: "update", 2: "delete"}  # 3 is an access


def recognise(schema: Schema) -> dict[str, History]:
    """Return the tables with its columns."""
    return {table.label: History(package=NAME) for table in schema.tables if column_names(table) >= OWN}


def read(connection: Connection, schema: Schema, label: str, history: History) -> Iterator[Change]:
    """Yield the changes."""
    labels = content_types(connection, schema)
    changes = text_of(connection.dialect, "h.changes")
    statement = (
        f"SELECT h.id, h.content_type_id, h.object_pk, h.action, {changes}, "  # noqa: S608
        f"{text_of(connection.dialect, 'h.timestamp')}, h.actor_id FROM {schema.table(label).sql} h "
        "ORDER BY h.content_type_id, h.object_pk, h.timestamp, h.id"
    )
    for page in connection.pages(statement):
        for number, kind, object_pk, action, changed, when, who in page:
            target, operation = labels.get(int(kind)), OPERATIONS.get(int(action))
            if target is None or operation is None:
                continue
            table, where = schema.table(target), f"{label}/{number}"
            content: dict[str, Any] = json.loads(changed or "{}")
            pairs: dict[str, list[Any]] = {name: pair for name, pair in content.items() if isinstance(pair, list)}
            columns = field_columns(table, pairs)
            old, new = (
                {
                    column: as_json(
                        connection.dialect,
                        table.column(column),
                        None if pairs[field][side] == "None" else pairs[field][side],
                        where,
                    )
                    for field, column in columns.items()
                }
                for side in (0, 1)
            )
            yield Change(
                table=target,
                key=(as_json(connection.dialect, table.column(table.key[0]), object_pk, where),),
                operation=operation,
                values={} if operation == "delete" else new,
                before=None if operation == "insert" else old,
                when=when_of(when),
                who=None if who is None else str(who),
                source=where,
            )
