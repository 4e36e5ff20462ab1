"""Read models as SQLAlchemy tables: `table_of(Balance)` in the queries of an application, beside its own tables.

The table is the view through which readers see the live generation, so it stays valid over rebuilds. Knows:
definitions, SQLAlchemy. Does not know: targets, stores.
"""

from __future__ import annotations

from typing import Any, NoReturn

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles

from eventfold.core.table import Table
from eventfold.core.value_order import ORDER
from eventfold.errors import NotSupported
from eventfold.projections.classes import Projection
from eventfold.projections.definition import projection_definition
from eventfold.projections.fields import codec_of
from eventfold.targets.sql.statements import shorten_name
from eventfold.targets.sqlalchemy.tables import MAX_TABLE_NAME_BYTES
from eventfold.targets.sqlalchemy.types import ExactType

TEXT_ORDER = "eventfold_text_order"  # in `info` of a table: it has columns that SQLite would compare as text


class ReadModelTable(sa.Table):
    """A read model. Rows are written by its runner only: `insert`, `update` and `delete` raise NotSupported.

    So do `sa.update(table)` and `sa.delete(table)` when they are executed. SQLAlchemy does not ask the table about
    `sa.insert(table)`: the user of an application should have the right to SELECT only.
    """

    inherit_cache = True

    def insert(self) -> NoReturn:
        """Raise NotSupported."""
        raise _refused(self.name)

    def update(self) -> NoReturn:
        """Raise NotSupported."""
        raise _refused(self.name)

    def delete(self) -> NoReturn:
        """Raise NotSupported."""
        raise _refused(self.name)


@compiles(ReadModelTable)
def _compile(table: ReadModelTable, compiler: Any, **options: Any) -> str:
    written = getattr(compiler.compile_state, "dml_table", None) is table  # by sa.update(table)
    if written or options.get("iscrud"):  # or by sa.delete(table)
        raise _refused(table.name)
    if compiler.dialect.name == "sqlite" and table.info.get(TEXT_ORDER):
        raise NotSupported(
            f"The read model {table.name} has decimals or moments, which SQLite would compare as text.",
            "Ask by store.rows(…), or store the read model in PostgreSQL or MariaDB.",
            capability="order of decimals in SQLAlchemy on SQLite",
        )
    return compiler.visit_table(table, **options)


def table_of(projection: type[Projection], metadata: sa.MetaData | None = None) -> sa.Table:
    """Return the table of a read model that the SQLAlchemy target stores, for `sa.select`. It is read-only.

    Columns have the fields' names, and types that read and compare values exactly (decimals, moments in UTC, text with
    U+0000). Enums are their values. On SQLite decimals and moments are text, which SQL compares as text: a statement
    with such a table raises NotSupported there. `metadata`: of the application's own tables; leave this one out of
    `create_all`. Raises InvalidProjection.
    """
    table: Table = codec_of(projection_definition(projection)).table
    columns = [
        sa.Column(column.name, ExactType(column.kind), primary_key=column.name in table.key, nullable=column.nullable)
        for column in table.columns
    ]
    info = {TEXT_ORDER: any(column.kind in ORDER for column in table.columns)}
    name = shorten_name(table.name, MAX_TABLE_NAME_BYTES)
    return ReadModelTable(name, metadata or sa.MetaData(), *columns, info=info)


def _refused(name: str) -> NotSupported:
    return NotSupported(
        f"The rows of the read model {name} are written by its runner only, so they cannot be changed here.",
        "Append events; to repair rows, rebuild them: eventfold projections rebuild STORE NAME --switch.",
        capability="writing rows of a read model",
    )
