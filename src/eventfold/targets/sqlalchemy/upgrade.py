"""The upgrade of control tables from layout 1 to layout 2 over SQLAlchemy: every row gets its checksum.

Each step is skipped if it was done before, so that an interrupted upgrade continues on a database that commits after
each step. Knows: how the layouts differ. Does not know: when an upgrade runs.
"""

from __future__ import annotations

import sqlalchemy as sa

from eventfold.targets.sql import control_tables
from eventfold.targets.sqlalchemy.tables import CHECKPOINT, ENTRY, MARK, PROJECTION


def upgrade_tables(connection: sa.Connection) -> None:
    """Upgrade from layout 1 to 2; the caller creates the tables that layout 2 adds."""
    for statement in control_tables.UPGRADE_TABLES:
        table, words = statement.split()[2], statement.split()
        name = words[words.index("COLUMN") + 1] if "ADD" in words else words[-1]
        if all(column["name"] != name for column in sa.inspect(connection).get_columns(table)):
            connection.exec_driver_sql(statement)
    for table in (PROJECTION, ENTRY, MARK):
        for row in connection.execute(sa.select(table)).all():
            own = sa.and_(*(column == row[index] for index, column in enumerate(table.primary_key.columns)))
            checksum = control_tables.checksum(table.name, *row[:-1])
            connection.execute(sa.update(table).where(own).values(checksum=checksum))
    for row in connection.execute(sa.select(CHECKPOINT)).all():
        own = sa.and_(*(column == row[index] for index, column in enumerate(CHECKPOINT.primary_key.columns)))
        main, lease = control_tables.checkpoint_checksums(tuple(row[:-2]))
        connection.execute(sa.update(CHECKPOINT).where(own).values(checksum=main, lease_checksum=lease))
