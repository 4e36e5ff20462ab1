"""The target port: where rows and checkpoints are kept, and what every target promises.

A target keeps a projection's progress beside its rows and changes both in one transaction. Its methods block and never
suspend: projections run in threads of their own, in either mode. `eventfold.testing.conformance.target` tests a target.
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
INLINE = "every append"  # the holder of a lease that never ends: every append folds the projection
FOREVER = 1 << 62
ELSEWHERE = "elsewhere"  # the kind of a name whose rows and progress are kept in another database
FORWARDED = "sink"  # the kind under which a store's own database records a projection whose rows are sent to a sink


class CheckpointChanged(Exception):
    """An operator changed the checkpoint since it was read (retry, skip, pause): reload it and continue."""


class RowRefused(Exception):
    """The database refused a row (a wrong type, a violated constraint): the handler is at fault."""


class PartitionKey(msgspec.Struct, frozen=True):
    """The key of a checkpoint: one partition of one generation of a projection."""

    name: str
    generation: int
    partition: int = 0


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """The progress of one partition, and the ledger that proves it.

    `position` is the last one scanned, with the id of the event there; `seen` is the tally of all matching events up to
    it, `handled` of those that were handled; the others are parked or skipped (see ParkedEvent). `query` is the
    projection's query when it began, as JSON. `token` is the fencing token of the lease, `holder` has it until
    `expires`; `revision` grows with every change. `stopped` is why it does not continue, as JSON, or "". `until`: never
    go beyond this position. Times are µs since 1970 UTC: `at` of the last advance, `beat` of the last sign of life.
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
    """An event that was not handled: parked with its error, due for another attempt, or skipped `because` of something.

    `key` is the projection's key of the event, as text. Events of one key wait in order.
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
    """What a target records about a projection. Generations are counted from 1; readers see the `live` one."""

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
        """The live, the previous and the building generation."""
        return self.live, self.previous, self.building


class CheckpointUpdate(msgspec.Struct, kw_only=True):
    """An advance of a checkpoint, written in one transaction with the rows that it accounts for.

    `parked` events are added or changed; `settled` are the positions of parked events to remove. `mark`: record `seen`
    at this position, so that `verify` can narrow down where a ledger went wrong. `at` the time; None: the target's now.
    """

    position: int
    event_id: str
    epoch: int
    seen: Tally
    handled: Tally
    parked: Sequence[ParkedEvent] = ()
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
    """The event of an operator's command that was carried out here and is not yet in the log of `store`.

    `id` is the event's id in hex; `data` and `metadata` are its bytes, as text.
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
    """The same transaction, as a worker uses it."""

    def upsert(self, table: Table, rows: Sequence[Sequence[Any]]) -> None:
        """Write rows, whole, by their keys. Raises RowRefused."""
        ...

    def delete(self, table: Table, keys: Sequence[Sequence[Any]]) -> None:
        """Delete rows by their keys."""
        ...

    def advance(self, checkpoint: Checkpoint, step: CheckpointUpdate) -> Checkpoint:
        """Advance the checkpoint. Raises LeaseLost if its token is stale, CheckpointChanged if its revision is."""
        ...

    def should_yield(self) -> bool:
        """Whether other writers have waited long enough for this transaction to end."""
        ...


class InlineTargetTransaction(TargetTransaction, Protocol):
    """A transaction of the log's engine in which rows of the same database are changed too."""

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
    """The transaction in which an operator's command reads and changes the record and checkpoints of a projection.

    What it reads is locked: no other command and no runner changes it until the end. A command decides only by what it
    reads here, and compares what it read before. Runners of the projection notice every change.
    """

    def now(self) -> int:
        """The target's clock, in µs since 1970 UTC."""
        ...

    def record(self) -> ProjectionRecord | None:
        """The record of the projection."""
        ...

    def checkpoints(self, generation: int | None = None) -> list[Checkpoint]:
        """Its checkpoints, or those of one generation, by generation and partition."""
        ...

    def parked(self, key: PartitionKey) -> list[ParkedEvent]:
        """The events that were not handled, by position. Read the checkpoint first: that locks them."""
        ...

    def create(
        self, projection: ProjectionRecord, tables: Mapping[str, Table | str], checkpoints: Sequence[Checkpoint]
    ) -> None:
        """Create a generation with its tables and checkpoints; the first one is live at once.

        Raises TargetUnavailable where a foreign table has the name, CheckpointChanged where the generation exists.
        """
        ...

    def save_record(self, projection: ProjectionRecord) -> None:
        """Write the record; from the commit on, readers see the tables of its `live` generation."""
        ...

    def update_checkpoint(self, key: PartitionKey, **fields: Any) -> None:
        """Change fields of a checkpoint (`stopped`, `fingerprint`, …), under the next `revision`."""
        ...

    def save_parked(self, key: PartitionKey, entries: Sequence[ParkedEvent]) -> None:
        """Add or change parked events."""
        ...

    def drop(self, generation: int, tables: Sequence[str]) -> None:
        """Remove a generation that is not live: tables, checkpoints, parked events, marks."""
        ...

    def written_tables(self) -> list[str]:
        """The tables that the record names, as far as they can be read: for damaged records."""
        ...

    def forget(self, tables: Sequence[str]) -> None:
        """Remove the projection: every generation of these tables, and its record. Its leases are lost.

        Works without reading what is stored, which may be damaged.
        """
        ...

    def save_command(self, command: PendingCommand) -> None:
        """Note that this command is to be appended to the log."""
        ...


class InlineTarget(Protocol):
    """A target in the log's own database."""

    def controlled(self, connection: Any, name: str) -> ControlTransaction:
        """See Target.control, within a transaction that the engine has begun, and will end."""
        ...

    def joined(self, connection: Any, key: PartitionKey) -> InlineTargetTransaction:
        """The place's rows and checkpoint within a transaction that the engine has begun, and will end."""
        ...


class RecordStore(Protocol):
    """The records of projections, and operators' commands on them."""

    def record(self, name: str) -> ProjectionRecord | None:
        """The record of a projection."""
        ...

    def records(self) -> list[ProjectionRecord]:
        """Every record, by name, but for names that begin with `$`: those are no projections."""
        ...

    def control(self, name: str) -> AbstractContextManager[ControlTransaction]:
        """The transaction of an operator's command on this projection: committed at the end of the block.

        Rolled back by whatever is raised in it. Raises CheckpointChanged where the database asks to begin again.
        """
        ...

    def bind(self, name: str, rows: RowCodec) -> None:
        """Receive the shape of a projection's rows, before they are used: a target that forwards rows needs it."""
        ...

    def withdraw(self, name: str, generation: int | None, store: str) -> None:
        """Remove forwarded rows of a generation (None: of all) that is about to be dropped.

        Does nothing where rows are kept here only. If the generation is not dropped after all, its rows are sent again.
        """
        ...

    def pending_commands(self, store: str) -> list[PendingCommand]:
        """Commands that were carried out here and are not yet in the log of this store, by id (which grows)."""
        ...

    def remove_command(self, command: PendingCommand) -> None:
        """Remove a command that is in the log now."""
        ...


class LeaseStore(Protocol):
    """Checkpoints, with their parked events and ledger marks, and the leases on them."""

    def checkpoint(self, key: PartitionKey) -> Checkpoint | None:
        """The checkpoint of one partition; None where there is none."""
        ...

    def checkpoints(self, name: str, generation: int | None = None) -> list[Checkpoint]:
        """The checkpoints of a projection, or of one generation of it."""
        ...

    def parked(self, key: PartitionKey) -> list[ParkedEvent]:
        """The events that were not handled, by position."""
        ...

    def ledger_marks(self, key: PartitionKey) -> list[tuple[int, Tally]]:
        """(position, seen) of every mark, by position."""
        ...

    def claim(self, key: PartitionKey, holder: str, seconds: float, take_over_from: str = "") -> Checkpoint | None:
        """Take the lease, with a greater token than all before.

        Returns None while another holder than `take_over_from` has it. Raises UnknownProjection.
        """
        ...

    def renew_lease(self, checkpoint: Checkpoint, seconds: float, progress: bool = True) -> int:
        """Extend the lease; returns the checkpoint's revision. Raises LeaseLost.

        Without `progress` the time of the last sign of life stays what it was: the handler may hang.
        """
        ...

    def release(self, checkpoint: Checkpoint) -> None:
        """Release the lease, if this token still has it."""
        ...


class RowStore(Protocol):
    """Rows: written in a transaction with the checkpoint, read by key, by filter, in pages."""

    def transaction(self, key: PartitionKey) -> AbstractContextManager[TargetTransaction]:
        """A transaction: committed at the end of the block, rolled back by whatever is raised in it."""
        ...

    def load(self, table: Table, keys: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
        """The rows of these keys that exist."""
        ...

    def select(
        self, table: Table, where: Mapping[str, Any], order: Sequence[str], limit: int | None
    ) -> list[tuple[Any, ...]]:
        """Rows equal in these columns (None: missing), in this order (`-` before a column: descending)."""
        ...

    def scan(self, table: Table) -> Iterator[list[tuple[Any, ...]]]:
        """Every row, by key, in pages."""
        ...

    def outdated(self, table: Table) -> bool:
        """Whether an earlier release made a generation's table and compared keys differently: it must be rebuilt."""
        ...

    def dump(self, name: str, generation: int) -> Iterator[tuple[Any, ...]]:
        """Every row of a declared table, sorted by all its columns as the database sorts them."""
        ...


class Target(RecordStore, LeaseStore, RowStore, Protocol):
    """A place for rows: one object, since one transaction changes all of it.

    Every method raises TargetUnavailable where the place cannot be used.
    """

    address: str

    @property
    def forwards(self) -> bool:
        """Whether rows and progress are kept in the store's own database, and rows are sent from there to a sink."""
        ...

    def now(self) -> int:
        """The target's clock, in µs since 1970 UTC. Leases are judged by it, not by the clock of a caller's machine."""
        ...

    def delivery_lag(self, name: str, generation: int) -> str:
        """Which committed rows have not arrived where readers look for them, as a sentence; "" where none."""
        ...

    def lock_holder(self) -> str:
        """Which process holds a lock that another waits for, as a sentence; "" where none, or where it is unknown."""
        ...

    def close(self) -> None:
        """Release everything. Closing twice is harmless."""
        ...
