"""Tables of read models: the kind of column for each field, and the conversion of row objects to tuples and back.

Knows: Python types and a dozen kinds of columns. Does not know: any database's names for them (targets do).
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from itertools import chain, starmap
from operator import attrgetter
from types import NoneType
from typing import Any, Literal, Union, get_args, get_origin
from uuid import UUID

import msgspec

from eventfold.core.json_values import decoder_of
from eventfold.errors import InvalidProjection, ProjectionDamaged

ColumnKind = Literal["text", "int", "float", "bool", "bytes", "decimal", "moment", "date", "uuid", "json"]
Convert = Callable[[Any], Any]

# Order matters: bool is an int, datetime is a date.
KINDS: tuple[tuple[type, ColumnKind], ...] = (
    (bool, "bool"),
    (int, "int"),
    (float, "float"),
    (str, "text"),
    (bytes, "bytes"),
    (Decimal, "decimal"),
    (datetime, "moment"),
    (date, "date"),
    (UUID, "uuid"),
)


class Column(msgspec.Struct, frozen=True):
    """A column of a table. Every target can store every kind."""

    name: str
    kind: ColumnKind
    nullable: bool = False


class Table(msgspec.Struct, frozen=True):
    """A table: its columns in the order of the fields, those of the key first; the columns of each further index.

    `-` before a column of an index means descending.
    """

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    indexes: tuple[tuple[str, ...], ...] = ()

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(column.name for column in self.columns)


def stored_name(table: str, generation: int) -> str:
    """Return the name of a generation's table in the database."""
    return f"{table}__{generation}"


def generation_table(table: Table, generation: int) -> Table:
    """Return the table of one generation."""
    return msgspec.structs.replace(table, name=stored_name(table.name, generation))


class RowCodec(msgspec.Struct):
    """Conversions of one class's rows: `pack` returns the tuple to store, `unpack` the row object of a stored tuple.

    `pack_all`, `unpack_all`, `keys_of` and `pack_keys` convert many rows or keys at once, by column, which is faster.
    `decoders`: for each column, the conversion of a stored value to the field's value; None: they are the same.
    """

    table: Table
    pack: Callable[[Any], tuple[Any, ...]]
    unpack: Callable[[Sequence[Any]], Any]
    key_of: Callable[[Any], tuple[Any, ...]]
    pack_all: Callable[[Iterable[Any]], Sequence[tuple[Any, ...]]]
    unpack_all: Callable[[Sequence[Sequence[Any]]], list[Any]]
    keys_of: Callable[[Iterable[Any]], list[tuple[Any, ...]]]
    pack_keys: Callable[[Iterable[tuple[Any, ...]]], Sequence[tuple[Any, ...]]]
    decoders: tuple[Convert | None, ...] = ()
    generations: dict[int, Table] = {}
    fields: Any = None  # computed at first use: see projections/rows.py

    def of_generation(self, generation: int) -> Table:
        """Return the table of one generation, the same object each time."""
        table = self.generations.get(generation)
        if table is None:
            table = self.generations[generation] = generation_table(self.table, generation)
        return table


def row_codec_of(
    cls: Any, name: str, hints: dict[str, Any], key: tuple[str, ...], indexes: tuple[tuple[str, ...], ...]
) -> RowCodec:
    """Return the table of a Projection class with its conversions. Raises InvalidProjection on an invalid field."""
    columns: list[Column] = []
    encoders: list[Convert | None] = []
    decoders: list[Convert | None] = []
    fields: tuple[str, ...] = cls.__struct_fields__
    for field in fields:
        column, encode, decode = _column(cls, field, hints[field])
        if field in key and column.nullable:
            raise InvalidProjection(
                f"{cls.__name__}.{field} is part of the key and may be None.", "Remove `| None` from its type."
            )
        columns.append(column)
        encoders.append(encode)
        decoders.append(decode)
    for index in indexes:
        unknown = [each for each in index if each.removeprefix("-") not in fields]
        if unknown:
            raise InvalidProjection(
                f"{cls.__name__} has an index on {', '.join(unknown)}, which is not one of its fields.",
                f"Name fields: {', '.join(fields)}.",
            )
        as_json = [
            column.name for column in columns if column.kind == "json" and {column.name, f"-{column.name}"} & {*index}
        ]
        if as_json:
            raise InvalidProjection(
                f"{cls.__name__} has an index on {', '.join(as_json)}, which is stored as JSON and cannot be compared.",
                "Leave it out of indexes=, or keep what is compared in a field of its own.",
            )
    get, size = _getter(fields), len(key)
    get_all = _all_values if issubclass(cls, msgspec.Struct) else values_getter(fields)
    unpack = _building(cls) if not any(decoders) else _unpacking(cls, decoders)
    return RowCodec(
        Table(name, tuple(columns), key, indexes),
        get if not any(encoders) else _converting(get, encoders),
        unpack,
        _getter(key),
        get_all if not any(encoders) else lambda rows: converted(get_all(rows), encoders),
        _unpacking_all(cls, decoders, unpack),
        values_getter(key),
        list if not any(encoders[:size]) else lambda keys: converted(list(keys), encoders[:size]),
        tuple(decoders),
    )


# By kind of column, the types that the values of filters and rows may have, and the derived types that are excluded:
# bool is an int, datetime is a date.
COMPARABLE: dict[ColumnKind, tuple[tuple[type, ...], tuple[type, ...]]] = {
    "text": ((str,), ()),
    "int": ((int,), (bool,)),
    "float": ((int, float), (bool,)),
    "bool": ((bool,), ()),
    "bytes": ((bytes,), ()),
    "decimal": ((Decimal, int), (bool,)),
    "moment": ((datetime,), ()),
    "date": ((date,), (datetime,)),
    "uuid": ((UUID,), ()),
}


def is_of_kind(kind: ColumnKind, of: type) -> bool:
    """Whether values of a type may be in a column of a kind: each database would convert others in its own way."""
    if kind == "json" or issubclass(of, NoneType):
        return True
    allowed, left_out = COMPARABLE[kind]
    return issubclass(of, allowed) and not issubclass(of, left_out)


def _all_values(rows: Iterable[Any]) -> list[tuple[Any, ...]]:
    """Return the tuple of all fields of each struct, in their order: in a quarter of `attrgetter`'s time."""
    return list(map(msgspec.structs.astuple, rows))


def values_getter(names: tuple[str, ...]) -> Callable[[Iterable[Any]], list[tuple[Any, ...]]]:
    """Return a function that returns, for each of many objects, the tuple of these attributes."""
    get = attrgetter(*names)
    if len(names) == 1:
        return lambda objects: list(zip(map(get, objects), strict=True))
    return lambda objects: list(map(get, objects))


def converted(rows: Sequence[Any], converters: Sequence[Convert | None]) -> Sequence[Any]:
    """Return rows with converted columns. None, and a column whose converter is None, are left unchanged."""
    if not rows or not any(converters):
        return rows
    columns = [
        values if convert is None else [None if value is None else convert(value) for value in values]
        for values, convert in zip(columns_of(rows), converters, strict=True)
    ]
    return list(zip(*columns, strict=True))


def columns_of(rows: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """Return the columns of rows of one length. Not by zip(*rows), which needs an iterator for each row."""
    width, values = len(rows[0]) if rows else 0, list(chain.from_iterable(rows))
    return [values[at::width] for at in range(width)]


def _getter(fields: tuple[str, ...]) -> Callable[[Any], tuple[Any, ...]]:
    if len(fields) == 1:
        one = attrgetter(fields[0])
        return lambda row: (one(row),)
    return attrgetter(*fields)


def _through(values: Sequence[Any], converters: Sequence[Convert | None]) -> list[Any]:
    return [
        value if convert is None or value is None else convert(value)
        for value, convert in zip(values, converters, strict=True)
    ]


def _converting(
    get: Callable[[Any], tuple[Any, ...]], encoders: list[Convert | None]
) -> Callable[[Any], tuple[Any, ...]]:
    return lambda row: tuple(_through(get(row), encoders))


def _building(cls: Any) -> Callable[[Sequence[Any]], Any]:
    def build(row: Sequence[Any]) -> Any:
        try:
            return cls(*row)
        except Exception as error:
            raise _refused_by_class(cls, row, error) from error

    return build


def _refused_by_class(cls: Any, row: Sequence[Any], error: Exception) -> InvalidProjection:
    """Return the error for a stored row that a check of its class (`__post_init__`) refuses."""
    return InvalidProjection(
        f"A stored row is refused by its own class {cls.__name__}: {type(error).__name__}: {error} (it begins "
        f"with {row[0]!r}).",
        "Make the class accept the rows that it has written, or rebuild them: "
        "eventfold projections rebuild STORE NAME --switch.",
        row=repr(tuple(row))[:500],
    )


def _unpacking(cls: Any, decoders: list[Convert | None]) -> Callable[[Sequence[Any]], Any]:
    def unpack(row: Sequence[Any]) -> Any:
        try:
            values = _through(row, decoders)
        except (ValueError, TypeError, ArithmeticError, msgspec.MsgspecError) as error:
            raise unreadable_row(cls.__name__, error) from error
        return build(values)

    build = _building(cls)
    return unpack


def _unpacking_all(
    cls: Any, decoders: list[Convert | None], unpack: Callable[[Sequence[Any]], Any]
) -> Callable[[Sequence[Sequence[Any]]], list[Any]]:
    def unpack_all(rows: Sequence[Sequence[Any]]) -> list[Any]:
        try:
            return list(starmap(cls, converted(rows, decoders)))
        except Exception:  # noqa: BLE001 (unpacked one by one, the row raises an error that names it)
            return list(map(unpack, rows))

    return unpack_all


def unreadable_row(of: str, error: Exception) -> ProjectionDamaged:
    """Return the error for a stored row with a value that does not fit the kind of its column."""
    return ProjectionDamaged(
        f"A row of {of} is damaged: {error}.",
        "Fold again and compare (eventfold verify STORE --rows), then rebuild: "
        "eventfold projections rebuild STORE NAME --switch.",
        table=of,
    )


def _column(cls: type, field: str, hint: Any) -> tuple[Column, Convert | None, Convert | None]:
    plain, nullable = _plain(hint)
    if isinstance(plain, type) and issubclass(plain, Enum):
        kinds: set[ColumnKind] = {kind for member in plain for of, kind in KINDS if type(member.value) is of}
        if len(kinds) == 1:
            return Column(field, kinds.pop(), nullable), lambda member: member.value, plain
    elif get_origin(plain) is Literal:
        kinds = {kind for value in get_args(plain) for of, kind in KINDS if type(value) is of}
        if len(kinds) == 1:
            return Column(field, kinds.pop(), nullable), None, None
    elif isinstance(plain, type):
        for of, kind in KINDS:
            if plain is of:
                return Column(field, kind, nullable), None, None
    try:
        decoder = decoder_of(plain)
    except (TypeError, NameError) as error:
        raise InvalidProjection(
            f"{cls.__name__}.{field} cannot become a column: {error}.",
            "Use a type that has a JSON form, or one of str, int, float, bool, bytes, Decimal, datetime, date, UUID.",
        ) from error
    return Column(field, "json", nullable), _json, decoder.decode


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _plain(hint: Any) -> tuple[Any, bool]:
    """Return a hint without Annotated, NewType and None, and whether it included None."""
    nullable = False
    while True:
        if get_origin(hint) is typing.Annotated:
            hint = hint.__origin__
        elif hasattr(hint, "__supertype__"):
            hint = hint.__supertype__
        elif get_origin(hint) in (Union, types.UnionType) and type(None) in get_args(hint):
            rest = [arg for arg in get_args(hint) if arg is not type(None)]
            hint, nullable = (rest[0] if len(rest) == 1 else Union[tuple(rest)]), True  # noqa: UP007
        else:
            return hint, nullable
