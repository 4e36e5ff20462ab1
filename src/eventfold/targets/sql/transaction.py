"""A target's open transaction: the holder of the lease writes rows and advances the checkpoint.

Knows: the fence (token and revision). Does not know: how a transaction begins and ends (target.py does).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from eventfold.core.table import Table, stored_name
from eventfold.errors import EventfoldError, LeaseLost
from eventfold.ports.target import (
    FOREVER,
    INLINE,
    Checkpoint,
    CheckpointChanged,
    CheckpointUpdate,
    ParkedEvent,
    PartitionKey,
    RowRefused,
)
from eventfold.targets.sql import control_tables
from eventfold.targets.sql.driver import Driver, Parameters
from eventfold.targets.sql.statements import Statements, shorten_name

PAGE = 1_000  # keys of one query
TABLE_REFERENCE = re.compile(r"""(["`\[]?)\{(\w+)\}""")
UNQUOTED_NAME = re.compile("[a-z_][a-z0-9_]*")


class SqlTransaction:
    """See TargetTransaction and InlineTargetTransaction."""

    def __init__(self, driver: Driver, connection: Any, key: PartitionKey, statements: Statements) -> None:
        self._driver, self._key, self._statements = driver, key, statements
        self.connection = connection

    def execute(self, sql: str, parameters: Parameters = ()) -> list[tuple[Any, ...]]:
        """See the port."""
        return self._driver.execute(self.connection, self._expand_tables(sql), parameters)

    def executemany(self, sql: str, parameters: Iterable[Parameters]) -> None:
        """See the port."""
        self._driver.executemany(self.connection, self._expand_tables(sql), parameters)

    def _expand_tables(self, sql: str) -> str:
        return expand_table_names(sql, self._key.generation, self._driver.quote_relation, self._driver.max_name_bytes)

    def upsert(self, table: Table, rows: Sequence[Sequence[Any]]) -> None:
        """See the port."""
        if rows:
            encoded = self._statements.encode_rows(table, rows)
            try:
                self._driver.upsert(
                    self.connection, self._driver.adapt_sql(self._statements.upsert_sql(table)), table, encoded
                )
            except self._driver.row_errors as error:
                raise RowRefused(str(error)) from error

    def insert(self, table: Table, rows: Sequence[Sequence[Any]]) -> None:
        """See InsertingTransaction."""
        encoded = self._statements.encode_rows(table, rows)
        try:
            self._driver.upsert(self.connection, self._statements.insert_sql(table), table, encoded)
        except self._driver.row_errors as error:
            raise RowRefused(str(error)) from error

    def delete(self, table: Table, keys: Sequence[Sequence[Any]]) -> None:
        """See the port."""
        if keys:
            encoded = self._statements.encode_keys(table, keys)
            try:
                self._driver.executemany(
                    self.connection, self._driver.adapt_sql(self._statements.delete_sql(table)), encoded
                )
            except self._driver.row_errors as error:  # as of a foreign key to the row, or a trigger
                raise RowRefused(str(error)) from error

    def advance(self, checkpoint: Checkpoint, step: CheckpointUpdate) -> Checkpoint:
        """See the port."""
        driver, connection, key = self._driver, self.connection, control_tables.key_columns(checkpoint.place)
        moved = step.applied_to(checkpoint, driver.now(connection) if step.at is None else step.at)
        row = (
            *(step.position, step.event_id, step.epoch, step.seen.count, step.seen.hex),
            *(
                step.handled.count,
                step.handled.hex,
                step.stopped,
                step.stats,
                moved.at,
                control_tables.checkpoint_row(moved)[-2],
            ),
            *(*key, checkpoint.token, checkpoint.revision),
        )
        if not driver.update_row(connection, driver.adapt_sql(control_tables.ADVANCE_CHECKPOINT), row):
            sql = driver.adapt_sql(f"SELECT token FROM eventfold_checkpoint WHERE {control_tables.WHERE_PARTITION}")  # noqa: S608
            if driver.execute(connection, sql, key) == [(checkpoint.token,)]:
                raise CheckpointChanged
            raise lease_lost_error(checkpoint)
        if step.parked:
            save_parked(driver, connection, checkpoint.place, step.parked)
        if step.settled:
            sql = driver.adapt_sql(control_tables.DELETE_PARKED)
            driver.executemany(connection, sql, [(*key, position) for position in step.settled])
        if step.mark:
            mark = control_tables.mark_row(checkpoint.place, step.position, step.seen)
            driver.execute(connection, driver.adapt_sql(control_tables.INSERT_MARK), mark)
        return moved

    def should_yield(self) -> bool:
        """See the port."""
        return self._driver.should_yield()

    # In the engine's own transaction

    def load(self, table: Table, keys: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
        """See the port."""
        rows: list[tuple[Any, ...]] = []
        for at in range(0, len(keys), PAGE):
            sql, parameters = self._statements.load_sql(table, keys[at : at + PAGE])
            try:
                rows += self._driver.execute(self.connection, self._driver.adapt_sql(sql), parameters)
            except self._driver.value_errors as error:
                raise RowRefused(str(error)) from error
        return self._statements.decode_rows(table, rows)

    def look(self) -> Checkpoint | None:
        """See the port."""
        return lock_checkpoint(self._driver, self.connection, self._key, locking="")

    def acquire_inline(self) -> Checkpoint | None:
        """See the port."""
        checkpoint = lock_checkpoint(self._driver, self.connection, self._key)
        if checkpoint is None:
            return None
        fields = {"token": checkpoint.token + 1, "holder": INLINE, "expires": FOREVER, "stopped": ""}
        return save_checkpoint(self._driver, self.connection, control_tables.change_checkpoint(checkpoint, fields))

    def release_inline(self) -> None:
        """See the port."""
        checkpoint = lock_checkpoint(self._driver, self.connection, self._key)
        if checkpoint is not None:
            fields = {"token": checkpoint.token + 1, "holder": "", "expires": 0}
            save_checkpoint(self._driver, self.connection, control_tables.change_checkpoint(checkpoint, fields))


def lock_checkpoint(
    driver: Driver, connection: Any, key: PartitionKey, locking: str | None = None
) -> Checkpoint | None:
    """The checkpoint of a partition, locked until the transaction ends.

    `locking`: the clause that locks the row; None: the driver's, "": no lock.
    """
    suffix = driver.row_lock_clause if locking is None else locking
    rows = driver.execute(
        connection, driver.adapt_sql(control_tables.SELECT_CHECKPOINT + suffix), control_tables.key_columns(key)
    )
    return control_tables.checkpoint_from_row(tuple(rows[0])) if rows else None


def save_checkpoint(driver: Driver, connection: Any, checkpoint: Checkpoint) -> Checkpoint:
    """Write all columns of a checkpoint that this transaction has locked; return it."""
    key, row = control_tables.key_columns(checkpoint.place), control_tables.checkpoint_row(checkpoint)
    driver.execute(connection, driver.adapt_sql(control_tables.UPDATE_CHECKPOINT), (*row[len(key) :], *key))
    return checkpoint


def expand_table_names(sql: str, generation: int, relation: Callable[[str], str], longest: int | None) -> str:
    """Replace each `{table}` in SQL by the name of the generation's own table, quoted if necessary."""

    def name(reference: re.Match[str]) -> str:
        own = shorten_name(stored_name(reference[2], generation), longest)
        return f"{reference[1]}{own}" if reference[1] or UNQUOTED_NAME.fullmatch(own) else relation(own)

    return TABLE_REFERENCE.sub(name, sql) if "{" in sql else sql


def lease_lost_error(checkpoint: Checkpoint) -> EventfoldError:
    """The error for a lease that another holder has claimed since."""
    return LeaseLost(
        f"The lease of {checkpoint.place.name} has passed to another runner while this one "
        f"(token {checkpoint.token}) did not renew it.",
        "Nothing of the current page was written; this runner will claim a new lease.",
        projection=checkpoint.place.name,
        token=checkpoint.token,
    )


def save_parked(driver: Driver, connection: Any, key: PartitionKey, entries: Sequence[ParkedEvent]) -> None:
    """Add or change parked events."""
    rows = [control_tables.parked_row(key, entry) for entry in entries]
    driver.executemany(connection, driver.adapt_sql(control_tables.UPSERT_PARKED), rows)
