"""The events of a store as totals by key and period.

Knows: tags, payloads in JSON. Does not know: what they are compared with.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator
from decimal import Decimal
from typing import Any

import msgspec

from eventfold.core.envelope import StoredEvent, from_micros
from eventfold.errors import InvalidInput
from eventfold.reconcile.measures import Ours
from eventfold.reconcile.result import Total
from eventfold.reconcile.values import MISSING, at_path, key_of, number_of
from eventfold.store import Store

POSITIONS = 10
Cell = tuple[str, str]  # a key and a period
_decode = msgspec.json.Decoder(float_hook=Decimal).decode


def totals_of(store: Store, ours: Ours, head: int) -> dict[Cell, Total]:
    """Return the totals of the events up to the position `head`, inclusive. Raises InvalidFilter, InvalidInput."""
    found: dict[Cell, Total] = {}
    for _, cells, amount in _measured(store, ours, head):
        for cell in cells:
            found.setdefault(cell, Total()).add(1, amount)
    return found


def positions_of(store: Store, ours: Ours, head: int, wanted: Collection[Cell]) -> dict[Cell, tuple[int, ...]]:
    """Return for some keys and periods the positions of their newest events, at most 10 each, ascending."""
    found: dict[Cell, deque[int]] = {cell: deque(maxlen=POSITIONS) for cell in wanted}
    for stored, cells, _ in _measured(store, ours, head) if wanted else ():
        for cell in cells:
            if cell in found:
                found[cell].append(stored.position)
    return {cell: tuple(positions) for cell, positions in found.items()}


def _measured(store: Store, ours: Ours, head: int) -> Iterator[tuple[StoredEvent, list[Cell], Decimal]]:
    tag, field = f"{ours.key}:", _path_of(ours.key)
    amount_field = None if ours.sum is None else _path_of(ours.sum)
    if ours.sum is not None and amount_field is None:
        raise InvalidInput(f"{ours.sum!r} is no field of an event.", "Write data.FIELD, for example data.amount.")
    for recorded in store.search(ours.filter, backwards=False):
        stored = recorded.stored
        if stored.position > head:
            return
        time = stored.occurred if ours.time == "occurred" and stored.occurred is not None else stored.time
        moment = from_micros(time)
        if stored.type.startswith("$") or not ours.contains(moment):
            continue
        data = _payload(stored) if field is not None or amount_field is not None else None
        keys = (
            [key_of(at_path(data, field))]
            if field is not None
            else [each.removeprefix(tag) for each in stored.tag_set if each.startswith(tag)] or [""]
        )
        amount = Decimal(0)
        if amount_field is not None:
            amount = number_of(at_path(data, amount_field), f"{ours.sum} of event {stored.position} ({stored.type})")
        period = ours.period(moment)
        yield stored, [(key, period) for key in keys], amount


def _path_of(name: str) -> str | None:
    return name.removeprefix("data.") if name.startswith("data.") else None


def _payload(stored: StoredEvent) -> Any:
    if stored.codec != "json" or stored.key is not None:
        raise InvalidInput(
            f"The payload of event {stored.position} ({stored.type}) is not plain JSON.",
            "Compare by a tag and without a sum, or leave such events out by the filter.",
        )
    try:
        return _decode(stored.data)
    except msgspec.DecodeError:
        return MISSING
