"""The events of a decision, as a fold over the log reads them: by the class that the state names, after all upcasters.

A decision may return an event of an older class. Its own states are folded before it is read from the log, so it is
decoded for them here. Most events are of a class that is read as it was written: these are folded as they are.
Knows: which class a state reads a stored event as. Does not know: queries, positions, when a decision is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar, cast

from eventfold.core.envelope import NewEvent, StoredEvent
from eventfold.core.registry import Registry
from eventfold.core.state import State, state_definition_of
from eventfold.errors import InvalidEvent, UndecodableEvent, UnknownEventType

N = TypeVar("N", NewEvent, StoredEvent)


def as_read(registry: Registry, state: State, events: Sequence[tuple[N, Any]]) -> Sequence[tuple[N, Any]]:
    """Return encoded events, each with its object, with the objects that a fold of this state would read.

    Raises InvalidEvent if the state could not read one of them.
    """
    wanted = state_definition_of(type(state)).events
    try:
        classes = {cast("type[Any]", type(event)) for _, event in events}
        codecs = {cls: codec for cls in classes if (codec := registry.other_codec(wanted, cls)) is not None}
        if not codecs:
            return events
        found: list[tuple[N, Any]] = []
        for encoded, event in events:
            codec = codecs.get(cast("type[Any]", type(event)))
            if codec is None:
                found.append((encoded, event))
                continue
            stored = encoded if isinstance(encoded, StoredEvent) else encoded.at(0, 0, 0, 1)
            parts = registry.decode_as(codec, stored)
            found += [(encoded, part) for part in parts if codec.upcaster is None or isinstance(part, wanted)]
    except (UndecodableEvent, UnknownEventType) as error:
        why = error.what.replace("Event 0", "it", 1)  # it has no position yet
        raise InvalidEvent(
            f"{type(state).__name__} could not read an event of this decision: {why}",
            "Nothing was written. Return an event of the newest class, or correct the class or upcaster that is named.",
            type=error.fields.get("type", ""),
            state=type(state).__name__,
        ) from error
    return found
