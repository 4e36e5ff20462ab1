"""`traced(store)`: the same store, whose calls make spans of OpenTelemetry.

Knows: which stores there are. Does not know: what a span contains.
"""

from __future__ import annotations

from typing import TypeVar, cast

from opentelemetry.trace import TracerProvider

from eventfold.aio import AsyncStore
from eventfold.errors import InvalidInput
from eventfold.store import Store
from eventfold.telemetry.aio import TracedAsyncStore
from eventfold.telemetry.names import name_of_engine
from eventfold.telemetry.spans import Spans
from eventfold.telemetry.store import TracedStore

St = TypeVar("St", bound=Store | AsyncStore)


def traced(store: St, *, name: str | None = None, tracer_provider: TracerProvider | None = None) -> St:
    """Return the same store with traces: its calls make spans, and what it appends carries their context as metadata.

        store = telemetry.traced(Store("shop.db"))

    `name` is what spans call the store: by default its file without the ending, its database, or its name on a server.
    `tracer_provider`: by default the global one of OpenTelemetry; while none is set, nothing is traced.

    Spans: `append NAME`, `read NAME` (one a page of at most 1,000 events), `state CLASS`, `decide FUNCTION`, and where
    the store runs them, `project READ_MODEL` (one a page), `react PROCESS` and `effect EFFECT` (one an event), which
    link to the spans that wrote the events. They never have payloads, tags or filters. An error of a sampler or an
    exporter fails no call. The returned store and the given one are one store: closing either closes both.

    Raises InvalidInput if `store` is no Store or AsyncStore, `name` no text, or `tracer_provider` has no tracers.
    """
    if not isinstance(name, str | None):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidInput(f"traced() was given the name {name!r}, which is no text.", "Give a text, or no name.")
    if tracer_provider is not None and not callable(getattr(tracer_provider, "get_tracer", None)):
        raise InvalidInput(
            f"traced() was given {tracer_provider!r}, which is no provider of tracers.",
            "Give a TracerProvider of opentelemetry.sdk.trace, or none to use the global one.",
        )
    if isinstance(store, Store):
        return cast(St, TracedStore.of(store, Spans(name or name_of_engine(store.engine), tracer_provider)))
    if isinstance(store, AsyncStore):  # pyright: ignore[reportUnnecessaryIsInstance]
        return cast(St, TracedAsyncStore.of(store, name, tracer_provider))
    raise InvalidInput(f"traced() was given {store!r}, which is no store.", "Give a Store or an AsyncStore.")
