"""The catalogue of a PostgreSQL database.

Knows: pg_catalog. Does not know: its driver, what a table means.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from eventfold.migrate.catalogues.written_tables import written_tables
from eventfold.migrate.connection import Connection
from eventfold.migrate.reflection import Check, Column, ForeignKey, Routine, Schema, Table, Trigger

OURS = ("eventfold", "eventfold_migrate")  # schemas that eventfold itself makes
ACTIONS = {"a": "NO ACTION", "r": "RESTRICT", "c": "CASCADE", "n": "SET NULL", "d": "SET DEFAULT"}
KINDS = {"r": "table", "p": "partitioned", "f": "foreign"}
IDENTITIES = {"d": "default", "f": "full", "n": "nothing", "i": "index"}
USER_SCHEMAS = (
    "n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg_toast%%' "
    "AND n.nspname NOT LIKE 'pg_temp%%'"
)
TABLES = f"""
SELECT c.oid::int8, n.nspname, c.relname, c.relkind::text, c.relreplident::text, c.reltuples::int8,
    n.nspname = current_schema(),
    has_table_privilege(c.oid, 'SELECT'), has_table_privilege(c.oid, 'INSERT'), has_table_privilege(c.oid, 'UPDATE'),
    has_table_privilege(c.oid, 'DELETE'), has_table_privilege(c.oid, 'TRIGGER')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'f') AND NOT c.relispartition AND {USER_SCHEMAS}
    AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
ORDER BY n.nspname, c.relname"""  # noqa: S608 - constants
COLUMNS = """
SELECT a.attrelid::int8, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid),
    a.attidentity <> '' OR coalesce(pg_get_expr(d.adbin, d.adrelid) LIKE 'nextval(%%', false), a.attgenerated <> '',
    CASE WHEN a.attcollation <> t.typcollation THEN l.collname END,
    t.typtype::text, t.oid::int8,
    a.attstorage IN ('x', 'e') AND (a.atttypmod < 0 OR a.atttypmod > 2004),
    format_type(t.typbasetype, t.typtypmod), b.typtype::text, b.oid::int8,
    format_type(e.oid, a.atttypmod), e.typtype::text, e.oid::int8, NOT coalesce(l.collisdeterministic, true)
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    LEFT JOIN pg_collation l ON l.oid = a.attcollation LEFT JOIN pg_type b ON b.oid = t.typbasetype
    LEFT JOIN pg_type e ON e.oid = t.typelem AND t.typcategory = 'A'
WHERE a.attrelid = ANY(%s::oid[]) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attrelid, a.attnum"""
CONSTRAINTS = """
SELECT k.conrelid::int8, k.contype::text, k.confrelid::int8, k.confdeltype::text, k.confupdtype::text,
    k.condeferrable, CASE WHEN k.contype = 'c' THEN pg_get_constraintdef(k.oid) END,
    (SELECT array_agg(a.attname::text ORDER BY u.n) FROM unnest(k.conkey) WITH ORDINALITY u(attnum, n)
        JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.attnum),
    (SELECT array_agg(a.attname::text ORDER BY u.n) FROM unnest(k.confkey) WITH ORDINALITY u(attnum, n)
        JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.attnum)
FROM pg_constraint k WHERE k.conrelid = ANY(%s::oid[]) AND k.contype IN ('p', 'u', 'f', 'c') AND k.conparentid = 0
ORDER BY k.conrelid, k.conname"""
INDEXES = """
SELECT i.indrelid::int8, (SELECT array_agg(a.attname::text ORDER BY u.n)
    FROM unnest(i.indkey::int2[]) WITH ORDINALITY u(attnum, n)
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = u.attnum WHERE u.n <= i.indnkeyatts)
FROM pg_index i WHERE i.indrelid = ANY(%s::oid[]) AND i.indisunique AND NOT i.indisprimary AND i.indpred IS NULL
    AND i.indexprs IS NULL AND i.indisvalid"""
TRIGGERS = """
SELECT t.tgrelid::int8, t.tgname, t.tgtype::int, pg_get_triggerdef(t.oid), p.prosrc, l.lanname
FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_language l ON l.oid = p.prolang
WHERE t.tgrelid = ANY(%s::oid[]) AND NOT t.tgisinternal AND t.tgname NOT LIKE 'eventfold\\_%%' ORDER BY t.tgname"""
ROUTINES = f"""
SELECT n.nspname, p.proname, p.prokind::text, p.prosrc, l.lanname, pg_get_function_identity_arguments(p.oid),
    n.nspname = current_schema(), p.prorettype = 'trigger'::regtype
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
WHERE p.prokind IN ('f', 'p') AND {USER_SCHEMAS}
    AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e') ORDER BY 1, 2, 6"""  # noqa: S608
ENUMS = "SELECT enumtypid::int8, array_agg(enumlabel::text ORDER BY enumsortorder) FROM pg_enum GROUP BY 1"
SETTINGS = ("wal_level", "max_replication_slots", "max_wal_senders", "max_slot_wal_keep_size", "server_encoding")
EVENTS = ((4, "INSERT"), (16, "UPDATE"), (8, "DELETE"), (32, "TRUNCATE"))  # bits of tgtype


def read_schema(connection: Connection) -> Schema:
    """Read the catalogue: seven queries, however many tables there are."""
    found = [row for row in connection.rows(TABLES) if row[1] not in OURS and not row[2].startswith("eventfold_")]
    labels = {oid: name if is_default else f"{schema}.{name}" for oid, schema, name, _, _, _, is_default, *_ in found}
    oids = list(labels)
    columns = _columns(connection, oids)
    keys, unique, foreign, checks = _constraints(connection, oids, labels)
    for oid, names in connection.rows(INDEXES, [oids]):
        unique[oid].add(tuple(names))
    triggers = _triggers(connection, oids, list(labels.values()))
    rights = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRIGGER")
    tables = tuple(
        Table(
            label=labels[oid],
            name=name,
            schema=schema,
            columns=tuple(columns[oid]),
            key=keys[oid],
            unique=tuple(sorted(unique[oid])),
            foreign_keys=tuple(sorted(foreign[oid], key=lambda each: each.columns)),
            checks=tuple(checks[oid]),
            triggers=tuple(triggers[oid]),
            rows=count if count >= 0 else None,
            kind=KINDS[kind],
            rights=tuple(right for right, has in zip(rights, has_rights, strict=True) if has),
            replica_identity=IDENTITIES[identity],
        )
        for oid, schema, name, kind, identity, count, _, *has_rights in found
    )
    return Schema(
        dialect="postgresql",
        version=str(connection.rows("SHOW server_version")[0][0]),
        tables=tables,
        routines=_routines(connection, list(labels.values())),
        settings={name: str(connection.rows("SELECT current_setting(%s, true)", [name])[0][0]) for name in SETTINGS},
        **_role(connection),
    )


def _role(connection: Connection) -> dict[str, Any]:
    role, is_super, may_replicate, may_create = connection.rows(
        "SELECT rolname, rolsuper, rolreplication, has_database_privilege(current_database(), 'CREATE') "
        "FROM pg_roles WHERE rolname = current_user"
    )[0]
    flags = (("superuser", is_super), ("replication", is_super or may_replicate), ("create", may_create))
    return {"role": role, "rights": tuple(name for name, has in flags if has)}


def _columns(connection: Connection, oids: list[int]) -> dict[int, list[Column]]:
    enums = {oid: tuple(values) for oid, values in connection.rows(ENUMS)}
    found: dict[int, list[Column]] = defaultdict(list)
    for row in connection.rows(COLUMNS, [oids]):
        oid, name, kind, not_null, default, is_identity, is_generated, collation = row[:8]
        type_kind, type_oid, is_wide, base, base_kind, base_oid, element, element_kind, element_oid, is_loose = row[8:]
        is_domain = type_kind == "d"
        found[oid].append(
            Column(
                name=name,
                type=base if is_domain else kind,
                is_nullable=not not_null,
                default=default,
                is_identity=is_identity,
                is_generated=is_generated,
                collation=f"{collation} (nondeterministic)" if collation and is_loose else collation,
                values=enums.get(base_oid if base_kind == "e" else type_oid, ()),
                element=None
                if element is None
                else Column(name=name, type=element, values=enums.get(element_oid, ()) if element_kind == "e" else ()),
                is_domain=is_domain,
                is_wide=is_wide,
            )
        )
    return found


def _constraints(connection: Connection, oids: list[int], labels: dict[int, str]) -> tuple[Any, Any, Any, Any]:
    keys: dict[int, tuple[str, ...]] = defaultdict(tuple)
    unique: dict[int, set[tuple[str, ...]]] = defaultdict(set)
    foreign: dict[int, list[ForeignKey]] = defaultdict(list)
    checks: dict[int, list[Check]] = defaultdict(list)
    for oid, kind, to_oid, on_delete, on_update, is_deferred, sql, columns, to in connection.rows(CONSTRAINTS, [oids]):
        match kind:
            case "p":
                keys[oid] = tuple(columns)
            case "u":
                unique[oid].add(tuple(columns))
            case "c":
                checks[oid].append(Check(sql=sql, columns=tuple(columns or ())))
            case _ if to_oid in labels:
                foreign[oid].append(
                    ForeignKey(
                        columns=tuple(columns),
                        table=labels[to_oid],
                        to=tuple(to),
                        on_delete=ACTIONS[on_delete],
                        on_update=ACTIONS[on_update],
                        is_deferred=is_deferred,
                    )
                )
            case _:  # to a table of another schema that is not read
                continue
    return keys, unique, foreign, checks


def _triggers(connection: Connection, oids: list[int], labels: list[str]) -> dict[int, list[Trigger]]:
    found: dict[int, list[Trigger]] = defaultdict(list)
    for oid, name, bits, sql, body, language in connection.rows(TRIGGERS, [oids]):
        on = " OR ".join(event for bit, event in EVENTS if bits & bit)
        text = body if language in ("plpgsql", "sql") else None
        found[oid].append(Trigger(name=name, on=on, sql=f"{sql}\n{body}", writes=written_tables(text, labels)))
    return found


def _routines(connection: Connection, labels: list[str]) -> tuple[Routine, ...]:
    found: list[Routine] = []
    for schema, name, kind, body, language, arguments, is_default, is_trigger in connection.rows(ROUTINES):
        if schema in OURS or is_trigger or name.startswith("eventfold_"):
            continue
        writes = written_tables(body if language in ("plpgsql", "sql") else None, labels)
        if writes:
            label = f"{name}({arguments})" if is_default else f"{schema}.{name}({arguments})"
            found.append(Routine(name=label, kind="procedure" if kind == "p" else "function", writes=writes))
    return tuple(found)
