"""Properties that every fold, decision and upcaster should have, ready to be held against your own.

Each is a plain function that raises AssertionError with the smallest fact that breaks it. Feed them with examples,
or with the strategies beside this file. Knows: states, the store. Does not know: any test runner.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast
from uuid import UUID

import msgspec

from eventfold.concurrency import run
from eventfold.core.codec import Registry
from eventfold.core.envelope import new_id
from eventfold.core.event import Draft, Recorded
from eventfold.core.snapshot import pack, unpack
from eventfold.core.state import State, copy_state, evolve_recorded, state_definition_of
from eventfold.core.upcast import apply_upcasters
from eventfold.errors import EventfoldError
from eventfold.processes import Effect, Process
from eventfold.processes.definition import process_definition as process_plan
from eventfold.processes.reaction import ProcessWorker
from eventfold.projections import Projection, SqlProjection
from eventfold.store import Store
from eventfold.testing.clock import Clock


def replay_equals_incremental(question: State, events: Sequence[Any]) -> None:
    """Folding everything at once, step by step, or catching up a kept state gives the same answer."""
    at_once = state_definition_of(type(question)).initial(question)
    asked = _matching_events(question, events)
    evolve_recorded(at_once, asked)
    step_by_step = state_definition_of(type(question)).initial(question)
    for recorded in asked:
        step_by_step = copy_state(step_by_step)
        evolve_recorded(step_by_step, [recorded])
    _assert_equal(at_once, step_by_step, "folded at once", "folded step by step")
    clock = Clock()  # the envelopes are equal, too
    kept, fresh = Store("memory:", clock=clock), Store("memory:", cache=0, clock=clock)
    for event in events:
        draft = cast(Draft[Any], event) if isinstance(event, Draft) else Draft(event)
        draft = msgspec.structs.replace(draft, id=draft.id or UUID(bytes=new_id()))
        kept.append(draft)
        fresh.append(draft)
        _assert_equal(
            kept.state(question), fresh.state(question), "caught up from a kept state", "folded from the beginning"
        )


def events_come_back(events: Sequence[Any]) -> None:
    """Every event is stored and read again equal, with the same bytes when it is stored once more."""
    registry, store = Registry(), Store("memory:")
    for event in events:
        store.append(event)
    for event, recorded in zip(events, store.read(), strict=True):
        _assert_equal(event, recorded.event, "written", "read")
        _assert_equal(registry.encode(event).data, recorded.stored.data, "encoded again", "stored")


def snapshot_equals_replay(question: State, events: Sequence[Any]) -> None:
    """Folding on from a snapshot, kept after any of the events, gives the state that folding everything gives."""
    plan = state_definition_of(type(question))
    asked = _matching_events(question, events)
    replayed = plan.initial(question)
    evolve_recorded(replayed, asked)
    kept = plan.initial(question)
    for at, event in enumerate([*asked, None]):
        packed = pack(kept)
        if packed is None:
            raise AssertionError(f"after {at} events this cannot be kept as a snapshot, and come back equal: {kept!r}")
        resumed = unpack(type(question), packed)
        assert resumed is not None
        evolve_recorded(resumed, asked[at:])
        _assert_equal(replayed, resumed, "replayed", f"from the snapshot after {at} events")
        if event is not None:
            evolve_recorded(kept, [event])


def _matching_events(question: State, events: Sequence[Any]) -> list[Recorded[Any]]:
    """The events that a question asks for, recorded one by one, a second apart."""
    registry, wanted, clock = Registry(), state_definition_of(type(question)).events, Clock()
    found: list[Recorded[Any]] = []
    for position, event in enumerate(events, 1):
        if isinstance(event, wanted):
            clock.advance(1)
            found.append(Recorded(registry.encode(event).at(position, clock.micros, 0, 1), event))
    return found


def state_survives_storage(state: State) -> None:
    """A state can be kept as a snapshot: it comes back equal from its JSON form."""
    back = msgspec.json.decode(msgspec.json.encode(state), type=type(state))
    _assert_equal(state, back, "before", "after a snapshot")


def decision_is_deterministic(decision: Callable[..., Any], past: Sequence[Any], *args: Any, **kwargs: Any) -> None:
    """Deciding twice on the same past comes to the same events, or to the same refusal."""
    _assert_equal(
        _decision_result(decision, past, args, kwargs),
        _decision_result(decision, past, args, kwargs),
        "first",
        "second",
    )


def upcasts_to(old: Any, *expected: Any) -> None:
    """An event of an old class is read as these events of today's."""
    _assert_equal(apply_upcasters(old), expected, "upcast", "expected")


def upcasts_round_trip(olds: Sequence[Any]) -> None:
    """Events of old classes, as they were stored, are read as today's; and those are stored and read again equal."""
    old, new = Store("memory:"), Store("memory:")
    for event in olds:
        old.append(event)
    todays = [recorded.event for recorded in old.read()]
    _assert_equal(
        [part for event in olds for part in apply_upcasters(event)], todays, "upcast in memory", "upcast from the log"
    )
    for event in todays:
        new.append(event)
    _assert_equal(todays, [recorded.event for recorded in new.read()], "upcast", "stored as today's and read again")


def projection_folds_soundly(projection: type[Projection] | type[SqlProjection], events: Sequence[Any]) -> None:
    """A read model has the same rows taken at once, event by event, or built anew beside the one that is kept.

    Building anew delivers every event a second time: rows that depend on anything but the events are found by it.
    """
    at_once, step_by_step = Store("memory:"), Store("memory:")
    at_once.extend(events)
    at_once.project(projection)
    for event in events:
        step_by_step.append(event)
        step_by_step.project(projection)
    step_by_step.projections.rebuild(projection)
    compared = step_by_step.projections.compare(projection)
    if not compared.equal:
        raise AssertionError(f"built anew, rows differ: {compared.differences[0]}")
    if issubclass(projection, Projection):
        _assert_equal(at_once.rows(projection), step_by_step.rows(projection), "taken at once", "taken one by one")


def effect_takes_repeats(effect: Effect, events: Sequence[Any], outside: Callable[[], Any]) -> None:
    """What an effect did `outside` is the same after it was called once for each event, and after a second time.

    Effects are called at least once: one that cannot bear a repeat does its work twice after a crash. Give it the
    same `Recorded.id` to go by, as here.
    """
    store = Store("memory:")
    store.extend(events)
    taken = [recorded for recorded in store.read() if isinstance(recorded.event, effect.events)]
    for recorded in taken:
        effect.call_with(recorded)
    once = outside()
    for recorded in taken:
        effect.call_with(recorded)
    _assert_equal(once, outside(), "called once", "called twice")


def process_takes_repeats(process: type[Process], events: Sequence[Any]) -> None:
    """Reacting a second time to everything writes nothing more."""
    store = Store("memory:")
    store.extend(events)
    store.settle(process)
    before = [recorded.event for recorded in store.read()]
    again = ProcessWorker(process_plan(process), store.projections.log)
    for recorded in store.read():
        if isinstance(recorded.event, process_plan(process).events):
            run(again.react(recorded))
    _assert_equal(before, [recorded.event for recorded in store.read()], "reacted once", "reacted twice")


def _decision_result(decision: Callable[..., Any], past: Sequence[Any], args: Any, kwargs: Any) -> Any:
    store = Store("memory:")
    if past:
        store.extend(past)
    try:
        return [recorded.event for recorded in store.decide(decision, *args, **kwargs).events]
    except EventfoldError:
        raise
    except Exception as error:  # noqa: BLE001 (a refusal of the rule's own)
        return (type(error), str(error))


def _assert_equal(a: Any, b: Any, first: str, second: str) -> None:
    if a != b:
        raise AssertionError(f"these differ:\n  {first}: {a!r}\n  {second}: {b!r}")
