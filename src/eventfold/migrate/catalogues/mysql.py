"""The catalogue of a MySQL or MariaDB database.

Knows: information_schema. Does not know: its driver, what a table means.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

from eventfold.migrate.catalogues.written_tables import written_tables
from eventfold.migrate.connection import Connection
from eventfold.migrate.reflection import Check, Column, ForeignKey, Routine, Schema, Table, Trigger

TABLES = (
    "SELECT table_name, engine, table_rows, table_type FROM information_schema.tables "
    "WHERE table_schema = DATABASE() AND table_type IN ('BASE TABLE', 'SYSTEM VERSIONED') ORDER BY table_name"
)
COLUMNS = (
    "SELECT table_name, column_name, column_type, is_nullable, column_default, extra, collation_name, "
    "character_set_name FROM information_schema.columns WHERE table_schema = DATABASE() "
    "ORDER BY table_name, ordinal_position"
)
KEYS = (
    "SELECT table_name, index_name, column_name FROM information_schema.statistics "
    "WHERE table_schema = DATABASE() AND non_unique = 0 ORDER BY table_name, index_name, seq_in_index"
)
FOREIGN_KEYS = (
    "SELECT k.table_name, k.constraint_name, k.column_name, k.referenced_table_schema, k.referenced_table_name, "
    "k.referenced_column_name, r.delete_rule, r.update_rule FROM information_schema.key_column_usage k "
    "JOIN information_schema.referential_constraints r ON r.constraint_schema = k.constraint_schema "
    "AND r.constraint_name = k.constraint_name AND r.table_name = k.table_name "
    "WHERE k.table_schema = DATABASE() AND k.referenced_table_name IS NOT NULL "
    "ORDER BY k.table_name, k.constraint_name, k.ordinal_position"
)
TRIGGERS = (
    "SELECT event_object_table, trigger_name, event_manipulation, action_statement FROM information_schema.triggers "
    "WHERE trigger_schema = DATABASE() ORDER BY trigger_name"
)
ROUTINES = (
    "SELECT routine_name, routine_type, routine_definition FROM information_schema.routines "
    "WHERE routine_schema = DATABASE() ORDER BY routine_name"
)
EVENTS = "SELECT event_name, event_definition FROM information_schema.events WHERE event_schema = DATABASE()"
SETTINGS = (
    "log_bin",
    "binlog_format",
    "binlog_row_image",
    "version_comment",
    "lower_case_table_names",
    "event_scheduler",
)
ENUM_VALUE = re.compile(r"'((?:[^']|'')*)'")
RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRIGGER")
OURS = ("eventfold_",)


def read_schema(connection: Connection) -> Schema:
    """Read the catalogue: nine queries, however many tables there are."""
    found = [row for row in connection.rows(TABLES) if not row[0].startswith(OURS)]
    labels = [row[0] for row in found]
    columns = _columns(connection)
    keys, unique = _keys(connection, columns)
    foreign, triggers, checks = _foreign_keys(connection), _triggers(connection, labels), _checks(connection, columns)
    role = str(connection.rows("SELECT CURRENT_USER()")[0][0])
    rights = _rights(connection)
    tables: list[Table] = []
    for name, engine, count, table_type in found:
        period = _period(columns[name]) if table_type == "SYSTEM VERSIONED" else None
        tables.append(
            Table(
                label=name,
                name=name,
                columns=tuple(column for column, _ in columns[name]),
                key=keys[name],
                unique=tuple(sorted(unique[name])),
                foreign_keys=tuple(foreign[name]),
                checks=tuple(checks[name]),
                triggers=tuple(triggers[name]),
                rows=None if count is None else int(count),
                kind="system-versioned" if table_type == "SYSTEM VERSIONED" else "table",
                rights=tuple(right for right in RIGHTS if right in rights or (name.lower(), right) in rights),
                engine=engine,
                period=period,
            )
        )
    return Schema(
        dialect=connection.dialect,
        version=str(connection.rows("SELECT VERSION()")[0][0]),
        tables=tuple(tables),
        routines=_routines(connection, labels),
        settings=_settings(connection),
        role=role,
        rights=tuple(name for name in ("create",) if "CREATE" in rights),
    )


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _columns(connection: Connection) -> dict[str, list[tuple[Column, str]]]:
    found: dict[str, list[tuple[Column, str]]] = defaultdict(list)
    for table, name, kind, nullable, default, extra, collation, charset in connection.rows(COLUMNS):
        text, marks = _text(kind), _text(extra).upper()
        column = Column(
            name=name,
            type=text,
            is_nullable=nullable == "YES",
            default=None if default is None else _text(default),
            is_identity="AUTO_INCREMENT" in marks,
            is_generated="GENERATED" in marks and "DEFAULT_GENERATED" not in marks,
            collation=collation,
            charset=charset,
            values=_enum_values(text),
        )
        found[table].append((column, marks))
    return found


def _enum_values(declared: str) -> tuple[str, ...]:
    if not declared.startswith("enum("):
        return ()
    return tuple(each.replace("''", "'") for each in ENUM_VALUE.findall(declared))


def _period(columns: list[tuple[Column, str]]) -> tuple[str, str]:
    """Return the names of a system-versioned table's period: its own columns, or the hidden ones."""
    starts = [column.name for column, marks in columns if "STORED GENERATED" in marks and "ROW START" in marks]
    ends = [column.name for column, marks in columns if "STORED GENERATED" in marks and "ROW END" in marks]
    return (starts[0], ends[0]) if starts and ends else ("row_start", "row_end")


def _keys(connection: Connection, columns: dict[str, list[tuple[Column, str]]]) -> tuple[Any, Any]:
    parts: dict[tuple[str, str], list[str | None]] = defaultdict(list)
    for table, index, column in connection.rows(KEYS):
        parts[table, index].append(column)
    keys: dict[str, tuple[str, ...]] = defaultdict(tuple)
    unique: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    generated = {(t, c.name) for t, pairs in columns.items() for c, marks in pairs if "ROW END" in marks}
    for (table, index), names in parts.items():
        own = tuple(name for name in names if name is not None and (table, name) not in generated)
        if index == "PRIMARY":
            keys[table] = own
        else:
            unique[table].add(own)
    return keys, unique


def _foreign_keys(connection: Connection) -> dict[str, list[ForeignKey]]:
    parts: dict[tuple[str, str], list[Any]] = defaultdict(list)
    for table, constraint, *rest in connection.rows(FOREIGN_KEYS):
        parts[table, constraint].append(rest)
    found: dict[str, list[ForeignKey]] = defaultdict(list)
    for (table, _), lines in parts.items():
        found[table].append(
            ForeignKey(
                columns=tuple(line[0] for line in lines),
                table=lines[0][2],
                to=tuple(line[3] for line in lines),
                on_delete=lines[0][4],
                on_update=lines[0][5],
            )
        )
    return defaultdict(list, {table: sorted(each, key=lambda key: key.columns) for table, each in found.items()})


def _triggers(connection: Connection, labels: list[str]) -> dict[str, list[Trigger]]:
    found: dict[str, list[Trigger]] = defaultdict(list)
    for table, name, event, statement in connection.rows(TRIGGERS):
        if not name.startswith(OURS):
            text = _text(statement)
            found[table].append(Trigger(name=name, on=event, sql=text, writes=written_tables(text, labels)))
    return found


def _checks(connection: Connection, columns: dict[str, list[tuple[Column, str]]]) -> dict[str, list[Check]]:
    found: dict[str, list[Check]] = defaultdict(list)
    if connection.dialect == "mariadb":
        sql = (
            "SELECT table_name, check_clause FROM information_schema.check_constraints "
            "WHERE constraint_schema = DATABASE()"
        )
    else:
        sql = (
            "SELECT t.table_name, c.check_clause FROM information_schema.check_constraints c JOIN "
            "information_schema.table_constraints t USING (constraint_schema, constraint_name) "
            "WHERE c.constraint_schema = DATABASE()"
        )
    for table, clause in connection.rows(sql):
        text = _text(clause)
        named = tuple(c.name for c, _ in columns[table] if re.search(rf"\b{re.escape(c.name)}\b", text))
        found[table].append(Check(sql=text, columns=named))
    return found


def _routines(connection: Connection, labels: list[str]) -> tuple[Routine, ...]:
    found: list[Routine] = []
    for name, kind, body in connection.rows(ROUTINES):
        if writes := written_tables(None if body is None else _text(body), labels):
            found.append(Routine(name=name, kind=kind.lower(), writes=writes))
    for name, body in connection.rows(EVENTS):
        if writes := written_tables(None if body is None else _text(body), labels):
            found.append(Routine(name=name, kind="scheduled event", writes=writes))
    return tuple(found)


def _settings(connection: Connection) -> dict[str, str]:
    schema = "information_schema" if connection.dialect == "mariadb" else "performance_schema"
    places = ", ".join(["%s"] * len(SETTINGS))
    found = connection.rows(
        f"SELECT variable_name, variable_value FROM {schema}.global_variables WHERE variable_name IN ({places})",  # noqa: S608
        SETTINGS,
    )
    return {_text(name).lower(): _text(value) for name, value in found}


def _rights(connection: Connection) -> set[Any]:
    """Return the rights on the database: names, or (table, name). Read from SHOW GRANTS, which every role may."""
    database = str(connection.rows("SELECT DATABASE()")[0][0]).lower()
    found: set[Any] = set()
    for (line,) in connection.rows("SHOW GRANTS"):
        grant = re.match(r"GRANT (.+?) ON (?:TABLE )?(\S+)\.(\S+) TO", _text(line))
        if grant is None:
            continue
        schema, table = (part.strip('`"').replace("\\", "").lower() for part in grant.group(2, 3))
        if schema not in ("*", database):
            continue
        names = {name.strip().upper() for name in grant[1].split(",")}
        if "ALL PRIVILEGES" in names:
            names |= {*RIGHTS, "CREATE"}
        found |= names if table == "*" else {(table, name) for name in names}
    return found
