"""A target whose rows are sent to a sink: kept beside the checkpoint, in the store's own database, and sent on.

A transaction writes the rows, moves the checkpoint, and keeps the batch that tells a sink of it; after the commit the
batch is sent, and then struck out. Whatever is not struck out is sent again by whoever claims the work next, before
anything else. Rows are folded from the rows kept here, never from the sink's, so nothing is ever folded twice.
Knows: what was sent, what a sink says that it has. Does not know: any sink, how rows are kept (sql/target.py does).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import msgspec

from eventfold.core.envelope import from_micros
from eventfold.core.json_values import decode
from eventfold.core.table import RowCodec, Table, generation_table
from eventfold.core.value_order import partition_of
from eventfold.errors import EventfoldError, InvalidProjection, TargetUnavailable
from eventfold.ports.sink import Batch, Sink, SinkState
from eventfold.ports.target import Checkpoint, CheckpointUpdate, PartitionKey, ProjectionRecord
from eventfold.targets.sql import control_tables
from eventfold.targets.sql.control_transaction import SqlControlTransaction
from eventfold.targets.sql.driver import Driver
from eventfold.targets.sql.statements import Statements
from eventfold.targets.sql.target import SqlTarget
from eventfold.targets.sql.transaction import SqlTransaction

SINK = "sink"  # the kind under which the store's own database knows a projection whose rows are sent on
MAX_RESENDS = 3  # times that everything is sent, where some of it is lost meanwhile
CREATE_TABLE = """CREATE TABLE IF NOT EXISTS eventfold_sending (
    name TEXT NOT NULL, generation BIGINT NOT NULL, part BIGINT NOT NULL, number BIGINT NOT NULL,
    body TEXT NOT NULL, said TEXT NOT NULL, checksum BIGINT, PRIMARY KEY (name, generation, part))"""
COLUMNS = "name, generation, part, number, body, said, checksum"
UPSERT_ROW = f"""INSERT INTO eventfold_sending ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (name, generation, part) DO UPDATE SET number = excluded.number, body = excluded.body,
    said = excluded.said, checksum = excluded.checksum"""  # noqa: S608
SELECT_ROW = f"SELECT {COLUMNS} FROM eventfold_sending WHERE {control_tables.WHERE_PARTITION}"  # noqa: S608
INSERT_ROW = f"""INSERT INTO eventfold_sending ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (name, generation, part) DO NOTHING"""  # noqa: S608
UPDATE_ROW = f"""UPDATE eventfold_sending SET body = ?, said = ?, checksum = ?
    WHERE {control_tables.WHERE_PARTITION} AND number = ?"""  # noqa: S608
SELECT_UNSENT = (
    f"SELECT {COLUMNS} FROM eventfold_sending WHERE name = ? AND generation = ? AND body <> '' ORDER BY said DESC"  # noqa: S608
)

R = TypeVar("R")


class OutboxTransaction(SqlTransaction):
    """See the port: what is written is remembered, and kept as a batch with the checkpoint."""

    changes: tuple[Table, list[Sequence[Any]], list[Sequence[Any]]] | None = None
    unsent: tuple[Checkpoint, int, str] | None = None

    def _changes_of(self, table: Table) -> tuple[list[Sequence[Any]], list[Sequence[Any]]]:
        if self.changes is None:
            self.changes = (table, [], [])
        return self.changes[1:]

    def upsert(self, table: Table, rows: Sequence[Sequence[Any]]) -> None:
        """See the port."""
        super().upsert(table, rows)
        if rows:
            self._changes_of(table)[0].extend(rows)

    def delete(self, table: Table, keys: Sequence[Sequence[Any]]) -> None:
        """See the port."""
        super().delete(table, keys)
        if keys:
            self._changes_of(table)[1].extend(keys)

    def advance(self, held: Checkpoint, step: CheckpointUpdate) -> Checkpoint:
        """See the port."""
        moved = super().advance(held, step)
        if self.changes is not None:
            place, (table, puts, deletes) = control_tables.key_columns(held.place), self.changes
            found = self._driver.execute(self.connection, self._driver.adapt_sql(SELECT_ROW), place)
            after, waits, _ = outbox_from_row(found[0]) if found else (0, "", "")
            if waits:
                raise TargetUnavailable(
                    f"Rows of {held.place.name} wait to be sent, and others are ready.", "It is tried again."
                )
            number = max(moved.at, after + 1)  # a time: above all that was sent, even if what tells of it was lost
            body = msgspec.json.encode(build_batch(moved, table, (number, after), puts, deletes)).decode()
            self._driver.execute(self.connection, self._driver.adapt_sql(UPSERT_ROW), outbox_row(place, number, body))
            self.unsent = (moved, number, body)
        return moved


def outbox_row(place: tuple[str, int, int], number: int, body: str = "", said: str = "") -> tuple[Any, ...]:
    """The row of SENDING: a batch that waits, or the number of the last that was sent."""
    row = (*place, number, body, said)
    return (*row, control_tables.checksum("eventfold_sending", *row))


def outbox_from_row(row: Sequence[Any]) -> tuple[int, str, str]:
    """Number, body and remark of a row of SENDING. Raises ProjectionDamaged."""
    if row[-1] != control_tables.checksum("eventfold_sending", *row[:-1]):
        raise control_tables.damaged_row_error("eventfold_sending", *row[:3])
    return row[3], row[4], row[5]


def build_batch(
    held: Checkpoint,
    table: Table,
    numbers: tuple[int, int],
    puts: Sequence[Sequence[Any]],
    deletes: Sequence[Sequence[Any]],
    chunk: int = 0,
    more: bool = False,
) -> Batch:
    """Rows as a sink is told of them."""
    return Batch(
        store=held.store,
        projection=held.place.name,
        generation=held.place.generation,
        partition=held.place.partition,
        number=numbers[0],
        after=numbers[1],
        position=held.position,
        time=from_micros(held.at or held.beat),
        key=table.key,
        puts=list(_rows_as_json(table, puts)),
        deletes=list(_rows_as_json(table, deletes)),
        chunk=chunk,
        more=more,
    )


def _rows_as_json(table: Table, rows: Sequence[Sequence[Any]]) -> Iterator[dict[str, Any]]:
    for row in rows:
        yield {
            column.name: msgspec.Raw(value.encode()) if column.kind == "json" and value is not None else value
            for column, value in zip(table.columns, row, strict=False)  # a key is the beginning of a row
        }


class OutboxControlTransaction(SqlControlTransaction):
    """See ControlTransaction: a projection is known here under a kind of its own, and what waits goes with it."""

    def __init__(self, driver: Driver, connection: Any, name: str, statements: Statements, address: str) -> None:
        super().__init__(driver, connection, name, statements)
        self._address = address
        self.generation_to_show: tuple[int, str] | None = None  # the generation that readers are to see, and its store

    def record(self) -> ProjectionRecord | None:
        """See the port."""
        return _as_rows(super().record())

    def create(
        self, projection: ProjectionRecord, tables: Mapping[str, Table | str], checkpoints: Sequence[Checkpoint]
    ) -> None:
        """See the port."""
        if projection.kind != "rows":
            raise InvalidProjection(
                f"{projection.name} has no rows by key, and nothing else can be sent to {self._address}.",
                "Derive it from ef.Projection; or keep it in a database.",
                projection=projection.name,
            )
        super().create(projection, tables, checkpoints)
        self.generation_to_show = None  # whoever claims the work says what readers are to see

    def save_record(self, projection: ProjectionRecord) -> None:
        """See the port."""
        super().save_record(_as_sink(projection))
        held = self.checkpoints(projection.live)
        self.generation_to_show = (projection.live, held[0].store) if held else None

    def drop(self, generation: int, tables: Sequence[str]) -> None:
        """See the port."""
        super().drop(generation, tables)
        self._execute("DELETE FROM eventfold_sending WHERE name = ? AND generation = ?", (self._name, generation))

    def forget(self, tables: Sequence[str]) -> None:
        """See the port."""
        super().forget(tables)
        self._execute("DELETE FROM eventfold_sending WHERE name = ?", (self._name,))


class OutboxTarget(SqlTarget):
    """See the port."""

    def __init__(self, own: SqlTarget, sink: Sink) -> None:
        super().__init__(own.driver, own.statements)
        self.sink, self.address = sink, sink.address
        self.rows: dict[str, RowCodec] = {}  # of the projections that this process has the code of
        self._unsent: dict[PartitionKey, Checkpoint] = {}
        self._has_table = False

    def _ensure_tables(self, connection: Any) -> None:
        super()._ensure_tables(connection)
        if not self._has_table:
            if not self._driver.has_relation(connection, "eventfold_sending"):
                self._change_schema(connection, self._create_table)
            self._has_table = True

    def _create_table(self, connection: Any) -> None:
        self._execute(connection, CREATE_TABLE)

    # Projections: known in the store's own database under a kind of their own

    def registered(self, name: str) -> ProjectionRecord | None:
        """See the port."""
        return _as_rows(super().registered(name))

    def all(self) -> list[ProjectionRecord]:
        """See the port."""
        return [known for each in super().all() if (known := _as_rows(each))]

    @contextmanager
    def control(self, name: str) -> Generator[SqlControlTransaction]:
        """See the port. What readers are to see is told to the sink after the commit, and told again until it knows."""
        with super().control(name) as tx:
            yield tx
        if isinstance(tx, OutboxControlTransaction) and tx.generation_to_show is not None:
            self._show_generation(name, *tx.generation_to_show)

    def controlled(self, connection: Any, name: str) -> SqlControlTransaction:
        """See Host.controlled."""
        self._driver.prepare_foreign_connection(connection)
        return OutboxControlTransaction(self._driver, connection, name, self._statements, self.address)

    def withdraw(self, name: str, generation: int | None, store: str) -> None:
        """See the port."""
        self._call_sink(lambda: self.sink.drop(name, generation, store))

    # Work: whoever holds it sees to it that the sink has what it should have

    def claim(self, place: PartitionKey, holder: str, seconds: float, take_over_from: str = "") -> Checkpoint | None:
        """See the port."""
        held = super().claim(place, holder, seconds, take_over_from)
        if held is not None:
            try:
                self._reconcile(held, seconds)
            except BaseException:
                self.release(held)
                raise
        return held

    def renew_lease(self, held: Checkpoint, seconds: float, quietly: bool = False) -> int:
        """See the port."""
        revision = super().renew_lease(held, seconds, quietly)
        if not quietly:  # then its owner is at work in another thread, and settles what is to be sent itself
            self._reconcile(held, seconds)
        return revision

    @contextmanager
    def writing(self, place: PartitionKey) -> Generator[OutboxTransaction]:
        """See the port."""
        if place in self._unsent:
            self._reconcile(self._unsent[place])
            self._unsent.pop(place, None)
        with self._connect(write=True, runs_user_code=True) as connection:
            tx = OutboxTransaction(self._driver, connection, place, self._statements)
            yield tx
        if tx.unsent is not None:
            self._send(*tx.unsent)

    def delivery_lag(self, name: str, generation: int) -> str:
        """See the port."""
        try:
            found = self._query(SELECT_UNSENT, (name, generation)) if self._find_table() else []
        except TargetUnavailable:
            return ""
        said = outbox_from_row(found[0])[2] if found else ""
        return f"Rows wait to be sent to {self.address}{': ' + said if said else '.'}" if found else ""

    def _find_table(self) -> bool:
        if not self._has_table:
            with self._connect() as connection:
                self._has_table = self._driver.has_relation(connection, "eventfold_sending")
        return self._has_table

    # Sending

    def _reconcile(self, held: Checkpoint, seconds: float = 0.0) -> None:
        """Send what waits, show what readers are to see, and find out whether the sink has what it was sent."""
        place = held.place
        found = self._query(SELECT_ROW, control_tables.key_columns(place)) if self._find_table() else []
        number, body, _ = outbox_from_row(found[0]) if found else (0, "", "")
        if body:
            self._send(held, number, body, seconds)
        has = self._query_sink(held)
        if not found:
            self._send_existing_rows(held, seconds, has is not None and has.number != 0)
        elif has is not None and has.number != number:
            self._resend_all(held, number, seconds, clear=has.number != 0)

    def _query_sink(self, held: Checkpoint, lost: bool = False) -> SinkState | None:
        """What the sink says that it has; it is told what readers are to see where it does not know."""
        place = held.place
        has = self._call_sink(lambda: self.sink.held(place.name, place.generation, place.partition))
        if has is not None and has.store not in ("", held.store):
            raise TargetUnavailable(
                f"{self.address} has rows of another store under the name {place.name} already.",
                "Give the projection another name (name=…), or another place (target=…).",
                address=self.address,
                store=has.store,
            )
        known = super().registered(place.name)
        if known is not None and (has is None or has.live != known.live):
            self._show_generation(place.name, known.live, held.store, again=lost or has is not None)
        return has

    def _send_existing_rows(self, held: Checkpoint, seconds: float, leftovers: bool) -> None:
        """Nothing was ever sent of this place: if there are rows, they were kept here alone."""
        if leftovers or next(self.scan(self._generation_table(held.place)), None):
            self._execute_write(INSERT_ROW, outbox_row(control_tables.key_columns(held.place), held.beat))
            self._resend_all(held, held.beat, seconds, clear=leftovers)

    def _show_generation(self, name: str, live: int, store: str, again: bool = False) -> None:
        """Told once; a sink that can be asked is told whenever it does not know."""
        shown = (name, 0, 0)
        found = self._query(SELECT_ROW, shown) if self._find_table() else []
        if again or not found or outbox_from_row(found[0])[0] != live:
            self._call_sink(lambda: self.sink.show(name, live, store))
            self._execute_write(UPSERT_ROW, outbox_row(shown, live))

    def _send(self, held: Checkpoint, number: int, body: str, seconds: float = 0.0) -> None:
        place, batch = held.place, decode(body, Batch)
        self._unsent[place] = held
        try:
            taken = self._call_sink(lambda: self.sink.write(batch))
            if not taken:
                has = self._query_sink(held, lost=True)
                self._resend_all(held, number, seconds, clear=has is None or has.number != 0)
        except TargetUnavailable as error:
            self._update_row(place, number, body, error.what)
            raise
        self._update_row(place, number)
        self._unsent.pop(place, None)

    def _resend_all(self, held: Checkpoint, number: int, seconds: float, clear: bool) -> None:
        """Send all rows of a partition, in the state of this number; where the sink has others, in their stead.

        Then those of the other partitions are gone, too, and are sent from here: whoever works on them sends the same,
        and numbers tell what is older.
        """
        place, all_of = held.place, [(held, number)]
        if clear:
            self._call_sink(lambda: self.sink.drop(place.name, place.generation, held.store))
            for other in super().checkpoints(place.name, place.generation):
                found = self._query(SELECT_ROW, control_tables.key_columns(other.place))
                if other.place != place and found:
                    all_of.append((other, outbox_from_row(found[0])[0]))
        for each, its_number in all_of:
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

    def _send_chunks(self, held: Checkpoint, number: int, mine: Checkpoint, seconds: float) -> bool:
        pages, chunk = self._partition_pages(held), 1
        page, following = next(pages, None) or [], next(pages, None)
        while True:
            batch = build_batch(
                held, self._generation_table(held.place), (number, 0), page, (), chunk, following is not None
            )
            plain = decode(msgspec.json.encode(batch), Batch)
            if not self._call_sink(lambda plain=plain: self.sink.write(plain)):
                return False
            if following is None:
                return True
            page, following, chunk = following, next(pages, None), chunk + 1
            if seconds:
                super().renew_lease(mine, seconds)

    def _partition_pages(self, held: Checkpoint) -> Iterator[list[tuple[Any, ...]]]:
        """The rows of a partition, in pages."""
        of, place = self.rows.get(held.place.name), held.place
        for page in self.scan(self._generation_table(place)):
            if of is not None and held.partitions > 1:
                keys = [of.key_of(of.unpack(row)) for row in page]
                page = [
                    r for r, k in zip(page, keys, strict=True) if partition_of(k, held.partitions) == place.partition
                ]
            yield page

    def _generation_table(self, place: PartitionKey) -> Table:
        if place.name not in self.rows:
            raise InvalidProjection(
                f"The code of {place.name} is not known here, and its rows are to be sent to {self.address}.",
                "Name it by its class, or as MODULE:CLASS.",
                projection=place.name,
            )
        return generation_table(self.rows[place.name].table, place.generation)

    def _execute_write(self, sql: str, parameters: Sequence[Any]) -> None:
        with self._connect(write=True) as connection:
            self._execute(connection, sql, parameters)

    def _update_row(self, place: PartitionKey, number: int, body: str = "", said: str = "") -> None:
        """Strike a batch out, or note why it was not taken."""
        *key, _, _, _, sum_of = outbox_row(control_tables.key_columns(place), number, body, said)
        self._execute_write(UPDATE_ROW, (body, said, sum_of, *key, number))

    def _call_sink(self, call: Callable[[], R]) -> R:
        """Whatever a sink raises is TargetUnavailable: tried again, and said in the status meanwhile."""
        try:
            return call()
        except TargetUnavailable:
            raise
        except EventfoldError as error:
            raise TargetUnavailable(error.what, error.now, address=self.address) from error
        except Exception as error:  # a sink may be anybody's
            said = f"{type(error).__name__}: {error}"
            raise TargetUnavailable(
                f"{self.address} failed: {said}.", "It is tried again.", address=self.address, detail=said
            ) from error

    def close(self) -> None:
        """See the port."""
        super().close()
        self.sink.close()


def _as_rows(known: ProjectionRecord | None) -> ProjectionRecord | None:
    return known if known is None or known.kind != SINK else msgspec.structs.replace(known, kind="rows")


def _as_sink(known: ProjectionRecord) -> ProjectionRecord:
    return known if known.kind != "rows" else msgspec.structs.replace(known, kind=SINK)
