"""Rows as Parquet files in a folder: complete snapshots of rows that are stored in a DuckDB file in the same folder.

A Parquet file cannot be changed. So rows and checkpoint are in `eventfold.duckdb`, where each event is applied exactly
once, and each table is exported to a new `TABLE.parquet` when its projection has caught up, and periodically while it
has not. The new file replaces the old one atomically; its metadata contain the store and the position of the snapshot.
Knows: when a snapshot is due. Does not know: which worker writes the rows.
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
DEFAULT_INTERVAL_S = 10.0  # between two snapshots, while events are handled; but at least …
INTERVAL_PER_DURATION = 10  # … times the duration of the last snapshot
SELECT_METADATA = "SELECT key, value FROM parquet_kv_metadata(?)"

# One snapshot at a time is written in a folder; the DuckDB file, open here, excludes other processes.
_folder_locks: dict[Path, threading.Lock] = {}


class ParquetTarget(DuckDbTarget):
    """See Target. `every`: the minimum number of seconds between two snapshots of a projection that is behind."""

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
        """See the port. A renewal with progress means that the projection has caught up: a snapshot is due."""
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
        """Write snapshots of the projection's live tables, unless the files are current."""
        with self._lock:
            self._changed.discard(name)
            began = time.monotonic()
            try:
                with self.connect() as connection:
                    connection.execute("BEGIN TRANSACTION")  # rows and positions of the same instant
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
        records = [control_tables.record_from_row(row) for row in self.execute(connection, sql, (name,))]
        if not records:
            return
        (record,) = records
        sql = (
            f"SELECT {control_tables.CHECKPOINT_COLUMNS} FROM eventfold_checkpoint "  # noqa: S608
            "WHERE name = ? AND generation = ? ORDER BY part"
        )
        checkpoints = [
            control_tables.checkpoint_from_row(row) for row in self.execute(connection, sql, (name, record.live))
        ]
        if not checkpoints:  # an entry for the progress of effects, which has no checkpoint and no rows
            return
        metadata = {
            "eventfold.projection": name,
            "eventfold.store": checkpoints[0].store,
            "eventfold.generation": str(record.live),
            "eventfold.position": str(min(each.position for each in checkpoints)),
            "eventfold.handled": " ".join(f"{each.handled.count}:{each.handled.hex}" for each in checkpoints),
        }
        for table in record.tables:
            if not self._is_current(table, metadata):
                self._write_snapshot(
                    connection, table, self._driver.quote_relation(stored_name(table, record.live)), metadata
                )

    def _is_current(self, table: str, metadata: dict[str, str]) -> bool:
        """Whether the existing snapshot contains the same events, handled by the same generation."""
        path = self._snapshot_path(table)
        if not path.exists():
            return False
        try:
            with duckdb.connect(":memory:") as separate:  # an unreadable file would abort the open transaction
                rows: list[tuple[Any, Any]] = separate.execute(SELECT_METADATA, [str(path)]).fetchall()
        except duckdb.Error:
            return False
        existing = {bytes(key).decode(): bytes(value).decode() for key, value in rows}
        return all(existing.get(key) == value for key, value in metadata.items() if key != "eventfold.position")

    def _write_snapshot(
        self, connection: duckdb.DuckDBPyConnection, table: str, own: str, metadata: dict[str, str]
    ) -> None:
        # Remains of a process that was killed: this process has the DuckDB file open, so no other is writing one.
        for leftover in self._folder.glob(f".{table}.*.tmp"):
            leftover.unlink(missing_ok=True)
        path = self._folder / f".{table}.{os.getpid()}.tmp"
        pairs = ", ".join(f"'{key}': '{value}'" for key, value in metadata.items())
        try:
            connection.execute(
                f"COPY (SELECT * FROM {own} ORDER BY ALL) TO '{str(path).replace(chr(39), chr(39) * 2)}' "  # noqa: S608
                f"(FORMAT parquet, COMPRESSION zstd, KV_METADATA {{{pairs}}})"
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
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _folder_error(folder: Path, error: OSError) -> TargetUnavailable:
    return TargetUnavailable(
        f"{folder} cannot be used ({error.strerror or error}).",
        "Check the path, the permissions of the folder, and the free space on the disk.",
        address=f"parquet:{folder}",
    )
