"""The upgrade of control tables from layout 1 to layout 2, in which every row has a checksum.

Knows: how the layouts differ. Does not know: when an upgrade runs, in which transaction.
"""

from __future__ import annotations

from typing import Any

from eventfold.targets.sql import control_tables
from eventfold.targets.sql.driver import Driver

RECORD_COLUMNS = "name, kind, code, live, previous, building, paused, tables"
CHECKPOINT_COLUMNS = """name, generation, part, store, epoch, position, event_id, seen, seen_digest, handled,
    handled_digest, query, fingerprint, partitions, until, revision, token, holder, expires_at, stopped, stats, "at",
    renewed_at"""
PARKED_COLUMNS = "name, generation, part, position, event_id, type, key, state, error, attempts, because"
MARK_COLUMNS = "name, generation, part, position, seen, seen_digest"
OUTBOX_COLUMNS = "name, generation, part, number, body, said"
CHECKSUMMED_TABLES = {
    "eventfold_projection": (RECORD_COLUMNS, 1),
    "eventfold_entry": (PARKED_COLUMNS, 4),
    "eventfold_mark": (MARK_COLUMNS, 4),
    "eventfold_sending": (OUTBOX_COLUMNS, 3),
}


def upgrade_tables(driver: Driver, connection: Any) -> None:
    """Upgrade from layout 1 to 2, in the open transaction; the caller creates the tables that layout 2 adds."""

    def execute(sql: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        return driver.execute(connection, driver.adapt_sql(sql), parameters)

    for statement in control_tables.UPGRADE_TABLES:
        execute(statement)
    has_outbox = driver.has_relation(connection, "eventfold_sending")
    if has_outbox:
        execute(control_tables.UPGRADE_OUTBOX)
    for table, (columns, key) in CHECKSUMMED_TABLES.items():
        if table == "eventfold_sending" and not has_outbox:
            continue
        where = " AND ".join(f"{name.strip()} = ?" for name in columns.split(",")[:key])
        for row in execute(f"SELECT {columns} FROM {table}"):  # noqa: S608
            checksum = control_tables.checksum(table, *row)
            execute(f"UPDATE {table} SET checksum = ? WHERE {where}", (checksum, *row[:key]))  # noqa: S608
    for row in execute(f"SELECT {CHECKPOINT_COLUMNS} FROM eventfold_checkpoint"):  # noqa: S608
        sums = control_tables.checkpoint_checksums(tuple(row))
        sql = f"UPDATE eventfold_checkpoint SET checksum = ?, lease_checksum = ? WHERE {control_tables.WHERE_PARTITION}"  # noqa: S608
        execute(sql, (*sums, *row[:3]))
