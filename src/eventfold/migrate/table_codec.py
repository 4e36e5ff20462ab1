"""How the rows of one table are selected, read as JSON, written back, and compared.

Knows: the codecs of columns, the mapping, hidden columns. Does not know: events, how a database is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from eventfold.errors import ValueNotExact
from eventfold.migrate.connection import Dialect
from eventfold.migrate.mapping import TableMapping
from eventfold.migrate.reflection import Table
from eventfold.migrate.values import Codec, codec_of

Hide = Callable[[str, Any], str]  # (the domain, the JSON value) -> its keyed hash
SHOWN_CHARS = 60  # of a value in a message


class TableCodec:
    """The columns of a table that are in events, in the order of `columns`: those of the mapping's keep and hide.

    `hide` makes hashes of hidden columns; without it a table that has such columns cannot be read.
    """

    def __init__(self, dialect: Dialect, table: Table, mapping: TableMapping, hide: Hide | None = None) -> None:
        self.table, self.mapping, self._dialect = table, mapping, dialect
        carried = set(mapping.carried)
        self.columns: tuple[str, ...] = tuple(each.name for each in table.columns if each.name in carried)
        self.fields: tuple[str, ...] = tuple(map(mapping.field, self.columns))
        self.codecs: dict[str, Codec] = {}
        for name in dict.fromkeys((*self.columns, *mapping.key)):
            detail = mapping.detail(name)
            self.codecs[name] = codec_of(dialect, table.column(name), detail.kind, detail.form)
        self._hidden = {name: mapping.detail(name).domain or f"{table.label}.{name}" for name in mapping.hide}
        self._hide = hide
        self._readers = [self._reader(name) for name in self.columns]

    def select_list(self, prefix: str = "") -> str:
        """Return the expressions of the columns for a SELECT or a trigger; `prefix` is such as "NEW."."""
        return ", ".join(self.expression(name, prefix) for name in self.columns)

    def expression(self, column: str, prefix: str = "") -> str:
        """Return the expression by which a column is selected."""
        return self.codecs[column].expression.format(prefix + _name(column))

    def parameter(self, column: str, mark: str) -> str:
        """Return the expression of a parameter for a column."""
        return self.codecs[column].parameter.format(mark)

    def read(self, row: Sequence[Any]) -> dict[str, Any]:
        """Return a selected row as JSON, by field. Raises ValueNotExact, which names the column and the key."""
        try:
            values = [None if v is None else reader(v) for reader, v in zip(self._readers, row, strict=True)]
        except ValueError as error:
            raise self._refusal(row, error) from error
        return dict(zip(self.fields, values, strict=True))

    def read_value(self, column: str, value: Any) -> Any:
        """Return one selected value as JSON. Raises ValueNotExact."""
        try:
            return None if value is None else self._reader(column)(value)
        except ValueError as error:
            raise self._refused(column, value, "", str(error)) from error

    def write(self, values: dict[str, Any], columns: Iterable[str]) -> list[Any]:
        """Return parameters for columns from a row as JSON. Hidden columns cannot be written: see `is_hidden`."""
        return [self.codecs[name].from_json(values[self.mapping.field(name)]) for name in columns]

    def differing(self, some: dict[str, Any], other: dict[str, Any]) -> list[str]:
        """Return the columns in which two rows as JSON differ, each by the equality of its type."""
        if some == other and not self._needs_care:
            return []
        return [
            name
            for name, field in zip(self.columns, self.fields, strict=True)
            if not self.is_equal(name, some.get(field), other.get(field))
        ]

    def is_equal(self, column: str, some: Any, other: Any) -> bool:
        """Whether two JSON values are the same value of a column."""
        return some == other if column in self._hidden else self.codecs[column].equal(some, other)

    def is_hidden(self, column: str) -> bool:
        """Whether events have a hash of this column, which cannot be turned back."""
        return column in self._hidden

    def hidden(self, column: str, value: Any) -> Any:
        """Return a JSON value as events have it: the hash of a hidden column, other values unchanged."""
        domain = self._hidden.get(column)
        if domain is None or value is None:
            return value
        if self._hide is None:
            raise ValueError(f"no key to hide {self.table.label}.{column} was given")
        return self._hide(domain, value)

    @property
    def _needs_care(self) -> bool:
        """Whether `==` of two rows may be true where they differ: 1 is True, 0.0 is -0.0."""
        return any(self.codecs[name].kind in ("float", "json", "any", "array") for name in self.columns)

    def _reader(self, column: str) -> Callable[[Any], Any]:
        read = self.codecs[column].read
        domain = self._hidden.get(column)
        if domain is None:
            return read
        hide = self._hide
        if hide is None:
            raise ValueError(f"no key to hide {self.table.label}.{column} was given")
        return lambda value: hide(domain, read(value))

    def _refusal(self, row: Sequence[Any], error: ValueError) -> ValueNotExact:
        """Return the error for the first value of a row that cannot be read."""
        index, reason = 0, str(error)
        for at, (reader, value) in enumerate(zip(self._readers, row, strict=True)):
            try:
                if value is not None:
                    reader(value)
            except ValueError as its:
                index, reason = at, str(its)
                break
        keys = [f"{name}={row[self.columns.index(name)]!r}" for name in self.mapping.key if name in self.columns]
        return self._refused(self.columns[index], row[index], ", ".join(keys), reason)

    def _refused(self, column: str, value: Any, key: str, reason: str) -> ValueNotExact:
        kind = "any" if self._dialect == "sqlite" else "text"
        shown = "a value" if column in self._hidden else repr(value)[:SHOWN_CHARS]
        codec = self.codecs[column]
        return ValueNotExact(
            f"The column {column} of {self.table.label} has {shown}{f' in the row {key}' if key else ''}: {reason}, so "
            f"that the kind {codec.kind} cannot hold it.",
            f'Correct the row, or write kind = "{kind}" into [tables."{self.table.label}".columns."{column}"].',
            table=self.table.label,
            column=column,
            key=key,
        )


def _name(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'


def select_of(codec: TableCodec) -> str:
    """Return a SELECT of all rows of a table, without an order."""
    return f"SELECT {codec.select_list()} FROM {codec.table.sql}"  # noqa: S608 - names are quoted
