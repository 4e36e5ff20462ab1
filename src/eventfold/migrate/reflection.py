"""The schema of a source as plain data: tables, columns, keys, triggers, routines, rights; and its fingerprint.

Knows: the terms of SQL's catalogues. Does not know: what a table means (evidence.py), how values are read (values.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec

from eventfold.errors import InvalidInput
from eventfold.migrate.connection import Connection, Dialect, quoted


class Column(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A column. `type`: as the database writes it, `numeric(10,2)`; `element`: the type of an array's elements."""

    name: str
    type: str
    is_nullable: bool = True
    default: str | None = None
    is_identity: bool = False  # the database counts it up: a serial, an identity column, AUTO_INCREMENT
    is_generated: bool = False  # the database computes it from other columns: it is never written
    collation: str | None = None
    charset: str | None = None  # on MySQL and MariaDB
    values: tuple[str, ...] = ()  # of an enum
    element: Column | None = None
    is_domain: bool = False
    is_wide: bool = False  # on PostgreSQL: its values may be stored apart (TOAST)


class ForeignKey(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A foreign key. `on_delete` and `on_update`: NO ACTION, RESTRICT, CASCADE, SET NULL or SET DEFAULT."""

    columns: tuple[str, ...]
    table: str  # the label of the table that it refers to
    to: tuple[str, ...]
    on_delete: str = "NO ACTION"
    on_update: str = "NO ACTION"
    is_deferred: bool = False

    @property
    def cascades(self) -> bool:
        """Whether a change of the row that it refers to changes this table's rows."""
        return any(each not in ("NO ACTION", "RESTRICT") for each in (self.on_delete, self.on_update))


class Check(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A check constraint, and the columns that its text names."""

    sql: str
    columns: tuple[str, ...] = ()


class Trigger(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A trigger. `on`: its events, such as "INSERT OR UPDATE"; `sql`: what it does, with its function's body."""

    name: str
    on: str
    sql: str
    writes: tuple[str, ...] = ()  # labels of tables that its text changes, other than by NEW


class Routine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A stored procedure or function."""

    name: str
    kind: str
    writes: tuple[str, ...]  # labels of the tables that its text changes; ("?",) if its text is not known


class Table(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A table. `label` names it everywhere: its name, or schema.name outside the connection's default schema."""

    label: str
    name: str
    schema: str | None = None
    columns: tuple[Column, ...]
    key: tuple[str, ...] = ()  # columns of the primary key, in its order
    unique: tuple[tuple[str, ...], ...] = ()  # other sets of columns, each not null, that are unique
    foreign_keys: tuple[ForeignKey, ...] = ()
    checks: tuple[Check, ...] = ()
    triggers: tuple[Trigger, ...] = ()
    rows: int | None = None  # an estimate; None if unknown
    kind: str = "table"  # table, partitioned, view, system-versioned, foreign, virtual
    rights: tuple[str, ...] = ()  # which of SELECT, INSERT, UPDATE, DELETE and TRIGGER the connection's role has
    replica_identity: str | None = None  # on PostgreSQL: default, full, nothing, index
    engine: str | None = None  # on MySQL and MariaDB
    period: tuple[str, str] | None = None  # columns of a system-versioned table: from, to

    @property
    def sql(self) -> str:
        """Its name as SQL."""
        name = '"' + self.name.replace('"', '""') + '"'
        return f"{quoted(self.schema)}.{name}" if self.schema else name

    def column(self, name: str) -> Column:
        """Return a column. Raises InvalidInput."""
        for each in self.columns:
            if each.name == name:
                return each
        raise InvalidInput(
            f"The table {self.label} has no column {name}.",
            f"It has: {', '.join(each.name for each in self.columns[:20])}.",
            table=self.label,
            column=name,
        )


class Schema(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The schema of a source, and what its server and the connection's role permit."""

    dialect: Dialect
    version: str
    tables: tuple[Table, ...]
    routines: tuple[Routine, ...] = ()
    settings: dict[str, str] = {}  # wal_level, log_bin, …: what decides how changes can be captured
    role: str = ""
    rights: tuple[str, ...] = ()  # of the role, beyond tables: superuser, replication, create

    def table(self, label: str) -> Table:
        """Return a table. Raises InvalidInput."""
        for each in self.tables:
            if each.label == label:
                return each
        raise InvalidInput(f"The source has no table {label}.", "Check its name.", table=label)


def reflect(connection: Connection, tables: Iterable[str] | None = None) -> Schema:
    """Read the schema of a source; with `tables` (labels) only these.

    Raises SourceUnavailable.
    """
    match connection.dialect:
        case "sqlite":
            from eventfold.migrate.catalogues.sqlite import read_schema
        case "postgresql":
            from eventfold.migrate.catalogues.postgres import read_schema
        case _:
            from eventfold.migrate.catalogues.mysql import read_schema
    found = read_schema(connection)
    if tables is None:
        return found
    wanted = set(tables)
    return msgspec.structs.replace(found, tables=tuple(each for each in found.tables if each.label in wanted))


def definition(table: Table) -> str:
    """Return what a change of would stop a capture, as text for people: a line for each column, key and constraint."""
    lines = [f"{table.kind} {table.label}"]
    for each in table.columns:
        marks = [
            "" if each.is_nullable else " NOT NULL",
            f" COLLATE {each.collation}" if each.collation else "",
            f" ({', '.join(each.values)})" if each.values else "",
            " GENERATED" if each.is_generated else "",
        ]
        lines.append(f"  {each.name} {each.type}{''.join(marks)}")
    lines.append(f"  PRIMARY KEY ({', '.join(table.key)})")
    lines += sorted(
        f"  FOREIGN KEY ({', '.join(each.columns)}) REFERENCES {each.table} ({', '.join(each.to)}) "
        f"ON DELETE {each.on_delete} ON UPDATE {each.on_update}"
        for each in table.foreign_keys
    )
    return "\n".join(lines)


def fingerprint(tables: Iterable[Table]) -> str:
    """Return a digest of these tables' definitions: it changes if a column, its type, a key or a cascade changes.

    It does not depend on rows, defaults, indexes, checks, or triggers, which a capture may install.
    """
    text = "\n".join(sorted(definition(each) for each in tables))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
