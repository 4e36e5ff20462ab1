"""Rows as Parquet files in a folder: snapshots that are always whole, of rows kept in a DuckDB file beside them.

A Parquet file cannot be changed, so rows and checkpoint live in `eventfold.duckdb`, exactly once, and each table is
written anew as `TABLE.parquet` when its projection has caught up, and every few seconds while it has not. Under its
name there is the old file or the new one, never half of one; its metadata tell which position of which store it is of.
Knows: when a snapshot is due. Does not know: who works on the rows.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import duckdb

from eventfold.core.table import stored_name
from eventfold.errors import TargetUnavailable
from eventfold.ports.target import Checkpoint, PartitionKey
from eventfold.targets.duckdb.target import DuckDbTarget
from eventfold.targets.sql import control_tables
from eventfold.targets.sql.control_transaction import SqlControlTransaction
from eventfold.targets.sql.transaction import SqlTransaction

DATABASE_FILE = "eventfold.duckdb"
DEFAULT_INTERVAL_S = 10.0  # seconds between two snapshots, while there is work
SELECT_METADATA = "SELECT key, value FROM parquet_kv_metadata(?)"
INTERVAL_PER_DURATION = 10  # … and ten times as long as the last one took


_folder_locks: dict[
    Path, threading.Lock
] = {}  # one snapshot at a time in a folder; other processes are kept out by the file


class ParquetTarget(DuckDbTarget):
    """See the port."""

    def __init__(self, folder: str, every: float = DEFAULT_INTERVAL_S) -> None:
        self._folder, self._interval = Path(folder).absolute(), every
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _folder_error(self._folder, error) from error
        super().__init__(str(self._folder / DATABASE_FILE))
        self.address = f"parquet:{self._folder}"
        self._lock = _folder_locks.setdefault(self._folder, threading.Lock())
        self._changed: set[str] = set()
        self._next_due: dict[str, float] = {}

    # When a snapshot is due

    @contextmanager
    def transaction(self, key: PartitionKey) -> Generator[SqlTransaction]:
        """See the port."""
        with super().transaction(key) as tx:
            yield tx
        self._changed.add(key.name)
        due = self._next_due.setdefault(key.name, time.monotonic() + self._interval)
        if time.monotonic() >= due:
            self.publish(key.name)

    def renew_lease(self, checkpoint: Checkpoint, seconds: float, progress: bool = True) -> int:
        """See the port: there is nothing to do, so this is the time for what was done."""
        revision = super().renew_lease(checkpoint, seconds, progress)
        if progress and checkpoint.place.name in self._changed:
            self.publish(checkpoint.place.name)
        return revision

    def release(self, checkpoint: Checkpoint) -> None:
        """See the port."""
        super().release(checkpoint)
        self.publish(checkpoint.place.name)

    @contextmanager
    def control(self, name: str) -> Generator[SqlControlTransaction]:
        """See the port."""
        with super().control(name) as tx:
            before = tx.record()
            yield tx
            after = tx.record()
        if after is not None:
            self.publish(name)
        elif before is not None:
            for table in before.tables:
                self._snapshot_path(table).unlink(missing_ok=True)

    # Snapshots

    def publish(self, name: str) -> None:
        """Write what readers see, unless the files have it already."""
        with self._lock:
            self._changed.discard(name)
            began = time.monotonic()
            try:
                with self.connect() as connection:
                    connection.execute("BEGIN TRANSACTION")  # rows and positions as of one moment
                    try:
                        self._publish_tables(connection, name)
                    finally:
                        connection.execute("ROLLBACK")
            except OSError as error:
                raise _folder_error(self._folder, error) from error
            now = time.monotonic()
            self._next_due[name] = now + max(self._interval, INTERVAL_PER_DURATION * (now - began))

    def _publish_tables(self, connection: duckdb.DuckDBPyConnection, name: str) -> None:
        sql = f"SELECT {control_tables.RECORD_COLUMNS} FROM eventfold_projection WHERE name = ?"  # noqa: S608
        known = [control_tables.record_from_row(row) for row in self.execute(connection, sql, (name,))]
        if not known:
            return
        sql = (
            f"SELECT {control_tables.CHECKPOINT_COLUMNS} FROM eventfold_checkpoint "  # noqa: S608
            "WHERE name = ? AND generation = ? ORDER BY part"
        )
        checkpoints = [
            control_tables.checkpoint_from_row(row) for row in self.execute(connection, sql, (name, known[0].live))
        ]
        if not checkpoints:  # what is kept of effects' progress has no place of its own, and no rows
            return
        of = {
            "eventfold.projection": name,
            "eventfold.store": checkpoints[0].store,
            "eventfold.generation": str(known[0].live),
            "eventfold.position": str(min(each.position for each in checkpoints)),
            "eventfold.handled": " ".join(f"{each.handled.count}:{each.handled.hex}" for each in checkpoints),
        }
        for table in known[0].tables:
            if not self._is_current(table, of):
                self._write_snapshot(
                    connection, table, self._driver.quote_relation(stored_name(table, known[0].live)), of
                )

    def _is_current(self, table: str, of: dict[str, str]) -> bool:
        """Whether the snapshot there is is of the same events by the same generation."""
        path = self._snapshot_path(table)
        if not path.exists():
            return False
        try:
            with duckdb.connect(":memory:") as aside:  # an unreadable file must not spoil the transaction
                found: list[tuple[Any, Any]] = aside.execute(SELECT_METADATA, [str(path)]).fetchall()
        except duckdb.Error:
            return False
        known = {bytes(key).decode(): bytes(value).decode() for key, value in found}
        return all(known.get(key) == value for key, value in of.items() if key != "eventfold.position")

    def _write_snapshot(self, connection: duckdb.DuckDBPyConnection, table: str, own: str, of: dict[str, str]) -> None:
        for left in self._folder.glob(f".{table}.*.tmp"):  # of a process that was killed: the file of rows is ours now
            left.unlink(missing_ok=True)
        path = self._folder / f".{table}.{os.getpid()}.tmp"
        facts = ", ".join(f"'{key}': '{value}'" for key, value in of.items())
        try:
            connection.execute(
                f"COPY (SELECT * FROM {own} ORDER BY ALL) TO '{str(path).replace(chr(39), chr(39) * 2)}' "  # noqa: S608
                f"(FORMAT parquet, COMPRESSION zstd, KV_METADATA {{{facts}}})"
            )
            _fsync(path, os.O_RDWR)
            os.replace(path, self._snapshot_path(table))
            _fsync(self._folder, os.O_RDONLY)
        except BaseException:
            with suppress(OSError):
                path.unlink(missing_ok=True)
            raise

    def _snapshot_path(self, table: str) -> Path:
        return self._folder / f"{table}.parquet"


def _fsync(path: Path, flags: int) -> None:
    if os.name != "posix" and path.is_dir():
        return
    opened = os.open(path, flags)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _folder_error(folder: Path, error: OSError) -> TargetUnavailable:
    return TargetUnavailable(
        f"{folder} cannot be used ({error.strerror or error}).",
        "Check the path, the rights of the folder, and the room on the disk.",
        address=f"parquet:{folder}",
    )
