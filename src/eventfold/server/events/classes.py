"""Events of registered classes: their data is read by the class, and their tags are derived from it.

The data is stored as it was sent. A field that the class does not have is refused: it would be ignored by readers.
Knows: codecs. Does not know: JSON Schemas of other services, callers.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, cast

import msgspec

from eventfold.core.codec import Codec, describe_error, encode_payload, field_in, tags_of
from eventfold.core.envelope import NewEvent
from eventfold.core.signals import is_from_handler
from eventfold.errors import InvalidEvent, InvalidInput
from eventfold.schema.describe import describe
from eventfold.server.events.tags import with_derived


def checked_by_class(codec: Codec, event: NewEvent) -> NewEvent:
    """Return the event with the tags of its data. Raises InvalidEvent if data or tags do not fit the class."""
    if event.codec != "json":
        raise InvalidEvent(
            f"The data of this {event.type} has the codec {event.codec}.", "Send it as JSON.", type=event.type
        )
    _refuse_unknown_fields(codec, event)
    try:
        value = codec.decode(event.data)
    except MemoryError:
        raise
    except Exception as error:  # a check of the class is user code, and may raise anything
        if is_from_handler(error):
            raise
        raise InvalidEvent(
            f"The data of this {event.type} does not fit its class: {describe_error(error)}.",
            f"Send what version {codec.version} declares: GET /v1/schemas/{event.type}/{codec.version} shows it.",
            type=event.type,
            field=field_in(error),
        ) from error
    encode_payload(codec, value)  # refuses what would be read back otherwise
    return with_derived(event, tags_of(codec, value, ()), {prefix.removesuffix(":") for prefix, _ in codec.tags})


def _refuse_unknown_fields(codec: Codec, event: NewEvent) -> None:
    known = _fields(codec.cls)
    if known is None:
        return
    value = msgspec.json.decode(event.data)
    if not isinstance(value, dict):
        return  # the class refuses it
    others = cast("dict[str, Any]", value).keys() - known
    if others:
        raise InvalidEvent(
            f"The data of this {event.type} has fields that its class does not have: {', '.join(sorted(others))}.",
            f"Its fields are: {', '.join(sorted(known)) or 'none'}.",
            type=event.type,
            field=min(others),
        )


@lru_cache(1_024)
def _fields(cls: type) -> frozenset[str] | None:
    """The fields of a class in JSON; None if it keeps others, or they are not known."""
    try:
        described = describe(cls)
    except InvalidInput:
        return None
    return None if described.unknown == "kept" else frozenset(described.schema.get("properties", {}))
