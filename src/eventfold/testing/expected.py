"""What a test expects of recorded events: an event alone, or with the parts of its envelope that a Draft gives.

Knows: drafts, what a store adds to them. Does not know: scenarios, how a difference is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import msgspec

from eventfold.core.codec import codec_of, encode_metadata, metadata_in, tags_of
from eventfold.core.event import Draft, Recorded
from eventfold.core.trace_context import TRACEPARENT, TRACESTATE

# what processes and traces add to the metadata of an event: compared only where a Draft gives it
ADDED_METADATA = ("causation_id", "correlation_id", "process", "hops", TRACEPARENT, TRACESTATE)


def as_expected(given: Sequence[Any]) -> list[Any]:
    """Return expected events, and Drafts in the form in which the store has their parts.

    A Draft that gives nothing but its event is that event. Raises InvalidEvent if tags or metadata cannot be stored.
    """
    return [_as_stored(cast("Draft[Any]", each)) if isinstance(each, Draft) else each for each in given]


def as_found(recorded: Sequence[Recorded[Any]], expected: Sequence[Any]) -> list[Any]:
    """Return recorded events, each with the parts that the expected one of its place gives."""
    wanted = [*expected, *[None] * len(recorded)]
    return [_like(each, wanted[index]) for index, each in enumerate(recorded)]


def _as_stored(draft: Draft[Any]) -> Any:
    if draft == Draft(draft.event):
        return draft.event
    cls: type[object] = type(cast("object", draft.event))
    return msgspec.structs.replace(
        draft,
        tags=tags_of(codec_of(cls), draft.event, draft.tags) if draft.tags else (),
        metadata=None if draft.metadata is None else metadata_in(encode_metadata(draft.metadata)),
    )


def _like(recorded: Recorded[Any], wanted: Any) -> Any:
    if not isinstance(wanted, Draft):
        return recorded.event
    given = cast("Draft[Any]", wanted)
    return Draft(
        recorded.event,
        id=None if given.id is None else recorded.id,
        occurred=None if given.occurred is None else recorded.occurred,
        tags=tuple(recorded.tags) if given.tags else (),
        metadata=None if given.metadata is None else _comparable(recorded.metadata, given.metadata),
    )


def _comparable(found: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in found.items() if key in wanted or key not in ADDED_METADATA}
