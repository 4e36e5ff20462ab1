"""SQL statements for tables of rows: create a table; write, find and scan its rows.

Knows: SQL for tables of keyed rows; kinds of columns. Does not know: connections, checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any
from zlib import crc32

from eventfold.core.table import Column, ColumnKind, Table, converted, stored_name, unreadable_row
from eventfold.targets.sql.driver import Driver

Converter = Callable[[Any], Any]
# Columns that every table of PostgreSQL has.
POSTGRES_SYSTEM_COLUMNS = frozenset({"tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"})
SYSTEM_COLUMN_SUFFIX = "__column"


class Statements:
    """The statements for one driver. The name of a Table is here the name of a generation's own table."""

    explain = "EXPLAIN"  # before a query: returns its plan

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._upserts: dict[Table, str] = {}

    def is_outdated(self, connection: Any, table: Table) -> bool:
        """Whether an earlier release created the table with another layout. Each table is inspected once."""
        return False

    def create_table_sql(self, table: Table | str, name: str, generation: int) -> Iterator[str]:
        """The statements that create a generation's table and its indexes."""
        own = self._driver.quote_relation(stored_name(name, generation))
        if isinstance(table, str):
            yield f"CREATE TABLE {own} ({table})"
            return
        columns = [
            f"{self.quote_column(c.name)} {self.column_type(c)}{'' if c.nullable else ' NOT NULL'}"
            for c in table.columns
        ]
        columns.append(f"PRIMARY KEY ({self.column_list(table.key)})")
        yield f"CREATE TABLE {own} ({', '.join(columns)}) {self._driver.table_suffix}"
        for index in table.indexes:
            terms = ", ".join(self._index_term(table, each) for each in with_key(table, index))
            yield f"CREATE INDEX {self.index_name(name, generation, index)} ON {own} ({terms})"

    def index_name(self, name: str, generation: int, index: Sequence[str]) -> str:
        """The name of the index on these columns of a generation's table."""
        return quote_identifier(
            shorten_name(f"{stored_name(name, generation)}__{'_'.join(index)}", self._driver.max_name_bytes)
        )

    def quote_column(self, name: str) -> str:
        """The SQL identifier of a column."""
        return self._driver.quote_column(name)

    def column_list(self, names: Iterable[str]) -> str:
        """The SQL identifiers of columns, separated by commas."""
        return ", ".join(map(self._driver.quote_column, names))

    def column_type(self, column: Column) -> str:
        """The type of a column, as in CREATE TABLE."""
        return self._driver.column_types[column.kind]

    def _index_term(self, table: Table, name: str) -> str:
        """The term of an index for a column; `-` before it: descending. Missing values are last, as queries sort."""
        own = name.removeprefix("-")
        nullable = any(column.nullable for column in table.columns if column.name == own)
        return f"{self.quote_column(own)}{' DESC' * (own != name)}{' NULLS LAST' * nullable}"

    def selected_columns(self, table: Table) -> str:
        """The columns that a SELECT of rows returns."""
        return self.column_list(table.fields)

    def upsert_sql(self, table: Table) -> str:
        """The statement that inserts or replaces a whole row."""
        sql = self._upserts.get(table)
        if sql is None:
            column, own = self.quote_column, self._driver.quote_relation(table.name)
            rest = [f"{column(f)} = excluded.{column(f)}" for f in table.fields if f not in table.key]
            sql = self._upserts[table] = (
                f"INSERT INTO {own} ({self.column_list(table.fields)}) VALUES ({','.join('?' * len(table.columns))}) "  # noqa: S608
                f"ON CONFLICT ({self.column_list(table.key)}) "
                f"DO {'UPDATE SET ' + ', '.join(rest) if rest else 'NOTHING'}"
            )
        return sql

    def insert_sql(self, table: Table) -> str:
        """The statement that inserts a row, and fails if one with its key exists. For drivers that insert new rows."""
        raise NotImplementedError

    def delete_sql(self, table: Table) -> str:
        """The statement that deletes a row by its key."""
        key = " AND ".join(f"{self.quote_column(k)} = ?" for k in table.key)
        return f"DELETE FROM {self._driver.quote_relation(table.name)} WHERE {key}"  # noqa: S608

    def load_sql(self, table: Table, keys: Sequence[Sequence[Any]]) -> tuple[str, list[Any]]:
        """The query for the rows of these keys, and its parameters."""
        of: dict[str, ColumnKind] = {column.name: column.kind for column in table.columns}
        condition = self._driver.key_condition([(self.quote_column(k), of[k]) for k in table.key], len(keys))
        values = [value for key in self.encode_keys(table, keys) for value in key]
        own = self._driver.quote_relation(table.name)
        return f"SELECT {self.selected_columns(table)} FROM {own} WHERE {condition}", values  # noqa: S608

    # How columns are compared, see queries.py

    def indexed_table(self, table: Table) -> Table:
        """The table with those indexes only that are created."""
        return table

    def relation(self, name: str) -> str:
        """The SQL identifier of a generation's table."""
        return self._driver.quote_relation(name)

    def compared_column(self, table: Table, column: Column) -> str:
        """The expression that sorts, and compares by <, as the column's values do. Text: by code point."""
        return self.quote_column(column.name)

    def equal_column(self, table: Table, column: Column) -> str:
        """The expression that is equal where the column's values are."""
        return self.quote_column(column.name)

    def missing_column(self, table: Table, column: Column) -> str:
        """The expression that is NULL where the column has no value: the one that indexes have."""
        return self.quote_column(column.name)

    def compared_value(self, column: Column, value: Any) -> Any:
        """A value as the parameter that these expressions are compared with."""
        encode = self._driver.encoders.get(column.kind)
        return value if encode is None else encode(value)

    def one_of(self, table: Table, column: Column, count: int, negated: bool) -> str:
        """The condition that a column has one of `count` values, or has none of them."""
        marks = ", ".join("?" * count)
        return f"{self.equal_column(table, column)} {'NOT ' * negated}IN ({marks})"

    def sorting_columns(self, table: Table, columns: Sequence[Column]) -> list[str]:
        """Further columns that a subquery must return, so that `compared_column` can be used on its rows."""
        return []

    def shown_column(self, column: Column) -> str:
        """The expression by which a value of a column is returned."""
        return self.quote_column(column.name)

    def grouped_column(self, table: Table, column: Column) -> tuple[str, str]:
        """The expression that returns a value for a group of rows, and the one by which they are grouped."""
        return self.shown_column(column), self.equal_column(table, column)

    def summed_column(self, table: Table, column: Column) -> tuple[str, str]:
        """What a query selects for the sum of a column, and the end of the query. See `total`."""
        return f"sum({self.quote_column(column.name)})", ""

    def total(self, column: Column, rows: Sequence[Sequence[Any]]) -> Any:
        """The sum of a column, from the rows of that query; None if there are no values."""
        value = rows[0][0]
        return value if value is None else int(value) if column.kind == "int" else self.decode_value(column, value)

    def decode_value(self, column: Column, value: Any) -> Any:
        """A single value of the driver, converted to Python's type."""
        decode = self._driver.decoders.get(column.kind)
        return value if decode is None else decode(value)

    def scan_sql(self, table: Table, further: bool, page: int) -> str:
        """The query for the next page of rows in the order of the key; `further`: after `scan_cursor`'s parameters."""
        key, own = self.column_list(table.key), self._driver.quote_relation(table.name)
        after = f"WHERE ({key}) > ({','.join('?' * len(table.key))})" if further else ""
        return f"SELECT {self.column_list(table.fields)} FROM {own} {after} ORDER BY {key} LIMIT {page}"  # noqa: S608

    def scan_cursor(self, table: Table, row: Sequence[Any]) -> tuple[Any, ...]:
        """The parameters with which a scan continues after this row. `row`: as the driver returned it."""
        return tuple(row[: len(table.key)])

    def encode_rows(self, table: Table, rows: Sequence[Sequence[Any]]) -> Sequence[Sequence[Any]]:
        """Rows as parameters for the driver."""
        return converted(rows, self._converters(table, self._driver.encoders))

    def encode_keys(self, table: Table, keys: Sequence[Sequence[Any]]) -> Iterable[Sequence[Any]]:
        """Keys as parameters for the driver."""
        return converted(keys, self._converters(table, self._driver.encoders)[: len(table.key)])

    def decode_rows(self, table: Table, rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """Rows of the driver, converted to Python's types. Raises ProjectionDamaged."""
        try:
            return list(converted(rows, self._converters(table, self._driver.decoders)))
        except (ValueError, TypeError, ArithmeticError) as error:
            raise unreadable_row(table.name, error) from error

    def _converters(self, table: Table, by_kind: Mapping[ColumnKind, Converter]) -> list[Converter | None]:
        return [by_kind.get(column.kind) for column in table.columns]


def with_key(table: Table, index: Sequence[str]) -> tuple[str, ...]:
    """The columns of an index, followed by those of the key: so it returns rows in a total order."""
    names = {name.removeprefix("-") for name in index}
    return (*index, *(name for name in table.key if name not in names))


def quote_identifier(name: str) -> str:
    """The name as a quoted identifier of standard SQL, so that a table or a field may have a reserved word as name."""
    return '"' + name.replace('"', '""') + '"'


def postgres_column_name(field: str) -> str:
    """The column name of a field on PostgreSQL, whose tables have system columns with names of their own."""
    return f"{field}{SYSTEM_COLUMN_SUFFIX}" if field in POSTGRES_SYSTEM_COLUMNS else field


def aliased_columns(columns: Sequence[str]) -> str:
    """Columns of a table under the names of their fields, as SQL for a SELECT; "" if all names are the same."""
    if not any(each.removesuffix(SYSTEM_COLUMN_SUFFIX) in POSTGRES_SYSTEM_COLUMNS for each in columns):
        return ""
    fields = [(each, each.removesuffix(SYSTEM_COLUMN_SUFFIX)) for each in columns]
    return ", ".join(
        f"{quote_identifier(own)} AS {quote_identifier(field if field in POSTGRES_SYSTEM_COLUMNS else own)}"
        for own, field in fields
    )


def shorten_name(name: str, longest: int | None) -> str:
    """The name, shortened to at most `longest` bytes (None: no limit) with a checksum that keeps it unique.

    A name that ends with a generation's number keeps that end.
    """
    if longest is None or len(name.encode()) <= longest:
        return name
    table, _, generation = name.rpartition("__")
    end = f"_{crc32(name.encode()):08x}" + (f"__{generation}" if table and generation.isdecimal() else "")
    return name.encode()[: longest - len(end)].decode("utf-8", "ignore") + end
