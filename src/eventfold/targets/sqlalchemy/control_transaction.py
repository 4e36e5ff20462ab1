"""The transaction of an operator's command over SQLAlchemy: what is known is read under locks, judged and changed.

Where making a table or a view commits, what is known is written first, and tables and views after it. Knows: Core
statements, locks. Does not know: what a command judges, when it commits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import sqlalchemy as sa

from eventfold.core.table import Table
from eventfold.ports.target import Checkpoint, Disturbed, Entry, PendingCommand, Place, Registered, physical
from eventfold.targets.sql import control_tables as control
from eventfold.targets.sql.control_transaction import table_taken
from eventfold.targets.sql.statements import clipped
from eventfold.targets.sqlalchemy import dialects, statements
from eventfold.targets.sqlalchemy.tables import CHECKPOINT, COMMAND, ENTRY, LONGEST, MARK, PROJECTION
from eventfold.targets.sqlalchemy.transaction import at, enter, put


class AlchemyControl:
    """See ControlTransaction."""

    def __init__(self, connection: sa.Connection, name: str, address: str) -> None:
        self._connection, self._name, self._address = connection, name, address
        self._later: list[Callable[[], None]] = []  # of tables and views

    def now(self) -> int:
        """See the port."""
        return dialects.now(self._connection)

    def record(self) -> Registered | None:
        """See the port."""
        found = self._rows(PROJECTION, sa.select(PROJECTION).where(PROJECTION.c.name == self._name))
        return control.registered_of(found[0]) if found else None

    def checkpoints(self, generation: int | None = None) -> list[Checkpoint]:
        """See the port."""
        found = sa.select(CHECKPOINT).where(CHECKPOINT.c.name == self._name)
        if generation is not None:
            found = found.where(CHECKPOINT.c.generation == generation)
        ordered = found.order_by(CHECKPOINT.c.generation, CHECKPOINT.c.part)
        checkpoints = [control.checkpoint_of(row) for row in self._rows(CHECKPOINT, ordered)]
        control.refuse_partial(checkpoints, self._name)
        return checkpoints

    def entries(self, place: Place) -> list[Entry]:
        """See the port."""
        found = sa.select(ENTRY).where(at(ENTRY, place)).order_by(ENTRY.c.position)
        return [control.entry_of(place, row[3:]) for row in self._rows(ENTRY, found)]

    def _rows(self, table: sa.Table, select: sa.Select[Any]) -> list[tuple[Any, ...]]:
        """Rows, locked until the end: another snapshot than the transaction's first, where a database keeps one."""
        locking = select.with_for_update().with_hint(table, "WITH (UPDLOCK, ROWLOCK)", "mssql")
        return [tuple(row) for row in self._connection.execute(locking)]

    def create(
        self, projection: Registered, tables: Mapping[str, Table | str], checkpoints: Sequence[Checkpoint]
    ) -> None:
        """See the port."""
        generation, connection, known = checkpoints[0].place.generation, self._connection, self.record()
        if known and generation in (known.live, known.building):
            raise Disturbed
        if known is None and self.checkpoints(generation):
            raise control.damaged("eventfold_projection", self._name)
        for name, table in tables.items():
            if not known and sa.inspect(connection).has_table(clipped(name, LONGEST)):
                raise table_taken(self._address, name)
            statements.make(connection, table, name, generation)
        self._delete(generation)  # of a generation whose making was cut short
        for each in checkpoints:
            connection.execute(sa.insert(CHECKPOINT).values(control.row_of(each)))
            connection.execute(sa.insert(MARK).values(control.mark_row(each.place, each.position, each.seen)))
        self.save_record(projection)

    def save_record(self, projection: Registered) -> None:
        """See the port."""
        p, known = projection, self.record()
        self._connection.execute(sa.delete(PROJECTION).where(PROJECTION.c.name == p.name))
        self._connection.execute(sa.insert(PROJECTION).values(control.registered_row(p)))
        self._notice()
        if known is None or (known.live, known.tables) != (p.live, p.tables):
            for name in p.tables:
                self._later.append(partial(statements.show, self._connection, name, physical(name, p.live)))

    def _notice(self) -> None:
        for each in self.checkpoints():
            put(self._connection, control.changed(each, {}))

    def update_checkpoint(self, place: Place, **fields: Any) -> None:
        """See the port."""
        for each in self.checkpoints(place.generation):
            if each.place == place:
                put(self._connection, control.changed(each, fields))

    def save_parked(self, place: Place, entries: Sequence[Entry]) -> None:
        """See the port."""
        self._notice()
        enter(self._connection, place, entries)

    def drop(self, generation: int, tables: Sequence[str]) -> None:
        """See the port."""
        self._delete(generation)
        self._unmake(tables, [generation])

    def written_tables(self) -> list[str]:
        """See the port."""
        found = self._connection.execute(sa.select(PROJECTION.c.tables).where(PROJECTION.c.name == self._name)).first()
        return control.names_in(found[0]) if found else []

    def forget(self, tables: Sequence[str]) -> None:
        """See the port."""
        found = sa.select(CHECKPOINT.c.generation).where(CHECKPOINT.c.name == self._name).distinct()
        generations = [row[0] for row in self._connection.execute(found)]
        self._delete(None)
        self._connection.execute(sa.delete(PROJECTION).where(PROJECTION.c.name == self._name))
        for each in tables:
            self._later.append(partial(statements.hide, self._connection, each))
        self._unmake(tables, generations)

    def _delete(self, generation: int | None) -> None:
        for table in (CHECKPOINT, ENTRY, MARK):
            gone = sa.delete(table).where(table.c.name == self._name)
            self._connection.execute(gone if generation is None else gone.where(table.c.generation == generation))

    def _unmake(self, tables: Sequence[str], generations: Sequence[int]) -> None:
        for table in tables:
            for generation in generations:
                self._later.append(partial(statements.unmake, self._connection, physical(table, generation)))

    def save_command(self, command: PendingCommand) -> None:
        """See the port."""
        self._connection.execute(sa.insert(COMMAND).values(control.command_row(command)))

    def make_tables(self) -> None:
        """Make, show and drop what was asked for: the last thing of the transaction."""
        while self._later:
            self._later.pop(0)()
