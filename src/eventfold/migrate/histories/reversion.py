"""django-reversion: a table of versions with a model as JSON, and one of revisions with the time.

Knows: its columns, Django's JSON. Does not know: events.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from eventfold.errors import MigrationError
from eventfold.migrate.connection import Connection
from eventfold.migrate.histories.change import (
    Change,
    as_json,
    column_names,
    content_types,
    field_columns,
    text_of,
    when_of,
)
from eventfold.migrate.mapping import History
from eventfold.migrate.reflection import Schema

NAME = "django-reversion"
VERSION = {"object_id", "content_type_id", "revision_id", "serialized_data", "format"}
REVISION = {"date_created", "comment", "user_id"}
REVISIONS = "reversion_revision"


def recognise(schema: Schema) -> dict[str, History]:
    """Return its two tables."""
    versions = [table.label for table in schema.tables if column_names(table) >= VERSION]
    revisions = [t.label for t in schema.tables if t.label == REVISIONS and column_names(t) >= REVISION]
    return {label: History(package=NAME) for label in (*versions, *revisions)} if versions and revisions else {}


def read(connection: Connection, schema: Schema, label: str, history: History) -> Iterator[Change]:
    """Yield the changes: the first version of a row is its insert, unless the row is older than the package.

    Deletes are not in it. A version in a format other than JSON is refused.
    """
    if label == REVISIONS:
        return
    labels = content_types(connection, schema)
    revisions = schema.table(REVISIONS)
    statement = (
        f"SELECT h.id, h.content_type_id, h.object_id, h.format, h.serialized_data, "  # noqa: S608
        f"{text_of(connection.dialect, 'r.date_created')}, r.user_id FROM {schema.table(label).sql} h "
        f"JOIN {revisions.sql} r ON r.id = h.revision_id ORDER BY h.content_type_id, h.object_id, r.date_created, h.id"
    )
    last = ("", "")
    for page in connection.pages(statement):
        for number, kind, object_id, form, data, when, who in page:
            target = labels.get(int(kind))
            if target is None:  # of a model that is gone
                continue
            if form != "json":
                raise MigrationError(
                    f"The version {label}/{number} is in the format {form}, and only json can be read.",
                    f"Set {label} to ignored in migration.toml.",
                    source=label,
                )
            table = schema.table(target)
            (content,) = json.loads(data)
            fields = {table.key[0]: content["pk"]} | content["fields"]
            where = f"{label}/{number}"
            values = {
                column: as_json(connection.dialect, table.column(column), fields[field], where)
                for field, column in field_columns(table, fields).items()
                if not isinstance(fields[field], list)  # a many-to-many field, which is a table of its own
            }
            yield Change(
                table=target,
                key=(values[table.key[0]],),
                operation="update" if last == (target, object_id) else "insert",
                values=values,
                when=when_of(when),
                who=None if who is None else str(who),
                source=where,
                is_whole=True,
            )
            last = (target, object_id)
