"""The catalogue of a SQLite file.

Knows: SQLite's pragmas as tables, and its schema table. Does not know: its driver.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

from eventfold.migrate.catalogues.written_tables import written_tables
from eventfold.migrate.connection import Connection
from eventfold.migrate.reflection import Check, Column, ForeignKey, Schema, Table, Trigger

ALL_RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRIGGER")
TRIGGER_EVENT = re.compile(
    r"\b(?:BEFORE|AFTER|INSTEAD\s+OF)?\s*\b(DELETE|INSERT|UPDATE)\b(?:\s+OF\s+[^;]*?)?\s+ON\b", re.IGNORECASE
)
COLLATE = re.compile(r"\bCOLLATE\s+[\"'`]?(\w+)", re.IGNORECASE)
IGNORED_PREFIXES = ("sqlite_", "eventfold_")
GENERATED = (2, 3)  # values of `hidden` in table_xinfo
ROWS_OF_A_SMALL_FILE = 64 << 20  # bytes: rows are counted in smaller files


def read_schema(connection: Connection) -> Schema:
    """Read the catalogue."""
    named = connection.rows(
        "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE type IN ('table', 'trigger', 'view')"
    )
    names = [name for kind, name, _, _ in named if kind == "table" and not name.startswith(IGNORED_PREFIXES)]
    texts = {name: sql or "" for kind, name, _, sql in named if kind == "table"}
    triggers = _triggers(named, names)
    columns, keys = _columns(connection, texts)
    unique, foreign = _unique(connection), _foreign_keys(connection, keys)
    counts = _counts(connection, names)
    tables: list[Table] = []
    for name in sorted(names):
        is_virtual = texts[name].upper().lstrip().startswith("CREATE VIRTUAL")
        tables.append(
            Table(
                label=name,
                name=name,
                columns=tuple(columns[name]),
                key=tuple(keys[name]),
                unique=tuple(sorted(unique[name] - {tuple(keys[name])})),
                foreign_keys=tuple(foreign[name]),
                checks=tuple(_checks(texts[name], [each.name for each in columns[name]])),
                triggers=tuple(triggers[name]),
                rows=counts.get(name),
                kind="virtual" if is_virtual else "table",
                rights=ALL_RIGHTS,
            )
        )
    settings = {
        name: str(connection.rows(f"PRAGMA {name}")[0][0])  # noqa: S608 - constants
        for name in ("journal_mode", "recursive_triggers", "foreign_keys", "encoding")
    }
    version = str(connection.rows("SELECT sqlite_version()")[0][0])
    return Schema(dialect="sqlite", version=version, tables=tuple(tables), settings=settings, rights=("create",))


def _columns(connection: Connection, texts: dict[str, str]) -> tuple[dict[str, list[Column]], dict[str, list[str]]]:
    columns: dict[str, list[Column]] = defaultdict(list)
    keys: dict[str, list[tuple[int, str]]] = defaultdict(list)
    found = connection.rows(
        'SELECT s.name, c.name, c.type, c."notnull", c.dflt_value, c.pk, c.hidden FROM sqlite_schema s '
        "JOIN pragma_table_xinfo(s.name) c WHERE s.type = 'table' ORDER BY s.name, c.cid"
    )
    sizes: dict[str, int] = defaultdict(int)
    for table, *_, pk, _ in found:
        sizes[table] += bool(pk)
    for table, name, kind, not_null, default, pk, hidden in found:
        if hidden == 1:  # of a virtual table
            continue
        is_rowid = (
            pk == 1 and sizes[table] == 1 and kind.upper() == "INTEGER" and "WITHOUT ROWID" not in texts[table].upper()
        )
        columns[table].append(
            Column(
                name=name,
                type=kind.lower(),
                is_nullable=not not_null and not is_rowid,
                default=default,
                is_identity=is_rowid,
                is_generated=hidden in GENERATED,
                collation=_collation(texts[table], name),
            )
        )
        if pk:
            keys[table].append((pk, name))
    return columns, defaultdict(list, {table: [name for _, name in sorted(pairs)] for table, pairs in keys.items()})


def _collation(text: str, column: str) -> str | None:
    place = re.search(rf"[\"'`\[]?\b{re.escape(column)}\b[\"'`\]]?\s[^,]*", text)
    found = COLLATE.search(place[0]) if place else None
    return found[1].upper() if found and found[1].upper() != "BINARY" else None


def _unique(connection: Connection) -> dict[str, set[tuple[str, ...]]]:
    parts: dict[tuple[str, str], list[str | None]] = defaultdict(list)
    for table, index, column in connection.rows(
        "SELECT s.name, i.name, c.name FROM sqlite_schema s JOIN pragma_index_list(s.name) i "
        "JOIN pragma_index_info(i.name) c WHERE s.type = 'table' AND i.\"unique\" AND NOT i.partial "
        "ORDER BY s.name, i.name, c.seqno"
    ):
        parts[table, index].append(column)
    found: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for (table, _), columns in parts.items():
        plain = tuple(each for each in columns if each is not None)
        if len(plain) == len(columns):  # None is an expression
            found[table].add(plain)
    return found


def _foreign_keys(connection: Connection, keys: dict[str, list[str]]) -> dict[str, list[ForeignKey]]:
    parts: dict[tuple[str, int], list[Any]] = defaultdict(list)
    for table, number, *rest in connection.rows(
        'SELECT s.name, f.id, f."table", f."from", f."to", f.on_update, f.on_delete FROM sqlite_schema s '
        "JOIN pragma_foreign_key_list(s.name) f WHERE s.type = 'table' ORDER BY s.name, f.id, f.seq"
    ):
        parts[table, number].append(rest)
    found: dict[str, list[ForeignKey]] = defaultdict(list)
    for (table, _), lines in parts.items():
        target, _, first_to, on_update, on_delete = lines[0]
        to = keys.get(target, []) if first_to is None else [line[2] for line in lines]
        found[table].append(
            ForeignKey(
                columns=tuple(line[1] for line in lines),
                table=target,
                to=tuple(to),
                on_delete=on_delete,
                on_update=on_update,
            )
        )
    return defaultdict(list, {table: sorted(each, key=lambda key: key.columns) for table, each in found.items()})


def _triggers(named: list[tuple[Any, ...]], tables: list[str]) -> dict[str, list[Trigger]]:
    found: dict[str, list[Trigger]] = defaultdict(list)
    for kind, name, table, sql in sorted(named):
        if kind == "trigger" and not name.startswith(IGNORED_PREFIXES):
            on = TRIGGER_EVENT.search(sql)
            body = sql[on.end() :] if on else sql
            found[table].append(
                Trigger(name=name, on=on[1].upper() if on else "?", sql=sql, writes=written_tables(body, tables))
            )
    return found


def _checks(text: str, columns: list[str]) -> list[Check]:
    """Return the check constraints in a CREATE TABLE: SQLite has no catalogue of them."""
    found: list[Check] = []
    for start in re.finditer(r"\bCHECK\s*\(", text, re.IGNORECASE):
        depth, end = 1, start.end()
        while end < len(text) and depth:
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            end += 1
        sql = text[start.end() : end - 1].strip()
        found.append(
            Check(sql=sql, columns=tuple(each for each in columns if re.search(rf"\b{re.escape(each)}\b", sql)))
        )
    return found


def _counts(connection: Connection, names: list[str]) -> dict[str, int]:
    """Return the number of rows of each table: of ANALYZE, or counted where the file is small."""
    size = int(connection.rows("SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()")[0][0])
    if size <= ROWS_OF_A_SMALL_FILE and names:
        counted = " UNION ALL ".join("SELECT ?, count(*) FROM " + '"' + n.replace('"', '""') + '"' for n in names)  # noqa: S608
        return _in_parts(connection, names) if len(names) > 400 else dict(connection.rows(counted, names))  # type: ignore[arg-type]
    if not connection.rows("SELECT 1 FROM sqlite_schema WHERE name = 'sqlite_stat1'"):
        return {}
    return {name: int(stat.split()[0]) for name, stat in connection.rows("SELECT tbl, stat FROM sqlite_stat1") if stat}


def _in_parts(connection: Connection, names: list[str]) -> dict[str, int]:
    """Count table by table: a compound SELECT has at most 500 parts."""
    return {
        name: int(connection.rows("SELECT count(*) FROM " + '"' + name.replace('"', '""') + '"')[0][0])  # noqa: S608
        for name in names
    }
