"""Gaps: rows that differ from the last state that their history says, in a sample.

Raw SQL and bulk updates pass by the packages that write histories; what they changed is found so.
Knows: changes, codecs. Does not know: packages, what a gap means for a load.
"""

from __future__ import annotations

from itertools import groupby
from typing import Any

import msgspec

from eventfold.errors import MigrationError
from eventfold.migrate.connection import Connection, Row
from eventfold.migrate.histories import Change, changes
from eventfold.migrate.histories.change import quote
from eventfold.migrate.mapping import History
from eventfold.migrate.reflection import Schema, Table
from eventfold.migrate.values import Codec, codec_of

SAMPLED_KEYS = 100
SAMPLED_CHANGES = 5000


class Gaps(msgspec.Struct, frozen=True):
    """How many rows were compared with their histories, how many differ, and the first that does, in words."""

    compared: int
    differing: int
    first: str = ""


def find_gaps(connection: Connection, schema: Schema, label: str, history: History) -> Gaps:
    """Compare the first rows that a history tells of with its last word on each. Raises SourceUnavailable."""
    last = _last_states(connection, schema, label, history)
    differing, first = 0, ""
    for (name, key), values in last.items():
        table = schema.table(name)
        found = _difference(connection, table, key, values)
        if found:
            differing += 1
            first = first or f"{name} {'/'.join(map(str, key))}: {found}"
    return Gaps(len(last), differing, first)


def _last_states(
    connection: Connection, schema: Schema, label: str, history: History
) -> dict[tuple[str, tuple[Any, ...]], dict[str, Any] | None]:
    """Return the last values that a history says of the first rows; None for a row that it says is deleted."""
    states: dict[tuple[str, tuple[Any, ...]], dict[str, Any] | None] = {}
    read = 0
    found = changes(connection, schema, label, history)
    try:
        for key, of_row in groupby(found, key=lambda change: (change.table, change.key)):
            state: dict[str, Any] = {}
            change: Change | None = None
            for change in of_row:
                state |= change.values
                read += 1
            if change is not None:
                states[key] = None if change.operation == "delete" else state
            if len(states) >= SAMPLED_KEYS or read >= SAMPLED_CHANGES:
                break
    except MigrationError:
        if not states:
            raise
    return states


def _difference(connection: Connection, table: Table, key: tuple[Any, ...], values: dict[str, Any] | None) -> str:
    """Return in words how a row differs from values; empty if it does not."""
    key_codecs = {name: codec_of(connection.dialect, table.column(name)) for name in table.key}
    names = list(values or table.key)
    codecs: list[Codec] = [codec_of(connection.dialect, table.column(name)) for name in names]
    chosen = ", ".join(codec.expression.format(quote(name)) for codec, name in zip(codecs, names, strict=True))
    where = " AND ".join(f"{quote(n)} = {codec.parameter.format(connection.mark)}" for n, codec in key_codecs.items())
    parameters = [codec.from_json(value) for codec, value in zip(key_codecs.values(), key, strict=True)]
    rows: list[Row] = connection.rows(f"SELECT {chosen} FROM {table.sql} WHERE {where}", parameters)  # noqa: S608
    if values is None:
        return "the history says that it was deleted, and it exists" if rows else ""
    if not rows:
        return "it does not exist, and the history does not say that it was deleted"
    for name, codec, value in zip(names, codecs, rows[0], strict=True):
        if not codec.equal(codec.to_json(value), values[name]):
            return f"{name} is {codec.to_json(value)!r}, and the history says {values[name]!r}"
    return ""
