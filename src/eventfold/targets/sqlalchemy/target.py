"""Room: a target in any SQL database that SQLAlchemy has a dialect for: rows, checkpoints and leases in tables.

Knows: Core statements, transactions; that some databases commit whenever a table is made. Does not know: projections.
Where making a view commits, what is known is written first and the view after it; views are put right by whoever
writes there next.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import exc

from eventfold.core.table import Table
from eventfold.core.tally import Tally
from eventfold.errors import EventfoldError, TargetUnavailable, UnknownProjection
from eventfold.ports.target import ELSEWHERE, Checkpoint, Disturbed, Entry, PendingCommand, Place, Registered, physical
from eventfold.targets.sql import control_tables as control
from eventfold.targets.sql.statements import refuse_unknown
from eventfold.targets.sql.transaction import lost
from eventfold.targets.sqlalchemy import dialects, statements
from eventfold.targets.sqlalchemy.connections import Connections
from eventfold.targets.sqlalchemy.control_transaction import AlchemyControl
from eventfold.targets.sqlalchemy.tables import (
    CHECKPOINT,
    COMMAND,
    ENTRY,
    LAYOUT,
    MARK,
    METADATA,
    PROJECTION,
    rows_table,
)
from eventfold.targets.sqlalchemy.transaction import AlchemyWriting, at, put
from eventfold.targets.sqlalchemy.upgrade import upgrade

T = TypeVar("T")


class AlchemyTarget:
    """See the port."""

    def __init__(self, url: sa.URL) -> None:
        self.address = url.render_as_string(hide_password=True)
        self._connections = Connections(url)
        self._dialect = self._connections.short.dialect
        self._ready = False

    # Connections

    @contextmanager
    def _using(self, write: bool = False, alone: bool = False, handling: bool = False) -> Generator[sa.Connection]:
        """A connection, in a transaction if `write`, as the only maker of tables if `alone`."""
        try:
            with self._connections.connected(handling) as connection:
                if write:
                    self._prepare(connection)
                    with self._transaction(connection, alone):
                        yield connection
                else:
                    yield connection
        except exc.SQLAlchemyError as error:
            raise dialects.translated(error, self.address) from error

    def _read(self, work: Callable[[sa.Connection], T]) -> T:
        """What only reads: again, once, over a new connection, if the one that was kept turns out to be dead."""
        try:
            with self._using() as connection:
                return work(connection)
        except EventfoldError as error:
            if not getattr(error.__cause__, "connection_invalidated", False):
                raise
        with self._using() as connection:
            return work(connection)

    @contextmanager
    def _transaction(self, connection: sa.Connection, alone: bool) -> Generator[None]:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        try:
            if alone:
                dialects.lock(connection)
            yield
            connection.commit()
        except BaseException:
            try:
                connection.rollback()
            except exc.SQLAlchemyError:  # the exception before it is the one to be raised; it may be a signal handler's
                connection.invalidate()
            raise
        finally:
            if alone:
                dialects.unlock(connection)

    def _prepare(self, connection: sa.Connection) -> None:
        if self._ready:
            return
        layout = self._layout(connection)
        connection.rollback()
        if layout < control.LAYOUT:
            with self._transaction(connection, alone=True):
                layout = self._layout(connection)
                if layout == 1:
                    upgrade(connection)
                if layout < control.LAYOUT:
                    METADATA.create_all(connection)
                    connection.execute(sa.delete(LAYOUT))
                    connection.execute(sa.insert(LAYOUT).values(layout=control.LAYOUT))
        elif connection.dialect.name in dialects.KEEPS_TABLES:
            with self._transaction(connection, alone=True):
                for row in connection.execute(sa.select(PROJECTION)).all():
                    known = control.registered_of(tuple(row))
                    for name in known.tables:
                        statements.show(connection, name, physical(name, known.live))
        self._ready = True

    def _layout(self, connection: sa.Connection) -> int:
        """Of the tables: 0 where there are none. Raises TargetUnavailable on that of a later release."""
        there = sa.inspect(connection)
        layout: int | None = None
        if there.has_table(LAYOUT.name):
            layout = connection.execute(sa.select(sa.func.max(LAYOUT.c.layout))).scalar()
        if layout is None:  # a making of tables that was cut short goes on
            return int(there.has_table(MARK.name))
        control.refuse_layout(self.address, layout)
        return layout

    def _look(self, statement: sa.Select[Any]) -> list[tuple[Any, ...]]:
        """Ask without making the tables: nothing there means nothing kept."""
        if not self._ready:
            layout = self._read(self._layout)
            if not layout:
                return []
            if layout < control.LAYOUT:
                with self._using(write=True):  # brings them to this layout
                    pass
        return self._read(lambda connection: [tuple(row) for row in connection.execute(statement)])

    # Projections

    def registered(self, name: str) -> Registered | None:
        """See the port."""
        found = self._look(sa.select(PROJECTION).where(PROJECTION.c.name == name))
        return control.registered_of(found[0]) if found else None

    def all(self) -> list[Registered]:
        """See the port."""
        found = self._look(sa.select(PROJECTION).order_by(PROJECTION.c.name))
        return [control.registered_of(row) for row in found if not row[0].startswith("$")]

    @contextmanager
    def control(self, name: str) -> Generator[AlchemyControl]:
        """See the port."""
        try:
            with self._using(write=True, alone=True) as connection:
                tx = AlchemyControl(connection, name, self.address)
                yield tx
                tx.make_tables()
        except TargetUnavailable as error:
            if dialects.is_conflict(error.__cause__):
                raise Disturbed from error
            raise

    def withdraw(self, name: str, generation: int | None, store: str) -> None:
        """Rows are kept here alone."""

    def pending_commands(self, store: str) -> list[PendingCommand]:
        """See the port."""
        every = [control.command_of(row) for row in self._look(sa.select(COMMAND).order_by(COMMAND.c.id))]
        return [command for command in every if command.store == store]

    def remove_command(self, command: PendingCommand) -> None:
        """See the port."""
        with self._using(write=True) as connection:
            connection.execute(sa.delete(COMMAND).where(COMMAND.c.id == command.id))

    # Checkpoints

    def checkpoints(self, name: str, generation: int | None = None) -> list[Checkpoint]:
        """See the port."""
        found = self._checkpoints(name, generation)
        if not found and generation is not None:
            known = self.registered(name)
            if known is not None and known.kind != ELSEWHERE and generation in known.generations:
                found = self._checkpoints(name, generation)  # dropped meanwhile, it is in no record any more
                if not found:
                    raise control.damaged("eventfold_checkpoint", name, generation)
        control.refuse_partial(found, name)
        return found

    def _checkpoints(self, name: str, generation: int | None) -> list[Checkpoint]:
        found = sa.select(CHECKPOINT).where(CHECKPOINT.c.name == name)
        if generation is not None:
            found = found.where(CHECKPOINT.c.generation == generation)
        ordered = found.order_by(CHECKPOINT.c.generation, CHECKPOINT.c.part)
        return [control.checkpoint_of(row) for row in self._look(ordered)]

    def entries(self, place: Place) -> list[Entry]:
        """See the port."""
        rows = self._look(sa.select(ENTRY).where(at(ENTRY, place)).order_by(ENTRY.c.position))
        return [control.entry_of(place, row[3:]) for row in rows]

    def marks(self, place: Place) -> list[tuple[int, Tally]]:
        """See the port."""
        rows = self._look(sa.select(MARK).where(at(MARK, place)).order_by(MARK.c.position))
        return [control.mark_of(place, row[3:]) for row in rows]

    # Leases

    def claim(self, place: Place, holder: str, seconds: float, heir_of: str = "") -> Checkpoint | None:
        """See the port."""
        with self._using(write=True) as connection:
            held = self._locked(connection, place)
            if held is None:
                raise UnknownProjection(
                    f"Generation {place.generation} of {place.name} is no longer kept in {self.address}.",
                    "Ask for the one that is: eventfold projections show.",
                    projection=place.name,
                )
            new = control.claimed(held, holder, dialects.now(connection), seconds, heir_of)
            return None if new is None else put(connection, new)

    def beat(self, held: Checkpoint, seconds: float, quietly: bool = False) -> int:
        """See the port."""
        with self._using(write=True) as connection:
            now = self._locked(connection, held.place)
            if now is None or now.token != held.token:
                raise lost(held)
            put(connection, control.renewed(now, dialects.now(connection), seconds, quietly))
            return now.revision

    def release(self, held: Checkpoint) -> None:
        """See the port."""
        with self._using(write=True) as connection:
            now = self._locked(connection, held.place)
            if now is not None and now.token == held.token:
                put(connection, control.released(now))

    def _locked(self, connection: sa.Connection, place: Place) -> Checkpoint | None:
        found = sa.select(CHECKPOINT).where(at(CHECKPOINT, place)).with_for_update()
        row = connection.execute(found.with_hint(CHECKPOINT, "WITH (UPDLOCK, ROWLOCK)", "mssql")).first()
        return None if row is None else control.checkpoint_of(tuple(row))

    # Rows

    @contextmanager
    def writing(self, place: Place) -> Generator[AlchemyWriting]:
        """See the port."""
        with self._using(write=True, handling=True) as connection:
            yield AlchemyWriting(connection, place, self.address)

    def load(self, table: Table, keys: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
        """See the port."""
        made = rows_table(table, self._dialect)

        def load(connection: sa.Connection) -> list[tuple[Any, ...]]:
            with dialects.refusing():
                return [row for each in statements.of_keys(connection, made, keys) for row in each]

        return self._read(load)

    def select(
        self, table: Table, where: Mapping[str, Any], order: Sequence[str], limit: int | None
    ) -> list[tuple[Any, ...]]:
        """See the port."""
        refuse_unknown(table, where, order)

        def select(connection: sa.Connection) -> list[tuple[Any, ...]]:
            made = rows_table(table, self._dialect)
            statement = statements.some(made, where, order or table.key, limit, connection.dialect.name)
            with dialects.refusing():
                return [tuple(row) for row in connection.execute(statement)]

        return self._read(select)

    def scan(self, table: Table) -> Iterator[list[tuple[Any, ...]]]:
        """See the port."""
        made, after = rows_table(table, self._dialect), ()
        while True:
            with self._using() as connection:
                page = [tuple(row) for row in connection.execute(statements.following(made, after))]
            if page:
                yield page
                after = page[-1][: len(table.key)]
            if len(page) < statements.PAGE:
                return

    def now(self) -> int:
        """See the port."""
        return self._read(dialects.now)

    def outdated(self, table: Table) -> bool:
        """No release kept them in another way."""
        return False

    def dump(self, name: str, generation: int) -> Iterator[tuple[Any, ...]]:
        """See the port."""
        with self._using() as connection:
            rows = statements.everything(connection, physical(name, generation))
        yield from rows

    def undelivered(self, name: str, generation: int) -> str:
        """Nothing: rows are where readers look as soon as they are committed."""
        return ""

    def blocker(self) -> str:
        """Not known here."""
        return ""

    def close(self) -> None:
        """See the port."""
        self._ready = False
        self._connections.close()
