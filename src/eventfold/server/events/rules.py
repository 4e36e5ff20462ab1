"""What clients may write: events of types that the server knows, as those types are declared.

Knows: the types of a server. Does not know: who calls (visibility.py), conditions.
"""

from __future__ import annotations

from collections.abc import Sequence

from eventfold.core.envelope import NewEvent
from eventfold.core.wire import at_index
from eventfold.errors import InvalidEvent
from eventfold.server.call import Call
from eventfold.server.visibility import authored


async def writable(call: Call, events: Sequence[NewEvent]) -> list[NewEvent]:
    """Return the events as they are written for this caller. Raises InvalidEvent, OutsideScope, Forbidden."""
    found = list[NewEvent]()
    for index, event in enumerate(events):
        try:
            found.append(authored(call.caller, checked(call, event)))
        except InvalidEvent as error:
            raise at_index(error, index) from None
    return found


def checked(call: Call, event: NewEvent) -> NewEvent:
    """Return an event as its type declares it. Raises InvalidEvent if it may not be written."""
    if call.server.settings.events.accept_unknown:
        return event
    raise InvalidEvent(
        f"The type {event.type} is not known to this server.",
        "Start it with --module NAME or with --accept-unknown, or register a JSON Schema by PUT /v1/schemas/TYPE/1.",
        type=event.type,
    )
