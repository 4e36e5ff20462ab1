"""THE OTHER PORT: where rows and checkpoints are kept. What a target promises, said once.

A target keeps, beside the rows, everything that is known about a projection's progress, and changes both in one
transaction. Its methods block and never suspend: projections run in threads of their own, in either mode.
Knows: rows as tuples, checkpoints, leases. Does not know: user classes, the log, SQL.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, Protocol

import msgspec

from eventfold.core.table import RowCodec, Table
from eventfold.core.tally import EMPTY_TALLY, Tally

EntryState = Literal["parked", "due", "skipped"]
INLINE = "every append"  # the holder of a lease that never ends: the appends themselves keep it up
FOREVER = 1 << 62
ELSEWHERE = "elsewhere"  # the kind of a name whose rows and progress are kept in another database
FORWARDED = "sink"  # the kind under which a store's own database records a projection whose rows are sent to a sink


class CheckpointChanged(Exception):
    """Somebody changed the checkpoint by hand since it was read (retry, skip, pause): read it again and go on."""


class RowRefused(Exception):
    """The database does not take a row as it is (a wrong type, a broken constraint): the handler's fault."""


class PartitionKey(msgspec.Struct, frozen=True):
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

    place: PartitionKey
    store: str
    epoch: int
    position: int = 0
    event_id: str = ""
    seen: Tally = EMPTY_TALLY
    handled: Tally = EMPTY_TALLY
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


class ParkedEvent(msgspec.Struct, frozen=True):
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


class ProjectionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A projection as its target knows it. Generations are counted from 1; `live` is the one that readers see."""

    name: str
    kind: str
    code: str
    live: int
    previous: int | None = None
    building: int | None = None
    paused: str = ""
    tables: tuple[str, ...] = ()

    @property
    def generations(self) -> tuple[int | None, ...]:
        """Those that readers see, saw before, and will see."""
        return self.live, self.previous, self.building


class CheckpointUpdate(msgspec.Struct, kw_only=True):
    """One step forward of a checkpoint, to be written with the rows it stands for.

    `entries` are added or changed, `settled` are positions of entries that are no more; `mark`: leave a mark of
    `seen` here, so that `verify` can name the place where something went wrong. `at` when; None: by the target's clock.
    """

    position: int
    event_id: str
    epoch: int
    seen: Tally
    handled: Tally
    entries: Sequence[ParkedEvent] = ()
    settled: Sequence[int] = ()
    mark: bool = False
    stopped: str = ""
    stats: str = "{}"
    at: int | None = None

    def applied_to(self, checkpoint: Checkpoint, now: int) -> Checkpoint:
        """The checkpoint after this update, with the next revision. `now`: the target's clock."""
        return msgspec.structs.replace(
            checkpoint,
            position=self.position,
            event_id=self.event_id,
            epoch=self.epoch,
            seen=self.seen,
            handled=self.handled,
            stopped=self.stopped,
            stats=self.stats,
            at=now,
            beat=now,
            revision=checkpoint.revision + 1,
        )


class PendingCommand(msgspec.Struct, frozen=True):
    """An operator's command that was done here and is not yet in the log of `store`: the event it becomes.

    `id` is the event's, as hex digits; `data` and `metadata` are its bytes, as text.
    """

    id: str
    store: str
    name: str
    data: str
    metadata: str = ""


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


class TargetTransaction(Transaction, Protocol):
    """The same transaction, as the order of steps sees it."""

    def upsert(self, table: Table, rows: Sequence[Sequence[Any]]) -> None:
        """Write rows, whole, by their keys. Raises RowRefused."""
        ...

    def delete(self, table: Table, keys: Sequence[Sequence[Any]]) -> None:
        """Delete rows by their keys."""
        ...

    def advance(self, held: Checkpoint, step: CheckpointUpdate) -> Checkpoint:
        """Move the checkpoint. Raises LeaseLost if the token is another's, CheckpointChanged if the revision is."""
        ...

    def should_yield(self) -> bool:
        """Whether others have been waiting for this transaction long enough."""
        ...


class InlineTargetTransaction(TargetTransaction, Protocol):
    """A transaction of the log's own engine, joined by the rows that live in the same database."""

    def load(self, table: Table, keys: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
        """See Target.load."""
        ...

    def look(self) -> Checkpoint | None:
        """The checkpoint of the place, as it is now."""
        ...

    def acquire_inline(self) -> Checkpoint | None:
        """Take the lease for the appends themselves, whoever has it: it does not end."""
        ...

    def release_inline(self) -> None:
        """Give that lease back."""
        ...


class ControlTransaction(Protocol):
    """One transaction of a target in which an operator's command reads and changes what is known about a projection.

    What it reads here is locked: neither another command nor a runner changes it before the end. A command judges by
    what it reads here only; what it computed before from other readings, it compares. Every change is noticed by the
    runners of the projection.
    """

    def now(self) -> int:
        """The target's clock, in µs since 1970 UTC."""
        ...

    def record(self) -> ProjectionRecord | None:
        """What is known about the projection."""
        ...

    def checkpoints(self, generation: int | None = None) -> list[Checkpoint]:
        """Its checkpoints, or those of one generation, by generation and partition."""
        ...

    def entries(self, place: PartitionKey) -> list[ParkedEvent]:
        """The events not handled, by position. Read its checkpoint first: that is what locks them."""
        ...

    def create(
        self, projection: ProjectionRecord, tables: Mapping[str, Table | str], checkpoints: Sequence[Checkpoint]
    ) -> None:
        """Make a generation: its tables and checkpoints; the first one is live at once.

        Raises TargetUnavailable where a foreign table has the name, CheckpointChanged where the generation is
        there already.
        """
        ...

    def save_record(self, projection: ProjectionRecord) -> None:
        """Write what is known about it; readers see the tables of `live` from the commit on."""
        ...

    def update_checkpoint(self, place: PartitionKey, **fields: Any) -> None:
        """Change fields of a checkpoint (`stopped`, `fingerprint`, …), with the next `revision`."""
        ...

    def save_parked(self, place: PartitionKey, entries: Sequence[ParkedEvent]) -> None:
        """Add or change entries."""
        ...

    def drop(self, generation: int, tables: Sequence[str]) -> None:
        """Remove a generation that is not live: tables, checkpoints, entries, marks."""
        ...

    def written_tables(self) -> list[str]:
        """The tables that are noted for it, as far as that can be read: for what is damaged."""
        ...

    def forget(self, tables: Sequence[str]) -> None:
        """Remove the projection altogether: every generation of these tables, and its name. Its leases are lost.

        Nothing of what is kept is believed for that.
        """
        ...

    def save_command(self, command: PendingCommand) -> None:
        """Note that the log has still to be told of this command."""
        ...


class InlineTarget(Protocol):
    """A target in the log's own database."""

    def controlled(self, connection: Any, name: str) -> ControlTransaction:
        """See Target.control, within a transaction that the engine has begun, and will end."""
        ...

    def joined(self, connection: Any, place: PartitionKey) -> InlineTargetTransaction:
        """The place's rows and checkpoint within a transaction that the engine has begun, and will end."""
        ...


class Target(Protocol):
    """A place for rows. Every method raises TargetUnavailable where the place cannot be used.

    `forwards`: rows and progress are kept in the store's own database, and rows are sent from there to a sink.
    """

    address: str

    @property
    def forwards(self) -> bool:
        """Whether rows are sent on from here."""
        ...

    def bind(self, name: str, rows: RowCodec) -> None:
        """Give the target the shape of a projection's rows, before it is used: a target that forwards needs it."""
        ...

    def registered(self, name: str) -> ProjectionRecord | None:
        """What is known about a projection."""
        ...

    def all(self) -> list[ProjectionRecord]:
        """Every projection kept here, by name; records whose names begin with `$` are no projections."""
        ...

    def control(self, name: str) -> AbstractContextManager[ControlTransaction]:
        """One transaction of an operator's command on this projection: committed at the end of the block.

        Rolled back by whatever is raised in it. Raises CheckpointChanged where the database asks to begin again.
        """
        ...

    def withdraw(self, name: str, generation: int | None, store: str) -> None:
        """Remove elsewhere what was sent on from a generation (None: from all) that is to be dropped.

        Nothing, where rows are kept here alone. What is not dropped after all is sent again.
        """
        ...

    def pending_commands(self, store: str) -> list[PendingCommand]:
        """Commands done here that the log of this store has not been told of, in the order in which they were done."""
        ...

    def remove_command(self, command: PendingCommand) -> None:
        """The log has been told."""
        ...

    def checkpoints(self, name: str, generation: int | None = None) -> list[Checkpoint]:
        """The checkpoints of a projection, or of one generation of it."""
        ...

    def entries(self, place: PartitionKey) -> list[ParkedEvent]:
        """The events not handled, by position."""
        ...

    def ledger_marks(self, place: PartitionKey) -> list[tuple[int, Tally]]:
        """(position, seen) where marks were left, by position."""
        ...

    def claim(self, place: PartitionKey, holder: str, seconds: float, take_over_from: str = "") -> Checkpoint | None:
        """Take the lease, with a token greater than all before; None while any but `take_over_from` has it."""
        ...

    def renew_lease(self, held: Checkpoint, seconds: float, quietly: bool = False) -> int:
        """Keep the lease; returns the checkpoint's revision. Raises LeaseLost.

        `quietly`: this is no sign that anything moves (a handler may hang), so `beat` stays what it was.
        """
        ...

    def release(self, held: Checkpoint) -> None:
        """Give the lease back, if it is still ours."""
        ...

    def writing(self, place: PartitionKey) -> AbstractContextManager[TargetTransaction]:
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

    def now(self) -> int:
        """The target's clock, in µs since 1970 UTC: what leases are judged by, whatever the asking machine's says."""
        ...

    def delivery_lag(self, name: str, generation: int) -> str:
        """What is committed and not yet where readers look for it, in words; "" where nothing is."""
        ...

    def lock_holder(self) -> str:
        """Who holds a lock that somebody waits for here, in words; "" where nobody does, or that cannot be known."""
        ...

    def close(self) -> None:
        """Release everything. Closing twice is harmless."""
        ...
