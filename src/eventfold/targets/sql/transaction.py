"""Room: a target's open transaction: rows written, the checkpoint moved, by whoever holds the lease.

Knows: the fence (token and revision). Does not know: how a transaction begins and ends (sql.py does).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from eventfold.core.table import Table
from eventfold.errors import EventfoldError, LeaseLost
from eventfold.ports.target import (
    FOREVER,
    INLINE,
    Advance,
    Checkpoint,
    Disturbed,
    Entry,
    Place,
    RowRefused,
    physical,
)
from eventfold.targets.sql import control_tables as control
from eventfold.targets.sql.driver import Driver, Parameters
from eventfold.targets.sql.statements import Statements, clipped

PAGE = 1_000  # keys asked for at once
NAMES = re.compile(r"""(["`\[]?)\{(\w+)\}""")
PLAIN = re.compile("[a-z_][a-z0-9_]*")


class SqlWriting:
    """An open transaction of a target."""

    def __init__(self, driver: Driver, connection: Any, place: Place, statements: Statements) -> None:
        self._driver, self._place, self._statements = driver, place, statements
        self.connection = connection

    def execute(self, sql: str, parameters: Parameters = ()) -> list[tuple[Any, ...]]:
        """See the port."""
        return self._driver.execute(self.connection, self._named(sql), parameters)

    def executemany(self, sql: str, parameters: Iterable[Parameters]) -> None:
        """See the port."""
        self._driver.executemany(self.connection, self._named(sql), parameters)

    def _named(self, sql: str) -> str:
        return named(sql, self._place.generation, self._driver.relation, self._driver.longest_name)

    def upsert(self, table: Table, rows: Sequence[Sequence[Any]]) -> None:
        """See the port."""
        if rows:
            packed = self._statements.packed(table, rows)
            try:
                self._driver.upsert(self.connection, self._driver.sql(self._statements.upsert(table)), table, packed)
            except self._driver.refusals as error:
                raise RowRefused(str(error)) from error

    def delete(self, table: Table, keys: Sequence[Sequence[Any]]) -> None:
        """See the port."""
        if keys:
            packed = self._statements.packed_keys(table, keys)
            self._driver.executemany(self.connection, self._driver.sql(self._statements.delete(table)), packed)

    def advance(self, held: Checkpoint, step: Advance) -> Checkpoint:
        """See the port."""
        driver, connection, place = self._driver, self.connection, control.place_of(held.place)
        moved = control.advanced(held, step, driver.now(connection) if step.at is None else step.at)
        row = (
            *(step.position, step.event_id, step.epoch, step.seen.count, step.seen.hex),
            *(step.handled.count, step.handled.hex, step.stopped, step.stats, moved.at, control.row_of(moved)[-2]),
            *(*place, held.token, held.revision),
        )
        if not driver.execute(connection, driver.sql(control.ADVANCE), row):
            sql = driver.sql(f"SELECT token FROM eventfold_checkpoint WHERE {control.PLACE}")  # noqa: S608
            if driver.execute(connection, sql, place) == [(held.token,)]:
                raise Disturbed
            raise lost(held)
        if step.entries:
            enter(driver, connection, held.place, step.entries)
        if step.settled:
            sql = driver.sql(f"DELETE FROM eventfold_entry WHERE {control.PLACE} AND position = ?")  # noqa: S608
            driver.executemany(connection, sql, [(*place, position) for position in step.settled])
        if step.mark:
            mark = control.mark_row(held.place, step.position, step.seen)
            driver.execute(connection, driver.sql(control.NEW_MARK), mark)
        return moved

    def overdue(self) -> bool:
        """See the port."""
        return self._driver.overdue()

    # In the engine's own transaction

    def load(self, table: Table, keys: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
        """See the port."""
        found: list[tuple[Any, ...]] = []
        for at in range(0, len(keys), PAGE):
            sql, parameters = self._statements.load(table, keys[at : at + PAGE])
            try:
                found += self._driver.execute(self.connection, self._driver.sql(sql), parameters)
            except self._driver.unfit as error:
                raise RowRefused(str(error)) from error
        return self._statements.unpacked(table, found)

    def look(self) -> Checkpoint | None:
        """See the port."""
        return locked(self._driver, self.connection, self._place, locking="")

    def seize(self) -> Checkpoint | None:
        """See the port."""
        held = locked(self._driver, self.connection, self._place)
        if held is None:
            return None
        fields = {"token": held.token + 1, "holder": INLINE, "expires": FOREVER, "stopped": ""}
        return put(self._driver, self.connection, control.changed(held, fields))

    def let_go(self) -> None:
        """See the port."""
        held = locked(self._driver, self.connection, self._place)
        if held is not None:
            fields = {"token": held.token + 1, "holder": "", "expires": 0}
            put(self._driver, self.connection, control.changed(held, fields))


def locked(driver: Driver, connection: Any, place: Place, locking: str | None = None) -> Checkpoint | None:
    """The checkpoint of a place, locked until the end of the transaction."""
    behind = driver.locking if locking is None else locking
    found = driver.execute(connection, driver.sql(control.LOOK + behind), control.place_of(place))
    return control.checkpoint_of(tuple(found[0])) if found else None


def put(driver: Driver, connection: Any, held: Checkpoint) -> Checkpoint:
    """Write a checkpoint, whole, that was locked."""
    key, row = control.place_of(held.place), control.row_of(held)
    driver.execute(connection, driver.sql(control.SAVE_CHECKPOINT), (*row[len(key) :], *key))
    return held


def named(sql: str, generation: int, relation: Callable[[str], str], longest: int | None) -> str:
    """SQL with `{table}` become the name of a generation's own table, quoted where that is needed."""

    def name(found: re.Match[str]) -> str:
        own = clipped(physical(found[2], generation), longest)
        return f"{found[1]}{own}" if found[1] or PLAIN.fullmatch(own) else relation(own)

    return NAMES.sub(name, sql) if "{" in sql else sql


def lost(held: Checkpoint) -> EventfoldError:
    """The lease is somebody else's."""
    return LeaseLost(
        f"The lease of {held.place.name} has passed to another runner while this one (token {held.token}) was away.",
        "Nothing of the page in hand was written; this runner asks for a new lease.",
        projection=held.place.name,
        token=held.token,
    )


def enter(driver: Driver, connection: Any, place: Place, entries: Sequence[Entry]) -> None:
    """Write entries."""
    rows = [control.entry_row(place, entry) for entry in entries]
    driver.executemany(connection, driver.sql(control.SAVE_ENTRY), rows)
