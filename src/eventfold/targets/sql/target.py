"""Room: a target in a SQL database: rows, checkpoints and leases in tables, over any driver.

Knows: tables, views, statements, transactions. Does not know: which database it is.
Readers see views; the rows stand in tables with the generation's number behind their names, so that a switch is one
small transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from itertools import islice
from typing import Any, TypeVar

from eventfold.core.table import Table
from eventfold.core.tally import Tally
from eventfold.errors import EventfoldError, TargetUnavailable, UnknownProjection
from eventfold.ports.target import (
    ELSEWHERE,
    Checkpoint,
    Disturbed,
    Entry,
    PendingCommand,
    Place,
    Registered,
    RowRefused,
    physical,
)
from eventfold.targets.sql import control_tables as control
from eventfold.targets.sql.control_transaction import SqlControl
from eventfold.targets.sql.driver import Driver, Parameters
from eventfold.targets.sql.statements import Statements, is_keyed
from eventfold.targets.sql.transaction import SqlWriting, locked, lost, put
from eventfold.targets.sql.upgrade import upgrade

PAGE = 1_000

T = TypeVar("T")
AGAIN = ("40P01", "40001")  # a deadlock, or a conflict: nothing was done, and the transaction may begin again


class SqlTarget:
    """See the port."""

    def __init__(self, driver: Driver, statements: Statements | None = None) -> None:
        self.driver = self._driver = driver
        self.address = driver.address
        self._ready = False
        self.statements = self._statements = statements or Statements(driver)

    # Connections

    @contextmanager
    def _using(self, write: bool = False, handling: bool = False) -> Generator[Any]:
        """A connection, in a transaction if `write`; the driver's errors in our words. `handling`: see Driver.take."""
        driver = self._driver
        try:
            taken, broken = driver.take(write, handling), True
            try:
                connection = driver.connection(taken)
                if write:
                    self._prepare(connection)
                    try:
                        driver.begin(connection)  # within: an exception right after it must end the transaction, too
                        yield connection
                    except BaseException as error:
                        driver.rollback(connection)
                        broken = isinstance(error, driver.errors)
                        raise
                    driver.commit(connection)
                else:
                    yield connection
                broken = False
            finally:
                driver.give(taken, write, broken)
        except driver.errors as error:
            raise driver.translated(error) from error

    def _read(self, work: Callable[[Any], T]) -> T:
        """What only reads: again, once, over a new connection, if the one that was kept turns out to be dead."""
        dead = False
        try:
            with self._using() as connection:
                try:
                    return work(connection)
                except self._driver.errors as error:
                    dead = self._driver.dead(connection, error)
                    raise
        except EventfoldError:
            if not dead:
                raise
        with self._using() as connection:
            return work(connection)

    def _prepare(self, connection: Any) -> None:
        """Make the tables, or bring them to this layout, once."""
        if self._ready:
            return
        if self._layout(connection) < control.LAYOUT:
            self._make(connection, self._upgrade)
        self._ready = True

    def _layout(self, connection: Any) -> int:
        """Of the tables: 0 where there are none. Raises TargetUnavailable on that of a later release."""
        if not self._driver.exists(connection, "eventfold_layout"):
            return int(self._driver.exists(connection, "eventfold_mark"))
        found = self._ask(connection, "SELECT layout FROM eventfold_layout")
        layout = max((row[0] for row in found), default=control.LAYOUT)
        control.refuse_layout(self.address, layout)
        return layout

    def _upgrade(self, connection: Any) -> None:
        had = self._layout(connection)
        if had == 1:
            upgrade(self._driver, connection)
        if had < control.LAYOUT:
            for statement in control.CREATE:
                self._ask(connection, statement)

    def _make(self, connection: Any, work: Callable[[Any], None]) -> None:
        self._driver.begin(connection)
        try:
            self._driver.exclusive(connection)
            work(connection)
            self._driver.commit(connection)
        except BaseException:
            self._driver.rollback(connection)
            raise

    def _ask(self, connection: Any, sql: str, parameters: Parameters = ()) -> list[tuple[Any, ...]]:
        return self._driver.execute(connection, self._driver.sql(sql), parameters)

    def _look(self, sql: str, parameters: Parameters = ()) -> list[tuple[Any, ...]]:
        """Ask without making the tables: nothing there means nothing kept."""
        if not self._ready:
            layout = self._read(self._layout)
            if not layout:
                return []
            if layout < control.LAYOUT:
                with self._using(write=True):  # brings them to this layout
                    pass
            self._ready = True
        return self._read(lambda connection: self._ask(connection, sql, parameters))

    # Projections

    def registered(self, name: str) -> Registered | None:
        """See the port."""
        found = self._look(f"SELECT {control.PROJECTION} FROM eventfold_projection WHERE name = ?", (name,))  # noqa: S608
        return control.registered_of(tuple(found[0])) if found else None

    def all(self) -> list[Registered]:
        """See the port."""
        return [
            control.registered_of(tuple(r))
            for r in self._look(f"SELECT {control.PROJECTION} FROM eventfold_projection ORDER BY name")  # noqa: S608
            if not r[0].startswith("$")
        ]

    @contextmanager
    def control(self, name: str) -> Generator[SqlControl]:
        """See the port."""
        try:
            with self._using(write=True) as connection:
                yield self.controlled(connection, name)
        except TargetUnavailable as error:
            if error.fields.get("sqlstate") in AGAIN:
                raise Disturbed from error
            raise

    def controlled(self, connection: Any, name: str) -> SqlControl:
        """See Host.controlled."""
        self._driver.dress(connection)
        return SqlControl(self._driver, connection, name, self._statements)

    def withdraw(self, name: str, generation: int | None, store: str) -> None:
        """Rows are kept here alone."""

    def pending_commands(self, store: str) -> list[PendingCommand]:
        """See the port."""
        every = [control.command_of(row) for row in self._look(control.COMMANDS)]
        return [command for command in every if command.store == store]

    def remove_command(self, command: PendingCommand) -> None:
        """See the port."""
        with self._using(write=True) as connection:
            self._ask(connection, control.REMOVE_COMMAND, (command.id,))

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
        rows = self._look(control.OF_NAME, (name,))
        return [control.checkpoint_of(tuple(row)) for row in rows if generation in (None, row[1])]

    def entries(self, place: Place) -> list[Entry]:
        """See the port."""
        sql = f"SELECT {control.ENTRY} FROM eventfold_entry WHERE {control.PLACE} ORDER BY position"  # noqa: S608
        return [control.entry_of(place, row) for row in self._look(sql, control.place_of(place))]

    def marks(self, place: Place) -> list[tuple[int, Tally]]:
        """See the port."""
        sql = f"SELECT {control.MARK} FROM eventfold_mark WHERE {control.PLACE} ORDER BY position"  # noqa: S608
        return [control.mark_of(place, row) for row in self._look(sql, control.place_of(place))]

    # Leases

    def claim(self, place: Place, holder: str, seconds: float, heir_of: str = "") -> Checkpoint | None:
        """See the port."""
        driver = self._driver
        with self._using(write=True) as connection:
            held = locked(driver, connection, place)
            if held is None:
                raise UnknownProjection(
                    f"Generation {place.generation} of {place.name} is no longer kept in {self.address}.",
                    "Ask for the one that is: eventfold projections show.",
                    projection=place.name,
                )
            new = control.claimed(held, holder, driver.now(connection), seconds, heir_of)
            return None if new is None else put(driver, connection, new)

    def beat(self, held: Checkpoint, seconds: float, quietly: bool = False) -> int:
        """See the port."""
        driver = self._driver
        with self._using(write=True) as connection:
            now = locked(driver, connection, held.place)
            if now is None or now.token != held.token:
                raise lost(held)
            put(driver, connection, control.renewed(now, driver.now(connection), seconds, quietly))
            return now.revision

    def release(self, held: Checkpoint) -> None:
        """See the port."""
        with self._using(write=True) as connection:
            now = locked(self._driver, connection, held.place)
            if now is not None and now.token == held.token:
                put(self._driver, connection, control.released(now))

    # Rows

    @contextmanager
    def writing(self, place: Place) -> Generator[SqlWriting]:
        """See the port."""
        with self._using(write=True, handling=True) as connection:
            yield SqlWriting(self._driver, connection, place, self._statements)

    def joined(self, connection: Any, place: Place) -> SqlWriting:
        """See Host.joined."""
        self._driver.dress(connection)
        return SqlWriting(self._driver, connection, place, self._statements)

    def load(self, table: Table, keys: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
        """See the port."""

        def load(connection: Any) -> list[tuple[Any, ...]]:
            found: list[tuple[Any, ...]] = []
            rest = iter(keys)
            try:
                while chunk := list(islice(rest, PAGE)):
                    sql, parameters = self._statements.load(table, chunk)
                    found += self._ask(connection, sql, parameters)
            except self._driver.unfit as error:
                raise RowRefused(str(error)) from error
            return found

        return self._statements.unpacked(table, self._read(load))

    def select(
        self, table: Table, where: Mapping[str, Any], order: Sequence[str], limit: int | None
    ) -> list[tuple[Any, ...]]:
        """See the port."""

        def select(connection: Any) -> list[tuple[Any, ...]]:
            self._statements.look(connection, table)
            sql, parameters = self._statements.select(table, where, order, limit)
            keyed = is_keyed(table, where, order)
            try:
                with nullcontext() if keyed else self._driver.wide(connection):
                    found = self._ask(connection, sql, parameters)
            except self._driver.unfit as error:
                raise RowRefused(str(error)) from error
            return self._statements.unpacked(table, found)

        return self._read(select)

    def scan(self, table: Table) -> Iterator[list[tuple[Any, ...]]]:
        """See the port."""
        after: tuple[Any, ...] = ()

        def following(connection: Any) -> list[tuple[Any, ...]]:
            self._statements.look(connection, table)
            return self._ask(connection, self._statements.scan(table, bool(after), PAGE), after)

        while True:
            page = self._read(following)
            if page:
                yield self._statements.unpacked(table, page)
                after = self._statements.after(table, page[-1])
            if len(page) < PAGE:
                return

    def outdated(self, table: Table) -> bool:
        """See the port."""
        return self._read(lambda connection: self._statements.look(connection, table))

    def dump(self, name: str, generation: int) -> Iterator[tuple[Any, ...]]:
        """See the port."""

        def everything(connection: Any) -> list[tuple[Any, ...]]:
            table = physical(name, generation)
            width, own = self._driver.width(connection, table), self._driver.relation(table)
            order = ", ".join(str(n) for n in range(1, width + 1))
            with self._driver.wide(connection):
                return self._ask(connection, f"SELECT * FROM {own} ORDER BY {order}")  # noqa: S608

        yield from self._read(everything)

    def now(self) -> int:
        """See the port."""
        return self._read(self._driver.now)

    def undelivered(self, name: str, generation: int) -> str:
        """Nothing: rows are where readers look as soon as they are committed."""
        return ""

    def blocker(self) -> str:
        """See the port."""
        return self._driver.blocker()

    def close(self) -> None:
        """See the port."""
        self._ready = False
        self._driver.shut()
