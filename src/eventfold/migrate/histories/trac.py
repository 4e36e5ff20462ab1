"""Trac: ticket_change, a row for each field that changed, with its old and its new value.

Times are whole numbers of microseconds. The values of a ticket at its birth are the first old values, and for fields
that never changed those of its row. Knows: its columns. Does not know: events.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any

from eventfold.migrate.connection import Connection, Row
from eventfold.migrate.histories.change import Change, column_names, plain_reader
from eventfold.migrate.mapping import History
from eventfold.migrate.reflection import Schema, Table

NAME = "trac"
OWN = {"ticket", "time", "author", "field", "oldvalue", "newvalue"}
CHANGED = "changetime"  # of the ticket: it says when, which is not what
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def recognise(schema: Schema) -> dict[str, History]:
    """Return ticket_change, if there are tickets."""
    labels = {table.label for table in schema.tables}
    return {
        table.label: History(package=NAME, of=table.label.removesuffix("_change"))
        for table in schema.tables
        if column_names(table) >= OWN and table.label.removesuffix("_change") in labels
    }


def read(connection: Connection, schema: Schema, label: str, history: History) -> Iterator[Change]:
    """Yield the changes: the birth of each ticket that still exists, then its changes, one for each time and author."""
    own = schema.table(history.of)
    names = [each.name for each in own.columns]
    chosen, readers = plain_reader(connection.dialect, own, names)
    statement = (
        f"SELECT c.time, c.author, c.field, c.oldvalue, c.newvalue, {chosen} FROM {own.sql} h "  # noqa: S608
        f"LEFT JOIN {schema.table(label).sql} c ON c.ticket = h.id ORDER BY h.id, c.time, c.field"
    )
    pages = connection.pages(statement)
    for _, lines in groupby((row for page in pages for row in page), key=lambda row: row[5 + names.index("id")]):
        rows = list(lines)
        row = {name: reader(value) for name, reader, value in zip(names, readers, rows[0][5:], strict=True)}
        yield from _of_ticket(own, label, row, [each for each in rows if each[2] is not None])


def _of_ticket(own: Table, label: str, row: dict[str, Any], rows: list[Row]) -> Iterator[Change]:
    fields = column_names(own)
    birth = {name: value for name, value in row.items() if name != CHANGED}
    seen: set[str] = set()
    for _, _, field, old, _, *_ in rows:
        if field in fields and field not in seen:
            seen.add(field)
            birth[field] = old
    key = (row["id"],)
    made = row.get("time")
    yield Change(
        table=own.label,
        key=key,
        operation="insert",
        values=birth,
        when=_moment(made),
        who=row.get("reporter"),
        source=f"{own.label}/{row['id']}",
        is_whole=True,
    )
    for (time, author), lines in groupby(rows, key=lambda each: (each[0], each[1])):
        changed = [each for each in lines if each[2] in fields]
        if changed:
            yield Change(
                table=own.label,
                key=key,
                operation="update",
                values={each[2]: each[4] for each in changed},
                before={each[2]: each[3] for each in changed},
                when=_moment(time),
                who=author,
                source=f"{label}/{row['id']}/{time}",
            )


def _moment(micros: Any) -> datetime | None:
    return EPOCH + timedelta(microseconds=int(micros)) if micros else None
