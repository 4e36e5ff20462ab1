"""What a way of recording changes promises: to install itself, to tell what a snapshot sees, and to give changes.

Knows: the order of its calls. Does not know: any database.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from eventfold.errors import SourceUnavailable
from eventfold.migrate.connection import Connection
from eventfold.migrate.progress import Way
from eventfold.migrate.reflection import Table
from eventfold.migrate.sources.changes import Backlog, Snapshot, Transaction

LOCK_TIMEOUT_S = 2.0  # how long a statement that changes a definition waits for a lock, and makes others wait behind it
ATTEMPTS = 5


class Recorder(Protocol):
    """Records the changes of some tables in the source, from `install` on until `remove`.

    `snapshot` is called on another connection, within the transaction whose snapshot it describes, so that a change is
    in that snapshot or is given by `changes` and not seen by it. `changes` repeats what was not acknowledged.
    """

    way: Way

    def refuse(self) -> None:
        """Raise SourceUnavailable if rights or settings are missing, InvalidInput for tables it cannot record."""
        ...

    def install(self) -> dict[str, str]:
        """Begin to record. Safe to repeat. Returns what `remove` needs to set back, by table."""
        ...

    def remove(self, undo: Mapping[str, str]) -> None:
        """Remove everything that was installed. Safe to repeat, and after an install that was interrupted."""
        ...

    def is_installed(self) -> bool:
        """Whether every part is there, and switched on."""
        ...

    def snapshot(self, connection: Connection) -> Snapshot:
        """Return which changes the snapshot of this transaction sees."""
        ...

    def point(self, connection: Connection) -> str:
        """Return how far the source has written when this transaction sees it; empty if `waits` needs no such point."""
        ...

    def waits(self, snapshot: Snapshot, point: str) -> bool:
        """Whether a change that a snapshot sees is not acknowledged yet; `point` was asked within the snapshot."""
        ...

    def changes(self, limit: int) -> list[Transaction]:
        """Return the next transactions, in an order that respects what each saw: about `limit` changes."""
        ...

    def acknowledge(self, transactions: Sequence[Transaction]) -> None:
        """Let the source forget these transactions, which have to be the first of those last given."""
        ...

    def backlog(self) -> Backlog:
        """Return what the source keeps."""
        ...

    @property
    def unrecorded(self) -> tuple[Sequence[str], Sequence[str]]:
        """Statements at the beginning and at the end of a transaction of ours, whose changes are not to be captured."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


def refuse_missing(missing: Iterable[str], role: str, remedy: str) -> None:
    """Raise SourceUnavailable that names rights which a role does not have."""
    named = list(missing)
    if named:
        raise SourceUnavailable(f"The role {role} may not {'; may not '.join(named)}.", remedy, rights=named)


def lock_refused(table: Table, error: SourceUnavailable) -> SourceUnavailable:
    """Return the error for a table that others have locked for too long."""
    return SourceUnavailable(
        f"The table {table.label} was locked by others for {ATTEMPTS} times {LOCK_TIMEOUT_S:g} s, so nothing was "
        f"installed on it: {error.what}",
        "Wait for long transactions to end, or end them, and run the command again: it goes on.",
        table=table.label,
    )
