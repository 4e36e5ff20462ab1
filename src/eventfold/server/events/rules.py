"""What clients may write: events of types that the server knows, as those types are declared.

A type is declared by a registered class, or by a JSON Schema in the store. Others are refused, unless the server was
started with --accept-unknown.
Knows: the types of a server. Does not know: conditions, what each declaration checks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from eventfold.core.envelope import NewEvent
from eventfold.core.event_json import is_json
from eventfold.core.wire import at_index
from eventfold.errors import InvalidEvent
from eventfold.server.call import Call
from eventfold.server.events.classes import checked_by_class
from eventfold.server.visibility import authored

# With --accept-unknown, what another server declares holds here after this time: otherwise each append of an unknown
# type would first read the log. Without it, the log is read before a type is refused.
SCHEMAS_AGE_S = 1.0


async def writable(call: Call, events: Sequence[NewEvent]) -> list[NewEvent]:
    """Return the events as they are written for this caller: with the tags of their data, and with its name as actor.

    Raises InvalidEvent, OutsideScope, Forbidden.
    """
    found = list[NewEvent]()
    for index, event in enumerate(events):
        try:
            found.append(authored(call.caller, await checked(call, event)))
        except InvalidEvent as error:
            raise at_index(error, index) from None
    return found


async def checked(call: Call, event: NewEvent) -> NewEvent:
    """Return an event as its type declares it. Raises InvalidEvent if it may not be written."""
    if event.codec == "json" and event.key is None and not is_json(event.data):  # from $bytes, for example
        raise InvalidEvent(
            f"The data of this {event.type} is not JSON, and its codec is json.",
            "Send JSON, or name the format of the bytes in $codec.",
            type=event.type,
        )
    registered = call.server.registered.events
    cls = registered.get((event.type, event.version))
    if cls is not None:
        return checked_by_class(call.store.registry.codec(cls), event)
    accept_unknown = call.server.settings.events.accept_unknown
    versions: Iterable[int] = [version for type, version in registered if type == event.type] if registered else ()
    if not versions:
        max_age_s = SCHEMAS_AGE_S if accept_unknown else 0.0
        known = call.schemas.at_hand(event.type, event.version, max_age_s)
        if known is None:
            known = await call.schemas.known(event.type, event.version, max_age_s)
        if event.version in known:
            return known[event.version].checked(event)
        versions = known
    if versions:
        raise InvalidEvent(
            f"{event.type} has no version {event.version} on this server.",
            f'Send one of these with the event: "version": {", ".join(map(str, sorted(versions)))}.',
            type=event.type,
            version=event.version,
        )
    if accept_unknown:
        return event
    raise InvalidEvent(
        f"The type {event.type} is not known to this server.",
        "Start it with --module NAME or with --accept-unknown, or register a JSON Schema by PUT /v1/schemas/TYPE/1.",
        type=event.type,
    )
