"""The transaction of an operator's command in a SQL target: what is known is read under locks, judged and changed.

Knows: the control tables, in which order rows are locked. Does not know: what a command judges, when it commits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eventfold.core.table import Table
from eventfold.errors import TargetUnavailable
from eventfold.ports.target import Checkpoint, Disturbed, Entry, PendingCommand, Place, Registered, physical
from eventfold.targets.sql import control_tables as control
from eventfold.targets.sql.driver import Driver, Parameters
from eventfold.targets.sql.statements import Statements
from eventfold.targets.sql.transaction import enter, put


class SqlControl:
    """See ControlTransaction. One command at a time in a target: `Driver.exclusive`."""

    def __init__(self, driver: Driver, connection: Any, name: str, statements: Statements) -> None:
        self._driver, self._connection, self._name, self._statements = driver, connection, name, statements
        driver.exclusive(connection)

    def _ask(self, sql: str, parameters: Parameters = ()) -> list[tuple[Any, ...]]:
        return self._driver.execute(self._connection, self._driver.sql(sql), parameters)

    def now(self) -> int:
        """See the port."""
        return self._driver.now(self._connection)

    def record(self) -> Registered | None:
        """See the port."""
        sql = f"SELECT {control.PROJECTION} FROM eventfold_projection WHERE name = ?"  # noqa: S608
        found = self._ask(sql + self._driver.locking, (self._name,))
        return control.registered_of(tuple(found[0])) if found else None

    def checkpoints(self, generation: int | None = None) -> list[Checkpoint]:
        """See the port. Rows are locked in the order of their keys."""
        sql = f"SELECT {control.CHECKPOINT} FROM eventfold_checkpoint WHERE name = ?"  # noqa: S608
        parameters: list[Any] = [self._name]
        if generation is not None:
            sql, parameters = f"{sql} AND generation = ?", [self._name, generation]
        found = self._ask(f"{sql} ORDER BY generation, part{self._driver.locking}", parameters)
        checkpoints = [control.checkpoint_of(tuple(row)) for row in found]
        control.refuse_partial(checkpoints, self._name)
        return checkpoints

    def entries(self, place: Place) -> list[Entry]:
        """See the port."""
        sql = f"SELECT {control.ENTRY} FROM eventfold_entry WHERE {control.PLACE} ORDER BY position"  # noqa: S608
        return [control.entry_of(place, row) for row in self._ask(sql, control.place_of(place))]

    def create(
        self, projection: Registered, tables: Mapping[str, Table | str], checkpoints: Sequence[Checkpoint]
    ) -> None:
        """See the port."""
        generation, driver, connection = checkpoints[0].place.generation, self._driver, self._connection
        known = self.record()
        place = control.place_of(checkpoints[0].place)
        if self._ask(f"SELECT 1 FROM eventfold_checkpoint WHERE {control.PLACE}", place):  # noqa: S608
            raise Disturbed if known else control.damaged("eventfold_projection", self._name)
        for name, table in tables.items():
            if known is None and driver.exists(connection, name):
                raise table_taken(driver.address, name)
            driver.execute(connection, f"DROP TABLE IF EXISTS {driver.relation(physical(name, generation))}")
            for statement in self._statements.create(table, name, generation):
                driver.execute(connection, statement)
        for each in checkpoints:
            self._ask(control.NEW_CHECKPOINT, control.row_of(each))
            self._ask(control.NEW_MARK, control.mark_row(each.place, each.position, each.seen))
        self.save_record(projection)

    def save_record(self, projection: Registered) -> None:
        """See the port. Views are made again only where readers are to see another table: rights go with a view."""
        p, known = projection, self.record()
        self._ask(control.SAVE_PROJECTION, control.registered_row(p))
        self._notice()
        if known is None or (known.live, known.tables) != (p.live, p.tables):
            for name in p.tables:
                table = physical(name, p.live)
                columns = self._driver.shown(self._connection, table)
                view, own = self._driver.relation(name), self._driver.relation(table)
                self._driver.execute(self._connection, f"DROP VIEW IF EXISTS {view}")
                self._driver.execute(self._connection, f"CREATE VIEW {view} AS SELECT {columns} FROM {own}")  # noqa: S608

    def _notice(self) -> None:
        for each in self.checkpoints():
            put(self._driver, self._connection, control.changed(each, {}))

    def update_checkpoint(self, place: Place, **fields: Any) -> None:
        """See the port."""
        for each in self.checkpoints(place.generation):
            if each.place == place:
                put(self._driver, self._connection, control.changed(each, fields))

    def save_parked(self, place: Place, entries: Sequence[Entry]) -> None:
        """See the port."""
        self._notice()
        enter(self._driver, self._connection, place, entries)

    def drop(self, generation: int, tables: Sequence[str]) -> None:
        """See the port. Tables first: a runner that writes to them holds no lock that we have."""
        relation = self._driver.relation
        for table in tables:
            self._driver.execute(self._connection, f"DROP TABLE IF EXISTS {relation(physical(table, generation))}")
        for table in control.TABLES:
            self._ask(f"DELETE FROM {table} WHERE name = ? AND generation = ?", (self._name, generation))  # noqa: S608

    def written_tables(self) -> list[str]:
        """See the port."""
        try:
            found = self._ask("SELECT tables FROM eventfold_projection WHERE name = ?", (self._name,))
        except UnicodeDecodeError:  # it is that which is damaged
            return []
        return control.names_in(found[0][0]) if found else []

    def forget(self, tables: Sequence[str]) -> None:
        """See the port."""
        found, relation = self._ask(control.GENERATIONS, (self._name,)), self._driver.relation
        for table in tables:
            self._driver.execute(self._connection, f"DROP VIEW IF EXISTS {relation(table)}")
            for (generation,) in found:
                self._driver.execute(self._connection, f"DROP TABLE IF EXISTS {relation(physical(table, generation))}")
        for table in (*control.TABLES, "eventfold_projection"):
            self._ask(f"DELETE FROM {table} WHERE name = ?", (self._name,))  # noqa: S608

    def save_command(self, command: PendingCommand) -> None:
        """See the port."""
        self._ask(control.SAVE_COMMAND, control.command_row(command))


def table_taken(address: str, name: str) -> TargetUnavailable:
    """The error for a table that has a projection's name and is none."""
    return TargetUnavailable(
        f"{address} has a table {name!r} already, and it is not a projection's.",
        "Give the projection another name (name=…), or a database of its own (target=…).",
        address=address,
        table=name,
    )
