"""What each traced call of a store does, for sync and async stores alike.

Knows: the span of each call, and its attributes. Does not know: how the calls are implemented (log/), who awaits them.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, nullcontext
from datetime import date
from itertools import chain, islice
from typing import Any, TypeVar, cast

import msgspec
from opentelemetry.trace import SpanKind

from eventfold.core.envelope import Receipt
from eventfold.core.state import State
from eventfold.errors import EventIdReused
from eventfold.log.append import append_next
from eventfold.log.context import CONTEXT, Log, Options
from eventfold.log.decide import decide
from eventfold.log.decided import Decided
from eventfold.log.read import state_at
from eventfold.telemetry.decisions import DecisionSpans
from eventfold.telemetry.reads import ReadTally
from eventfold.telemetry.repeats import context_of_first
from eventfold.telemetry.spans import BATCH_SIZE, EVENTS, SCANNED, OpenSpan, Spans, written

R = TypeVar("R")
S = TypeVar("S", bound=State)
UNTIMED: AbstractContextManager[None] = nullcontext()


async def traced_append(span: OpenSpan, log: Log, count: int, once: Callable[[], Coroutine[Any, Any, R]]) -> R:
    """Append `count` events within a span, by `once`. Returns and raises what that does."""
    with span:
        if count > 1:
            span.set({BATCH_SIZE: count})
        receipt = await _also_a_repeat(log, once)
        if isinstance(receipt, Receipt):  # otherwise it is staged in a transaction of the user
            span.set(written(receipt))
        return receipt


async def traced_append_next(spans: Spans, log: Log, options: Options, rest: Iterator[Any], batch: int) -> int:
    """Append the next events of `extend` within a span. See append_next."""
    first, kept = list(islice(rest, 1)), list[Any]()
    span = spans.append() if first else None

    def remembered() -> Iterator[Any]:
        for event in chain(first, rest):
            kept.append(event)
            yield event

    async def once() -> int:
        return await append_next(log, options, iter(kept[:]) if kept else remembered(), batch)

    if span is None:
        return await append_next(log, options, chain(first, rest), batch) if first else 0
    with span:
        count = await _also_a_repeat(log, once)
        if count > 1:
            span.set({BATCH_SIZE: count})
        return count


async def traced_decide(
    spans: Spans,
    log: Log,
    options: Options,
    function: Callable[..., R],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    timing: AbstractContextManager[Callable[[Decided[Any]], None] | None] = UNTIMED,
) -> Decided[R]:
    """Decide within a span. See decide. `timing`: of a store that is also measured; it is passed the result."""
    with timing as note:
        decided = await _traced_decide(spans, log, options, function, args, kwargs)
        if note is not None:
            note(decided)
        return decided


async def _traced_decide(
    spans: Spans,
    log: Log,
    options: Options,
    function: Callable[..., R],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Decided[R]:
    span = spans.begin(f"decide {code_name(function)}", SpanKind.INTERNAL)
    if span is None:
        return await decide(log, options, function, args, kwargs)
    decision = DecisionSpans(spans, span, log)

    async def once() -> Decided[R]:
        return await decide(decision.log, options, function, args, kwargs)

    with decision:
        decided = await _also_a_repeat(log, once)
        decision.done(decided)
        return decided


def timing_of(
    store: object, function: Callable[..., Any]
) -> AbstractContextManager[Callable[[Decided[Any]], None] | None]:
    """Return the timing of a decision, where the store that has spans is also measured (monitoring does)."""
    timing = getattr(store, "timing", None)
    return UNTIMED if timing is None else timing(function)


async def traced_state(spans: Spans, log: Log, question: S, at: int | date | None, occurred_until: date | None) -> S:
    """Fold a state within a span. See state_at."""
    span = spans.state(code_name(type(question)))
    if span is None:
        return await state_at(log, question, at, occurred_until)
    with span:
        tally = ReadTally(log.engine)
        state = await state_at(msgspec.structs.replace(log, engine=tally), question, at, occurred_until)
        span.set({EVENTS: tally.events, SCANNED: tally.scanned})
        return state


def code_name(code: Any) -> str:
    """Return the name of a class or a function as it is written where it is defined; of others, that of their class."""
    while hasattr(code, "func"):  # functools.partial
        code = code.func
    name = cast(str, getattr(code, "__qualname__", None) or type(code).__qualname__)
    return name.rpartition("<locals>.")[2]


async def _also_a_repeat(log: Log, once: Callable[[], Coroutine[Any, Any, R]]) -> R:
    """Append, and again under the trace context of the first time if the events are in the log: see repeats.py."""
    try:
        return await once()
    except EventIdReused as refusal:
        first = await context_of_first(log, refusal)
        if first is None:
            raise
    token = CONTEXT.set(first)
    try:
        return await once()
    finally:
        CONTEXT.reset(token)
