"""Statements for rows in SQLite, which has no type for decimals and moments and would compare them as text.

A column of these kinds stores readable text. If it is part of the key or of an index, a second column, its order column
(`price__order`), stores a text that sorts as the value does, and replaces it in the key or the index. Otherwise a SQL
function computes that text when a query needs it. Knows: SQL. Does not know: connections, checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from itertools import chain
from typing import Any, cast

import apsw

from eventfold.core.table import Column, ColumnKind, Table, stored_name
from eventfold.core.value_order import FUNCTIONS, ORDER, TEXT_ORDER
from eventfold.selection.in_memory import sum_of_decimals
from eventfold.targets.sql.driver import Driver
from eventfold.targets.sql.statements import Statements, quote_identifier


def add_functions(connection: apsw.Connection) -> None:
    """Register the SQL functions that `SqliteStatements` uses with a connection.

    A name in double quotes that is no column becomes an error: SQLite would take it as a text, and a column that the
    table does not have yet would be read as its own name.
    """
    connection.config(apsw.SQLITE_DBCONFIG_DQS_DML, 0)
    for kind, order in TEXT_ORDER.items():
        connection.create_scalar_function(FUNCTIONS[kind], cast("Any", order), 1, deterministic=True)


def columns_with_order(table: Table) -> tuple[Column, ...]:
    """The columns of the key or an index that need an order column."""
    indexed = {name.removeprefix("-") for index in (table.key, *table.indexes) for name in index}
    return tuple(column for column in table.columns if column.kind in ORDER and column.name in indexed)


def order_column_name(name: str) -> str:
    """The name of a column's order column."""
    return f"{name}__order"


class SqliteStatements(Statements):
    """See Statements. `tables_without_order_columns`: tables that older releases created without order columns."""

    explain = "EXPLAIN QUERY PLAN"

    def __init__(self, driver: Driver) -> None:
        super().__init__(driver)
        self.tables_without_order_columns: set[str] = set()
        self._inspected_tables: set[str] = set()
        self._order_columns_cache: dict[Table, tuple[Column, ...]] = {}
        self._loads: dict[Table, tuple[str, str, str]] = {}
        self._inserts: dict[Table, str] = {}

    def is_outdated(self, connection: Any, table: Table) -> bool:
        """Whether keys and indexes of the table compare text, as in tables of the first releases."""
        expected = columns_with_order(table)
        if not expected:
            return False
        if table.name not in self._inspected_tables:
            sql = "SELECT name FROM pragma_table_info(?)"
            columns = {row[0] for row in self._driver.execute(connection, sql, (table.name,))}
            if not columns:
                return False  # the table does not exist yet, or was dropped
            self._inspected_tables.add(table.name)
            if not columns.issuperset(order_column_name(column.name) for column in expected):
                self.tables_without_order_columns.add(table.name)
                self._order_columns_cache.pop(table, None)
                self._loads.pop(table, None)
        return table.name in self.tables_without_order_columns

    def _order_columns(self, table: Table) -> tuple[Column, ...]:
        columns = self._order_columns_cache.get(table)
        if columns is None:
            columns = self._order_columns_cache[table] = (
                () if table.name in self.tables_without_order_columns else columns_with_order(table)
            )
        return columns

    def _sort_columns(self, table: Table, names: Iterable[str]) -> list[str]:
        """The identifiers of columns in keys and indexes: the order column if there is one, else the column."""
        ordered = {column.name for column in self._order_columns(table)}
        return [
            quote_identifier(order_column_name(name)) if name in ordered else quote_identifier(name) for name in names
        ]

    def create_table_sql(self, table: Table | str, name: str, generation: int) -> Iterator[str]:
        """See Statements."""
        table_name = stored_name(name, generation)
        own_table = quote_identifier(table_name)
        if isinstance(table, str):
            yield f"CREATE TABLE {own_table} ({table})"
            return
        ordered = columns_with_order(table)
        every = [(quote_identifier(c.name), self._driver.column_types[c.kind], c.nullable) for c in table.columns]
        every += [(quote_identifier(order_column_name(c.name)), "TEXT", c.nullable) for c in ordered]
        described = [f"{each} {kind}{'' if nullable else ' NOT NULL'}" for each, kind, nullable in every]
        fresh = Table(table_name, table.columns, table.key, table.indexes)
        described.append(f"PRIMARY KEY ({', '.join(self._sort_columns(fresh, table.key))})")
        yield f"CREATE TABLE {own_table} ({', '.join(described)}) {self._driver.table_suffix}"
        for index in table.indexes:
            bare = self._sort_columns(fresh, [each.removeprefix("-") for each in index])
            columns = ", ".join(f"{own}{' DESC' * (each[0] == '-')}" for own, each in zip(bare, index, strict=True))
            yield f"CREATE INDEX {self.index_name(name, generation, index)} ON {own_table} ({columns})"

    def upsert_sql(self, table: Table) -> str:
        """See Statements. An existing key keeps the text with which it was first written."""
        ordered = self._order_columns(table)
        if not ordered:
            return super().upsert_sql(table)
        sql = self._upserts.get(table)
        if sql is None:
            names = [*table.fields, *(order_column_name(column.name) for column in ordered)]
            of_key = {*table.key, *map(order_column_name, table.key)}
            rest = [
                f"{quote_identifier(each)} = excluded.{quote_identifier(each)}" for each in names if each not in of_key
            ]
            sql = self._upserts[table] = (
                f"INSERT INTO {quote_identifier(table.name)} ({', '.join(map(quote_identifier, names))}) "  # noqa: S608
                f"VALUES ({','.join('?' * len(names))}) "
                f"ON CONFLICT ({', '.join(self._sort_columns(table, table.key))}) "
                f"DO {'UPDATE SET ' + ', '.join(rest) if rest else 'NOTHING'}"
            )
        return sql

    def insert_sql(self, table: Table) -> str:
        """See Statements. FAIL leaves the rows before the one that exists: the transaction is rolled back anyway.

        The usual ABORT would keep a journal of each statement's changes, which takes 0.1 µs a row.
        """
        sql = self._inserts.get(table)
        if sql is None:
            rest = self.upsert_sql(table).partition(" ON CONFLICT")[0].removeprefix("INSERT")
            sql = self._inserts[table] = f"INSERT OR FAIL{rest}"
        return sql

    def delete_sql(self, table: Table) -> str:
        """See Statements."""
        key = " AND ".join(f"{name} = ?" for name in self._sort_columns(table, table.key))
        return f"DELETE FROM {quote_identifier(table.name)} WHERE {key}"  # noqa: S608

    def load_sql(self, table: Table, keys: Sequence[Sequence[Any]]) -> tuple[str, list[Any]]:
        """See Statements. A join of a list of keys is faster than a list after IN, which SQLite sorts first.

        Keys of NULL, which no row has, make their number a power of two: few different statements have to be prepared.
        """
        count = 1 << (len(keys) - 1).bit_length()
        values = list(chain.from_iterable(self.encode_keys(table, keys)))
        values += [None] * (count * len(table.key) - len(values))
        before, one, after = self._loads.get(table) or self._load_parts(table)
        return f"{before}{','.join([one] * count)}{after}", values

    def _load_parts(self, table: Table) -> tuple[str, str, str]:
        """The SQL of `load_sql` before the keys, for one key, and after the keys."""
        names = self._sort_columns(table, table.key)
        wanted = [f'" {number}"' for number in range(len(names))]  # no field has a space in its name
        condition = " AND ".join(f"{name} = {each}" for name, each in zip(names, wanted, strict=True))
        own = quote_identifier(table.name)
        parts = self._loads[table] = (
            f"WITH wanted({', '.join(wanted)}) AS (VALUES ",
            f"({','.join('?' * len(names))})",
            f") SELECT {self.selected_columns(table)} FROM wanted CROSS JOIN {own} ON {condition}",  # noqa: S608
        )
        return parts

    def compared_column(self, table: Table, column: Column) -> str:
        """See Statements: the column, its order column, or its function."""
        if column.kind not in FUNCTIONS:
            return quote_identifier(column.name)
        if any(each.name == column.name for each in self._order_columns(table)):
            return quote_identifier(order_column_name(column.name))
        return f"{FUNCTIONS[column.kind]}({quote_identifier(column.name)})"

    equal_column = compared_column

    def missing_column(self, table: Table, column: Column) -> str:
        """See Statements: the order column if there is one."""
        return self._sort_columns(table, [column.name])[0]

    def compared_value(self, column: Column, value: Any) -> Any:
        """See Statements."""
        order = ORDER.get(column.kind)
        return super().compared_value(column, value) if order is None else order(value)

    def sorting_columns(self, table: Table, columns: Sequence[Column]) -> list[str]:
        """See Statements: the order columns."""
        ordered = {column.name for column in self._order_columns(table)}
        return [quote_identifier(order_column_name(each.name)) for each in columns if each.name in ordered]

    def grouped_column(self, table: Table, column: Column) -> tuple[str, str]:
        """See Statements. Of equal decimals or moments, the least text is returned."""
        shown = quote_identifier(column.name)
        return f"min({shown})" if column.kind in ORDER else shown, self.compared_column(table, column)

    def summed_column(self, table: Table, column: Column) -> tuple[str, str]:
        """See Statements. Of whole numbers, halves of 32 bits: SQLite's sums have 64. Decimals are added in Python."""
        own = quote_identifier(column.name)
        if column.kind == "int":
            return f"sum({own} >> 32), sum({own} & 4294967295)", ""
        if column.kind == "decimal":
            return f"{own}, count(*)", f" GROUP BY {own}"
        if column.kind == "float":
            return f"sum({own}), count({own})", ""
        return super().summed_column(table, column)

    def total(self, column: Column, rows: Sequence[Sequence[Any]]) -> Any:
        """See Statements."""
        if column.kind == "int":
            high, low = rows[0]
            return None if high is None else (high << 32) + low
        if column.kind == "decimal":
            return sum_of_decimals((Decimal(text), count) for text, count in rows if text is not None)
        if column.kind == "float" and rows[0][1]:
            return math.nan if rows[0][0] is None else rows[0][0]  # NULL: of inf and -inf
        return super().total(column, rows)

    def scan_sql(self, table: Table, further: bool, page: int) -> str:
        """See Statements. The key as it is sorted follows the columns of each row."""
        names = self._sort_columns(table, table.key)
        key = ", ".join(names)
        after = f"WHERE ({key}) > ({','.join('?' * len(names))})" if further else ""
        own = quote_identifier(table.name)
        return f"SELECT {self.selected_columns(table)}, {key} FROM {own} {after} ORDER BY {key} LIMIT {page}"  # noqa: S608

    def scan_cursor(self, table: Table, row: Sequence[Any]) -> tuple[Any, ...]:
        """See Statements: the last columns of the row, see `scan_sql`."""
        return tuple(row[len(table.columns) :])

    def encode_rows(self, table: Table, rows: Sequence[Sequence[Any]]) -> Sequence[Sequence[Any]]:
        """See Statements. The values of order columns follow the others."""
        encoded = super().encode_rows(table, rows)
        ordered = self._order_columns(table)
        if not ordered:
            return encoded
        orders = [(table.fields.index(column.name), ORDER[column.kind]) for column in ordered]
        return [
            (*shown, *(None if row[at] is None else order(row[at]) for at, order in orders))
            for shown, row in zip(encoded, rows, strict=True)
        ]

    def encode_keys(self, table: Table, keys: Sequence[Sequence[Any]]) -> Iterable[Sequence[Any]]:
        """See Statements: keys as they are looked up, with the values of order columns."""
        by_name = {column.name: ORDER[column.kind] for column in self._order_columns(table)}
        if not by_name or not any(name in by_name for name in table.key):
            return super().encode_keys(table, keys)
        pack = self._driver.encoders
        kinds: dict[str, ColumnKind] = {column.name: column.kind for column in table.columns}
        converters = [by_name.get(name) or pack.get(kinds[name]) for name in table.key]
        return [
            tuple(
                [value if convert is None else convert(value) for value, convert in zip(key, converters, strict=True)]
            )
            for key in keys
        ]

    def decode_rows(self, table: Table, rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """See Statements. Drops the columns that `scan_sql` adds."""
        width = len(table.columns)
        return super().decode_rows(table, [row[:width] for row in rows] if rows and len(rows[0]) > width else rows)
