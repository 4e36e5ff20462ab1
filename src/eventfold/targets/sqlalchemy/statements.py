"""SQLAlchemy Core statements for tables of rows: create and drop tables and views, find and scan rows.

Knows: statements. Does not know: checkpoints, when a transaction ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from eventfold.core.table import Table, stored_name
from eventfold.targets.sql.statements import aliased_columns, shorten_name
from eventfold.targets.sqlalchemy.dialects import COMMITS_ON_DDL
from eventfold.targets.sqlalchemy.tables import MAX_TABLE_NAME_BYTES, rows_table

PAGE = 1_000
MAX_KEYS_PER_QUERY = 200
HAS_ROW_VALUES = ("sqlite", "postgresql", "mysql", "mariadb", "oracle")


def create_table(connection: sa.Connection, table: Table | str, name: str, generation: int) -> None:
    """Create a generation's table, and replace one that an interrupted attempt may have left."""
    own = shorten_name(stored_name(name, generation), MAX_TABLE_NAME_BYTES)
    drop_table(connection, own)
    if isinstance(table, str):
        connection.exec_driver_sql(f"CREATE TABLE {quote_identifier(connection, own)} ({table})")
    else:
        rows_table(Table(own, table.columns, table.key, table.indexes), connection.dialect).create(connection)


def drop_table(connection: sa.Connection, own: str) -> None:
    """Drop a table if it exists."""
    if sa.inspect(connection).has_table(shorten_name(own, MAX_TABLE_NAME_BYTES)):
        connection.exec_driver_sql(f"DROP TABLE {quote_identifier(connection, own)}")


def create_view(connection: sa.Connection, name: str, own: str) -> None:
    """Create or replace the view through which readers see a generation's table under the projection's name."""
    view, table, columns = (
        quote_identifier(connection, name),
        quote_identifier(connection, own),
        _view_columns(connection, own),
    )
    if connection.dialect.name in COMMITS_ON_DDL:
        connection.exec_driver_sql(f"CREATE OR REPLACE VIEW {view} AS SELECT {columns} FROM {table}")  # noqa: S608
        return
    drop_view(connection, name)
    connection.exec_driver_sql(f"CREATE VIEW {view} AS SELECT {columns} FROM {table}")  # noqa: S608


def _view_columns(connection: sa.Connection, own: str) -> str:
    """The columns of a table under the names of their fields, as SQL."""
    if connection.dialect.name != "postgresql":
        return "*"
    names = [column["name"] for column in sa.inspect(connection).get_columns(shorten_name(own, MAX_TABLE_NAME_BYTES))]
    return aliased_columns(names) or "*"


def drop_view(connection: sa.Connection, name: str) -> None:
    """Drop a view if it exists."""
    if shorten_name(name, MAX_TABLE_NAME_BYTES) in sa.inspect(connection).get_view_names():
        connection.exec_driver_sql(f"DROP VIEW {quote_identifier(connection, name)}")


def quote_identifier(connection: sa.Connection, name: str) -> str:
    """The name of a table or view as a SQL identifier, shortened to what databases accept."""
    preparer = connection.dialect.identifier_preparer
    if connection.dialect.name == "oracle":  # a quoted lower-case name differs from the unquoted one there
        return preparer.quote(shorten_name(name, MAX_TABLE_NAME_BYTES))
    return preparer.quote_identifier(shorten_name(name, MAX_TABLE_NAME_BYTES))


def select_by_keys(
    connection: sa.Connection, table: sa.Table, keys: Sequence[Sequence[Any]]
) -> Iterator[list[tuple[Any, ...]]]:
    """Yield the rows of these keys, in one list for each query of at most MAX_KEYS_PER_QUERY keys."""
    key = list(table.primary_key.columns)
    has_row_values = connection.dialect.name in HAS_ROW_VALUES
    for start in range(0, len(keys), MAX_KEYS_PER_QUERY):
        some = [tuple(each) for each in keys[start : start + MAX_KEYS_PER_QUERY]]
        if len(key) == 1:
            condition: sa.ColumnElement[bool] = key[0].in_([each[0] for each in some])
        elif has_row_values:
            condition = sa.tuple_(*key).in_(some)
        else:
            condition = sa.or_(*(sa.and_(*(c == v for c, v in zip(key, each, strict=True))) for each in some))
        yield [tuple(row) for row in connection.execute(sa.select(table).where(condition))]


def select_next_page(table: sa.Table, after: Sequence[Any]) -> sa.Select[Any]:
    """The query for the next page of rows in the order of the key. `after`: the last key of the previous page."""
    key = list(table.primary_key.columns)
    page = sa.select(table).order_by(*key).limit(PAGE)
    if not after:
        return page
    alternatives = [
        sa.and_(*(key[n] == after[n] for n in range(size)), key[size] > after[size]) for size in range(len(key))
    ]
    return page.where(sa.or_(*alternatives))


def select_all(connection: sa.Connection, own: str) -> list[tuple[Any, ...]]:
    """Return every row of a table, sorted by all its columns."""
    width = len(sa.inspect(connection).get_columns(shorten_name(own, MAX_TABLE_NAME_BYTES)))
    order = ", ".join(str(number) for number in range(1, width + 1))
    sql = f"SELECT * FROM {quote_identifier(connection, own)} ORDER BY {order}"  # noqa: S608
    return [tuple(row) for row in connection.exec_driver_sql(sql)]
