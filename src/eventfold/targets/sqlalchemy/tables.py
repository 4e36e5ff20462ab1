"""SQLAlchemy's descriptions of the control tables and of tables of rows.

Knows: columns, keys, indexes. Does not know: connections, statements.
"""

from __future__ import annotations

from typing import Any

import msgspec
import sqlalchemy as sa

from eventfold.core.table import Table
from eventfold.core.value_order import ORDER
from eventfold.targets.sql.statements import postgres_column_name, shorten_name, with_key
from eventfold.targets.sqlalchemy.types import ExactType, non_null_text

METADATA = sa.MetaData()
MAX_TABLE_NAME_BYTES = 63  # every supported database accepts this
MAX_INDEX_NAME_BYTES = 60


def _control_table(name: str, key: str, columns: str) -> sa.Table:
    """A control table. Of `columns`, `name:int` is an integer, `name?` an integer or NULL, and any other one text."""
    of_table: list[sa.Column[object]] = []
    of_key = key.split()
    for each in columns.split():
        bare = each.rstrip("?").removesuffix(":int")
        if bare != each:
            of_table.append(sa.Column(bare, sa.BigInteger(), nullable=each.endswith("?"), autoincrement=False))
        else:
            of_table.append(
                sa.Column(bare, non_null_text(1) if bare in of_key else non_null_text(), nullable=bare not in of_key)
            )
    return sa.Table(name, METADATA, *of_table, sa.PrimaryKeyConstraint(*of_key))


# The columns are in the order in which targets/sql/control_tables.py reads and writes them.
PROJECTION = _control_table(
    "eventfold_projection", "name", "name kind code live:int previous? building? paused tables checksum?"
)
CHECKPOINT = _control_table(
    "eventfold_checkpoint",
    "name generation part",
    "name generation:int part:int store epoch:int position:int event_id seen:int seen_digest handled:int handled_digest"
    " query fingerprint partitions:int until? revision:int token:int holder expires_at:int stopped stats at:int"
    " renewed_at:int checksum? lease_checksum?",
)
ENTRY = _control_table(
    "eventfold_entry",
    "name generation part position",
    "name generation:int part:int position:int event_id type key state error attempts:int because checksum?",
)
MARK = _control_table(
    "eventfold_mark",
    "name generation part position",
    "name generation:int part:int position:int seen:int seen_digest checksum?",
)
COMMAND = _control_table("eventfold_command", "id", "id store name data metadata checksum?")
LAYOUT = sa.Table("eventfold_layout", METADATA, sa.Column("layout", sa.BigInteger(), nullable=False))


def _column_name(field: str, dialect: str) -> str:
    """The name of a field's column, shortened: PostgreSQL allows 63 bytes, MariaDB and MySQL 64 characters."""
    if dialect == "postgresql":
        return shorten_name(postgres_column_name(field), MAX_TABLE_NAME_BYTES)
    if dialect in ("mysql", "mariadb") and len(field) > MAX_TABLE_NAME_BYTES + 1:
        return shorten_name(field, MAX_TABLE_NAME_BYTES)
    return field


def rows_table(table: Table, dialect: sa.Dialect) -> sa.Table:
    """A table of rows. `table.name` is the name of a generation's own table; a column's key is its field's name."""
    groups = [[name.removeprefix("-") for name in index] for index in (table.key, *table.indexes)]
    indexed = {name for group in groups for name in group}
    most_texts = max(  # in one key or index; they share the bytes that a database allows for it
        sum(c.kind in ("text", "bytes") for c in table.columns if c.name in group) for group in groups
    )
    columns = [
        sa.Column(
            _column_name(c.name, dialect.name),
            ExactType(c.kind, max(most_texts, 1) if c.name in indexed else 0),
            key=c.name,
            nullable=c.nullable,
            quote=True,
        )
        for c in table.columns
    ]
    rows = sa.Table(
        shorten_name(table.name, MAX_TABLE_NAME_BYTES),
        sa.MetaData(),
        *columns,
        sa.PrimaryKeyConstraint(*table.key),
        sqlite_strict=True,
        sqlite_with_rowid=False,
        mysql_engine="InnoDB",
        mariadb_engine="InnoDB",
    )
    for index in table.indexes:
        names = with_key(table, index) if dialect.name == "postgresql" else index  # others add the key by themselves
        sa.Index(
            shorten_name(f"{table.name}__{'_'.join(index)}", MAX_INDEX_NAME_BYTES),
            *(_index_term(rows, name, dialect) for name in names),
        )
    return rows


def _index_term(rows: sa.Table, name: str, dialect: sa.Dialect) -> sa.ColumnElement[Any]:
    """The term of an index for a column; `-` before it: descending. Missing values are last, as queries sort."""
    column = rows.c[name.removeprefix("-")]
    if name[0] != "-":
        return column
    return column.desc().nulls_last() if column.nullable and dialect.name == "postgresql" else column.desc()


def indexed_table(table: Table, dialect: str) -> Table:
    """The table without the indexes that serve no query: SQLite has decimals and moments as text there."""
    if dialect != "sqlite":
        return table
    as_text = {column.name for column in table.columns if column.kind in ORDER}
    indexes = tuple(index for index in table.indexes if as_text.isdisjoint(name.removeprefix("-") for name in index))
    return msgspec.structs.replace(table, indexes=indexes)
