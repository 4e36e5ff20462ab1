"""A folded state as bytes, beside the fingerprint that says whether those bytes may still be believed.

A snapshot is never a source of truth: dropping all of them changes nothing but time. It is believed only while the
code that folded it is the same (core/fingerprint.py). Knows: states and JSON. Does not know: where snapshots are kept.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from eventfold.core.json_values import built_in_value, decode
from eventfold.core.state import State, state_definition_of

S = TypeVar("S", bound=State)


class Snapshot(msgspec.Struct, frozen=True):
    """A state as it was folded through `position`, where the event `event_id` stands; `state` as JSON."""

    fingerprint: str
    position: int
    event_id: bytes
    state: bytes


def snapshot_key(question: State) -> str | None:
    """What a snapshot is kept under: the class and the question; None where a question has no JSON form."""
    plan = state_definition_of(type(question))
    try:
        asked = msgspec.json.encode(
            [getattr(question, name) for name in plan.question], enc_hook=built_in_value
        ).decode()
    except (TypeError, ValueError, RecursionError):
        return None
    return f"{type(question).__module__}.{type(question).__qualname__} {asked}"


def pack(state: State) -> bytes | None:
    """A state as bytes, or None where it would not come back equal (a field typed Any, a NaN)."""
    try:
        packed = msgspec.json.encode(state, enc_hook=built_in_value)
        return packed if decode(packed, type(state)) == state else None
    except Exception:  # noqa: BLE001 (a class's own check may raise anything, and the log is there)
        return None


def unpack(cls: type[S], packed: bytes) -> S | None:
    """The state back, or None where the bytes are not such a state."""
    try:
        return decode(packed, cls)
    except Exception:  # noqa: BLE001 (a class's own check too: the snapshot is dropped, the log is folded)
        return None
