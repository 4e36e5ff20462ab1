"""Spans as tests look at them: in memory, by name, with their parents and links."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Sampler
from opentelemetry.trace import SpanContext


class Collected:
    """The spans that were ended so far. `provider` collects them."""

    def __init__(self, sampler: Sampler | None = None) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(sampler=sampler)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    @property
    def all(self) -> list[ReadableSpan]:
        """The spans, in the order in which they ended."""
        return list(self._exporter.get_finished_spans())

    @property
    def names(self) -> list[str]:
        """Their names."""
        return [each.name for each in self.all]

    def named(self, name: str) -> list[ReadableSpan]:
        """Return those of a name."""
        return [each for each in self.all if each.name == name]

    def one(self, name: str) -> ReadableSpan:
        """Return the only one of a name."""
        found = self.named(name)
        assert len(found) == 1, self.names
        return found[0]

    def clear(self) -> None:
        """Forget all spans."""
        self._exporter.clear()

    @contextmanager
    def within(self, name: str = "caller") -> Generator[SpanContext]:
        """Run a block within a span of the caller."""
        with self.provider.get_tracer("tests").start_as_current_span(name) as span:
            yield span.get_span_context()


def context(span: ReadableSpan) -> SpanContext:
    """Return the context of a span."""
    found = span.get_span_context()
    assert found is not None
    return found


def traceparent(span: ReadableSpan | SpanContext) -> str:
    """Return the context of a span as the metadata of an event has it."""
    found = span if isinstance(span, SpanContext) else context(span)
    return f"00-{found.trace_id:032x}-{found.span_id:016x}-{found.trace_flags:02x}"


def is_child(span: ReadableSpan, parent: ReadableSpan | SpanContext) -> bool:
    """Whether a span is a child of another one."""
    of = parent if isinstance(parent, SpanContext) else context(parent)
    return span.parent is not None and (span.parent.trace_id, span.parent.span_id) == (of.trace_id, of.span_id)


def linked(span: ReadableSpan) -> list[str]:
    """Return the links of a span as metadata."""
    return [traceparent(each.context) for each in span.links]


def attributes(span: ReadableSpan) -> dict[str, Any]:
    """Return the attributes of a span."""
    return dict(span.attributes or {})
