"""The port of a target: a database that stores the rows and checkpoints of projections.

A target stores a projection's progress next to its rows and changes both in one transaction. Its methods block and
never suspend: projections run in threads of their own, in sync and async programs alike.
`eventfold.testing.conformance.target` tests a target.
Knows: rows as tuples, checkpoints, leases. Does not know: user classes, the log, SQL.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, Protocol

import msgspec

from eventfold.core.table import Column, RowCodec, Table
from eventfold.core.tally import EMPTY_TALLY, Tally
from eventfold.selection.conditions import Condition, RowQuery
from eventfold.selection.source import Explanation

EntryState = Literal["parked", "due", "skipped"]
INLINE = "every append"  # the holder of a lease that never expires: every append folds the projection
FOREVER = 1 << 62  # µs since 1970 UTC: when such a lease expires
ELSEWHERE = "elsewhere"  # the record's kind of a name whose rows and progress are stored in another database
FORWARDED = "sink"  # the record's kind, in a store's own database, of a projection whose rows are sent to a sink


class CheckpointChanged(Exception):
    """The checkpoint was changed by an operator's command since it was read (retry, skip, pause): read it again."""


class RowRefused(Exception):
    """The database rejected a row (a wrong type, a violated constraint): an error of the handler, not of the target."""


class PartitionKey(msgspec.Struct, frozen=True):
    """The key of a checkpoint: one partition of one generation of a projection."""

    name: str
    generation: int
    partition: int = 0


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """The progress of one partition, with the ledger that proves it. Times are µs since 1970 UTC.

    `store`, `epoch`      the log that was read, and the epoch in which it was read.
    `position`            the last position scanned, inclusive, with `event_id`: the id of the event there, in hex.
    `seen`, `handled`     tallies of all matching events up to `position`, and of those that were handled. The others
                          are parked or skipped (see ParkedEvent).
    `query`               the projection's query at its registration, as JSON; `fingerprint`: of its code.
    `until`               the position that the worker does not go beyond, inclusive; None: no limit.
    `revision`            grows with every change of the checkpoint.
    `token`               the fencing token of the lease: greater with every claim.
    `holder`, `expires`   who has the lease, and until when; holder "": it is free.
    `stopped`             why the partition does not continue, as JSON; "": it does.
    `stats`               figures of the worker, as JSON.
    `at`, `beat`          when the checkpoint last advanced, and when its worker last renewed the lease (heartbeat).
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
    """An event that was not handled: parked with its error, due for another attempt, or skipped for a reason.

    `key` is the projection's key of the event, as text; later events of the same key wait for this one. `attempts`:
    how often handling it failed. `because`: why an operator skipped it.
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
    """What a target records about a projection. Generations are counted from 1.

    `code` is the address of its class. Readers see the `live` generation; `previous` can be rolled back to; `building`
    is being rebuilt. `paused` is the reason of a pause, "" if it is not paused. `tables` are the tables it declares.
    """

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
    """An advance of a checkpoint, written in one transaction with the rows that belong to it.

    `parked`: events to add or change. `settled`: positions of parked events to remove. `mark`: also record `seen` at
    this position, so that `verify` can narrow down where a ledger went wrong. `at`: when it advanced, in µs since 1970
    UTC; None: now, by the target's clock. The other fields replace those of the checkpoint.
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
        """Return the checkpoint after this update, with the next revision. `now`: µs since 1970 UTC."""
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
    """The event of an operator's command that was carried out in the target and is not yet in the log of `store`.

    `id`: the event's id in hex. `name`: the projection's. `data` and `metadata`: the event's bytes, as text.
    """

    id: str
    store: str
    name: str
    data: str
    metadata: str = ""


class Transaction(Protocol):
    """A target's open transaction, as a handler sees it: changes of rows are committed with the checkpoint.

    `connection` is the database driver's. In SQL, write `{table}` for a table that the projection declares.
    """

    connection: Any

    def execute(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[tuple[Any, ...]]:
        """Run one statement, in the SQL and parameter style of the database. Returns its rows."""
        ...

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any] | Mapping[str, Any]]) -> None:
        """Run one statement for each set of parameters."""
        ...


class TargetTransaction(Transaction, Protocol):
    """A target's open transaction, as a worker uses it."""

    def upsert(self, table: Table, rows: Sequence[Sequence[Any]]) -> None:
        """Insert rows, or replace the rows with their keys. Raises RowRefused."""
        ...

    def delete(self, table: Table, keys: Sequence[Sequence[Any]]) -> None:
        """Delete rows by their keys. Raises RowRefused."""
        ...

    def advance(self, checkpoint: Checkpoint, step: CheckpointUpdate) -> Checkpoint:
        """Advance the checkpoint. Returns it with its new revision.

        Raises LeaseLost if the token of `checkpoint` is not the current one, CheckpointChanged if its revision is not.
        """
        ...

    def should_yield(self) -> bool:
        """Whether the transaction should end soon, because other writers of the database have waited long."""
        ...


class InlineTargetTransaction(TargetTransaction, Protocol):
    """A transaction of the log's engine that also changes rows in the same database."""

    def load(self, table: Table, keys: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
        """See Target.load."""
        ...

    def look(self) -> Checkpoint | None:
        """Return the current checkpoint of the partition; None if there is none."""
        ...

    def acquire_inline(self) -> Checkpoint | None:
        """Acquire the lease for the holder INLINE, even if another holder has it. It does not expire.

        Returns the checkpoint; None if there is none.
        """
        ...

    def release_inline(self) -> None:
        """Release the lease of the holder INLINE."""
        ...


class ControlTransaction(Protocol):
    """The transaction in which an operator's command reads and changes the record and checkpoints of a projection.

    What it reads is locked: no other command and no runner can change it before the transaction ends. So a command
    decides only by what it reads here, and compares it with what it had read before. Runners of the projection notice
    every change by the checkpoint's revision.
    """

    def now(self) -> int:
        """Return the time by the target's clock, in µs since 1970 UTC."""
        ...

    def record(self) -> ProjectionRecord | None:
        """Return the record of the projection; None if there is none."""
        ...

    def checkpoints(self, generation: int | None = None) -> list[Checkpoint]:
        """Return its checkpoints, or those of one generation, ordered by generation and partition."""
        ...

    def parked(self, key: PartitionKey) -> list[ParkedEvent]:
        """Return the events that were not handled, by position. Read the checkpoint first: that locks them."""
        ...

    def create(
        self, projection: ProjectionRecord, tables: Mapping[str, Table | str], checkpoints: Sequence[Checkpoint]
    ) -> None:
        """Create a generation with its tables and checkpoints. The first generation of a projection is live at once.

        `tables`: by name, each as a Table or as the text of its CREATE TABLE statement. Raises TargetUnavailable if a
        table of other software has the name, CheckpointChanged if the generation exists.
        """
        ...

    def save_record(self, projection: ProjectionRecord) -> None:
        """Write the record. From the commit on, readers see the tables of its `live` generation."""
        ...

    def update_checkpoint(self, key: PartitionKey, **fields: Any) -> None:
        """Change fields of a checkpoint (`stopped`, `fingerprint`, …) and increment its `revision`."""
        ...

    def save_parked(self, key: PartitionKey, entries: Sequence[ParkedEvent]) -> None:
        """Add or change parked events."""
        ...

    def drop(self, generation: int, tables: Sequence[str]) -> None:
        """Remove a generation that is not live: its tables, checkpoints, parked events and ledger marks."""
        ...

    def written_tables(self) -> list[str]:
        """Return the tables that the record names, as far as they can be read: for damaged records."""
        ...

    def forget(self, tables: Sequence[str]) -> None:
        """Remove the projection: its record, its checkpoints and leases, and these tables of every generation.

        Does not read the stored data, which may be damaged.
        """
        ...

    def save_command(self, command: PendingCommand) -> None:
        """Store a command that must be appended to the log."""
        ...


class InlineTarget(Protocol):
    """A target in the log's own database."""

    def controlled(self, connection: Any, name: str) -> ControlTransaction:
        """Return the transaction of `Target.control`, within one that the engine has begun and will end."""
        ...

    def joined(self, connection: Any, key: PartitionKey) -> InlineTargetTransaction:
        """Return a transaction for the partition, within one that the engine has begun and will end."""
        ...


class RecordStore(Protocol):
    """The records of projections, and operators' commands on them."""

    def record(self, name: str) -> ProjectionRecord | None:
        """Return the record of a projection; None if there is none."""
        ...

    def records(self) -> list[ProjectionRecord]:
        """Return every record, by name, except those whose name begins with `$`, which are not projections."""
        ...

    def control(self, name: str) -> AbstractContextManager[ControlTransaction]:
        """Begin the transaction of an operator's command on this projection. It is committed at the end of the block.

        It is rolled back if the block raises. Raises CheckpointChanged if the database asks to repeat the transaction.
        """
        ...

    def bind(self, name: str, rows: RowCodec) -> None:
        """Receive the codec of a projection's rows, before any row is used. A target that forwards rows needs it."""
        ...

    def withdraw(self, name: str, generation: int | None, store: str) -> None:
        """Remove the rows of a generation (None: of all generations) from the sink, before the generation is dropped.

        Does nothing if the target does not forward rows. If the generation is not dropped after all, its rows are sent
        again.
        """
        ...

    def pending_commands(self, store: str) -> list[PendingCommand]:
        """Return the commands that were carried out here and are not yet in the log of this store, by id.

        Ids grow, so this is the order in which the commands were carried out.
        """
        ...

    def remove_command(self, command: PendingCommand) -> None:
        """Remove a command whose event is now in the log."""
        ...


class LeaseStore(Protocol):
    """Checkpoints, with their parked events and ledger marks, and the leases on them."""

    def checkpoint(self, key: PartitionKey) -> Checkpoint | None:
        """Return the checkpoint of one partition; None if there is none."""
        ...

    def checkpoints(self, name: str, generation: int | None = None) -> list[Checkpoint]:
        """Return the checkpoints of a projection, or of one generation of it."""
        ...

    def live_checkpoints(self) -> list[Checkpoint]:
        """Return the checkpoints of the live generation of every projection, in one call of the database."""
        ...

    def parked(self, key: PartitionKey) -> list[ParkedEvent]:
        """Return the events that were not handled, by position."""
        ...

    def live_parked(self) -> list[tuple[PartitionKey, ParkedEvent]]:
        """Return those of the live generation of every projection, each with its partition, in one call."""
        ...

    def ledger_marks(self, key: PartitionKey) -> list[tuple[int, Tally]]:
        """Return (position, seen) of every mark, by position."""
        ...

    def claim(self, key: PartitionKey, holder: str, seconds: float, take_over_from: str = "") -> Checkpoint | None:
        """Acquire the lease of a partition for `seconds`, with a token greater than every earlier one.

        Returns None while another holder has it, unless that is `take_over_from`. Raises UnknownProjection if there is
        no such checkpoint.
        """
        ...

    def renew_lease(self, checkpoint: Checkpoint, seconds: float, progress: bool = True) -> int:
        """Let the lease expire `seconds` from now. Returns the checkpoint's revision.

        `progress` False: leave `beat` unchanged, because the handler may hang. Raises LeaseLost if another holder has
        claimed the partition.
        """
        ...

    def release(self, checkpoint: Checkpoint) -> None:
        """Release the lease, if the token of `checkpoint` is still the current one."""
        ...


class RowStore(Protocol):
    """Rows: written in one transaction with the checkpoint; read by key, by filter or in pages."""

    def transaction(self, key: PartitionKey) -> AbstractContextManager[TargetTransaction]:
        """Begin a transaction. It is committed at the end of the block, and rolled back if the block raises."""
        ...

    def load(self, table: Table, keys: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
        """Return the rows with these keys, in any order. Keys without a row are left out."""
        ...

    def find(self, table: Table, query: RowQuery) -> list[tuple[Any, ...]]:
        """Return the rows that a query asks for, from one state of the table. Raises RowRefused, ValueError.

        Values compare as Python's do, text by code point; missing values (NULL) are last in every order. A target
        without a query language may answer with `eventfold.selection.in_memory`.
        """
        ...

    def count(self, table: Table, condition: Condition) -> int:
        """Return the number of rows that satisfy a condition."""
        ...

    def count_by(self, table: Table, condition: Condition, column: Column) -> list[tuple[Any, int]]:
        """Return each value of a column, and None, with the number of its rows among those of a condition."""
        ...

    def total(self, table: Table, condition: Condition, column: Column) -> Any:
        """Return the sum of a column of numbers, exact for whole numbers and decimals; None or 0 if there are none."""
        ...

    def explain(self, table: Table, query: RowQuery) -> Explanation:
        """Return how `find` answers a query."""
        ...

    def scan(self, table: Table) -> Iterator[list[tuple[Any, ...]]]:
        """Yield all rows in pages, ordered by key."""
        ...

    def outdated(self, table: Table) -> bool:
        """Whether the table was created by an earlier release that compared keys differently, so it must be rebuilt."""
        ...

    def dump(self, name: str, generation: int) -> Iterator[tuple[Any, ...]]:
        """Yield all rows of a declared table, ordered by all its columns as the database sorts them."""
        ...


class Target(RecordStore, LeaseStore, RowStore, Protocol):
    """A database for rows, checkpoints and records: one object, since one transaction changes all of them.

    Every method raises TargetUnavailable if the database cannot be used. A target may have attributes:
    `releases_interpreter`, False: other threads of the process cannot work while it writes a page;
    `inserts_new_rows`, True: its transactions have `insert`, which raises RowRefused for a row that exists, where
    `upsert` would replace it; `quiet_page_events`: the most events of a transaction while no one appends.
    """

    address: str

    @property
    def creates_indexes(self) -> bool:
        """Whether the declared indexes of tables are created. A database that reads whole columns has none."""
        ...

    @property
    def forwards(self) -> bool:
        """Whether rows and progress are stored in the store's own database, and rows are sent from there to a sink."""
        ...

    def now(self) -> int:
        """Return the time by the target's clock, in µs since 1970 UTC.

        Leases expire by this clock, not by that of a caller's machine.
        """
        ...

    def delivery_lag(self, name: str, generation: int) -> str:
        """Return which committed rows have not reached the sink yet, as a sentence; "" if none."""
        ...

    def lock_holder(self) -> str:
        """Return which process holds a lock that another one waits for, as a sentence; "" if none, or if unknown."""
        ...

    def close(self) -> None:
        """Release all connections. Closing twice has no effect."""
        ...
