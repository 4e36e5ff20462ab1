"""A state without a class: the last value of each field of some events, and the event that set it.

Knows: payloads that are JSON objects. Does not know: user classes, terminals. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, cast

import msgspec

from eventfold.core.envelope import StoredEvent
from eventfold.core.event import Recorded
from eventfold.core.event_json import is_json
from eventfold.core.state import ABSENT, Change


class LastValue(NamedTuple):
    """The last value of a field, and the event that set it."""

    value: Any
    stored: StoredEvent


class UntypedState:
    """The last values of some events. `events` counts them; `opaque` counts those whose payload has no fields."""

    def __init__(self, events: Iterable[Recorded[Any]] = ()) -> None:
        self.fields: dict[str, LastValue] = {}
        self.events = self.opaque = 0
        for recorded in events:
            self.fold(recorded)

    def fold(self, recorded: Recorded[Any]) -> dict[str, Change]:
        """Fold one event; returns its changes, as field -> (before, after)."""
        self.events += 1
        fields = payload_fields(recorded.stored)
        if fields is None:
            self.opaque += 1
            return {}
        changes: dict[str, Change] = {}
        for name, value in fields.items():
            known = self.fields.get(name)
            if known is None or known.value != value:
                changes[name] = Change(ABSENT if known is None else known.value, value)
            self.fields[name] = LastValue(value, recorded.stored)
        return changes

    def diff(self, later: UntypedState) -> dict[str, Change]:
        """The differences between this state and a later one; for an earlier one, fields may become absent."""
        changes: dict[str, Change] = {}
        for name in dict.fromkeys([*self.fields, *later.fields]):
            before = self.fields[name].value if name in self.fields else ABSENT
            after = later.fields[name].value if name in later.fields else ABSENT
            if before != after:
                changes[name] = Change(before, after)
        return changes


def payload_fields(stored: StoredEvent) -> dict[str, Any] | None:
    """The fields of a payload; None if it is not a JSON object."""
    if stored.codec != "json" or stored.key is not None or not is_json(stored.data):
        return None
    data = msgspec.json.decode(stored.data)
    return cast("dict[str, Any]", data) if isinstance(data, dict) else None
