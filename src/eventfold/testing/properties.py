"""Room: properties that every fold, decision and upcaster should have, ready to be held against your own.

Each is a plain function that raises AssertionError with the smallest fact that breaks it. Feed them with examples,
or with the strategies beside this file. Knows: states, the store. Does not know: any test runner.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from eventfold.errors import EventfoldError
from eventfold.registry import Registry
from eventfold.state import State, copied, evolve_all, plan_of
from eventfold.store import Store
from eventfold.upcast import lift


def replay_equals_incremental(question: State, events: Sequence[Any]) -> None:
    """Folding everything at once, step by step, or catching up a kept state gives the same answer."""
    at_once = plan_of(type(question)).blank(question)
    asked = [e for e in events if isinstance(e, plan_of(type(question)).events)]
    evolve_all(at_once, asked)
    step_by_step = plan_of(type(question)).blank(question)
    for event in asked:
        step_by_step = copied(step_by_step)
        evolve_all(step_by_step, [event])
    _same(at_once, step_by_step, "folded at once", "folded step by step")
    kept, fresh = Store("memory:"), Store("memory:", cache=0)
    for event in events:
        kept.append(event)
        fresh.append(event)
        _same(kept.state(question), fresh.state(question), "caught up from a kept state", "folded from the beginning")


def events_come_back(events: Sequence[Any]) -> None:
    """Every event is stored and read again equal, with the same bytes when it is stored once more."""
    registry, store = Registry(), Store("memory:")
    for event in events:
        store.append(event)
    for event, recorded in zip(events, store.read(), strict=True):
        _same(event, recorded.event, "written", "read")
        _same(registry.encode(event).data, recorded.stored.data, "encoded again", "stored")


def state_survives_storage(state: State) -> None:
    """A state can be kept as a snapshot: it comes back equal from its JSON form."""
    back = msgspec.json.decode(msgspec.json.encode(state), type=type(state))
    _same(state, back, "before", "after a snapshot")


def decision_is_deterministic(decision: Callable[..., Any], past: Sequence[Any], *args: Any, **kwargs: Any) -> None:
    """Deciding twice on the same past comes to the same events, or to the same refusal."""
    _same(_decided(decision, past, args, kwargs), _decided(decision, past, args, kwargs), "first", "second")


def upcasts_to(old: Any, *expected: Any) -> None:
    """An event of an old class is read as these events of today's."""
    _same(lift(old), expected, "upcast", "expected")


def _decided(decision: Callable[..., Any], past: Sequence[Any], args: Any, kwargs: Any) -> Any:
    store = Store("memory:")
    if past:
        store.extend(past)
    try:
        return [recorded.event for recorded in store.decide(decision, *args, **kwargs).events]
    except EventfoldError:
        raise
    except Exception as error:  # noqa: BLE001 (a refusal of the rule's own)
        return (type(error), str(error))


def _same(a: Any, b: Any, first: str, second: str) -> None:
    if a != b:
        raise AssertionError(f"these differ:\n  {first}: {a!r}\n  {second}: {b!r}")
