"""Snapshots of folded states in a table of their own, each with a checksum.

Knows: that table's statements. Does not know: the content of a snapshot.
"""

from __future__ import annotations

from eventfold.core.snapshot import Snapshot
from eventfold.engines.postgres.checksums import damaged_snapshot, snapshot_crc
from eventfold.engines.postgres.options import quote_identifier
from eventfold.engines.postgres.servers import Servers
from eventfold.engines.postgres.statements import ReadStatements


class PostgresSnapshots:
    """See services.Snapshots."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._sql = ReadStatements(quote_identifier(servers.options.schema))

    async def get(self, key: str) -> Snapshot | None:
        """See services.Snapshots."""
        rows = await self._servers.query(self._sql.snapshot, [key]) if "\0" not in key else []
        if not rows:
            return None
        found = Snapshot(*rows[0][:-1])
        if snapshot_crc(self._servers.store_id, key, found) != rows[0][-1]:
            raise damaged_snapshot(key, self._servers.primary.where)
        return found

    async def put(self, key: str, snapshot: Snapshot) -> None:
        """See services.Snapshots."""
        if "\0" in key:  # PostgreSQL cannot store such a text
            return
        columns = [snapshot.fingerprint, snapshot.position, snapshot.event_id, snapshot.state]
        values = [key, *columns, snapshot_crc(self._servers.store_id, key, snapshot)]
        await self._servers.query(self._sql.keep_snapshot, values, primary=True)

    async def delete_prefix(self, prefix: str = "") -> int:
        """See services.Snapshots."""
        return (await self._servers.query(self._sql.drop_snapshots, [prefix], primary=True))[0][0]
