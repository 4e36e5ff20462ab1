"""GET /metrics: what the server did and in which state its stores are, for Prometheus.

Knows: what is counted about calls, who may read it. Does not know: metrics of stores (the package monitoring does).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from eventfold.aio import AsyncStore
from eventfold.concurrency import in_thread
from eventfold.errors import EventfoldError
from eventfold.monitoring.collector import (
    add_distribution,
    empty_family,
    families,
    gauge_family,
    measured_stores,
    require_client,
)
from eventfold.monitoring.exposition import Families, add_lines, encode
from eventfold.monitoring.instruments import Counter, Histogram, Series
from eventfold.monitoring.labels import OTHER
from eventfold.monitoring.measured import MeasuredAsyncStore, measured
from eventfold.monitoring.scrapes import Measured, Scrapes, StateNow
from eventfold.monitoring.table import BY_NAME, METRICS
from eventfold.server.access.errors import Forbidden, ServerBusy, TooManyCalls, Unauthenticated
from eventfold.server.access.local import is_call_of_this_machine
from eventfold.server.call import Call
from eventfold.server.route import Route
from eventfold.server.scopes import Caller, Scope
from eventfold.server.visibility import check_whole_store

PATH = "/metrics"
MEDIA = ("text/plain; version=0.0.4", "application/openmetrics-text; version=1.0.0")
UNMATCHED = "unmatched"  # the route of a call whose path no route has
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "QUERY"})
MONITOR = Caller(name="", scopes=frozenset({Scope.METRICS}), identity="loopback")
"""The caller of /metrics without a credential, where `metrics.loopback_without_key` allows it."""
FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")  # headers of proxies


class Meter:
    """The metrics of one server: counters of its calls, and the stores. `records`: whether calls are counted."""

    def __init__(self, *, records: bool) -> None:
        self.records = records
        server = [each for each in METRICS if each.source == "server"]
        self._counters = {each.name: Counter(each.known) for each in server if each.kind == "counter"}
        self._durations = Histogram(BY_NAME["http_request_duration_seconds"].buckets)
        self._scrapes: Scrapes | None = None

    def measured(self, name: str, store: AsyncStore) -> AsyncStore:
        """Return a store whose use is counted. One that is wrapped otherwise has metrics of its state only."""
        if self.records and type(store) is AsyncStore:
            return measured(store, name)
        return store

    def durations_of(self, route: str) -> Series:
        """Return where the durations of a route are observed, on the event loop alone."""
        return self._durations.series((route,))

    def answered(self, route: str, method: str, status: int) -> None:
        """A call was answered."""
        self._counters["http_requests_total"].add((route, method, str(status)))

    def unmatched(self, method: str, status: int) -> None:
        """A call was answered whose path or method no route has."""
        if self.records:
            shown = method if method in METHODS else OTHER
            self._counters["http_requests_total"].add((UNMATCHED, shown, str(status)))

    def note(self, error: EventfoldError) -> None:
        """A call met an error."""
        if isinstance(error, TooManyCalls | ServerBusy):
            self._counters["rate_limited_total"].add()
        elif isinstance(error, Unauthenticated | Forbidden):
            self._counters["auth_refused_total"].add((error.code,))

    def dropped(self, reason: str) -> None:
        """A live stream was ended early."""
        self._counters["streams_dropped_total"].add((reason,))

    def scrapes(self, stores: Mapping[str, AsyncStore]) -> Scrapes:
        """Return the stores, for reading their states. To be called on the event loop of the server."""
        if self._scrapes is None:
            named: dict[str, AsyncStore] = {}
            for name, store in stores.items():
                named[store.recorder.store if isinstance(store, MeasuredAsyncStore) else name] = store
            self._scrapes = Scrapes(measured_stores((), named, writes=True))
        return self._scrapes

    async def close(self) -> None:
        """Forget the stores, which are about to be closed."""
        if self._scrapes is not None:
            self._scrapes.close()
        self._scrapes = None

    def text(self, scrapes: Scrapes, stores: Sequence[Measured], streams: int | None, accept: str) -> tuple[bytes, str]:
        """Return the text of some stores, and of the server unless `streams` is None, with its type. It may block."""
        states = scrapes.states(stores)
        text, media = encode(Families(self._families(states, streams)), accept)
        return add_lines(text, [state.lines for _, state in states]), media

    def _families(self, states: Sequence[tuple[Measured, StateNow]], streams: int | None) -> Iterator[Any]:
        yield from families(states, states=False)
        if streams is None or not self.records:
            return
        for name, counter in self._counters.items():
            if values := counter.values():
                yield gauge_family(BY_NAME[name], values.items())
        metric = BY_NAME["http_request_duration_seconds"]
        durations = empty_family(metric)
        for key, found in self._durations.distributions().items():
            if any(found.counts):
                add_distribution(durations, metric, key, found)
        yield durations
        yield gauge_family(BY_NAME["streams"], [((), streams)])


def is_local_scrape(request: Request) -> bool:
    """Whether a request for metrics, without a credential, comes from this machine and through no proxy."""
    headers = request.headers
    if "authorization" in headers or any(name in headers for name in FORWARDED):
        return False
    return is_call_of_this_machine(request)


async def metrics(call: Call) -> Response:
    """Answer with the metrics: of the stores that the caller may use, and of the server if it may use all."""
    check_whole_store(call.caller)
    require_client()
    server = call.server
    scrapes = server.meter.scrapes(server.stores)
    every = scrapes.stores
    names = {each.name for each in every if call.caller.may_use_store(each.name)}
    streams = len(server.hub.readers) if len(names) == len(every) else None
    shown = [each for each in every if each.name in names]
    accept = call.request.headers.get("accept", "")

    text = partial(server.meter.text, scrapes, shown, streams, accept)
    body, media = text() if scrapes.is_small(shown) else await in_thread(text)
    for each in shown:
        if each.state.error is not None:
            server.running.note(each.state.error)  # its file may have been replaced
    return Response(body, media_type=media)


ROUTES = (
    Route(
        method="GET",
        path=PATH,
        handler=metrics,
        scope=Scope.METRICS,
        summary="Metrics of the server and its stores, for Prometheus",
        of_store=False,
        media=MEDIA,
        waits=True,
    ),
)
