"""Room: statements for rows: how a table is made, and its rows written, found and walked through.

Knows: SQL for tables of keyed rows; kinds of columns. Does not know: connections, checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any
from zlib import crc32

from eventfold.core.table import ColumnKind, Table, unreadable_row
from eventfold.errors import InvalidProjection
from eventfold.ports.target import physical
from eventfold.targets.sql.driver import Driver

Converter = Callable[[Any], Any]
SYSTEM = frozenset({"tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"})  # columns of every table of PostgreSQL
OTHER = "__column"


class Statements:
    """Statements for one driver. A Table's name here is that of a generation's own table."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._upserts: dict[Table, str] = {}

    def look(self, connection: Any, table: Table) -> bool:
        """Whether a table was made by a release that kept such rows in another way. It is looked at once."""
        return False

    def create(self, table: Table | str, name: str, generation: int) -> Iterator[str]:
        """The statements that make a generation's table."""
        own = self._driver.relation(physical(name, generation))
        if isinstance(table, str):
            yield f"CREATE TABLE {own} ({table})"
            return
        columns = [
            f"{self.column(c.name)} {self._driver.types[c.kind]}{'' if c.nullable else ' NOT NULL'}"
            for c in table.columns
        ]
        columns.append(f"PRIMARY KEY ({self.listed(table.key)})")
        yield f"CREATE TABLE {own} ({', '.join(columns)}) {self._driver.table_end}"
        for index in table.indexes:
            by = ", ".join(self._ascending(table, each) for each in index)
            yield f"CREATE INDEX {self.index_name(name, generation, index)} ON {own} ({by})"

    def index_name(self, name: str, generation: int, index: Sequence[str]) -> str:
        """What the index of a generation's table on these columns is called."""
        return quoted(clipped(f"{physical(name, generation)}__{'_'.join(index)}", self._driver.longest_name))

    def column(self, name: str) -> str:
        """A column as SQL names it."""
        return self._driver.column(name)

    def listed(self, names: Iterable[str]) -> str:
        """Columns, with commas."""
        return ", ".join(map(self._driver.column, names))

    def _ascending(self, table: Table, name: str) -> str:
        """A column to sort by: None is the least value, as SQLite has it and no setting of a server changes."""
        nullable = any(column.nullable for column in table.columns if column.name == name)
        return f"{self.column(name)} NULLS FIRST" if nullable else self.column(name)

    def _descending(self, table: Table, name: str) -> str:
        nullable = any(column.nullable for column in table.columns if column.name == name)
        return f"{self.column(name)} DESC{' NULLS LAST' if nullable else ''}"

    def columns(self, table: Table) -> str:
        """What is asked for, where rows are."""
        return self.listed(table.fields)

    def upsert(self, table: Table) -> str:
        """Write a row, whole."""
        sql = self._upserts.get(table)
        if sql is None:
            column, own = self.column, self._driver.relation(table.name)
            rest = [f"{column(f)} = excluded.{column(f)}" for f in table.fields if f not in table.key]
            sql = self._upserts[table] = (
                f"INSERT INTO {own} ({self.listed(table.fields)}) VALUES ({','.join('?' * len(table.columns))}) "  # noqa: S608
                f"ON CONFLICT ({self.listed(table.key)}) DO {'UPDATE SET ' + ', '.join(rest) if rest else 'NOTHING'}"
            )
        return sql

    def delete(self, table: Table) -> str:
        """Delete a row by its key."""
        key = " AND ".join(f"{self.column(k)} = ?" for k in table.key)
        return f"DELETE FROM {self._driver.relation(table.name)} WHERE {key}"  # noqa: S608

    def load(self, table: Table, keys: Sequence[Sequence[Any]]) -> tuple[str, list[Any]]:
        """The rows of some keys."""
        of: dict[str, ColumnKind] = {column.name: column.kind for column in table.columns}
        condition = self._driver.keys([(self.column(k), of[k]) for k in table.key], len(keys))
        values = [value for key in self.packed_keys(table, keys) for value in key]
        return f"SELECT {self.columns(table)} FROM {self._driver.relation(table.name)} WHERE {condition}", values  # noqa: S608

    def select(
        self, table: Table, where: Mapping[str, Any], order: Sequence[str], limit: int | None
    ) -> tuple[str, list[Any]]:
        """Some rows."""
        kinds: dict[str, ColumnKind] = {column.name: column.kind for column in table.columns}
        refuse_unknown(table, where, order)
        conditions = [
            f"{self.column(name)} IS NULL" if value is None else f"{self.column(name)} = ?"
            for name, value in where.items()
        ]
        pack = self._driver.pack
        values = [pack[kinds[n]](v) if kinds[n] in pack else v for n, v in where.items() if v is not None]
        sql = f"SELECT {self.columns(table)} FROM {self._driver.relation(table.name)}"  # noqa: S608
        if conditions:
            sql += f" WHERE {' AND '.join(conditions)}"
        by = [
            self._descending(table, name[1:]) if name[0] == "-" else self._ascending(table, name)
            for name in order or table.key
        ]
        sql += f" ORDER BY {', '.join(by)}"
        if limit is not None:
            sql += " LIMIT ?"
            values.append(limit)
        return sql, values

    def scan(self, table: Table, further: bool, page: int) -> str:
        """The next rows in the order of the key."""
        key, own = self.listed(table.key), self._driver.relation(table.name)
        after = f"WHERE ({key}) > ({','.join('?' * len(table.key))})" if further else ""
        return f"SELECT {self.listed(table.fields)} FROM {own} {after} ORDER BY {key} LIMIT {page}"  # noqa: S608

    def after(self, table: Table, row: Sequence[Any]) -> tuple[Any, ...]:
        """Where a scan goes on behind this row, as the driver gave it."""
        return tuple(row[: len(table.key)])

    def packed(self, table: Table, rows: Sequence[Sequence[Any]]) -> Sequence[Sequence[Any]]:
        """Rows as the driver takes them."""
        return _converted(rows, self._converters(table, self._driver.pack))

    def packed_keys(self, table: Table, keys: Sequence[Sequence[Any]]) -> Iterable[Sequence[Any]]:
        """Keys as the driver takes them."""
        return _converted(keys, self._converters(table, self._driver.pack)[: len(table.key)])

    def unpacked(self, table: Table, rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """Rows as the driver gave them, in Python's types. Raises ProjectionDamaged."""
        try:
            return list(_converted(rows, self._converters(table, self._driver.unpack)))  # type: ignore[arg-type]
        except (ValueError, TypeError, ArithmeticError) as error:
            raise unreadable_row(table.name, error) from error

    def _converters(self, table: Table, by_kind: Mapping[Any, Converter]) -> list[Converter | None]:
        return [by_kind.get(column.kind) for column in table.columns]


def _converted(rows: Sequence[Sequence[Any]], converters: list[Converter | None]) -> Sequence[Any]:
    if not any(converters):
        return rows
    return [
        tuple([v if convert is None else convert(v) for v, convert in zip(row, converters, strict=True)])
        for row in rows
    ]


def is_keyed(table: Table, where: Collection[str], order: Sequence[str]) -> bool:
    """Whether the key or an index finds such rows, or gives them in this order."""
    for index in (table.key, *table.indexes):
        if where and set(index[: len(where)]) == set(where):
            return True
        if not where and tuple(name.removeprefix("-") for name in order or table.key) == index[: len(order) or None]:
            return True
    return False


def refuse_unknown(table: Table, where: Iterable[str], order: Iterable[str]) -> None:
    """Raises InvalidProjection on a column that the table does not have."""
    unknown = sorted({*where, *(name.removeprefix("-") for name in order)} - set(table.fields))
    if unknown:
        own = [name for name in ("order", "limit", "wait", "generation") if name in table.fields]
        hint = f' Those called {own[0]} are asked for by rows(…, {{"{own[0]}": …}}).' if own else ""
        raise InvalidProjection(
            f"The rows asked for have no column {', '.join(unknown)}.",
            f"Their columns are {', '.join(table.fields)}.{hint}",
        )


def quoted(name: str) -> str:
    """A name as standard SQL quotes it, so that a table or a field may be called what SQL reserves."""
    return '"' + name.replace('"', '""') + '"'


def column_name(field: str) -> str:
    """What the column of a field is called on PostgreSQL, whose tables have columns of their own already."""
    return f"{field}{OTHER}" if field in SYSTEM else field


def fields_of(columns: Sequence[str]) -> str:
    """Columns of a table by the names of their fields, as SQL; "" where these are the same."""
    if not any(each.removesuffix(OTHER) in SYSTEM for each in columns):
        return ""
    fields = [(each, each.removesuffix(OTHER)) for each in columns]
    return ", ".join(f"{quoted(own)} AS {quoted(field if field in SYSTEM else own)}" for own, field in fields)


def clipped(name: str, longest: int | None) -> str:
    """A name of at most `longest` bytes (None: any number), other than what any other name becomes.

    Where it ends with the number of a generation, it still does.
    """
    if longest is None or len(name.encode()) <= longest:
        return name
    table, _, generation = name.rpartition("__")
    end = f"_{crc32(name.encode()):08x}" + (f"__{generation}" if table and generation.isdecimal() else "")
    return name.encode()[: longest - len(end)].decode("utf-8", "ignore") + end
