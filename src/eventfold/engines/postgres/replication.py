"""Copying another log into this one: its events with their positions and times, its request keys, its identity.

Knows: the arguments of `adopt` and `succeed` in sql/adopt.sql, which need the rights of the store's owner. Does not
know: where the events come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eventfold.core.envelope import StoredEvent
from eventfold.engines.postgres.arrays import (
    pack_bigints,
    pack_blobs,
    pack_ints,
    pack_optional_bigints,
    pack_optional_blobs,
    pack_optional_ints,
    pack_optional_texts,
    pack_texts,
    pack_uuids,
)
from eventfold.engines.postgres.checksums import decode_request_key, stored_event_crc
from eventfold.engines.postgres.options import quote_identifier
from eventfold.engines.postgres.schema import LAYOUT
from eventfold.engines.postgres.servers import Servers
from eventfold.engines.postgres.statements import ReadStatements
from eventfold.engines.postgres.writer import PostgresWriter
from eventfold.errors import AppendConflict
from eventfold.ports.refusals import import_gap

IMPORT_ARGUMENTS = (
    f"{LAYOUT}, "
    "%b, %b::int8[], %b::uuid[], %b::text[], %b::bytea[], %b::text[], %b::int4[], %b::int4[], %b::int8[], %b::bytea[], "
    "%b::text[], %b::text[], %b::int4[], %b::int4[], %b::text[], %b::int8[]"
)


class Replication:
    """See services.Replication. Importing needs the rights of the store's owner."""

    def __init__(self, servers: Servers, writer: PostgresWriter) -> None:
        self._servers, self._writer = servers, writer
        self._schema = quote_identifier(servers.options.schema)
        self._sql = ReadStatements(self._schema)

    async def keys(self, after: str = "", limit: int = 1000) -> list[tuple[str, int]]:
        """Request keys in order, each with the first position of its append."""
        return [decode_request_key(row) for row in await self._servers.query(self._sql.keys, [after, limit])]

    async def import_events(self, events: Sequence[StoredEvent], keys: Sequence[tuple[str, int]] = ()) -> None:
        """Write whole appends and request keys as they are in the other log."""
        statement = f"SELECT {self._schema}.adopt({IMPORT_ARGUMENTS})"  # noqa: S608 (quoted)
        try:
            await self._writer.run_as_owner(statement, import_arguments(events, keys))
        except AppendConflict as conflict:
            raise import_gap(conflict.fields["found"], events[0].position) from None

    async def take_identity(self, store_id: str, epoch: int) -> None:
        """Give this store the other's id, and the epoch that follows it."""
        statement = f"SELECT {self._schema}.succeed({LAYOUT}, %b, %b)"  # noqa: S608 (quoted)
        try:
            await self._writer.run_as_owner(statement, [store_id, epoch])
        except AppendConflict as conflict:
            raise import_gap(conflict.fields["found"], 1) from None
        self._servers.store_id = store_id
        self._servers.enter_epoch(epoch)


def import_arguments(events: Sequence[StoredEvent], keys: Sequence[tuple[str, int]]) -> list[Any]:
    """Whole appends and request keys, as the arguments of `adopt`."""
    key_columns = (
        [pack_texts([key for key, _ in keys]), pack_bigints([first for _, first in keys])] if keys else [None, None]
    )
    if not events:
        return [None] * 14 + key_columns
    return [
        events[0].position,
        pack_bigints([event.time for event in events]),
        pack_uuids([event.id for event in events]),
        pack_texts([event.type for event in events]),
        pack_blobs([event.data for event in events]),
        pack_texts([event.tags for event in events]),
        pack_ints([stored_event_crc(event) for event in events]),
        pack_optional_ints([None if event.version == 1 else event.version for event in events]),
        pack_optional_bigints([event.occurred for event in events]),
        pack_optional_blobs([event.metadata for event in events]),
        pack_optional_texts([None if event.codec == "json" else event.codec for event in events]),
        pack_optional_texts([event.key for event in events]),
        pack_ints([event.offset for event in events]),
        pack_ints([event.size for event in events]),
        *key_columns,
    ]
