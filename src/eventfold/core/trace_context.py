"""The trace context of an event: the metadata `traceparent` and `tracestate`, as W3C Trace Context writes them.

With them a trace that began in a caller is continued wherever its events are handled, days later or elsewhere.
Knows: the two keys and what a valid value is. Does not know: OpenTelemetry, which writes and reads them (telemetry/).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

import msgspec

TRACEPARENT, TRACESTATE = "traceparent", "tracestate"
KEYS = (TRACEPARENT, TRACESTATE)
MARK = b'"traceparent"'  # in encoded metadata that has a trace context: it is looked for before the JSON is decoded
MAX_STATE = 512  # characters of a tracestate that is kept
_PARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-((?!0{32})[0-9a-f]{32})-((?!0{16})[0-9a-f]{16})-([0-9a-f]{2})(?:-[!-~]*)?",
    re.ASCII,
)
_STATE = re.compile(r"[ -~\t]*", re.ASCII)


def trace_metadata(traceparent: object, tracestate: object = None) -> dict[str, str]:
    """Return a trace context as metadata; empty if `traceparent` is not valid. An invalid `tracestate` is left out."""
    if not isinstance(traceparent, str) or parsed(traceparent) is None:
        return {}
    if isinstance(tracestate, str) and 0 < len(tracestate) <= MAX_STATE and _STATE.fullmatch(tracestate):
        return {TRACEPARENT: traceparent, TRACESTATE: tracestate}
    return {TRACEPARENT: traceparent}


def trace_in(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Return the trace context in some metadata; empty if it has none, or none that is valid."""
    given = metadata.get(TRACEPARENT)
    return trace_metadata(given, metadata.get(TRACESTATE)) if given is not None else {}


def trace_of(metadata: bytes | None) -> dict[str, str]:
    """Return the trace context in the encoded metadata of an event; empty if it has none."""
    if not metadata or MARK not in metadata:
        return {}
    return trace_in(cast("dict[str, Any]", msgspec.json.decode(metadata)))


def parsed(traceparent: str) -> tuple[str, str, str] | None:
    """Return the trace id, the span id and the flags of a traceparent, each in hex; None if it is not valid."""
    found = _PARENT.fullmatch(traceparent) if len(traceparent) <= MAX_STATE else None
    if found is None or (traceparent.startswith("00") and len(traceparent) != 55):
        return None
    return found[1], found[2], found[3]
