"""Room: how tables of rows are made and shown, and how rows are found, in Core's words.

Knows: statements. Does not know: checkpoints, when a transaction ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import sqlalchemy as sa

from eventfold.core.table import Table
from eventfold.core.value_order import FUNCTIONS, ORDER
from eventfold.ports.target import physical
from eventfold.targets.sql.statements import clipped, fields_of
from eventfold.targets.sqlalchemy.dialects import KEEPS_TABLES
from eventfold.targets.sqlalchemy.tables import LONGEST, rows_table
from eventfold.targets.sqlalchemy.types import Exactly

PAGE = 1_000
MOST_KEYS = 200  # keys asked for at once
COMPARES_PAIRS = ("sqlite", "postgresql", "mysql", "mariadb", "oracle")


def make(connection: sa.Connection, table: Table | str, name: str, generation: int) -> None:
    """Make a generation's table, in place of what an interrupted attempt may have left."""
    own = clipped(physical(name, generation), LONGEST)
    unmake(connection, own)
    if isinstance(table, str):
        connection.exec_driver_sql(f"CREATE TABLE {quoted(connection, own)} ({table})")
    else:
        rows_table(Table(own, table.columns, table.key, table.indexes), connection.dialect).create(connection)


def unmake(connection: sa.Connection, own: str) -> None:
    """Drop a table, if it is there."""
    if sa.inspect(connection).has_table(clipped(own, LONGEST)):
        connection.exec_driver_sql(f"DROP TABLE {quoted(connection, own)}")


def show(connection: sa.Connection, name: str, own: str) -> None:
    """Let readers see a generation's table by the projection's name."""
    view, table, columns = quoted(connection, name), quoted(connection, own), _shown(connection, own)
    if connection.dialect.name in KEEPS_TABLES:
        connection.exec_driver_sql(f"CREATE OR REPLACE VIEW {view} AS SELECT {columns} FROM {table}")  # noqa: S608
        return
    hide(connection, name)
    connection.exec_driver_sql(f"CREATE VIEW {view} AS SELECT {columns} FROM {table}")  # noqa: S608


def _shown(connection: sa.Connection, own: str) -> str:
    """The columns of a table, by the names of their fields."""
    if connection.dialect.name != "postgresql":
        return "*"
    found = [column["name"] for column in sa.inspect(connection).get_columns(clipped(own, LONGEST))]
    return fields_of(found) or "*"


def hide(connection: sa.Connection, name: str) -> None:
    """Drop a view, if it is there."""
    if clipped(name, LONGEST) in sa.inspect(connection).get_view_names():
        connection.exec_driver_sql(f"DROP VIEW {quoted(connection, name)}")


def quoted(connection: sa.Connection, name: str) -> str:
    """A table's or view's name, as the database takes it."""
    preparer = connection.dialect.identifier_preparer
    if connection.dialect.name == "oracle":  # where a quoted name is another one than the plain
        return preparer.quote(clipped(name, LONGEST))
    return preparer.quote_identifier(clipped(name, LONGEST))


def of_keys(
    connection: sa.Connection, table: sa.Table, keys: Sequence[Sequence[Any]]
) -> Iterator[list[tuple[Any, ...]]]:
    """The rows of some keys, in several portions."""
    key = list(table.primary_key.columns)
    pairs = connection.dialect.name in COMPARES_PAIRS
    for start in range(0, len(keys), MOST_KEYS):
        some = [tuple(each) for each in keys[start : start + MOST_KEYS]]
        if len(key) == 1:
            condition: sa.ColumnElement[bool] = key[0].in_([each[0] for each in some])
        elif pairs:
            condition = sa.tuple_(*key).in_(some)
        else:
            condition = sa.or_(*(sa.and_(*(c == v for c, v in zip(key, each, strict=True))) for each in some))
        yield [tuple(row) for row in connection.execute(sa.select(table).where(condition))]


def some(
    table: sa.Table, where: Mapping[str, Any], order: Sequence[str], limit: int | None, dialect: str
) -> sa.Select[Any]:
    """Rows equal in these columns, in this order."""
    equal = [
        _sortable(table.c[name], dialect) == _sorted_by(table.c[name], value, dialect) for name, value in where.items()
    ]
    by = [(table.c[name.removeprefix("-")], name[0] == "-") for name in order]
    ordered = [_ordered(column, down, dialect) for column, down in by]
    return sa.select(table).where(*equal).order_by(*ordered).limit(limit)


def _ordered(column: sa.Column[Any], down: bool, dialect: str) -> sa.ColumnElement[Any]:
    """A column to sort by. None is the least value; PostgreSQL sorts it last unless asked, the others first."""
    sortable = _sortable(column, dialect)
    by = sortable.desc() if down else sortable.asc()
    if column.nullable and dialect == "postgresql":
        return by.nulls_last() if down else by.nulls_first()
    return by


def _sortable(column: sa.Column[Any], dialect: str) -> sa.ColumnElement[Any]:
    """What compares as the value does: SQLite keeps decimals and moments as text."""
    kind = cast("Exactly", column.type).kind
    if dialect == "sqlite" and kind in ORDER:
        return sa.Function(FUNCTIONS[kind], column, type_=sa.Text())
    return column


def _sorted_by(column: sa.Column[Any], value: Any, dialect: str) -> Any:
    kind = cast("Exactly", column.type).kind
    return ORDER[kind](value) if dialect == "sqlite" and kind in ORDER and value is not None else value


def following(table: sa.Table, after: Sequence[Any]) -> sa.Select[Any]:
    """The next page of rows in the order of the key."""
    key = list(table.primary_key.columns)
    found = sa.select(table).order_by(*key).limit(PAGE)
    if not after:
        return found
    alternatives = [
        sa.and_(*(key[n] == after[n] for n in range(size)), key[size] > after[size]) for size in range(len(key))
    ]
    return found.where(sa.or_(*alternatives))


def everything(connection: sa.Connection, own: str) -> list[tuple[Any, ...]]:
    """Every row of a table, sorted by all its columns."""
    width = len(sa.inspect(connection).get_columns(clipped(own, LONGEST)))
    order = ", ".join(str(number) for number in range(1, width + 1))
    sql = f"SELECT * FROM {quoted(connection, own)} ORDER BY {order}"  # noqa: S608
    return [tuple(row) for row in connection.exec_driver_sql(sql)]
