"""The reverse projection: after a cutover the old tables follow the events, for old readers, and for a way back.

Its progress is a cursor in a table beside the rows, written in the same transaction: each append is written once, also
after `kill -9`. Events that a load or a capture made are left out: they came from there. It is no SqlProjection, since
that owns and rebuilds its tables, and its target would open a SQLite file in the store's process.

Knows: the store's log, checkpoints. Does not know: statements for rows (reverse_rows.py), how writers are blocked.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from eventfold.concurrency import run
from eventfold.core.envelope import StoredEvent
from eventfold.core.query import Cursor, Query
from eventfold.errors import InvalidInput
from eventfold.log.read import Bounds, Reader
from eventfold.migrate.connection import Connection, has_table
from eventfold.migrate.events import Origin
from eventfold.migrate.plan import Plan
from eventfold.migrate.reverse_rows import Effects, RowWriter, obstacles
from eventfold.store import Store

TABLE = "eventfold_reverse"
_origin = msgspec.json.Decoder(Origin).decode


class Written(msgspec.Struct, frozen=True):
    """What a pass wrote. `position`: up to where the tables follow the log now (inclusive)."""

    events: int
    rows: int
    position: int


class ReverseProjection:
    """The projection of one migration, into the tables of a plan.

    `prepare`, `finish`: statements at the beginning and at the end of each transaction, such as a setting by which
    triggers that block other writers know this one.
    """

    def __init__(
        self,
        store: Store,
        plan: Plan,
        connection: Connection,
        name: str,
        prepare: Sequence[str] = (),
        finish: Sequence[str] = (),
    ) -> None:
        self._store, self._plan, self._connection = store, plan, connection
        self._name, self._prepare, self._finish = name, prepare, finish
        self._writer = RowWriter(connection, plan)

    def install(self, position: int | None = None) -> None:
        """Begin after a position (default: the head), up to which the tables have everything; once.

        Raises InvalidInput where new rows could not be written.
        """
        if found := obstacles(self._plan):
            raise InvalidInput(
                f"New rows cannot be written back: {'; '.join(found[:10])}.",
                "Keep the column, or give it a default in the source.",
                obstacles=found,
            )
        self._connection.run(
            f"CREATE TABLE IF NOT EXISTS {TABLE} (name varchar(40) PRIMARY KEY, progress varchar(200) NOT NULL)"
        )
        if self.cursor() is None:
            mark = self._connection.mark
            self._connection.run(
                f"INSERT INTO {TABLE} (name, progress) VALUES ({mark}, {mark})",  # noqa: S608 - constants
                [self._name, str(self._store.cursor(position))],
            )

    def remove(self) -> None:
        """Forget the progress; the rows stay as they are. Safe to repeat."""
        if not has_table(self._connection, TABLE):
            return
        self._connection.run(f"DELETE FROM {TABLE} WHERE name = {self._connection.mark}", [self._name])  # noqa: S608
        if not self._connection.rows(f"SELECT name FROM {TABLE} LIMIT 1"):  # noqa: S608
            self._connection.run(f"DROP TABLE {TABLE}")

    def cursor(self) -> Cursor | None:
        """Return up to where the tables follow the log; None if it was never installed."""
        return progress_in(self._connection, self._name)

    def catch_up(self) -> Written:
        """Write everything up to the head.

        Raises CursorMismatch if the store is not the one of the progress, InvalidInput and MappingIncomplete for an
        event that cannot be written back, MigrationError for a row that is not there; then nothing of its page is
        written. Raises SourceUnavailable, also where a constraint of the tables refuses a row.
        """
        cursor = self.cursor()
        if cursor is None:
            raise InvalidInput("The reverse projection is not installed.", "Cut over first.")
        position = self._store.verify(cursor)
        head = self._store.head()
        effects = Effects(self._plan)
        reader = Reader(
            self._store.projections.log,
            Query.of(types=effects.decided.types),
            Bounds(after=position, until=head),
            raw=True,
        )
        events = rows = 0
        while (page := run(reader.next_stored())) is not None:
            own = [each for each in page if not is_of_migration(each)]
            effects = Effects(self._plan)
            for each in own:
                effects.add(each)
            rows += self._write(effects, page[-1].position)
            events += len(own)
            position = page[-1].position
        if position < head:
            self._write(Effects(self._plan), head)
        return Written(events, rows, head)

    def _write(self, effects: Effects, position: int) -> int:
        mark = self._connection.mark
        self._connection.begin()
        try:
            for statement in self._prepare:
                self._connection.run(statement)
            if effects.rows and self._connection.dialect == "postgresql":
                self._connection.run("SET CONSTRAINTS ALL DEFERRED")
            written = self._writer.write(effects.rows.values())
            for statement in self._finish:
                self._connection.run(statement)
            self._connection.run(
                f"UPDATE {TABLE} SET progress = {mark} WHERE name = {mark}",  # noqa: S608 - constants
                [str(self._store.cursor(position)), self._name],
            )
        except BaseException:
            self._connection.rollback()
            raise
        self._connection.commit()
        return written


def progress_in(connection: Connection, name: str) -> Cursor | None:
    """Return up to where the tables follow the log, as this connection sees it; None if they do not."""
    if not has_table(connection, TABLE):
        return None
    statement = f"SELECT progress FROM {TABLE} WHERE name = {connection.mark}"  # noqa: S608
    found = connection.rows(statement, [name])
    return Cursor.parse(str(found[0][0])) if found else None


def is_of_migration(event: StoredEvent) -> bool:
    """Whether an event was made of a row, by a load or a capture."""
    if event.metadata is None:
        return False
    try:
        return bool(_origin(event.metadata).source)
    except msgspec.ValidationError:  # metadata of a decision
        return False
