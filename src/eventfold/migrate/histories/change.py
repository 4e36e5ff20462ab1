"""One change that a history proves, and values of histories as the JSON of the column they are of.

Knows: codecs, values as packages write them. Does not know: which package.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Literal, Protocol

import msgspec

from eventfold.errors import MigrationError
from eventfold.migrate.connection import Connection, Dialect
from eventfold.migrate.kinds import kind_of
from eventfold.migrate.mapping import History
from eventfold.migrate.reflection import Column, Schema, Table
from eventfold.migrate.values import codec_of

Operation = Literal["insert", "update", "delete"]


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A change of one row. `values`: by column, as JSON; all columns that the history knows if `is_whole`, else those
    that changed. `before`: what the history says of the values before. `source`: the row of the history table.

    A package writes no history of raw SQL and bulk updates: where `values` differ from the row, something is missing.
    """

    table: str
    key: tuple[Any, ...]
    operation: Operation
    values: dict[str, Any]
    before: dict[str, Any] | None = None
    when: datetime | None = None
    who: str | None = None
    source: str = ""
    is_whole: bool = False


class Package(Protocol):
    """How a package keeps history. `NAME` is what migration.toml calls it."""

    NAME: str

    def recognise(self, schema: Schema) -> dict[str, History]:
        """Return its history tables, by label, found by their columns."""
        ...

    def read(self, connection: Connection, schema: Schema, label: str, history: History) -> Iterator[Change]:
        """Yield the changes, those of one row in the order of time. A query stays open meanwhile."""
        ...


def column_names(table: Table) -> set[str]:
    """Return the names of a table's columns."""
    return {each.name for each in table.columns}


def plain_reader(dialect: Dialect, table: Table, names: Sequence[str]) -> tuple[str, list[Any]]:
    """Return the SELECT list of some columns of a table called `h`, and the function that reads each."""
    codecs = [codec_of(dialect, table.column(name)) for name in names]
    chosen = ", ".join(codec.expression.format("h." + quote(name)) for codec, name in zip(codecs, names, strict=True))
    return chosen, [codec.to_json for codec in codecs]


def quote(name: str) -> str:
    """Return a column's name as SQL."""
    return '"' + name.replace('"', '""') + '"'


def when_of(value: Any) -> datetime | None:
    """Return a moment in UTC from a text of the database; one without a zone is in UTC."""
    if value is None:
        return None
    found = datetime.fromisoformat(str(value).replace(" ", "T", 1))
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def as_json(dialect: Dialect, column: Column, value: Any, where: str) -> Any:
    """Return a value as a package wrote it (JSON, or text) as the JSON of its column.

    Raises MigrationError with the place if it is no value of the column's kind.
    """
    if value is None:
        return None
    try:
        return _converted(dialect, column, value)
    except (ValueError, InvalidOperation, TypeError) as error:
        raise MigrationError(
            f"The history {where} has {str(value)[:60]!r} for the column {column.name}, which is no {column.type}.",
            "Correct that row, or set the table to ignored in migration.toml.",
            source=where,
        ) from error


def _converted(dialect: Dialect, column: Column, value: Any) -> Any:
    kind = kind_of(dialect, column)
    match kind:
        case "integer":
            return int(value)
        case "boolean":
            if isinstance(value, str):
                return {"true": True, "1": True, "false": False, "0": False}[value.lower()]
            return bool(value)
        case "float":
            return float(value)
        case "decimal":
            return _decimal(dialect, column, Decimal(str(value)))
        case "datetime" | "moment":
            found = when_of(value)
            text = msgspec.json.decode(msgspec.json.encode(found))
            return text if kind == "moment" else text.removesuffix("Z")
        case "text" | "enum" | "uuid" | "date" | "time" | "interval":
            return value if isinstance(value, str) else str(value)
        case _:
            return value


def _decimal(dialect: Dialect, column: Column, number: Decimal) -> str:
    codec = codec_of(dialect, column)
    if dialect == "sqlite":
        return codec.to_json(float(number))
    from eventfold.migrate.kinds import scale_of

    scale = scale_of(column.type)
    if scale is not None and number.is_finite():
        number = number.quantize(Decimal(1).scaleb(-scale))
    return format(number, "f") if number.is_finite() else str(number)


def content_types(connection: Connection, schema: Schema) -> dict[int, str]:
    """Return Django's content types whose tables exist, as labels by their keys."""
    labels = {table.label for table in schema.tables}
    found = connection.rows(f"SELECT id, app_label, model FROM {schema.table('django_content_type').sql}")  # noqa: S608
    return {int(number): f"{app}_{model}" for number, app, model in found if f"{app}_{model}" in labels}


def recorded_tables(connection: Connection, schema: Schema, label: str) -> set[str]:
    """Return the tables that a history with content types has rows of."""
    labels = content_types(connection, schema)
    found = connection.rows(f"SELECT DISTINCT content_type_id FROM {schema.table(label).sql}")  # noqa: S608
    return {labels[int(number)] for (number,) in found if int(number) in labels}


def field_columns(table: Table, fields: dict[str, Any]) -> dict[str, str]:
    """Return the column of each field of a Django model: `boss` is boss_id. Fields without a column are left out."""
    names = column_names(table)
    pairs = ((field, field if field in names else f"{field}_id") for field in fields)
    return {field: column for field, column in pairs if column in names}


def text_of(dialect: Dialect, expression: str) -> str:
    """Return an expression for the text of a time, as when_of reads it."""
    match dialect:
        case "postgresql":
            return f"{expression}::text"
        case "sqlite":
            return expression
        case _:
            return f"CAST({expression} AS CHAR)"
