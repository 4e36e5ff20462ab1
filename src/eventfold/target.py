"""Room: THE OTHER PORT: where rows and checkpoints are kept. What a target promises, said once.

A target keeps, beside the rows, everything that is known about a projection's progress, and changes both in one
transaction. Its methods block and never suspend: projections run in threads of their own, in either colour.
Knows: rows as tuples, checkpoints, leases. Does not know: user classes, the log, SQL.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, Protocol

import msgspec

from eventfold.projection.columns import Table
from eventfold.projection.ledger import NOTHING, Tally

EntryState = Literal["parked", "due", "skipped"]
INLINE = "every append"  # the holder of a lease that never ends: the appends themselves keep it up
FOREVER = 1 << 62


class Disturbed(Exception):
    """Somebody changed the checkpoint by hand since it was read (retry, skip, pause): read it again and go on."""


class RowRefused(Exception):
    """The database does not take a row as it is (a wrong type, a broken constraint): the handler's fault."""


class Place(msgspec.Struct, frozen=True):
    """Whose checkpoint: one partition of one generation of a projection."""

    name: str
    generation: int
    partition: int = 0


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """How far a projection has come, and the ledger that proves it.

    `position` scanned through, inclusive, with the id of the event there; `seen` the tally of all matching events up to
    there, `handled` of those that were handled; the rest is parked or skipped (see Entry). `query` is the
    frozen question, as JSON. `token` is the fencing token of the lease, `holder` who has it until `expires`; `revision`
    grows with every change by anyone. `stopped` is why it does not go on, as JSON, or "". `until`: never go
    further than this. Times are µs since 1970 UTC; `at` the last advance, `beat` the last sign of life.
    """

    place: Place
    store: str
    epoch: int
    position: int = 0
    event_id: str = ""
    seen: Tally = NOTHING
    handled: Tally = NOTHING
    query: str
    fingerprint: str
    partitions: int = 1
    until: int | None = None
    revision: int = 0
    token: int = 0
    holder: str = ""
    expires: int = 0
    stopped: str = ""
    stats: str = "{}"
    at: int = 0
    beat: int = 0


class Entry(msgspec.Struct, frozen=True):
    """An event that was not handled: parked with its error, due to be tried again, or skipped `because`.

    `key` is the projection's key of the event, as text; several events of a parked key wait in order.
    """

    position: int
    event_id: str
    type: str
    key: str
    state: EntryState
    error: str = ""
    attempts: int = 0
    because: str = ""


class Registered(msgspec.Struct, frozen=True, kw_only=True):
    """A projection as its target knows it. Generations are counted from 1; `live` is the one that readers see."""

    name: str
    kind: str
    code: str
    live: int
    previous: int | None = None
    building: int | None = None
    paused: str = ""
    tables: tuple[str, ...] = ()


class Advance(msgspec.Struct, kw_only=True):
    """One step forward of a checkpoint, to be written with the rows it stands for.

    `entries` are added or changed, `settled` are positions of entries that are no more; `mark`: leave a mark of
    `seen` here, so that `verify` can name the place where something went wrong. `at` when; None: by the target's clock.
    """

    position: int
    event_id: str
    epoch: int
    seen: Tally
    handled: Tally
    entries: Sequence[Entry] = ()
    settled: Sequence[int] = ()
    mark: bool = False
    stopped: str = ""
    stats: str = "{}"
    at: int | None = None


class Transaction(Protocol):
    """A target's open transaction, as a handler sees it: rows changed here are committed with the checkpoint.

    `connection` is the driver's own. In SQL write `{table}` for a table that the projection declares.
    """

    connection: Any

    def execute(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[tuple[Any, ...]]:
        """Run one statement in the database's own SQL and parameter style; returns its rows."""
        ...

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any] | Mapping[str, Any]]) -> None:
        """Run one statement for each set of parameters."""
        ...


class Writing(Transaction, Protocol):
    """The same transaction, as the order of steps sees it."""

    def upsert(self, table: Table, rows: Sequence[Sequence[Any]]) -> None:
        """Write rows, whole, by their keys. Raises RowRefused."""
        ...

    def delete(self, table: Table, keys: Sequence[Sequence[Any]]) -> None:
        """Delete rows by their keys."""
        ...

    def advance(self, held: Checkpoint, step: Advance) -> Checkpoint:
        """Move the checkpoint. Raises LeaseLost if the token is another's, Disturbed if the revision is."""
        ...

    def overdue(self) -> bool:
        """Whether others have been waiting for this transaction long enough."""
        ...


class Joined(Writing, Protocol):
    """A transaction of the log's own engine, joined by the rows that live in the same database."""

    def load(self, table: Table, keys: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
        """See Target.load."""
        ...

    def look(self) -> Checkpoint | None:
        """The checkpoint of the place, as it is now."""
        ...

    def seize(self) -> Checkpoint | None:
        """Take the lease for the appends themselves, whoever has it: it does not end."""
        ...

    def let_go(self) -> None:
        """Give that lease back."""
        ...

    def change(self, projection: Registered) -> None:
        """See Target.change."""
        ...


class Host(Protocol):
    """A target in the log's own database."""

    def joined(self, connection: Any, place: Place) -> Joined:
        """The place's rows and checkpoint within a transaction that the engine has begun, and will end."""
        ...


class Target(Protocol):
    """A place for rows. Every method raises TargetUnavailable where the place cannot be used."""

    address: str

    def registered(self, name: str) -> Registered | None:
        """What is known about a projection."""
        ...

    def all(self) -> list[Registered]:
        """Every projection kept here, by name."""
        ...

    def create(
        self, projection: Registered, tables: Mapping[str, Table | str], checkpoints: Sequence[Checkpoint]
    ) -> None:
        """Make a generation: its tables and checkpoints, in one transaction; the first one is live at once."""
        ...

    def change(self, projection: Registered, was: Registered | None = None) -> None:
        """Write what is known about a projection; readers see the tables of `live` from now on, atomically.

        Raises Disturbed where it is not (any more) as it `was`.
        """
        ...

    def drop(self, name: str, generation: int, tables: Sequence[str]) -> None:
        """Remove a generation that is not live: tables, checkpoints, entries, marks."""
        ...

    def forget(self, projection: Registered) -> None:
        """Remove a projection altogether: every generation, and its name. Whoever holds a lease of it has lost it."""
        ...

    def checkpoints(self, name: str, generation: int | None = None) -> list[Checkpoint]:
        """The checkpoints of a projection, or of one generation of it."""
        ...

    def edit(self, place: Place, **columns: Any) -> None:
        """Change a checkpoint by hand (`stopped`, `fingerprint`); its runner notices."""
        ...

    def entries(self, place: Place) -> list[Entry]:
        """The events not handled, by position."""
        ...

    def enter(self, place: Place, entries: Sequence[Entry]) -> None:
        """Add or change entries by hand; its runner notices."""
        ...

    def marks(self, place: Place) -> list[tuple[int, Tally]]:
        """(position, seen) where marks were left, by position."""
        ...

    def claim(self, place: Place, holder: str, seconds: float, heir_of: str = "") -> Checkpoint | None:
        """Take the lease, with a token greater than all before; None while somebody else (not `heir_of`) holds it."""
        ...

    def beat(self, held: Checkpoint, seconds: float, quietly: bool = False) -> int:
        """Keep the lease; returns the checkpoint's revision. Raises LeaseLost.

        `quietly`: this is no sign that anything moves (a handler may hang), so `beat` stays what it was.
        """
        ...

    def release(self, held: Checkpoint) -> None:
        """Give the lease back, if it is still ours."""
        ...

    def writing(self, place: Place) -> AbstractContextManager[Writing]:
        """A transaction: committed at the end of the block, rolled back by whatever is raised in it."""
        ...

    def load(self, table: Table, keys: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
        """The rows of these keys, those that there are."""
        ...

    def select(
        self, table: Table, where: Mapping[str, Any], order: Sequence[str], limit: int | None
    ) -> list[tuple[Any, ...]]:
        """Rows equal in these columns (None: absent), in this order (`-` before a column: descending)."""
        ...

    def scan(self, table: Table) -> Iterator[list[tuple[Any, ...]]]:
        """Every row, by key, in pages."""
        ...

    def outdated(self, table: Table) -> bool:
        """Whether a generation's table was made by a release that compared keys otherwise: it has to be rebuilt."""
        ...

    def dump(self, name: str, generation: int) -> Iterator[tuple[Any, ...]]:
        """Every row of a declared table, sorted by all its columns as the database sorts them."""
        ...

    def undelivered(self, name: str, generation: int) -> str:
        """What is committed and not yet where readers look for it, in words; "" where nothing is."""
        ...

    def blocker(self) -> str:
        """Who holds a lock that somebody waits for here, in words; "" where nobody does, or that cannot be known."""
        ...

    def close(self) -> None:
        """Release everything. Closing twice is harmless."""
        ...


def physical(table: str, generation: int) -> str:
    """The name of a generation's own table."""
    return f"{table}__{generation}"
