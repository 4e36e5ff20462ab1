"""The group "traces": what `telemetry.traced` adds to an append, while nothing is traced and while spans are collected.

Knows: which stores take turns. Does not know: what a span contains.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import eventfold as ef
from benchmarks.measure import Cell, Figure, Missing, Sample, interleave, rate
from benchmarks.stage import Stage

OFF, ON = "an append with traces that are off", "a durable append with traces"
PLAIN, TRACED, SPAN = "without", "with traces", "without, beside a span of the SDK alone"
OFF_GOAL_US, ON_GOAL = 3.0, 0.95
APPENDS = 1_000  # in one turn in memory
SWITCHES = 20  # of stores in a turn on disk: the time of an fdatasync drifts within fractions of a second


class Charged(ef.Event, type="BenchmarkCharged"):
    account: ef.Tag
    amount: int


EVENT = Charged(account="a-1", amount=5)


def run(stage: Stage, announce: Callable[[str], None]) -> Iterator[Figure]:
    """Yield the figures of this group."""
    telemetry, provider = _telemetry()
    announce("traces that are off")
    with ef.Store("memory:") as plain:
        yield _off(stage, plain, telemetry.traced(plain))
    announce("traces that are collected")
    with ef.Store(str(stage.folder / "traces.db")) as plain:
        yield _on(stage, plain, telemetry.traced(plain, tracer_provider=provider), provider)
    provider.shutdown()


def _telemetry() -> tuple[Any, Any]:
    """Return the module, and a provider whose spans are collected and thrown away. Raises Missing."""
    try:
        from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
    except ModuleNotFoundError as error:
        raise Missing("opentelemetry-sdk is not installed") from error
    from eventfold import telemetry

    class Dropping(SpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            return SpanExportResult.SUCCESS

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(Dropping()))
    return telemetry, provider


def _off(stage: Stage, plain: ef.Store, traced: ef.Store) -> Figure:
    """Return the µs of CPU time that an append in memory takes more."""
    cells: dict[str, Cell] = {PLAIN: lambda: _cpu_us(plain), TRACED: lambda: _cpu_us(traced)}
    found = interleave(cells, stage.settings.rounds)
    pairs = zip(found[TRACED].values, found[PLAIN].values, strict=True)
    added = Sample(tuple([traced - plain for traced, plain in pairs]))
    figure = Figure("traces", OFF, "µs more", added, {}, "lower", details={"µs an append": found[PLAIN].median})
    return figure.aim(f"below {OFF_GOAL_US:g} µs", added.median < OFF_GOAL_US)


def _cpu_us(store: ef.Store) -> float:
    began = time.thread_time()
    for _ in range(APPENDS):
        store.append(EVENT)
    return (time.thread_time() - began) / APPENDS * 1e6


def _on(stage: Stage, plain: ef.Store, traced: ef.Store, provider: Any) -> Figure:
    """Return appends a second, beside those without traces, in turns of many short parts."""
    seconds = stage.settings.append / SWITCHES
    tracer = provider.get_tracer("benchmarks")

    def with_a_span() -> None:
        span = tracer.start_span("append", attributes={"db.system.name": "eventfold", "db.operation.name": "append"})
        receipt = plain.append(EVENT)
        span.set_attributes({"eventfold.first": receipt.first, "eventfold.last": receipt.last})
        span.end()

    calls: dict[str, Callable[[], Any]] = {
        PLAIN: lambda: plain.append(EVENT),
        SPAN: with_a_span,
        TRACED: lambda: traced.append(EVENT),
    }
    found: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(stage.settings.rounds + 1):
        parts: dict[str, list[float]] = {name: [] for name in calls}
        for part in range(SWITCHES):
            for name in list(calls)[:: 1 if part % 2 else -1]:
                parts[name].append(rate(calls[name], seconds))
        if turn:
            for name, rates in parts.items():
                found[name].append(len(rates) / sum(1 / each for each in rates))
    others: dict[str, Sample | str] = {name: Sample(tuple(found[name])) for name in (PLAIN, SPAN)}
    figure = Figure("traces", ON, "appends/s", Sample(tuple(found[TRACED])), others)
    return figure.aim("at most 5 % slower", figure.against(PLAIN) >= ON_GOAL)
