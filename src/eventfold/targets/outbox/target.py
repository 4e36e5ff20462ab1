"""A target whose rows are stored with the checkpoint in the store's own database, and sent from there to a sink.

A transaction writes the rows, advances the checkpoint and saves the batch for the sink. After the commit the batch is
sent and its body is removed. A batch that still has its body is sent again by the next worker that claims the
partition, before anything else. Events are folded into the rows stored here, never into the sink's: no event is folded
twice. Knows: in which order rows are committed, sent and shown. Does not know: any sink, how rows are stored.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import msgspec

from eventfold.core.json_values import decode
from eventfold.core.table import Column, RowCodec, Table, generation_table
from eventfold.core.tally import Tally
from eventfold.core.value_order import partition_of
from eventfold.errors import EventfoldError, InvalidProjection, TargetUnavailable
from eventfold.ports.sink import Batch, Sink, SinkState
from eventfold.ports.target import Checkpoint, ParkedEvent, PartitionKey, PendingCommand, ProjectionRecord
from eventfold.selection.conditions import Condition, RowQuery
from eventfold.selection.source import Explanation
from eventfold.targets.outbox.table import LastBatch, OutboxTable, build_batch
from eventfold.targets.outbox.transaction import OutboxControlTransaction, OutboxTransaction, as_rows
from eventfold.targets.sql.control_tables import key_columns
from eventfold.targets.sql.target import SqlTarget

MAX_RESENDS = 3  # attempts to send all rows to a sink that loses some of them meanwhile

R = TypeVar("R")


class OutboxTarget:
    """See Target. `database` stores rows, checkpoints and the outbox; `sink` receives the rows."""

    forwards = True
    creates_indexes = True

    def __init__(self, database: SqlTarget, sink: Sink) -> None:
        self.sink, self.address = sink, sink.address
        self._database, self._outbox = database, OutboxTable(database)
        self._codecs: dict[str, RowCodec] = {}
        self._unsent: dict[PartitionKey, Checkpoint] = {}

    def bind(self, name: str, rows: RowCodec) -> None:
        """See the port. The codec computes the key of a row, by which rows are sent again for one partition."""
        self._codecs[name] = rows

    # Projections

    def record(self, name: str) -> ProjectionRecord | None:
        """See the port."""
        return as_rows(self._database.record(name))

    def records(self) -> list[ProjectionRecord]:
        """See the port."""
        return [record for each in self._database.records() if (record := as_rows(each))]

    @contextmanager
    def control(self, name: str) -> Generator[OutboxControlTransaction]:
        """See the port. After the commit the sink receives the generation to show; a failed call is repeated later."""
        self._outbox.create()
        with self._database.control(name) as inner:
            tx = OutboxControlTransaction(inner, self._outbox, name, self.address)
            yield tx
        if tx.generation_to_show is not None:
            self._show_generation(name, *tx.generation_to_show)

    def withdraw(self, name: str, generation: int | None, store: str) -> None:
        """See the port."""
        self._call_sink(lambda: self.sink.drop(name, generation, store))

    def pending_commands(self, store: str) -> list[PendingCommand]:
        """See the port."""
        return self._database.pending_commands(store)

    def remove_command(self, command: PendingCommand) -> None:
        """See the port."""
        self._database.remove_command(command)

    # Checkpoints and leases: the worker that holds a lease ensures that the sink has all rows

    def checkpoint(self, key: PartitionKey) -> Checkpoint | None:
        """See the port."""
        return self._database.checkpoint(key)

    def checkpoints(self, name: str, generation: int | None = None) -> list[Checkpoint]:
        """See the port."""
        return self._database.checkpoints(name, generation)

    def live_checkpoints(self) -> list[Checkpoint]:
        """See the port."""
        return self._database.live_checkpoints()

    def parked(self, key: PartitionKey) -> list[ParkedEvent]:
        """See the port."""
        return self._database.parked(key)

    def live_parked(self) -> list[tuple[PartitionKey, ParkedEvent]]:
        """See the port."""
        return self._database.live_parked()

    def ledger_marks(self, key: PartitionKey) -> list[tuple[int, Tally]]:
        """See the port."""
        return self._database.ledger_marks(key)

    def claim(self, key: PartitionKey, holder: str, seconds: float, take_over_from: str = "") -> Checkpoint | None:
        """See the port."""
        checkpoint = self._database.claim(key, holder, seconds, take_over_from)
        if checkpoint is not None:
            try:
                self._reconcile(checkpoint, seconds)
            except BaseException:
                self.release(checkpoint)
                raise
        return checkpoint

    def renew_lease(self, checkpoint: Checkpoint, seconds: float, progress: bool = True) -> int:
        """See the port."""
        revision = self._database.renew_lease(checkpoint, seconds, progress)
        if progress:  # otherwise the worker is busy in another thread, and reconciles itself
            self._reconcile(checkpoint, seconds)
        return revision

    def release(self, checkpoint: Checkpoint) -> None:
        """See the port."""
        self._database.release(checkpoint)

    # Rows

    @contextmanager
    def transaction(self, key: PartitionKey) -> Generator[OutboxTransaction]:
        """See the port."""
        if key in self._unsent:
            self._reconcile(self._unsent[key])
            self._unsent.pop(key, None)
        self._outbox.create()
        with self._database.transaction(key) as inner:
            tx = OutboxTransaction(inner, self._outbox)
            yield tx
        if tx.unsent is not None:
            self._send(*tx.unsent)

    def load(self, table: Table, keys: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
        """See the port."""
        return self._database.load(table, keys)

    def find(self, table: Table, query: RowQuery) -> list[tuple[Any, ...]]:
        """See the port."""
        return self._database.find(table, query)

    def count(self, table: Table, condition: Condition) -> int:
        """See the port."""
        return self._database.count(table, condition)

    def count_by(self, table: Table, condition: Condition, column: Column) -> list[tuple[Any, int]]:
        """See the port."""
        return self._database.count_by(table, condition, column)

    def total(self, table: Table, condition: Condition, column: Column) -> Any:
        """See the port."""
        return self._database.total(table, condition, column)

    def explain(self, table: Table, query: RowQuery) -> Explanation:
        """See the port."""
        return self._database.explain(table, query)

    def scan(self, table: Table) -> Iterator[list[tuple[Any, ...]]]:
        """See the port."""
        return self._database.scan(table)

    def outdated(self, table: Table) -> bool:
        """See the port."""
        return self._database.outdated(table)

    def dump(self, name: str, generation: int) -> Iterator[tuple[Any, ...]]:
        """See the port."""
        return self._database.dump(name, generation)

    def now(self) -> int:
        """See the port."""
        return self._database.now()

    def delivery_lag(self, name: str, generation: int) -> str:
        """See the port."""
        try:
            batch = self._outbox.find_unsent(name, generation)
        except TargetUnavailable:
            return ""
        if batch is None:
            return ""
        return f"Rows wait to be sent to {self.address}{': ' + batch.error if batch.error else '.'}"

    def lock_holder(self) -> str:
        """See the port."""
        return self._database.lock_holder()

    def close(self) -> None:
        """See the port."""
        self._database.close()
        self.sink.close()

    # Sending

    def _reconcile(self, checkpoint: Checkpoint, seconds: float = 0.0) -> None:
        """Send an unsent batch and the live generation, and check that the sink has what was sent to it."""
        last = self._outbox.find(key_columns(checkpoint.place))
        if last is not None and last.body:
            self._send(checkpoint, last, seconds)
        has = self._query_sink(checkpoint)
        if last is None:
            self._send_existing_rows(checkpoint, seconds, has is not None and has.number != 0)
        elif has is not None and has.number != last.number:
            self._resend_all(checkpoint, last.number, seconds, clear=has.number != 0)

    def _query_sink(self, checkpoint: Checkpoint, lost: bool = False) -> SinkState | None:
        """Ask the sink what it has; None if it cannot tell. Sends it the live generation if it does not know it.

        Raises TargetUnavailable if the sink has rows of another store.
        """
        key = checkpoint.place
        has = self._call_sink(lambda: self.sink.held(key.name, key.generation, key.partition))
        if has is not None and has.store not in ("", checkpoint.store):
            raise TargetUnavailable(
                f"{self.address} already has rows of another store under the name {key.name}.",
                "Give the projection another name (name=…), or another target (target=…).",
                address=self.address,
                store=has.store,
            )
        record = self._database.record(key.name)
        if record is not None and (has is None or has.live != record.live):
            self._show_generation(key.name, record.live, checkpoint.store, again=lost or has is not None)
        return has

    def _send_existing_rows(self, checkpoint: Checkpoint, seconds: float, leftovers: bool) -> None:
        """Send rows that were written before the projection named a sink: no batch of this partition was ever sent."""
        if leftovers or next(self.scan(self._generation_table(checkpoint.place)), None):
            self._outbox.add(key_columns(checkpoint.place), checkpoint.beat)
            self._resend_all(checkpoint, checkpoint.beat, seconds, clear=leftovers)

    def _show_generation(self, name: str, live: int, store: str, again: bool = False) -> None:
        """Send the sink the live generation, once; with `again`, even if it was sent before."""
        key = (name, 0, 0)
        shown = self._outbox.find(key)
        if again or shown is None or shown.number != live:
            self._call_sink(lambda: self.sink.show(name, live, store))
            self._outbox.save_number(key, live)

    def _send(self, checkpoint: Checkpoint, saved: LastBatch, seconds: float = 0.0) -> None:
        key, number, batch = key_columns(checkpoint.place), saved.number, decode(saved.body, Batch)
        self._unsent[checkpoint.place] = checkpoint
        try:
            if not self._call_sink(lambda: self.sink.write(batch)):
                has = self._query_sink(checkpoint, lost=True)
                self._resend_all(checkpoint, number, seconds, clear=has is None or has.number != 0)
        except TargetUnavailable as error:
            self._outbox.update(key, LastBatch(number, saved.body, error.what))
            raise
        self._outbox.update(key, LastBatch(number))
        self._unsent.pop(checkpoint.place, None)

    def _resend_all(self, checkpoint: Checkpoint, number: int, seconds: float, clear: bool) -> None:
        """Send all rows of a partition, under this number. `clear`: remove the generation from the sink first.

        That removes the rows of the other partitions too, so they are sent from here as well. Their own workers may
        send the same; the numbers decide which is older.
        """
        key, partitions = checkpoint.place, [(checkpoint, number)]
        if clear:
            self._call_sink(lambda: self.sink.drop(key.name, key.generation, checkpoint.store))
            for other in self.checkpoints(key.name, key.generation):
                last = self._outbox.find(key_columns(other.place))
                if other.place != key and last is not None:
                    partitions.append((other, last.number))
        for each, its_number in partitions:
            for _ in range(MAX_RESENDS):
                if self._send_chunks(each, its_number, checkpoint, seconds):
                    break
                self._query_sink(checkpoint, lost=True)
            else:
                raise TargetUnavailable(
                    f"{self.address} loses rows of {key.name} while they are sent.",
                    "A runner sends them again.",
                    address=self.address,
                )

    def _send_chunks(self, checkpoint: Checkpoint, number: int, leased: Checkpoint, seconds: float) -> bool:
        """Send all rows of a partition, and renew the lease meanwhile. Returns False if the sink lost a chunk.

        `seconds`: the duration of the lease on `leased`; 0: do not renew it.
        """
        table, pages, chunk = self._generation_table(checkpoint.place), self._partition_pages(checkpoint), 1
        page, following = next(pages, None) or [], next(pages, None)
        while True:
            batch = build_batch(checkpoint, table, (number, 0), page, (), chunk, following is not None)
            plain = decode(msgspec.json.encode(batch), Batch)  # as a saved batch is decoded: JSON types only
            if not self._call_sink(lambda plain=plain: self.sink.write(plain)):
                return False
            if following is None:
                return True
            page, following, chunk = following, next(pages, None), chunk + 1
            if seconds:
                self._database.renew_lease(leased, seconds)

    def _partition_pages(self, checkpoint: Checkpoint) -> Iterator[list[tuple[Any, ...]]]:
        """The rows of a partition, in pages."""
        codec, key = self._codecs.get(checkpoint.place.name), checkpoint.place
        for page in self.scan(self._generation_table(key)):
            if codec is not None and checkpoint.partitions > 1:
                keys = [codec.key_of(codec.unpack(row)) for row in page]
                page = [
                    row
                    for row, row_key in zip(page, keys, strict=True)
                    if partition_of(row_key, checkpoint.partitions) == key.partition
                ]
            yield page

    def _generation_table(self, key: PartitionKey) -> Table:
        if key.name not in self._codecs:
            raise InvalidProjection(
                f"Rows of {key.name} must be sent to {self.address}, and this process does not have its class.",
                "Name it by its class, or as MODULE:CLASS.",
                projection=key.name,
            )
        return generation_table(self._codecs[key.name].table, key.generation)

    def _call_sink(self, call: Callable[[], R]) -> R:
        """Call the sink. Raises TargetUnavailable for any error: the call is retried, and the status has the reason."""
        try:
            return call()
        except TargetUnavailable:
            raise
        except EventfoldError as error:
            raise TargetUnavailable(error.what, error.remedy, address=self.address) from error
        except Exception as error:  # a sink may be a user's code, and raise anything
            detail = f"{type(error).__name__}: {error}"
            raise TargetUnavailable(
                f"{self.address} failed: {detail}.", "A runner retries the call.", address=self.address, detail=detail
            ) from error
