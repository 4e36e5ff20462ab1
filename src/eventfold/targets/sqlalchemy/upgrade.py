"""Control tables of layout 1, brought to layout 2 over SQLAlchemy: every row is given its checksum.

Each step is left out where it was done, so that an upgrade which a database committed piece by piece goes on. Knows:
what the layouts differ in. Does not know: when it is done.
"""

from __future__ import annotations

import sqlalchemy as sa

from eventfold.targets.sql import control_tables
from eventfold.targets.sqlalchemy.tables import CHECKPOINT, ENTRY, MARK, PROJECTION


def upgrade_tables(connection: sa.Connection) -> None:
    """From layout 1 to 2; the tables that layout 2 adds are made afterwards."""
    for statement in control_tables.UPGRADE_TABLES:
        table, new = statement.split()[2], statement.split()
        name = new[new.index("COLUMN") + 1] if "ADD" in new else new[-1]
        if all(column["name"] != name for column in sa.inspect(connection).get_columns(table)):
            connection.exec_driver_sql(statement)
    for table in (PROJECTION, ENTRY, MARK):
        for row in connection.execute(sa.select(table)).all():
            own = sa.and_(*(column == row[index] for index, column in enumerate(table.primary_key.columns)))
            sum_of = control_tables.checksum(table.name, *row[:-1])
            connection.execute(sa.update(table).where(own).values(checksum=sum_of))
    for row in connection.execute(sa.select(CHECKPOINT)).all():
        own = sa.and_(*(column == row[index] for index, column in enumerate(CHECKPOINT.primary_key.columns)))
        main, lease = control_tables.checkpoint_checksums(tuple(row[:-2]))
        connection.execute(sa.update(CHECKPOINT).where(own).values(checksum=main, lease_checksum=lease))
