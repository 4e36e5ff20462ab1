"""What the last append of this process left in the file: its head, inline read models, whether triggers must run.

SQLite's data version of a connection changes with each of its own commits, and when it begins a transaction after any
other connection has committed. So within a write transaction an unchanged version means that all are still current:
no statement needs to read them.

The triggers keep the log append-only against every program. For the writer's own rows they repeat checks: a known id or
name is refused by its unique index, and the order of positions is checked by `Batch.insert`. So they are switched off
on the writer's connection while all are eventfold's own, and an event is inserted in 1.5 µs instead of 2.5.
Knows: data versions, SQLite's switch for triggers. Does not know: how a head is verified (head.py), what is appended.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from weakref import ReferenceType, ref

import apsw
import msgspec

from eventfold.engines.sqlite.head import HeadTracker
from eventfold.engines.sqlite.inline import read_registrations
from eventfold.engines.sqlite.schema import expected_definitions
from eventfold.ports.inline import InlineRegistration
from eventfold.ports.messages import Head

_TRIGGERS = "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'"


class Known(msgspec.Struct, frozen=True):
    """`needs_triggers`: whether a trigger is not eventfold's own, or rows of inline read models are written."""

    head: Head
    registrations: Sequence[InlineRegistration]
    needs_triggers: bool


class LastCommit:
    """The head, the registrations and the triggers at the start of each write transaction."""

    def __init__(self, head: HeadTracker) -> None:
        self._head = head
        self._connection: ReferenceType[apsw.Connection] | None = None
        self._version = -1
        self._known: Known | None = None
        self._schema_version, self._has_others = -1, True  # of the file; whether it has triggers of others

    def read(self, connection: apsw.Connection) -> Known:
        """The head and the registrations, verified, and the triggers. Call it within a write transaction."""
        known = self._known
        if (
            known is not None
            and known.head is self._head.last_seen  # another one was read, or is noted as acknowledged
            and self._connection is not None
            and self._connection() is connection
            and connection.data_version() == self._version
        ):
            return known
        head, registrations = self._head.read_head(connection), read_registrations(connection)
        version: int = connection.execute("PRAGMA schema_version").get
        if version != self._schema_version or self._connection is None or self._connection() is not connection:
            self._has_others = not _own_triggers().issuperset(connection.execute(_TRIGGERS))
            self._schema_version = version
        return Known(head, registrations, bool(registrations) or self._has_others)

    def record(self, connection: apsw.Connection, known: Known) -> None:
        """Record what a commit of this connection left. Call it after the commit, before another transaction."""
        self._known = None  # first: an exception between these steps must not leave a mixture
        if self._connection is None or self._connection() is not connection:
            self._connection = ref(connection)
        self._version = connection.data_version()
        self._known = known


def run_triggers(connection: apsw.Connection, run: bool) -> None:
    """Let triggers run for the statements of a connection, or not."""
    # A change lets SQLite prepare every statement of the connection again, about 100 µs in all.
    if connection.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, -1) != run:
        connection.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, int(run))


@cache
def _own_triggers() -> frozenset[tuple[str, str]]:
    return frozenset((name, sql) for name, sql in expected_definitions() if sql.startswith("CREATE TRIGGER"))
