"""Room: the dictionaries: type and tag names as small integers, cached in the process.

A name's id enters the cache only after the transaction that made it has committed: an id rolled back is
given to another name later, and a cached one would file events under the wrong entity.
Knows: two tables. Does not know: events.
"""

from __future__ import annotations

from collections.abc import Iterable

import apsw

from eventfold.engines.sqlite.faults import disagreement
from eventfold.engines.sqlite.spellings import Spellings

MOST_CACHED = 200_000


class Names:
    """One dictionary table. Reads may run on any connection, `ensure` only inside the writer's transaction."""

    def __init__(self, table: str) -> None:
        self._table = table
        self._by_name = f"SELECT id FROM {table} WHERE name = ?"  # noqa: S608 (two fixed names)
        self._by_id = f"SELECT name FROM {table} WHERE id = ?"  # noqa: S608
        self._insert = f"INSERT INTO {table} (name) VALUES (?) RETURNING id"  # noqa: S608
        self._ids: dict[str, int] = {}
        self.known: dict[int, str] = {}
        self._fresh: dict[str, int] = {}
        self.spellings = Spellings()  # of tags

    def id(self, connection: apsw.Connection, name: str, writing: bool = False) -> int | None:
        """The id of a name that some event has, or None. `writing`: inside the writer's transaction."""
        known = self._ids.get(name)
        if known is None and writing:
            known = self._fresh.get(name)
        return self._look_up(connection, name) if known is None else known

    def ids(self, connection: apsw.Connection, names: Iterable[str], writing: bool = False) -> list[int]:
        """The ids of those names that are known."""
        return [found for name in names if (found := self.id(connection, name, writing)) is not None]

    def ensure(self, connection: apsw.Connection, name: str) -> int:
        """The id of a name, made if need be. Only inside the writer's transaction, ended by `publish` or `forget`."""
        known = self._ids.get(name) or self._fresh.get(name) or self._look_up(connection, name)
        if known is None:
            known = self._fresh[name] = connection.execute(self._insert, (name,)).get
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
        """The name behind the id that a committed event has."""
        known = self.known.get(number)
        if known is None:
            row = connection.execute(self._by_id, (number,)).fetchone()
            if row is None or connection.execute(self._by_name, row).fetchone() != (number,):
                raise disagreement(f"the {self._table} number {number} has no name of its own")
            known = row[0]
            self._keep(known, number)
        return known

    def _look_up(self, connection: apsw.Connection, name: str) -> int | None:
        """What is visible and not made by us just now is committed. The index and the table have to agree on it."""
        row = connection.execute(self._by_name, (name,)).fetchone()
        if row is None:
            return None
        if connection.execute(self._by_id, row).fetchone() != (name,):
            raise disagreement(f"the {self._table} {name!r} has the number of another")
        return self._keep(name, row[0])

    def _keep(self, name: str, number: int) -> int:
        if len(self._ids) >= MOST_CACHED:
            self._ids.clear()
            self.known.clear()
        self._ids[name] = number
        self.known[number] = name
        return number
