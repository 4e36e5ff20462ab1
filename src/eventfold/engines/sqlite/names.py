"""Room: the dictionaries: type and tag names as small integers, cached in the process.

A name's id enters the cache only after the transaction that made it has committed: an id rolled back is
given to another name later, and a cached one would file events under the wrong entity.
Knows: two tables. Does not know: events.
"""

from __future__ import annotations

from collections.abc import Iterable

import apsw

MOST_CACHED = 200_000


class Names:
    """One dictionary table. Reads may run on any connection, `new` only inside the writer's transaction."""

    def __init__(self, table: str) -> None:
        self._select = f"SELECT id FROM {table} WHERE name = ?"  # noqa: S608 (two fixed names)
        self._insert = f"INSERT INTO {table} (name) VALUES (?) RETURNING id"  # noqa: S608
        self._by_id = f"SELECT name FROM {table} WHERE id = ?"  # noqa: S608
        self._ids: dict[str, int] = {}
        self.known: dict[int, str] = {}
        self._fresh: dict[str, int] = {}

    def id(self, connection: apsw.Connection, name: str, writing: bool = False) -> int | None:
        """The id of a name that some event has, or None. `writing`: inside the writer's transaction."""
        known = self._ids.get(name)
        if known is None:
            if writing and name in self._fresh:
                return self._fresh[name]  # made by this transaction, so not to be cached yet
            row = connection.execute(self._select, (name,)).fetchone()
            if row is None:
                return None
            known = self._keep(name, row[0])
        return known

    def ids(self, connection: apsw.Connection, names: Iterable[str], writing: bool = False) -> list[int]:
        """The ids of those names that are known."""
        return [found for name in names if (found := self.id(connection, name, writing)) is not None]

    def ensure(self, connection: apsw.Connection, name: str) -> int:
        """The id of a name, made if need be. Only inside the writer's transaction, ended by `publish` or `forget`."""
        known = self._ids.get(name) or self._fresh.get(name)
        if known is None:
            row = connection.execute(self._select, (name,)).fetchone()
            if row is not None:
                known = self._keep(name, row[0])  # committed by someone, or by us before: visible is committed
            else:
                row = connection.execute(self._insert, (name,)).fetchone()
                known = self._fresh[name] = row[0]
        return known

    def publish(self) -> None:
        """The transaction has committed: what it made may be cached."""
        if self._fresh:
            for name, number in self._fresh.items():
                self._keep(name, number)
            self._fresh.clear()

    def forget(self) -> None:
        """The transaction was rolled back: what it made never was."""
        self._fresh.clear()

    def name(self, connection: apsw.Connection, number: int) -> str:
        """The name behind an id."""
        known = self.known.get(number)
        if known is None:
            row = connection.execute(self._by_id, (number,)).fetchone()
            known = row[0] if row else ""
            if row:
                self._keep(known, number)
        return known

    def _keep(self, name: str, number: int) -> int:
        if len(self._ids) >= MOST_CACHED:
            self._ids.clear()
            self.known.clear()
        self._ids[name] = number
        self.known[number] = name
        return number
