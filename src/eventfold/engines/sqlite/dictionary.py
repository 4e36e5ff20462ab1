"""The dictionaries of type and tag names: small integers for names, cached in the process; spellings of moments.

The id of a name is cached only after the transaction that created it has committed: an id that was rolled back is
assigned to another name later, and a stale cache entry would store events under the wrong tag.
Knows: the tables `type` and `tag`; ids grow and are never reused. Does not know: events.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import apsw

from eventfold.core.tags import in_utc, is_moment
from eventfold.engines.sqlite.errors import inconsistency_error

_LAST_TAG = "SELECT ifnull(max(id), 0) FROM tag"
# Tags in UTC need no other spelling.
_NEW_MOMENT_TAGS = (
    "SELECT name FROM tag WHERE id > ? AND id <= ? AND name NOT GLOB '*+00:00'"
    " AND name GLOB '*:[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]T[0-9][0-9]:*'"
)


class MomentSpellings:
    """Tags of moments in other time zones than UTC. Reads the whole dictionary once, then only new tags."""

    def __init__(self) -> None:
        self._known_through = 0  # the id up to which committed tags have been read
        self._others: dict[str, dict[str, None]] = {}

    def others_of(self, connection: apsw.Connection, tag: str) -> list[str]:
        """Other spellings of a tag in UTC. Not after a merge within the same transaction, which may be rolled back."""
        last: int = connection.execute(_LAST_TAG).get
        if last <= self._known_through:
            return list(self._others.get(tag, ()))
        new = [name for (name,) in connection.execute(_NEW_MOMENT_TAGS, (self._known_through, last)) if is_moment(name)]
        for name in new:
            self._others.setdefault(in_utc(name), {})[name] = None
        self._known_through = max(self._known_through, last)
        return list(self._others.get(tag, ()))


MAX_CACHED_NAMES = 200_000


class NameDictionary:
    """One dictionary table. Look-ups may use any connection, `ensure` only the writer's transaction."""

    def __init__(self, table: str) -> None:
        self._table = table
        self._by_name = f"SELECT id FROM {table} WHERE name = ?"  # noqa: S608 (two fixed names)
        self._by_id = f"SELECT name FROM {table} WHERE id = ?"  # noqa: S608
        self._insert = f"INSERT INTO {table} (name) VALUES (?) RETURNING id"  # noqa: S608
        self._pair_by_name = f"SELECT name, id FROM {table} WHERE name = ?"  # noqa: S608
        self._pair_by_id = f"SELECT name, id FROM {table} WHERE id = ?"  # noqa: S608
        self._last_id = f"SELECT ifnull(max(id), 0) FROM {table}"  # noqa: S608
        self._insert_pair = f"INSERT INTO {table} (id, name) VALUES (?, ?)"  # noqa: S608
        self._ids_by_name: dict[str, int] = {}
        self.cached_id = self._ids_by_name.get  # of a committed name, None if it is not known here
        self.names_by_id: dict[int, str] = {}
        self.uncommitted: dict[str, int] = {}  # names that the current transaction created
        self.spellings = MomentSpellings()  # of tags

    def id(self, connection: apsw.Connection, name: str) -> int | None:
        """The id of a committed name, or None if it has none."""
        known = self._ids_by_name.get(name)
        return self._look_up(connection, name) if known is None else known

    def ids(self, connection: apsw.Connection, names: Iterable[str]) -> list[int]:
        """The ids of those names that have one."""
        return [found for name in names if (found := self.id(connection, name)) is not None]

    def ensure(self, connection: apsw.Connection, name: str) -> int:
        """The id of a name, created if needed.

        Only inside the writer's transaction; then call `commit` or `rollback`.
        """
        known = self._ids_by_name.get(name) or self.uncommitted.get(name) or self._look_up(connection, name)
        if known is None:
            known = self.uncommitted[name] = connection.execute(self._insert, (name,)).get
        return known

    def ensure_all(self, connection: apsw.Connection, names: Sequence[str]) -> list[int]:
        """The ids of distinct names, new ones created in their order; otherwise as `ensure`."""
        ids = list(map(self._ids_by_name.get, names))
        if None not in ids:
            return cast("list[int]", ids)
        rest = [name for name, known in zip(names, ids, strict=True) if known is None]
        found = {name: self.uncommitted[name] for name in rest if name in self.uncommitted}
        found.update(self._look_up_all(connection, [name for name in rest if name not in found]))
        new = [name for name in rest if name not in found]
        if new:
            last: int = connection.execute(self._last_id).get
            created = dict(zip(new, range(last + 1, last + 1 + len(new)), strict=True))
            connection.executemany(self._insert_pair, [(number, name) for name, number in created.items()])
            self.uncommitted.update(created)
            found.update(created)
        return [found[name] if known is None else known for name, known in zip(names, ids, strict=True)]

    def commit(self) -> None:
        """After a COMMIT: cache the ids that the transaction created."""
        if self.uncommitted:
            created, self.uncommitted = self.uncommitted, {}
            for name, number in created.items():
                self._cache(name, number)

    def rollback(self) -> None:
        """After a ROLLBACK: discard the ids that the transaction created."""
        self.uncommitted.clear()

    def forget(self) -> None:
        """Forget all names."""
        self._ids_by_name.clear()
        self.names_by_id.clear()
        self.uncommitted.clear()
        self.spellings = MomentSpellings()

    def name(self, connection: apsw.Connection, number: int) -> str:
        """The name for the id of a committed event."""
        known = self.names_by_id.get(number)
        if known is None:
            row = connection.execute(self._by_id, (number,)).fetchone()
            if row is None or connection.execute(self._by_name, row).fetchone() != (number,):
                raise inconsistency_error(f"the {self._table} id {number} has no name of its own")
            known = row[0]
            self._cache(known, number)
        return known

    def _look_up(self, connection: apsw.Connection, name: str) -> int | None:
        """Look up a committed name. The index and the table must agree on it."""
        row = connection.execute(self._by_name, (name,)).fetchone()
        if row is None:
            return None
        if connection.execute(self._by_id, row).fetchone() != (name,):
            raise inconsistency_error(f"the {self._table} {name!r} has the id of another name")
        return self._cache(name, row[0])

    def _look_up_all(self, connection: apsw.Connection, names: Sequence[str]) -> dict[str, int]:
        """Look up committed names. See `_look_up`."""
        if not names:
            return {}
        found: dict[str, int] = dict(connection.executemany(self._pair_by_name, [(name,) for name in names]))
        if found:
            of_rows = dict(connection.executemany(self._pair_by_id, [(number,) for number in found.values()]))
            for name, number in found.items():
                if of_rows.get(name) != number:
                    raise inconsistency_error(f"the {self._table} {name!r} has the id of another name")
                self._cache(name, number)
        return found

    def _cache(self, name: str, number: int) -> int:
        if name in self.uncommitted:  # the writer's own transaction also finds what it created
            return number
        if len(self._ids_by_name) >= MAX_CACHED_NAMES:
            self._ids_by_name.clear()
            self.names_by_id.clear()
        self._ids_by_name[name] = number
        self.names_by_id[number] = name
        return number
