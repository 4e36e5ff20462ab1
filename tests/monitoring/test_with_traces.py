"""A store that is measured and has traces: both see what they see alone."""

from __future__ import annotations

import asyncio

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import eventfold as ef
from eventfold import monitoring, telemetry
from eventfold.monitoring.exposition import encode
from tests.monitoring.shop import Order, Placed, Samples, place


def provider() -> tuple[TracerProvider, InMemorySpanExporter]:
    """A provider that keeps spans in memory."""
    found, kept = TracerProvider(), InMemorySpanExporter()
    found.add_span_processor(SimpleSpanProcessor(kept))
    return found, kept


def current_trace() -> str | None:
    """The id of the current trace."""
    found = trace.get_current_span().get_span_context()
    return format(found.trace_id, "032x") if found.is_valid else None


def names(kept: InMemorySpanExporter) -> set[str]:
    """The names of the spans, without the store's."""
    return {span.name.split()[0] for span in kept.get_finished_spans()}


def test_a_store_has_spans_and_is_measured() -> None:
    """Appends, decisions and reads are counted, and each has its span; an exemplar names the trace."""
    source, kept = provider()
    with monitoring.measured(ef.Store("memory:"), trace_id=current_trace) as measured:
        store = telemetry.traced(measured, tracer_provider=source)
        store.append(Placed("a"))
        store.decide(place, Order("a"))
        assert len(list(store.read())) == len(list(store.history(Order("a")))) == 2
        with store.follow() as follower:
            next(iter(follower))
        samples = Samples(monitoring.collector(measured))
        text = encode(monitoring.collector(store), "application/openmetrics-text")[0].decode()
    assert samples("appends_total", outcome="written") == 2
    assert samples("decide_attempts_count", decision="place") == 1
    read = samples("read_events_total", kind="page")
    assert read is not None and read >= 5
    assert {"append", "decide", "read"} <= names(kept)
    traces = {format(span.context.trace_id, "032x") for span in kept.get_finished_spans() if span.context}
    assert any(f'trace_id="{each}"' in text for each in traces)


def test_an_async_store_has_spans_and_is_measured() -> None:
    """The same on an event loop."""
    source, kept = provider()

    async def use() -> Samples:
        async with monitoring.measured(ef.AsyncStore("memory:")) as measured:
            store = telemetry.traced(measured, tracer_provider=source)
            await store.append(Placed("a"))
            await store.decide(place, Order("a"))
            assert len([each async for each in store.history(Order("a"))]) == 2
            return await asyncio.to_thread(Samples, monitoring.collector(measured))

    samples = asyncio.run(use())
    assert samples("appends_total", outcome="written") == 2
    assert samples("decide_attempts_count", decision="place") == 1
    assert {"append", "decide", "read"} <= names(kept)
