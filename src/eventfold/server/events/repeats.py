"""A request key that is used again: the events of the request must be those that were written with it.

Knows: events as they were sent and as they are stored. Does not know: how a key is sent, conditions (they are not
compared: the log does not keep them).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from eventfold.core.envelope import NewEvent, Receipt, StoredEvent
from eventfold.core.query import Query
from eventfold.log.context import Log
from eventfold.ports.messages import Span
from eventfold.server.refusals import RequestKeyReused

OF_ONE_CALL = ("actor", "traceparent", "tracestate")  # metadata that the server may set, and differs from call to call


async def check_repeat(log: Log, receipt: Receipt, events: Sequence[NewEvent]) -> None:
    """Raise RequestKeyReused unless the events that have this receipt are the events of this request.

    Ids are not compared, since clients give each event a new one, nor are payloads that the client encrypted, since it
    may have encrypted the same data again.
    """
    stored = await _events_of(log, receipt)
    are_same = len(stored) == len(events) and all(map(_is_same, stored, events))
    if not are_same:
        raise RequestKeyReused(
            "This request key was used before, for an append of other events.",
            "Give each append a key of its own; repeat an append with the same body. The first append stays as it is.",
            first=receipt.first,
            last=receipt.last,
        )


async def _events_of(log: Log, receipt: Receipt) -> list[StoredEvent]:
    found, after = list[StoredEvent](), receipt.first - 1
    while after < receipt.last:
        page = await log.engine.read(Query(), Span(after=after, until=receipt.last))
        if not page.events:
            break
        found += page.events
        after = found[-1].position
    return found


def _is_same(stored: StoredEvent, new: NewEvent) -> bool:
    """Whether a stored event is one of a request, which may have been written with another spelling of its JSON."""
    alike = msgspec.structs.replace(new, id=stored.id, metadata=stored.metadata)
    if stored.key is not None or _json(stored.data) == _json(new.data):
        alike = msgspec.structs.replace(alike, data=stored.data)
    return stored.is_same_as(alike) and _metadata(stored.metadata) == _metadata(new.metadata)


def _metadata(raw: bytes | None) -> bytes:
    values: dict[str, Any] = msgspec.json.decode(raw or b"{}")
    return msgspec.json.encode({name: values[name] for name in values if name not in OF_ONE_CALL}, order="sorted")


def _json(data: bytes) -> bytes:
    """JSON with its keys in order and without spaces; other data as it is."""
    try:
        return msgspec.json.encode(msgspec.json.decode(data), order="sorted")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return data
