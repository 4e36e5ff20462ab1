"""Roundup: tables …__journal with the old values of each change, which are folded backwards from the row as it is.

Knows: its columns, values as Python literals. Does not know: events. A row that was destroyed has no values to begin
from: its changes are left out.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from eventfold.errors import MigrationError
from eventfold.migrate.connection import Connection, Row
from eventfold.migrate.histories.change import Change, as_json, column_names, plain_reader
from eventfold.migrate.mapping import History
from eventfold.migrate.reflection import Schema, Table

NAME = "roundup"
SUFFIX = "__journal"
OWN = {"nodeid", "date", "tag", "action", "params"}
RETIRED = "__retired__"
DERIVED = ("_activity", "_actor")  # who changed the row last, and when: the journal says so of each change


def recognise(schema: Schema) -> dict[str, History]:
    """Return the journals."""
    labels = {table.label for table in schema.tables}
    return {
        table.label: History(package=NAME, of=f"_{table.label.removesuffix(SUFFIX)}")
        for table in schema.tables
        if table.label.endswith(SUFFIX)
        and column_names(table) >= OWN
        and f"_{table.label.removesuffix(SUFFIX)}" in labels
    }


def read(connection: Connection, schema: Schema, label: str, history: History) -> Iterator[Change]:
    """Yield the changes."""
    own = schema.table(history.of)
    names = [each.name for each in own.columns]
    chosen, readers = plain_reader(connection.dialect, own, names)
    at = {"postgresql": "to_char(j.date, 'YYYYMMDDHH24MISS.MS')"} if _is_time(schema.table(label)) else {}
    statement = (
        f"SELECT {at.get(connection.dialect, 'j.date')}, j.tag, j.action, j.params, {chosen} FROM {own.sql} h "  # noqa: S608
        f"JOIN {schema.table(label).sql} j ON j.nodeid = h.id ORDER BY h.id, j.date"
    )
    pages = connection.pages(statement)
    for _, lines in groupby((row for page in pages for row in page), key=lambda row: row[4 + names.index("id")]):
        rows = list(lines)
        row = {name: reader(value) for name, reader, value in zip(names, readers, rows[0][4:], strict=True)}
        yield from reversed(list(_backwards(connection, own, label, row, rows)))


def _is_time(journal: Table) -> bool:
    return journal.column("date").type.startswith("timestamp")


def _backwards(
    connection: Connection, own: Table, label: str, row: dict[str, Any], rows: list[Row]
) -> Iterator[Change]:
    state = {name: value for name, value in row.items() if name not in DERIVED}
    for number in range(len(rows) - 1, -1, -1):
        date, tag, action, params, *_ = rows[number]
        where = f"{label}/{row['id']}/{date}"
        common: dict[str, Any] = {
            "table": own.label, "key": (row["id"],), "when": _moment(date), "who": str(tag), "source": where,
        }  # fmt: skip
        if action == "create":
            yield Change(operation="insert", values=dict(state), is_whole=True, **common)
            continue
        before = _before(connection, own, action, params, where)
        if before:
            after = {name: state[name] for name in before}
            state |= before
            yield Change(operation="update", values=after, before=before, **common)


def _before(connection: Connection, own: Table, action: str, params: str, where: str) -> dict[str, Any]:
    """Return the values before a change, by column; none for a link, which is a row of another table."""
    if action in ("retired", "restored"):
        return {RETIRED: 0} if action == "retired" else {}
    if action != "set":
        return {}
    try:
        content: Any = ast.literal_eval(params)
    except (ValueError, SyntaxError) as error:
        raise MigrationError(
            f"The journal {where} has {params[:60]!r}, which cannot be read.", "Correct that row.", source=where
        ) from error
    names = column_names(own)
    return {
        f"_{name}": as_json(connection.dialect, own.column(f"_{name}"), value, where)
        for name, value in content.items()
        if f"_{name}" in names
    }


def _moment(text: str) -> datetime:
    plain = text.replace(".", "", 1) if text.count(".") == 2 else text  # 20261129173109.329
    whole, _, fraction = plain.partition(".")
    found = datetime.strptime(whole, "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    return found.replace(microsecond=int(fraction.ljust(6, "0")[:6]))
