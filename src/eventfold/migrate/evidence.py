"""What each table of a source is, and which events its rows would become: guesses, each with its evidence.

An entity has a key of its own, and is referred to or has times; a row whose key contains its parent's, that is deleted
with it, or that is named after it is a part; a table of keys only is a join; a small table that others refer to is a
reference. What has no evidence stays undecided.

Knows: schemas, samples, names. Does not know: files, how rows become events.
"""

from __future__ import annotations

import re
from collections import Counter

import msgspec

from eventfold.migrate.columns import ColumnEvidence, read_columns
from eventfold.migrate.connection import Connection
from eventfold.migrate.histories import recognise
from eventfold.migrate.histories.auditlog import NAME as AUDITLOG
from eventfold.migrate.histories.change import column_names, recorded_tables
from eventfold.migrate.histories.reversion import NAME as REVERSION
from eventfold.migrate.histories.states import NAME as STATES
from eventfold.migrate.histories.system_versioned import own_history
from eventfold.migrate.mapping import History, Role, TableMapping
from eventfold.migrate.names import class_name, entity_names, snake_name, words_of
from eventfold.migrate.references import Found, find_references
from eventfold.migrate.reflection import Schema, Table
from eventfold.migrate.samples import has_duplicates, sample

TECHNICAL = {
    "django_migrations": "Django's record of schema changes",
    "django_session": "sessions of the web application, which end by themselves",
    "django_admin_log": "the log of Django's administration pages",
    "django_content_type": "Django's list of its models, which generic foreign keys refer to",
    "alembic_version": "Alembic's record of schema changes",
    "schema_migrations": "a record of schema changes",
    "ar_internal_metadata": "a record of Rails",
    "flyway_schema_history": "Flyway's record of schema changes",
    "spatial_ref_sys": "PostGIS' list of coordinate systems",
    "sqlite_sequence": "SQLite's counters",
}
ROUNDUP = ("ids", "schema", "otks", "sessions", "__textids", "__words")
DERIVED = re.compile(r"(?:al|ally|ed|er|or|ing|ion|s)[a-z]")  # conditional is no part of condition
OF_DJANGO = (AUDITLOG, REVERSION)  # histories of many tables in one
SMALL_ROWS = 300  # of a table that only names things
SMALL_COLUMNS = 6


class Guess(msgspec.Struct, frozen=True, kw_only=True):
    """The guesses for one table: its mapping, what its columns suggest, and references that the values contradict."""

    mapping: TableMapping
    columns: ColumnEvidence
    references: tuple[Found, ...] = ()


def guess(connection: Connection, schema: Schema) -> dict[str, Guess]:
    """Return a guess for each table."""
    names = entity_names([table.label for table in schema.tables])
    histories = recognise(schema)
    samples = {table.label: sample(connection, table) for table in schema.tables}
    keys = {table.label: _key(connection, table) for table in schema.tables}
    plain_keys = {label: key for label, (key, _) in keys.items()}
    references = find_references(connection, schema, plain_keys, names)
    referred = Counter(
        each.reference.table
        for label, found in references.items()
        for each in found
        if not each.refused and each.reference.table != label and label not in histories
    )
    proved = _tables_with_births(connection, schema, histories)
    found: dict[str, Guess] = {}
    for table in schema.tables:
        label = table.label
        columns = read_columns(connection, table, samples[label], class_name(names[label]))
        history, technical = histories.get(label), _technical(table, histories)
        is_past = history is not None and history.package != STATES  # which applications show to their users
        if is_past or technical is not None:
            found[label] = Guess(mapping=_not_migrated(table, history, technical), columns=columns)
            continue
        usable = [each for each in references[label] if not each.refused]
        role, of, because = _role(table, plain_keys[label], usable, referred[label], columns, names)
        mapping = _mapping(table, role, of, names[label], keys[label], usable, columns)
        said = (*because, keys[label][1], *(each.because for each in usable), *columns.because)
        own_past = history or own_history(table)
        born = f"{mapping.name}Created" if label in proved or own_history(table) else ""
        mapping = msgspec.structs.replace(mapping, because=tuple(filter(None, said)), history=own_past)
        if mapping.is_migrated and born:
            mapping = msgspec.structs.replace(mapping, created=born)
        found[label] = Guess(mapping=mapping, columns=columns, references=tuple(references[label]))
    return _without_repeated_types(found)


def _tables_with_births(connection: Connection, schema: Schema, histories: dict[str, History]) -> set[str]:
    """Return the tables of whose rows a history may prove how they began."""
    found = {each.of for each in histories.values() if each.of and each.package != STATES}
    for label, history in histories.items():
        if history.package in OF_DJANGO and "content_type_id" in column_names(schema.table(label)):
            found |= recorded_tables(connection, schema, label)
    return found


def _technical(table: Table, histories: dict[str, History]) -> str | None:
    if table.kind == "virtual" or table.name.startswith("__fts_"):
        return "an index for searches"
    if table.name in ROUNDUP and any(each.package == "roundup" for each in histories.values()):
        return "a table of Roundup itself"
    return TECHNICAL.get(table.name)


def _not_migrated(table: Table, history: History | None, technical: str | None) -> TableMapping:
    if history is not None:
        of = f" of {history.of}" if history.of else ""
        return TableMapping(
            role="history", history=history, because=(f"it has the columns of {history.package}: the past{of}",)
        )
    return TableMapping(role="ignored", because=(technical or "",))


# ---------------------------------------------------------------------------------------- keys and roles


def _key(connection: Connection, table: Table) -> tuple[tuple[str, ...], str]:
    """Return the columns that identify a row, and why; none if no set of columns is known to."""
    if table.key:
        return table.key, ""
    for unique in sorted(table.unique, key=len):
        if all(not table.column(name).is_nullable for name in unique):
            return unique, f"it has no primary key; ({', '.join(unique)}) is unique"
    readable = "SELECT" in table.rights
    for unique in sorted(table.unique, key=len):
        if readable and not has_duplicates(connection, table, unique):
            return unique, f"it has no primary key; ({', '.join(unique)}) is unique, and no row has NULL there"
    names = tuple(column.name for column in table.columns)
    if len(names) == 2 and all(name.lower().endswith("id") for name in names):
        if not readable or not has_duplicates(connection, table, names):
            return names, f"it has no key; ({', '.join(names)}) are two keys, and no two rows have the same"
    return (), ""


def _role(
    table: Table,
    key: tuple[str, ...],
    references: list[Found],
    referred: int,
    columns: ColumnEvidence,
    names: dict[str, list[str]],
) -> tuple[Role, str, tuple[str, ...]]:
    """Return what a table is, of which table it is a part, and why."""
    if not key:
        return "undecided", "", ("it has no key: name columns that identify a row, or ignore it",)
    if _is_join(table, key, references):
        return (
            "join",
            "",
            (f"it has nothing but the keys of {' and '.join(each.reference.table for each in references)}",),
        )
    parent, why = _parent(table, key, references, names)
    if parent:
        return "part", parent, (why,)
    times = columns.occurred or columns.dates or columns.no_fact
    if referred and not references and not times and _is_small(table):
        return (
            "reference",
            "",
            (f"it refers to none, and {_tables(referred)} to its {table.rows or 0:,} rows",),
        )
    if referred or times:
        reasons = [f"{_tables(referred)} to it"] if referred else []
        return "entity", "", (" and ".join([*reasons, *(["it has times"] if times else [])]),)
    if len(key) == len([each for each in table.columns if not each.is_generated]):
        return "entity", "", ("its rows are nothing but their key",)
    return "entity", "", ("it has a key of its own; nothing refers to it and it has no time, so look at it twice",)


def _tables(number: int) -> str:
    return "1 other table refers" if number == 1 else f"{number} other tables refer"


def _is_small(table: Table) -> bool:
    return (table.rows or 0) <= SMALL_ROWS and len(table.columns) <= SMALL_COLUMNS


def _is_join(table: Table, key: tuple[str, ...], references: list[Found]) -> bool:
    pointing = {name for each in references if each.reference.table for name in each.reference.columns}
    others = {column.name for column in table.columns} - pointing
    has_own_key = len(key) == 1 and others == set(key) and table.column(key[0]).is_identity
    is_unique = any(set(unique) == pointing for unique in table.unique)
    tables = [each for each in references if each.reference.table]
    return len(tables) == 2 and len(pointing) == 2 and (not others or (has_own_key and is_unique))


def _parent(
    table: Table, key: tuple[str, ...], references: list[Found], names: dict[str, list[str]]
) -> tuple[str, str]:
    """Return the table that a table's rows are parts of, and why."""
    candidates = [each for each in references if each.reference.table and each.reference.table != table.label]
    for each in candidates:
        if len(key) > len(each.reference.columns) and set(each.reference.columns) <= set(key):
            return each.reference.table, f"its key ({', '.join(key)}) contains that of {each.reference.table}"
    not_null = [each for each in candidates if all(not table.column(c).is_nullable for c in each.reference.columns)]
    for each in not_null:
        if set(each.reference.columns) == set(key):
            return each.reference.table, f"its key is that of {each.reference.table}"
    own = words_of(table.label)
    named = [(len(words), each) for each in not_null if (words := _common_name(own, each, names))]
    if named:
        _, best = max(named, key=lambda pair: pair[0])
        deleted = ", and is deleted with it" if best.cascades else ""
        return best.reference.table, f"it is named after {best.reference.table}, which each row refers to{deleted}"
    cascading = [each for each in not_null if each.cascades]
    if len(cascading) == 1 and len(not_null) == 1:
        return cascading[0].reference.table, f"each row is deleted with its row of {cascading[0].reference.table}"
    return "", ""


def _common_name(own: list[str], found: Found, names: dict[str, list[str]]) -> list[str]:
    """Return the words of a parent's name if a table's name begins with them and says more: order_line, of order."""
    full = words_of(found.reference.table)
    joined = "_".join(own)
    for words in (full, names[found.reference.table]):
        text = "_".join(words)
        if joined.startswith(text) and len(joined) > len(text) + 1 and not DERIVED.match(joined[len(text) :]):
            return words
    return []


# ---------------------------------------------------------------------------------------- the mapping


def _mapping(
    table: Table,
    role: Role,
    of: str,
    words: list[str],
    key: tuple[tuple[str, ...], str],
    references: list[Found],
    columns: ColumnEvidence,
) -> TableMapping:
    name = class_name(words)
    names = [column.name for column in table.columns if not column.is_generated]
    details = columns.details
    kept = tuple(each for each in names if each not in columns.personal)
    occurred = columns.occurred if columns.occurred and columns.occurred.column in kept else None
    transition = columns.transition if columns.transition and columns.transition.column in kept else None
    return TableMapping(
        role=role,
        name=name,
        tag=snake_name(words),
        key=key[0],
        of=of,
        references=tuple(each.reference for each in references),
        opening=f"{name}Imported",
        changed=f"{name}Changed",
        removed=f"{name}Removed",
        occurred=occurred,
        dates={column: event for column, event in columns.dates.items() if column in kept},
        transition=transition,
        soft_delete=columns.soft_delete,
        keep=kept,
        undecided=tuple(each for each in names if each in columns.personal),
        no_fact=tuple(each for each in columns.no_fact if each in kept),
        columns=details,
    )


def _without_repeated_types(found: dict[str, Guess]) -> dict[str, Guess]:
    """Return the guesses without event types of states and dates that another table or another column has as well."""
    counted: Counter[str] = Counter()
    for each in found.values():
        own = each.mapping
        transition = list(own.transition.types.values()) if own.transition else []
        dated = set(own.dates.values()) | set(transition)  # shipped_at and the status "shipped" are one type
        counted.update([own.opening, own.changed, own.removed, *dated])
    for label, each in found.items():
        own = each.mapping
        transition = own.transition
        if transition is not None and any(counted[name] > 1 for name in transition.types.values()):
            renamed = {
                value: f"{name}{class_name(words_of(transition.column))}" for value, name in transition.types.items()
            }
            transition = msgspec.structs.replace(transition, types=renamed)
        dates = {column: name for column, name in own.dates.items() if counted[name] == 1}
        mapping = msgspec.structs.replace(own, transition=transition, dates=dates)
        found[label] = msgspec.structs.replace(each, mapping=mapping)
    return found
