"""A target whose rows are sent to a sink: kept beside the checkpoint, in the store's own database, and sent on.

A transaction writes the rows, advances the checkpoint and saves the batch for the sink. After the commit the batch is
sent and its body is removed. A batch that still has its body is sent again by the next worker that claims the
partition, before anything else. Rows are folded from the rows kept here, never from the sink's: no event is folded
twice. Knows: in which order rows are committed, sent and shown. Does not know: any sink, how rows are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import msgspec

from eventfold.core.json_values import decode
from eventfold.core.table import RowCodec, Table, generation_table
from eventfold.core.tally import Tally
from eventfold.core.value_order import partition_of
from eventfold.errors import EventfoldError, InvalidProjection, TargetUnavailable
from eventfold.ports.sink import Batch, Sink, SinkState
from eventfold.ports.target import Checkpoint, ParkedEvent, PartitionKey, PendingCommand, ProjectionRecord
from eventfold.targets.outbox.table import LastBatch, OutboxTable, build_batch
from eventfold.targets.outbox.transaction import OutboxControlTransaction, OutboxTransaction, as_rows
from eventfold.targets.sql.control_tables import key_columns
from eventfold.targets.sql.target import SqlTarget

MAX_RESENDS = 3  # how often all rows are sent again where the sink loses some of them meanwhile

R = TypeVar("R")


class OutboxTarget:
    """See Target. `database` keeps rows, checkpoints and the outbox; `sink` receives the rows."""

    forwards = True

    def __init__(self, database: SqlTarget, sink: Sink) -> None:
        self.sink, self.address = sink, sink.address
        self._database, self._outbox = database, OutboxTable(database)
        self._codecs: dict[str, RowCodec] = {}
        self._unsent: dict[PartitionKey, Checkpoint] = {}

    def bind(self, name: str, rows: RowCodec) -> None:
        """See the port: rows are sent again by partition, which takes the key of each."""
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
        """See the port. After the commit the sink receives which generation to show, repeatedly until it knows."""
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

    # Checkpoints and leases: the worker that holds a lease makes sure that the sink has all rows

    def checkpoint(self, place: PartitionKey) -> Checkpoint | None:
        """See the port."""
        return self._database.checkpoint(place)

    def checkpoints(self, name: str, generation: int | None = None) -> list[Checkpoint]:
        """See the port."""
        return self._database.checkpoints(name, generation)

    def parked(self, place: PartitionKey) -> list[ParkedEvent]:
        """See the port."""
        return self._database.parked(place)

    def ledger_marks(self, place: PartitionKey) -> list[tuple[int, Tally]]:
        """See the port."""
        return self._database.ledger_marks(place)

    def claim(self, place: PartitionKey, holder: str, seconds: float, take_over_from: str = "") -> Checkpoint | None:
        """See the port."""
        held = self._database.claim(place, holder, seconds, take_over_from)
        if held is not None:
            try:
                self._reconcile(held, seconds)
            except BaseException:
                self.release(held)
                raise
        return held

    def renew_lease(self, held: Checkpoint, seconds: float, progress: bool = True) -> int:
        """See the port."""
        revision = self._database.renew_lease(held, seconds, progress)
        if progress:  # else the worker is busy in another thread, and reconciles by itself
            self._reconcile(held, seconds)
        return revision

    def release(self, held: Checkpoint) -> None:
        """See the port."""
        self._database.release(held)

    # Rows

    @contextmanager
    def transaction(self, place: PartitionKey) -> Generator[OutboxTransaction]:
        """See the port."""
        if place in self._unsent:
            self._reconcile(self._unsent[place])
            self._unsent.pop(place, None)
        self._outbox.create()
        with self._database.transaction(place) as inner:
            tx = OutboxTransaction(inner, self._outbox)
            yield tx
        if tx.unsent is not None:
            self._send(*tx.unsent)

    def load(self, table: Table, keys: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
        """See the port."""
        return self._database.load(table, keys)

    def select(
        self, table: Table, where: Mapping[str, Any], order: Sequence[str], limit: int | None
    ) -> list[tuple[Any, ...]]:
        """See the port."""
        return self._database.select(table, where, order, limit)

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

    def _reconcile(self, held: Checkpoint, seconds: float = 0.0) -> None:
        """Send what is unsent, show the live generation, and check that the sink has what was sent to it."""
        last = self._outbox.find(key_columns(held.place))
        if last is not None and last.body:
            self._send(held, last, seconds)
        has = self._query_sink(held)
        if last is None:
            self._send_existing_rows(held, seconds, has is not None and has.number != 0)
        elif has is not None and has.number != last.number:
            self._resend_all(held, last.number, seconds, clear=has.number != 0)

    def _query_sink(self, held: Checkpoint, lost: bool = False) -> SinkState | None:
        """What the sink has. It receives the live generation where it does not know that."""
        place = held.place
        has = self._call_sink(lambda: self.sink.held(place.name, place.generation, place.partition))
        if has is not None and has.store not in ("", held.store):
            raise TargetUnavailable(
                f"{self.address} has rows of another store under the name {place.name} already.",
                "Give the projection another name (name=…), or another place (target=…).",
                address=self.address,
                store=has.store,
            )
        record = self._database.record(place.name)
        if record is not None and (has is None or has.live != record.live):
            self._show_generation(place.name, record.live, held.store, again=lost or has is not None)
        return has

    def _send_existing_rows(self, held: Checkpoint, seconds: float, leftovers: bool) -> None:
        """Send rows that were written before the projection named a sink: no batch of this partition was ever sent."""
        if leftovers or next(self.scan(self._generation_table(held.place)), None):
            self._outbox.add(key_columns(held.place), held.beat)
            self._resend_all(held, held.beat, seconds, clear=leftovers)

    def _show_generation(self, name: str, live: int, store: str, again: bool = False) -> None:
        """Tell the sink once; a sink that can be asked, whenever it does not know."""
        key = (name, 0, 0)
        shown = self._outbox.find(key)
        if again or shown is None or shown.number != live:
            self._call_sink(lambda: self.sink.show(name, live, store))
            self._outbox.save_number(key, live)

    def _send(self, held: Checkpoint, saved: LastBatch, seconds: float = 0.0) -> None:
        key, number, batch = key_columns(held.place), saved.number, decode(saved.body, Batch)
        self._unsent[held.place] = held
        try:
            if not self._call_sink(lambda: self.sink.write(batch)):
                has = self._query_sink(held, lost=True)
                self._resend_all(held, number, seconds, clear=has is None or has.number != 0)
        except TargetUnavailable as error:
            self._outbox.update(key, LastBatch(number, saved.body, error.what))
            raise
        self._outbox.update(key, LastBatch(number))
        self._unsent.pop(held.place, None)

    def _resend_all(self, held: Checkpoint, number: int, seconds: float, clear: bool) -> None:
        """Send all rows of a partition, under this number. `clear`: remove the generation from the sink first.

        That removes the rows of the other partitions too, so they are sent from here as well. Their own workers may
        send the same; the numbers decide which is older.
        """
        place, partitions = held.place, [(held, number)]
        if clear:
            self._call_sink(lambda: self.sink.drop(place.name, place.generation, held.store))
            for other in self.checkpoints(place.name, place.generation):
                last = self._outbox.find(key_columns(other.place))
                if other.place != place and last is not None:
                    partitions.append((other, last.number))
        for each, its_number in partitions:
            for _ in range(MAX_RESENDS):
                if self._send_chunks(each, its_number, held, seconds):
                    break
                self._query_sink(held, lost=True)
            else:
                raise TargetUnavailable(
                    f"{self.address} loses rows of {place.name} while they are sent.",
                    "It is tried again.",
                    address=self.address,
                )

    def _send_chunks(self, checkpoint: Checkpoint, number: int, held: Checkpoint, seconds: float) -> bool:
        """Send a partition's rows, and renew the lease meanwhile. Returns False where the sink lost a chunk."""
        table, pages, chunk = self._generation_table(checkpoint.place), self._partition_pages(checkpoint), 1
        page, following = next(pages, None) or [], next(pages, None)
        while True:
            batch = build_batch(checkpoint, table, (number, 0), page, (), chunk, following is not None)
            plain = decode(msgspec.json.encode(batch), Batch)
            if not self._call_sink(lambda plain=plain: self.sink.write(plain)):
                return False
            if following is None:
                return True
            page, following, chunk = following, next(pages, None), chunk + 1
            if seconds:
                self._database.renew_lease(held, seconds)

    def _partition_pages(self, checkpoint: Checkpoint) -> Iterator[list[tuple[Any, ...]]]:
        """The rows of a partition, in pages."""
        codec, place = self._codecs.get(checkpoint.place.name), checkpoint.place
        for page in self.scan(self._generation_table(place)):
            if codec is not None and checkpoint.partitions > 1:
                keys = [codec.key_of(codec.unpack(row)) for row in page]
                page = [
                    row
                    for row, key in zip(page, keys, strict=True)
                    if partition_of(key, checkpoint.partitions) == place.partition
                ]
            yield page

    def _generation_table(self, place: PartitionKey) -> Table:
        if place.name not in self._codecs:
            raise InvalidProjection(
                f"The code of {place.name} is not known here, and its rows are to be sent to {self.address}.",
                "Name it by its class, or as MODULE:CLASS.",
                projection=place.name,
            )
        return generation_table(self._codecs[place.name].table, place.generation)

    def _call_sink(self, call: Callable[[], R]) -> R:
        """Whatever a sink raises becomes TargetUnavailable: the call is repeated, and the status says why."""
        try:
            return call()
        except TargetUnavailable:
            raise
        except EventfoldError as error:
            raise TargetUnavailable(error.what, error.remedy, address=self.address) from error
        except Exception as error:  # a sink may be written by anyone
            said = f"{type(error).__name__}: {error}"
            raise TargetUnavailable(
                f"{self.address} failed: {said}.", "It is tried again.", address=self.address, detail=said
            ) from error
