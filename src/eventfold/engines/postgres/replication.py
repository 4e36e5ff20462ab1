"""Room: another log's events as the one call that takes them over as they stand.

Knows: the arguments of `adopt` in sql/adopt.sql. Does not know: connections, where the events come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eventfold.core.envelope import Stored
from eventfold.engines.postgres.arrays import (
    bigints,
    bigints_or_none,
    blobs,
    blobs_or_none,
    ints,
    ints_or_none,
    texts,
    texts_or_none,
    uuids,
)
from eventfold.engines.postgres.checksums import crc_of
from eventfold.engines.postgres.schema import LAYOUT

ADOPTED = (
    f"{LAYOUT}, "
    "%b, %b::int8[], %b::uuid[], %b::text[], %b::bytea[], %b::text[], %b::int4[], %b::int4[], %b::int8[], %b::bytea[], "
    "%b::text[], %b::text[], %b::int4[], %b::int4[], %b::text[], %b::int8[]"
)


def adopted(events: Sequence[Stored], keys: Sequence[tuple[str, int]]) -> list[Any]:
    """Whole appends and request keys, as ADOPTED wants them."""
    known = [texts([key for key, _ in keys]), bigints([first for _, first in keys])] if keys else [None, None]
    if not events:
        return [None] * 14 + known
    return [
        events[0].position,
        bigints([event.time for event in events]),
        uuids([event.id for event in events]),
        texts([event.type for event in events]),
        blobs([event.data for event in events]),
        texts([event.tags for event in events]),
        ints([crc_of(event) for event in events]),
        ints_or_none([None if event.version == 1 else event.version for event in events]),
        bigints_or_none([event.occurred for event in events]),
        blobs_or_none([event.metadata for event in events]),
        texts_or_none([None if event.codec == "json" else event.codec for event in events]),
        texts_or_none([event.key for event in events]),
        ints([event.offset for event in events]),
        ints([event.size for event in events]),
        *known,
    ]
