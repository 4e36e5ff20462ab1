"""A short text that changes when the definition of a table does: cheap enough to be read on every pass.

Knows: the catalogues. Does not know: what a definition consists of (reflection.py), which is read when this differs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from eventfold.migrate.connection import Connection
from eventfold.migrate.reflection import Table

POSTGRES = """
SELECT md5(coalesce(string_agg(concat_ws(' ', attrelid, attnum, attname, atttypid, atttypmod, attnotnull, attisdropped,
    attgenerated, attcollation), ';' ORDER BY attrelid, attnum), '')) ||
  md5(coalesce((SELECT string_agg(concat_ws(' ', conrelid, conname, contype, confrelid, conkey::text, confdeltype,
    confupdtype), ';' ORDER BY conrelid, conname) FROM pg_constraint WHERE conrelid = ANY(tables)), '')) ||
  md5(coalesce((SELECT string_agg(concat_ws(' ', e.enumtypid, e.enumlabel), ';' ORDER BY e.enumtypid, e.enumsortorder)
    FROM pg_enum e), ''))
FROM pg_attribute, (SELECT ARRAY(SELECT to_regclass(n)::oid FROM unnest(%s::text[]) AS n) AS tables) AS given
WHERE attrelid = ANY(tables) AND attnum > 0 GROUP BY tables"""
MYSQL = """
SELECT table_schema, table_name, column_name, ordinal_position, column_type, is_nullable, collation_name, extra
FROM information_schema.columns WHERE (table_schema, table_name) IN ({}) ORDER BY 1, 2, 4"""
MYSQL_KEYS = """
SELECT constraint_schema, table_name, constraint_name, column_name, ordinal_position, referenced_table_name,
referenced_column_name FROM information_schema.key_column_usage WHERE (table_schema, table_name) IN ({})
ORDER BY 1, 2, 3, 5"""


def stamp_of(connection: Connection, tables: Sequence[Table]) -> str:
    """Return the stamp of some tables."""
    match connection.dialect:
        case "sqlite":
            return str(connection.rows("PRAGMA schema_version")[0][0])
        case "postgresql":
            found = connection.rows(POSTGRES, [[each.sql for each in tables]])
            return str(found[0][0]) if found else "none"
        case _:
            names = [value for each in tables for value in (each.schema or _database(connection), each.name)]
            pairs = ", ".join(["(%s, %s)"] * len(tables))
            rows = [*connection.rows(MYSQL.format(pairs), names), *connection.rows(MYSQL_KEYS.format(pairs), names)]
            return hashlib.sha256(repr(rows).encode()).hexdigest()


def _database(connection: Connection) -> str:
    return str(connection.rows("SELECT DATABASE()")[0][0])
