"""Control tables of an older layout, brought to this release's: every row is given its checksum.

Knows: what the layouts differ in. Does not know: when it is done, in which transaction.
"""

from __future__ import annotations

from typing import Any

from eventfold.targets.sql import control_tables as control
from eventfold.targets.sql.driver import Driver

PROJECTION = "name, kind, code, live, previous, building, paused, tables"
CHECKPOINT = """name, generation, part, store, epoch, position, event_id, seen, seen_digest, handled, handled_digest,
    query, fingerprint, partitions, until, revision, token, holder, expires_at, stopped, stats, "at", renewed_at"""
ENTRY = "name, generation, part, position, event_id, type, key, state, error, attempts, because"
MARK = "name, generation, part, position, seen, seen_digest"
SENDING = "name, generation, part, number, body, said"
TABLES = {
    "eventfold_projection": (PROJECTION, 1),
    "eventfold_entry": (ENTRY, 4),
    "eventfold_mark": (MARK, 4),
    "eventfold_sending": (SENDING, 3),
}


def upgrade(driver: Driver, connection: Any) -> None:
    """From layout 1 to 2, in the transaction that has begun; the tables that layout 2 adds are made afterwards."""

    def ask(sql: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        return driver.execute(connection, driver.sql(sql), parameters)

    for statement in control.UPGRADE:
        ask(statement)
    sends = driver.exists(connection, "eventfold_sending")
    if sends:
        ask(control.UPGRADE_SENDING)
    for table, (columns, key) in TABLES.items():
        if table == "eventfold_sending" and not sends:
            continue
        where = " AND ".join(f"{name.strip()} = ?" for name in columns.split(",")[:key])
        for row in ask(f"SELECT {columns} FROM {table}"):  # noqa: S608
            sum_of = control.checksum(table, *row)
            ask(f"UPDATE {table} SET checksum = ? WHERE {where}", (sum_of, *row[:key]))  # noqa: S608
    for row in ask(f"SELECT {CHECKPOINT} FROM eventfold_checkpoint"):  # noqa: S608
        sums = control.sums_of(tuple(row))
        sql = f"UPDATE eventfold_checkpoint SET checksum = ?, lease_checksum = ? WHERE {control.PLACE}"  # noqa: S608
        ask(sql, (*sums, *row[:3]))
