"""What the last append of this process left in the file: its head, and the registrations of inline read models.

SQLite's data version of a connection changes with each of its own commits, and when it begins a transaction after any
other connection has committed. So within a write transaction an unchanged version means that both are still current:
no statement needs to read them.
Knows: data versions. Does not know: how a head is verified (head.py), what is appended.
"""

from __future__ import annotations

from collections.abc import Sequence
from weakref import ReferenceType, ref

import apsw

from eventfold.engines.sqlite.head import HeadTracker
from eventfold.engines.sqlite.inline import read_registrations
from eventfold.ports.inline import InlineRegistration
from eventfold.ports.messages import Head

Known = tuple[Head, Sequence[InlineRegistration]]


class LastCommit:
    """The head and the registrations at the start of each write transaction."""

    def __init__(self, head: HeadTracker) -> None:
        self._head = head
        self._connection: ReferenceType[apsw.Connection] | None = None
        self._version = -1
        self._known: Known | None = None

    def read(self, connection: apsw.Connection) -> Known:
        """The head and the registrations, verified. Call it within a write transaction."""
        known = self._known
        if (
            known is not None
            and known[0] is self._head.last_seen  # another one was read, or is noted as acknowledged
            and self._connection is not None
            and self._connection() is connection
            and connection.data_version() == self._version
        ):
            return known
        return self._head.read_head(connection), read_registrations(connection)

    def record(self, connection: apsw.Connection, head: Head, registrations: Sequence[InlineRegistration]) -> None:
        """Record what a commit of this connection left. Call it after the commit, before another transaction."""
        self._known = None  # first: an exception between these steps must not leave a mixture
        if self._connection is None or self._connection() is not connection:
            self._connection = ref(connection)
        self._version = connection.data_version()
        self._known = head, registrations
