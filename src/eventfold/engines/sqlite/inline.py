"""Inline read models: the table of registrations, and the transaction that excludes appends.

Knows: that table. Does not know: how events are folded (the projector does), when a transaction ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import apsw

from eventfold.core.query import Query
from eventfold.engines.sqlite.errors import inconsistency_error
from eventfold.engines.sqlite.schema import with_checksum
from eventfold.ports.inline import InlineRegistration
from eventfold.ports.messages import Page, Span

SELECT_REGISTRATIONS = "SELECT name, code, types, ticket, crc FROM inlined ORDER BY name"
INSERT_REGISTRATION = "INSERT OR REPLACE INTO inlined (name, code, types, ticket, crc) VALUES (?,?,?,?,?)"
DELETE_REGISTRATION = "DELETE FROM inlined WHERE name = ?"
PAGE_EVENTS = 1_000

ReadPage = Callable[[Query, Span], Page]


def read_registrations(connection: apsw.Connection) -> list[InlineRegistration]:
    """The registrations that this transaction sees. Raises StoreDamaged if the checksum of a row does not match."""
    rows: list[Any] = connection.execute(SELECT_REGISTRATIONS).fetchall()
    if not rows:
        return []
    for row in rows:
        if with_checksum(row[:-1]) != row:
            raise inconsistency_error(f"the registration of {row[0]!r} does not have its checksum")
    return [InlineRegistration(name, code, tuple(types.split("\n")), ticket) for name, code, types, ticket, _ in rows]


class SqliteExclusiveTransaction:
    """See ports.inline.ExclusiveTransaction."""

    def __init__(self, connection: apsw.Connection, head: int, ask: ReadPage) -> None:
        self.connection, self.head = connection, head
        self.registrations: Sequence[InlineRegistration] = read_registrations(connection)
        self._ask = ask

    async def read(self, query: Query, after: int) -> Page:
        """See the port."""
        return self._ask(query, Span(after=after, limit=PAGE_EVENTS))

    async def register(self, inlined: InlineRegistration) -> None:
        """See the port."""
        row = (inlined.name, inlined.code, "\n".join(inlined.types), inlined.incarnation)
        self.connection.execute(INSERT_REGISTRATION, with_checksum(row))

    async def unregister(self, name: str) -> None:
        """See the port."""
        self.connection.execute(DELETE_REGISTRATION, (name,))
