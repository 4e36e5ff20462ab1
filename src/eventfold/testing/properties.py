"""Properties that every fold, decision and upcaster should have, to check your own.

Each is a plain function that raises AssertionError with the first difference. Call them with examples, or with values
of the strategies in `strategies.py`. Knows: states, the store. Does not know: any test runner.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast
from uuid import UUID

import msgspec

from eventfold.concurrency import run
from eventfold.core.counted import count_of
from eventfold.core.envelope import new_id
from eventfold.core.event import Draft, Recorded
from eventfold.core.registry import Registry
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
    """Folding all events at once, one by one, or on top of a cached state gives the same state."""
    at_once = state_definition_of(type(question)).initial(question)
    matching = _matching_events(question, events)
    evolve_recorded(at_once, matching)
    step_by_step = state_definition_of(type(question)).initial(question)
    for recorded in matching:
        step_by_step = copy_state(step_by_step)
        evolve_recorded(step_by_step, [recorded])
    _assert_equal(at_once, step_by_step, "folded at once", "folded step by step")
    clock = Clock()  # so that the envelopes are equal, too
    cached, fresh = Store("memory:", clock=clock), Store("memory:", cache=0, clock=clock)
    for event in events:
        draft = cast(Draft[Any], event) if isinstance(event, Draft) else Draft(event)
        draft = msgspec.structs.replace(draft, id=draft.id or UUID(bytes=new_id()))
        cached.append(draft)
        fresh.append(draft)
        _assert_equal(
            cached.state(question), fresh.state(question), "caught up from a cached state", "folded from the beginning"
        )


def events_come_back(events: Sequence[Any]) -> None:
    """Every event is read back equal, and encodes to the same bytes again."""
    registry, store = Registry(), Store("memory:")
    for event in events:
        store.append(event)
    for event, recorded in zip(events, store.read(), strict=True):
        _assert_equal(event, recorded.event, "written", "read")
        _assert_equal(registry.encode(event).data, recorded.stored.data, "encoded again", "stored")


def snapshot_equals_replay(question: State, events: Sequence[Any]) -> None:
    """Folding on from a snapshot, taken after any of the events, gives the same state as folding all events."""
    plan = state_definition_of(type(question))
    matching = _matching_events(question, events)
    replayed = plan.initial(question)
    evolve_recorded(replayed, matching)
    folded = plan.initial(question)
    for at, event in enumerate([*matching, None]):
        packed = pack(folded)
        if packed is None:
            raise AssertionError(
                f"after {count_of(at, 'event')} this state is not equal when it is read back from a snapshot: "
                f"{folded!r}"
            )
        resumed = unpack(type(question), packed)
        assert resumed is not None
        evolve_recorded(resumed, matching[at:])
        _assert_equal(replayed, resumed, "replayed", f"from the snapshot after {count_of(at, 'event')}")
        if event is not None:
            evolve_recorded(folded, [event])


def _matching_events(question: State, events: Sequence[Any]) -> list[Recorded[Any]]:
    """The events that a state folds, as it reads them from the log, recorded one by one, a second apart."""
    registry, wanted, clock = Registry(), state_definition_of(type(question)).events, Clock()
    matching: list[Recorded[Any]] = []
    for position, event in enumerate(events, 1):
        stored = registry.encode(event).at(position, clock.micros + 1_000_000, 0, 1)
        parts = registry.decode_as(registry.codec_among(wanted, stored), stored)
        own = [Recorded(stored, part) for part in parts if isinstance(part, wanted)]
        if own:
            clock.advance(1)
            matching += own
    return matching


def state_survives_storage(state: State) -> None:
    """A state is equal after encoding to JSON and decoding, as in a snapshot."""
    back = msgspec.json.decode(msgspec.json.encode(state), type=type(state))
    _assert_equal(state, back, "before", "after a snapshot")


def decision_is_deterministic(decision: Callable[..., Any], past: Sequence[Any], *args: Any, **kwargs: Any) -> None:
    """Two decisions on the same events return the same events, or raise the same error."""
    _assert_equal(
        _decision_result(decision, past, args, kwargs),
        _decision_result(decision, past, args, kwargs),
        "first",
        "second",
    )


def upcasts_to(old: Any, *expected: Any) -> None:
    """An event of an old class is upcast to these events."""
    _assert_equal(apply_upcasters(old), expected, "upcast", "expected")


def upcasts_round_trip(olds: Sequence[Any]) -> None:
    """Stored events of old classes are read as current ones, and these are read back equal when stored again."""
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
    """A read model has the same rows if it is projected at once, event by event, or rebuilt.

    A rebuild delivers every event a second time, which finds rows that depend on anything but the events.
    """
    at_once, step_by_step = Store("memory:"), Store("memory:")
    at_once.extend(events)
    at_once.project(projection)
    step_by_step.project(projection)  # so that it exists without any event
    for event in events:
        step_by_step.append(event)
        step_by_step.project(projection)
    step_by_step.projections.rebuild(projection)
    compared = step_by_step.projections.compare(projection)
    if not compared.equal:
        raise AssertionError(f"after a rebuild, rows differ: {compared.differences[0]}")
    if issubclass(projection, Projection):
        _assert_equal(
            at_once.rows(projection), step_by_step.rows(projection), "projected at once", "projected one by one"
        )


def effect_takes_repeats(effect: Effect, events: Sequence[Any], outside: Callable[[], Any]) -> None:
    """`outside()` returns the same after an effect was called once for each event, and after a second time.

    Effects are called at least once: one that is not idempotent does its work twice after a crash. It can recognise a
    repeat by `Recorded.id`.
    """
    store = Store("memory:")
    store.extend(events)
    delivered = [recorded for recorded in store.read() if isinstance(recorded.event, effect.events)]
    for recorded in delivered:
        effect.call_with(recorded)
    once = outside()
    for recorded in delivered:
        effect.call_with(recorded)
    _assert_equal(once, outside(), "called once", "called twice")


def process_takes_repeats(process: type[Process], events: Sequence[Any]) -> None:
    """A second reaction to every event writes nothing."""
    store = Store("memory:")
    store.extend(events)
    store.run_until_idle(process)
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
