"""A target in a DuckDB file: rows and checkpoint in one transaction, hence exactly once.

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
    """See the port."""

    def __init__(self, path: str) -> None:
        driver = DuckDbDriver(path)
        super().__init__(driver, DuckDbStatements(driver))
        self._last_renewals: dict[PartitionKey, tuple[int, int, float]] = {}  # token, revision, when

    def renew_lease(self, checkpoint: Checkpoint, seconds: float, progress: bool = True) -> int:
        """Not more often than a lease needs: each time the file is opened, and is nobody else's meanwhile."""
        now = time.monotonic()
        token, revision, beaten = self._last_renewals.get(checkpoint.place, (0, 0, 0.0))
        if (token, revision) == (checkpoint.token, checkpoint.revision) and now - beaten < seconds / 3:
            return revision
        revision = super().renew_lease(checkpoint, seconds, progress)
        self._last_renewals[checkpoint.place] = (checkpoint.token, revision, now)
        return revision

    def dump(self, name: str, generation: int) -> Iterator[tuple[Any, ...]]:
        """Every row as text: that is all a comparison needs."""
        with self.connect() as connection:
            own = self._driver.quote_relation(stored_name(name, generation))
            sql = f"SELECT COLUMNS(*)::VARCHAR FROM {own} ORDER BY ALL"  # noqa: S608
            rows = self.execute(connection, sql)
        yield from rows
