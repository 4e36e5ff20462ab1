"""Room: another log's events as the one call that takes them over as they stand.

Knows: the arguments of `adopt` in sql/adopt.sql. Does not know: connections, where the events come from.
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
from eventfold.engines.postgres.checksums import stored_event_crc
from eventfold.engines.postgres.schema import LAYOUT

IMPORT_ARGUMENTS = (
    f"{LAYOUT}, "
    "%b, %b::int8[], %b::uuid[], %b::text[], %b::bytea[], %b::text[], %b::int4[], %b::int4[], %b::int8[], %b::bytea[], "
    "%b::text[], %b::text[], %b::int4[], %b::int4[], %b::text[], %b::int8[]"
)


def import_arguments(events: Sequence[StoredEvent], keys: Sequence[tuple[str, int]]) -> list[Any]:
    """Whole appends and request keys, as ADOPTED wants them."""
    known = [pack_texts([key for key, _ in keys]), pack_bigints([first for _, first in keys])] if keys else [None, None]
    if not events:
        return [None] * 14 + known
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
        *known,
    ]
