"""A target in a DuckDB file: rows and checkpoint change in one transaction, so each event is applied exactly once.

Knows: what differs from other SQL databases. Does not know: connections (connection.py does).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from eventfold.core.table import stored_name
from eventfold.ports.target import Checkpoint, PartitionKey
from eventfold.targets.duckdb.driver import DuckDbDriver, DuckDbStatements
from eventfold.targets.sql.target import SqlTarget


class DuckDbTarget(SqlTarget):
    """See Target."""

    creates_indexes = False
    commits_jointly = False  # a DuckDB file is open in one process only, and no append waits for it

    def __init__(self, path: str) -> None:
        driver = DuckDbDriver(path)
        super().__init__(driver, DuckDbStatements(driver))
        self._last_renewals: dict[PartitionKey, tuple[int, int, float]] = {}  # token, revision, time.monotonic()

    def renew_lease(self, checkpoint: Checkpoint, seconds: float, progress: bool = True) -> int:
        """See the port. Renews once per third of the lease: each renewal opens the file, which excludes others."""
        now = time.monotonic()
        token, revision, renewed_at = self._last_renewals.get(checkpoint.place, (0, 0, 0.0))
        if (token, revision) == (checkpoint.token, checkpoint.revision) and now - renewed_at < seconds / 3:
            return revision
        revision = super().renew_lease(checkpoint, seconds, progress)
        self._last_renewals[checkpoint.place] = (checkpoint.token, revision, now)
        return revision

    def dump(self, name: str, generation: int) -> Iterator[tuple[Any, ...]]:
        """See the port. Every value is returned as text, which suffices to compare generations."""
        with self.connect() as connection:
            own = self._driver.quote_relation(stored_name(name, generation))
            sql = f"SELECT COLUMNS(*)::VARCHAR FROM {own} ORDER BY ALL"  # noqa: S608
            rows = self.execute(connection, sql)
        yield from rows
