"""A state without a class: of every field that some events have, the last value, and where it came from.

Knows: payloads that are JSON objects. Does not know: user classes, terminals. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, cast

import msgspec

from eventfold.cli.jsonl import is_json
from eventfold.core.envelope import StoredEvent
from eventfold.core.event import Recorded
from eventfold.core.state import ABSENT, Change


class LastValue(NamedTuple):
    """The last value of a field, and the event that said so."""

    value: Any
    stored: StoredEvent


class UntypedState:
    """What some events say together. `events` counts them; `opaque` those whose payload has no fields."""

    def __init__(self, events: Iterable[Recorded[Any]] = ()) -> None:
        self.fields: dict[str, LastValue] = {}
        self.events = self.opaque = 0
        for recorded in events:
            self.fold(recorded)

    def fold(self, recorded: Recorded[Any]) -> dict[str, Change]:
        """Take one event in; returns what it changed, as field -> (before, after)."""
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
        """What differs between this moment and a later one (or an earlier one: then fields become absent)."""
        changes: dict[str, Change] = {}
        for name in dict.fromkeys([*self.fields, *later.fields]):
            before = self.fields[name].value if name in self.fields else ABSENT
            after = later.fields[name].value if name in later.fields else ABSENT
            if before != after:
                changes[name] = Change(before, after)
        return changes


def payload_fields(stored: StoredEvent) -> dict[str, Any] | None:
    """The fields of a payload; None if it has none that can be read here."""
    if stored.codec != "json" or stored.key is not None or not is_json(stored.data):
        return None
    data = msgspec.json.decode(stored.data)
    return cast("dict[str, Any]", data) if isinstance(data, dict) else None
