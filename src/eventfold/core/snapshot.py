"""Snapshots: folded states as bytes, each with the fingerprint of the code that folded it.

A snapshot is a cache: without snapshots, results are the same and only take longer. It is used only while the code that
folded it is the same (core/fingerprint.py). Knows: states and JSON. Does not know: where snapshots are stored.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from eventfold.core.json_values import built_in_value, decode
from eventfold.core.state import State, state_definition_of

S = TypeVar("S", bound=State)


class Snapshot(msgspec.Struct, frozen=True):
    """A state folded up to `position`, inclusive, the position of the event `event_id`; `state` is JSON."""

    fingerprint: str
    position: int
    event_id: bytes
    state: bytes


def snapshot_key(question: State) -> str | None:
    """Return the key of a state's snapshot: its class and its question; None if the question has no JSON form."""
    plan = state_definition_of(type(question))
    try:
        asked = msgspec.json.encode(
            [getattr(question, name) for name in plan.question], enc_hook=built_in_value
        ).decode()
    except (TypeError, ValueError, RecursionError):
        return None
    return f"{type(question).__module__}.{type(question).__qualname__} {asked}"


def pack(state: State) -> bytes | None:
    """Return a state as bytes, or None if decoding would not give an equal state (a field typed Any, a NaN)."""
    try:
        packed = msgspec.json.encode(state, enc_hook=built_in_value)
        return packed if decode(packed, type(state)) == state else None
    except Exception:  # noqa: BLE001 (a check of the class may raise anything; the state is folded from the log then)
        return None


def unpack(cls: type[S], packed: bytes) -> S | None:
    """Return the state of a snapshot's bytes, or None if they do not fit the class."""
    try:
        return decode(packed, cls)
    except Exception:  # noqa: BLE001 (a check of the class, too: the state is folded from the log then)
        return None
