"""The kind of each column: what a declared type of SQLite, PostgreSQL, MySQL or MariaDB holds, and what it loses.

Knows: names of types. Does not know: how a value is read or written (values.py).
"""

from __future__ import annotations

import re
from typing import Literal, get_args

from eventfold.migrate.connection import Dialect
from eventfold.migrate.reflection import Column

Kind = Literal[
    "integer", "boolean", "float", "decimal", "text", "bytes", "date", "time", "datetime", "moment", "interval", "uuid",
    "enum", "json", "array", "any",
]  # fmt: skip
KINDS: tuple[str, ...] = get_args(Kind)
ANNOTATIONS: dict[str, str] = {
    "integer": "int",
    "boolean": "bool",
    "float": "float",
    "decimal": "Decimal",
    "text": "str",
    "bytes": "bytes",
    "date": "date",
    "time": "time",
    "datetime": "datetime",
    "moment": "datetime",
    "interval": "str",
    "uuid": "UUID",
    "json": "Any",
    "any": "Any",
}
POSTGRES: dict[str, Kind] = {
    "smallint": "integer",
    "integer": "integer",
    "bigint": "integer",
    "oid": "integer",
    "boolean": "boolean",
    "real": "float",
    "double precision": "float",
    "numeric": "decimal",
    "bytea": "bytes",
    "date": "date",
    "time without time zone": "time",
    "timestamp without time zone": "datetime",
    "timestamp with time zone": "moment",
    "interval": "interval",
    "uuid": "uuid",
    "json": "json",
    "jsonb": "json",
}
MYSQL: dict[str, Kind] = {
    **dict.fromkeys(("tinyint", "smallint", "mediumint", "int", "integer", "bigint", "year", "bit"), "integer"),
    **dict.fromkeys(("float", "double", "real"), "float"),
    **dict.fromkeys(("decimal", "numeric"), "decimal"),
    **dict.fromkeys(("binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"), "bytes"),
    **dict.fromkeys(
        ("geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon"), "bytes"
    ),
    "date": "date",
    "time": "interval",
    "datetime": "datetime",
    "timestamp": "moment",
    "json": "json",
    "uuid": "uuid",
    "enum": "enum",
}  # fmt: skip
# By the words in a declared type, in this order; SQLite's own rule of affinities knows no booleans, dates or decimals.
SQLITE: tuple[tuple[str, Kind], ...] = (
    ("bool", "boolean"),
    ("int", "integer"),
    ("decimal", "decimal"),
    ("numeric", "decimal"),
    ("real", "float"),
    ("floa", "float"),
    ("doub", "float"),
    ("datetime", "datetime"),
    ("timestamp", "datetime"),
    ("date", "date"),
    ("time", "time"),
    ("char", "text"),
    ("clob", "text"),
    ("text", "text"),
    ("uuid", "text"),
    ("json", "text"),
)


def kind_of(dialect: Dialect, column: Column) -> Kind:
    """Return the kind of a column by its declared type. A type that is not known is text, or any value on SQLite."""
    declared = column.type.lower()
    if dialect == "sqlite":
        for word, kind in SQLITE:
            if word in declared:
                return kind
        return "any"
    if column.values:
        return "enum"
    if column.element is not None:
        return "array"
    if dialect == "postgresql":
        return POSTGRES.get(re.sub(r"\([^)]*\)", "", declared).replace("  ", " ").strip(), "text")
    if declared.startswith("tinyint(1)"):
        return "boolean"
    return MYSQL.get(re.split(r"[\s(]", declared, maxsplit=1)[0], "text")


def scale_of(declared: str) -> int | None:
    """Return the digits after the point of a declared type: 2 for `decimal(10,2)`; None if it has none."""
    found = re.search(r"\(\s*\d+\s*,\s*(\d+)\s*\)", declared)
    return int(found[1]) if found else None


def annotation_of(dialect: Dialect, column: Column, kind: Kind) -> str:
    """Return the type of a field for a column, as Python code, without `| None`."""
    match kind:
        case "enum":
            return f"Literal[{', '.join(map(repr, column.values))}]" if column.values else "str"
        case "array":
            element = column.element or column
            inner = annotation_of(dialect, element, kind_of(dialect, element))
            return f"list[{inner} | None]" if inner != "Any" else "list[Any]"
        case "float" if dialect != "mysql" and dialect != "mariadb":
            return "Number"  # the generated file defines it: JSON has no NaN and no infinity
        case _:
            return ANNOTATIONS[kind]


def caution(dialect: Dialect, column: Column, kind: Kind) -> str:
    """Return what the type of a column loses or leaves open, as a sentence; empty if nothing."""
    declared = column.type.lower()
    match dialect, kind:
        case "sqlite", "decimal":
            return (
                "SQLite keeps decimals as floating-point numbers: digits after the 15th were lost when it was written"
            )
        case "sqlite", "any":
            return "the column has no type that is known, so that each value keeps the type it has"
        case "mysql" | "mariadb", "float" if declared.startswith("float"):
            return "FLOAT has about 7 digits; values are read as DOUBLE, so that 0.1 is 0.10000000149011612"
        case _, "datetime":
            return "times have no zone: migration.toml says which (zone)"
        case "postgresql", "text" if declared == "money":
            return "the text of money depends on the setting lc_monetary of the session"
        case "postgresql", "text" if declared.startswith(("character(", "char(")) or declared == "character":
            return "the padding of CHAR is left out: it has no meaning there"
        case "postgresql", "text" if not declared.startswith(("character varying", "text", "citext", "name")):
            return f"the type {column.type} is kept as the text that PostgreSQL prints"
        case "mysql" | "mariadb", "text" if column.charset in ("utf8", "utf8mb3", "latin1", "ascii"):
            return f"the character set {column.charset} does not have every character: others cannot be written back"
        case _, "array":
            return "an array whose first index is not 1 is refused"
        case _:
            return ""
