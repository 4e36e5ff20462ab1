"""Which rows refer to which: foreign keys, references that no constraint declares, and generic foreign keys.

A reference that is guessed from names is kept if nearly all sampled values are keys of the other table; the share is
its evidence. Knows: schemas, samples. Does not know: what a reference makes of a table (evidence.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from eventfold.migrate.connection import Connection
from eventfold.migrate.kinds import kind_of
from eventfold.migrate.mapping import Reference
from eventfold.migrate.names import singular, words_of
from eventfold.migrate.reflection import Column, Schema, Table
from eventfold.migrate.samples import inclusion, states

ENOUGH_PERCENT = 95.0  # of the sampled values, for a reference that no constraint declares
CONTENT_TYPES = "django_content_type"
TYPE_COLUMN = re.compile(r"(?:(\w+)_)?(?:type|realm|class|model|kind)", re.IGNORECASE)
COMPARABLE = (frozenset(("integer",)), frozenset(("text", "uuid", "enum")))


class Found(msgspec.Struct, frozen=True):
    """A reference with its evidence. `declared`: by a constraint. `refused`: the values contradict the names."""

    reference: Reference
    because: str
    declared: bool = False
    refused: bool = False
    cascades: bool = False


def find_references(
    connection: Connection, schema: Schema, keys: dict[str, tuple[str, ...]], names: dict[str, list[str]]
) -> dict[str, list[Found]]:
    """Return the references of each table. `keys`: the key of each; `names`: the words by which it is called."""
    found: dict[str, list[Found]] = {}
    for table in schema.tables:
        declared = [
            Found(
                Reference(
                    columns=each.columns, table=each.table, to=() if each.to == keys.get(each.table) else each.to
                ),
                f"foreign key ({', '.join(each.columns)}) to {each.table}",
                declared=True,
                cascades=each.on_delete == "CASCADE",
            )
            for each in table.foreign_keys
        ]
        generic = list(_generic(connection, schema, table, names))
        taken = {name for each in (*declared, *generic) for name in each.reference.columns}
        guessed = [] if table.foreign_keys else list(_guessed(connection, schema, table, keys, names, taken))
        found[table.label] = [*declared, *generic, *guessed]
    return found


def _guessed(
    connection: Connection,
    schema: Schema,
    table: Table,
    keys: dict[str, tuple[str, ...]],
    names: dict[str, list[str]],
    taken: set[str],
) -> Iterator[Found]:
    for column in table.columns:
        if column.name in taken:
            continue
        for other in schema.tables:
            key = keys.get(other.label, ())
            if len(key) != 1 or not _suggests(table, column, other, key[0], names[other.label]):
                continue
            if not _comparable(connection, column, other.column(key[0])):
                continue
            reference = Reference(columns=(column.name,), table=other.label)
            if not ({"SELECT"} <= set(table.rights) and {"SELECT"} <= set(other.rights)):
                yield Found(reference, f"{column.name} is named after {other.label}; its values may not be read")
                break
            counted = inclusion(connection, table, (column.name,), other, key)
            said = f"{column.name} is named after {other.label}, and {counted} are keys of it; no constraint says so"
            if counted.sampled and counted.percent < ENOUGH_PERCENT:
                yield Found(reference, said, refused=True)
                continue
            if not counted.sampled:
                said = f"{column.name} is named after {other.label}; it has no values to confirm that"
            yield Found(reference, said)
            break


def _suggests(table: Table, column: Column, other: Table, key: str, name: list[str]) -> bool:
    """Whether a column is called as a reference to another table would be: ticket, ticket_id, TicketId."""
    if table.label == other.label and column.name == key:
        return False
    words, own = words_of(column.name), [singular(word) for word in name]
    stripped = words[:-1] if len(words) > 1 and words[-1] in ("id", "no", "nr", "key", "code", "fk") else words
    if stripped == own or stripped == words_of(other.label):
        return True
    if words != words_of(key) and stripped != words and len(own) <= len(stripped) and stripped[-len(own) :] == own:
        return True  # shipping_address_id
    if words == words_of(key) and len(words) > 1:  # customer_id, also if the table is called otherwise
        return True
    return words == ["nodeid"] and words_of(table.label)[: len(own)] == own  # Roundup's tables of links


def _comparable(connection: Connection, some: Column, other: Column) -> bool:
    kinds = {kind_of(connection.dialect, some), kind_of(connection.dialect, other)}
    return any(kinds <= each for each in COMPARABLE)


# ---------------------------------------------------------------------------------------- generic foreign keys


def _generic(connection: Connection, schema: Schema, table: Table, names: dict[str, list[str]]) -> Iterator[Found]:
    """Yield references whose table is named by a column: of Django's content types, and pairs such as type and id."""
    columns = {each.name: each for each in table.columns}
    for key in table.foreign_keys:
        if key.table == CONTENT_TYPES and len(key.columns) == 1:
            prefix = key.columns[0].removesuffix("_id").removesuffix("content_type")
            for candidate in (f"{prefix}object_id", f"{prefix}object_pk", f"{prefix}id", "object_id", "object_pk"):
                if candidate in columns:
                    yield _of_content_types(connection, schema, key.columns[0], candidate)
                    break
    declared = {name for each in table.foreign_keys for name in each.columns}
    for name in columns:
        match = TYPE_COLUMN.fullmatch(name)
        target = _beside(match[1] or "", list(columns)) if match else None
        if target is None or target in declared or name in declared or target in table.key:
            continue
        types = _types(connection, schema, table, name, names)
        if types:
            said = ", ".join(f"{value} is {label}" for value, label in types.items())
            because = f"{name} says of which table {target} is the key: {said}"
            yield Found(Reference(columns=(target,), type_column=name, types=types), because)


def _beside(prefix: str, columns: list[str]) -> str | None:
    """Return the column that holds the key beside a column of a type."""
    wanted = [f"{prefix}_id", prefix] if prefix else ["id", "object_id", "target", "target_id", "item_id"]
    return next((each for each in wanted if each in columns), None)


def _of_content_types(connection: Connection, schema: Schema, type_column: str, column: str) -> Found:
    labels = {table.label for table in schema.tables}
    rows = connection.rows(f"SELECT id, app_label, model FROM {schema.table(CONTENT_TYPES).sql} ORDER BY id")  # noqa: S608
    types = {str(number): f"{app}_{model}" for number, app, model in rows if f"{app}_{model}" in labels}
    because = f"({type_column}, {column}) is a generic foreign key of Django: {len(types)} content types have a table"
    return Found(Reference(columns=(column,), type_column=type_column, types=types), because)


def _types(
    connection: Connection, schema: Schema, table: Table, column: str, names: dict[str, list[str]]
) -> dict[str, str]:
    """Return the values of a column that name tables; none unless each value does."""
    if kind_of(connection.dialect, table.column(column)) not in ("text", "enum") or "SELECT" not in table.rights:
        return {}
    values = states(connection, table, column)
    if not values:
        return {}
    by_words = {tuple(words): label for label, words in names.items() if label != table.label}
    found = {str(value): by_words.get(tuple(words_of(str(value)))) for value in values}
    return {value: label for value, label in found.items() if label} if all(found.values()) else {}
