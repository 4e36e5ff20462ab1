"""Traces over HTTP: the server continues the caller's, with or without OpenTelemetry; the remote engine sends one."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from functools import partial
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from opentelemetry.trace import SpanKind, StatusCode
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

import eventfold as ef
from eventfold import telemetry
from eventfold.server import Settings, application
from eventfold.server.logs import Formatter
from eventfold.server.route import CLOUD_EVENT
from eventfold.server.settings import EventSettings
from eventfold.telemetry import requests
from tests.server.connections import connections
from tests.support.servers.http import serving
from tests.telemetry.bank import Account, Paid, pay
from tests.telemetry.collected import Collected, attributes, is_child, traceparent

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OTHER = "00-1af7651916cd43dd8448eb211c80319c-c7ad6b7169203331-01"
HEADERS = {"traceparent": PARENT, "tracestate": "vendor=x,other=y"}
EVENT: dict[str, Any] = {"type": "Paid", "data": {}}
ANY_TYPE = Settings(events=EventSettings(accept_unknown=True))


@pytest.fixture(params=["without OpenTelemetry", "without a provider"])
def client(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """Return a client of a server that makes no spans."""
    if request.param == "without OpenTelemetry":
        monkeypatch.setattr("eventfold.server.tracing.OPENTELEMETRY", "not.imported")
    with TestClient(application(ef.AsyncStore("memory:"), settings=ANY_TYPE)) as found:
        yield found


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch, spans: Collected) -> Collected:
    """Let servers of this process make spans, as if the provider were the global one."""
    monkeypatch.setattr(requests, "TRACER", spans.provider.get_tracer("eventfold"))
    return spans


def append(client: TestClient, event: dict[str, Any] | None = None, headers: dict[str, str] | None = None) -> Any:
    """Append an event over HTTP."""
    return client.post("/v1/events", json={"events": [EVENT | (event or {})]}, headers=headers)


def metadata(client: TestClient, position: int = 1) -> dict[str, Any]:
    """Return the metadata of an event."""
    found: dict[str, Any] = client.get(f"/v1/events/{position}").json().get("metadata") or {}
    return found


def test_events_carry_the_header_of_their_request(client: TestClient) -> None:
    """So does a CloudEvent; the next request without the header carries nothing."""
    assert append(client, headers=HEADERS).status_code == 201
    assert append(client).status_code == 201
    event: dict[str, Any] = {"specversion": "1.0", "id": str(uuid4()), "source": "/shop", "type": "Paid", "data": {}}
    sent = client.post("/v1/cloudevents", content=json.dumps(event), headers={"content-type": CLOUD_EVENT, **HEADERS})
    assert sent.status_code == 201
    assert metadata(client, 1) == HEADERS
    assert metadata(client, 2) == {}
    assert {name: metadata(client, 3)[name] for name in HEADERS} == HEADERS


def test_a_context_that_an_event_has_stays(client: TestClient) -> None:
    """Also the extension of a CloudEvent; the state of another context is not added to it."""
    append(client, {"metadata": {"traceparent": OTHER}}, HEADERS)
    event = {"specversion": "1.0", "id": str(uuid4()), "source": "/shop", "type": "Paid", "traceparent": OTHER}
    client.post("/v1/cloudevents", content=json.dumps(event), headers={"content-type": CLOUD_EVENT, **HEADERS})
    assert metadata(client, 1) == {"traceparent": OTHER}
    assert metadata(client, 2)["traceparent"] == OTHER
    assert "tracestate" not in metadata(client, 2)
    page = client.get("/v1/events", headers={"accept": "application/cloudevents-batch+json"})
    assert [each["traceparent"] for each in page.json()] == [OTHER, OTHER]


@pytest.mark.parametrize(
    "value",
    [
        "",
        "hello",
        PARENT[:-1],
        PARENT + "-1",
        PARENT.upper(),
        PARENT.replace("b7ad6b7169203331", "0" * 16),
        PARENT.replace("0af7651916cd43dd8448eb211c80319c", "0" * 32),
        "ff" + PARENT[2:],
        PARENT + "\t",
        "01-" + "é" * 52,
    ],
)
def test_a_header_that_is_not_valid_is_ignored(client: TestClient, value: str) -> None:
    """The request is answered, and its events carry nothing."""
    raw = [(b"traceparent", value.encode("latin-1"))]
    sent = client.post("/v1/events", json={"events": [EVENT]}, headers=raw)
    assert sent.status_code == 201
    assert metadata(client) == {}


def test_a_header_of_a_later_version_is_accepted_and_two_of_them_are_not(client: TestClient) -> None:
    """As the specification of W3C demands."""
    later = "01" + PARENT[2:] + "-more"
    append(client, headers={"traceparent": later})
    twice = [(b"traceparent", PARENT.encode()), (b"traceparent", OTHER.encode())]
    client.post("/v1/events", json={"events": [EVENT]}, headers=twice)
    assert metadata(client, 1) == {"traceparent": later}
    assert metadata(client, 2) == {}


def test_an_append_is_repeated_in_another_trace(client: TestClient) -> None:
    """By the ids of its events, and by a key; other events under the same id are refused."""
    event = {"id": str(uuid4())}
    assert append(client, event, HEADERS).status_code == 201
    assert append(client, event, {"traceparent": OTHER}).status_code == 200
    assert append(client, event, HEADERS).status_code == 200
    assert append(client, event | {"data": {"other": 1}}, {"traceparent": OTHER}).status_code == 409
    keyed = {"idempotency-key": "k-1"}
    assert append(client, headers=keyed | HEADERS).status_code == 201
    assert append(client, headers=keyed | {"traceparent": OTHER}).status_code == 200
    assert metadata(client, 1) == HEADERS
    assert client.get("/v1/head").json()["position"] == 2


def test_events_without_a_context_are_repeated_with_one(client: TestClient) -> None:
    """The first append had no header."""
    event = {"id": str(uuid4())}
    assert append(client, event).status_code == 201
    assert append(client, event, HEADERS).status_code == 200
    assert metadata(client) == {}


def test_a_request_has_a_span_which_its_events_carry(traced: Collected) -> None:
    """It is below the caller's, is named by the route, and has nothing of the path, the query or the body."""
    with TestClient(application(ef.AsyncStore("memory:"), settings=ANY_TYPE)) as client:
        append(client, {"tags": ["account:secret"]}, HEADERS)
        client.get("/v1/events?tag=account:secret")
        client.get("/v1/events/1")
        client.get("/v1/nowhere/secret")
        condition: dict[str, Any] = {"unless": {"items": [{"tags": ["account:secret"]}]}}
        refused = client.post("/v1/events", json={"events": [EVENT], **condition})
        assert refused.status_code == 409
        found = metadata(client)
    span = traced.named("POST /events")[0]
    assert span.kind is SpanKind.SERVER
    assert span.parent is not None
    assert f"{span.parent.trace_id:032x}-{span.parent.span_id:016x}" == PARENT[3:-3]
    assert span.parent.is_remote
    assert attributes(span) == {
        "http.request.method": "POST",
        "http.route": "/events",
        "http.response.status_code": 201,
    }
    assert found == {"traceparent": traceparent(span), "tracestate": HEADERS["tracestate"]}
    assert traced.named("POST /events")[1].status.status_code is StatusCode.UNSET
    assert {"GET /events", "GET /events/{position}", "GET"} <= set(traced.names)
    assert "secret" not in "".join(each.to_json() for each in traced.all)


def test_a_request_that_fails_is_seen_as_failed(traced: Collected, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the status of the response."""

    async def broken(_call: object) -> None:
        raise ZeroDivisionError("secret")

    app = application(ef.AsyncStore("memory:"))
    for each in app.routes:
        endpoint: Any = getattr(each, "endpoint", None)
        if getattr(each, "path", "") == "/v1/head":
            monkeypatch.setattr(endpoint, "_route", msgspec.structs.replace(endpoint._route, handler=broken))
    with TestClient(app) as client:
        assert client.get("/v1/head").status_code == 500
    span = traced.one("GET /head")
    assert attributes(span)["error.type"] == "500"
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, None)


@pytest.mark.asyncio
@pytest.mark.parametrize("short", [True, False])
async def test_appends_that_a_connection_answers_have_the_same_span(traced: Collected, short: bool) -> None:
    """The short path of `eventfold serve`: a span below the caller's, with the status of the response."""
    make = partial(application, ef.AsyncStore("memory:"), settings=ANY_TYPE)
    async with connections(make, short=short) as running:
        client, body = running.connect(), json.dumps({"events": [EVENT]}).encode()
        lines = [*HEADERS.items(), ("host", "127.0.0.1"), ("content-type", "application/json")]
        lines.append(("content-length", str(len(body))))
        head = "".join(f"{name}: {value}\r\n" for name, value in lines)
        client.send(b"POST /v1/events HTTP/1.1\r\n" + head.encode() + b"\r\n" + body)
        assert (await client.answers())[0].startswith(b"HTTP/1.1 201 ")
        assert running.short == int(short)
    span = traced.one("POST /events")
    assert span.parent is not None
    assert f"{span.parent.trace_id:032x}-{span.parent.span_id:016x}" == PARENT[3:-3]
    assert attributes(span)["http.response.status_code"] == 201


def test_the_span_of_a_middleware_is_the_one_of_the_request(traced: Collected) -> None:
    """An application that is instrumented already gets no second span, and events carry the middleware's."""
    app = application(ef.AsyncStore("memory:"), settings=ANY_TYPE)

    async def instrumented(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        with traced.within("middleware"):
            await app(scope, receive, send)

    with TestClient(instrumented) as client:
        append(client)
        found = metadata(client)
    assert set(traced.names) == {"middleware"}
    assert found == {"traceparent": traceparent(traced.all[0])}


def test_a_remote_store_sends_its_spans_to_the_server(traced: Collected) -> None:
    """Each request is below the call that made it; the events carry the caller's span, not the server's."""
    with serving(application(ef.AsyncStore("memory:"), settings=ANY_TYPE)) as url:
        with telemetry.traced(ef.Store(url), name="shop", tracer_provider=traced.provider) as store:
            with traced.within() as caller:
                store.append(Paid(account="a-1", amount=1))
                store.decide(pay, Account("a-1"), 1)
                assert store.state(Account("a-1")).total == 2
            found = [each.metadata["traceparent"] for each in store.read()]
        append_span, decided = traced.named("append shop")
        server = traced.named("POST /engine/append")
        assert is_child(server[0], append_span)
        assert is_child(server[1], decided)
        assert {each.context.trace_id for each in server if each.context} == {caller.trace_id}
        assert is_child(traced.named("POST /engine/read")[0], traced.named("read shop")[0])
        assert found == [traceparent(append_span), traceparent(traced.one("decide pay"))]


@pytest.mark.asyncio
async def test_an_async_remote_store_does_so_too(traced: Collected) -> None:
    """On the loop of the caller."""
    with serving(application(ef.AsyncStore("memory:"), settings=ANY_TYPE)) as url:
        async with telemetry.traced(ef.AsyncStore(url), name="shop", tracer_provider=traced.provider) as store:
            await store.append(Paid(account="a-1", amount=1))
            assert [each.position async for each in store.read()] == [1]
        server = traced.one("POST /engine/append")
        assert server.parent is not None
        assert server.parent.trace_id == traced.one("append shop").get_span_context().trace_id  # type: ignore[union-attr]
        assert is_child(traced.one("POST /engine/read"), traced.one("read shop"))


def test_a_remote_store_without_traces_sends_nothing(traced: Collected) -> None:
    """Its requests begin traces of the server."""
    with serving(application(ef.AsyncStore("memory:"), settings=ANY_TYPE)) as url, ef.Store(url) as store:
        store.append(Paid(account="a-1", amount=1))
        assert [dict(each.metadata) for each in store.read()] == [{}]
        assert traced.one("POST /engine/append").parent is None


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """Return the log lines of the server, in JSON."""
    found: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(self.format(record))

    handler, log = Kept(), logging.getLogger("eventfold.server")
    handler.setFormatter(Formatter("json"))
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield found
    log.removeHandler(handler)
    log.setLevel(level)


def test_log_lines_of_the_server_have_the_ids_of_the_trace(client: TestClient, lines: list[str]) -> None:
    """Those of the caller's span if the server has none of its own."""
    append(client, headers=HEADERS)
    append(client)
    first, second = (json.loads(each) for each in lines)
    assert f"{first['trace_id']}-{first['span_id']}" == PARENT[3:-3]
    assert "trace_id" not in second


def test_log_lines_of_the_server_have_the_ids_of_its_span(traced: Collected, lines: list[str]) -> None:
    """In the line of the request too."""
    with TestClient(application(ef.AsyncStore("memory:"), settings=ANY_TYPE)) as client:
        append(client, headers=HEADERS)
        client.get("/v1/nowhere")
    first, second = (json.loads(each) for each in lines)
    for line, span in ((first, traced.one("POST /events")), (second, traced.one("GET"))):
        assert traceparent(span)[3:-3] == f"{line['trace_id']}-{line['span_id']}"


def test_the_filter_gives_records_the_ids_of_the_current_span(spans: Collected) -> None:
    """For the handlers of an application; outside of a span both are empty."""
    record = logging.LogRecord("eventfold", logging.WARNING, "", 0, "", None, None)
    assert telemetry.TraceIds().filter(record)
    assert (record.trace_id, record.span_id) == ("", "")  # type: ignore[attr-defined]
    with spans.within() as caller:
        telemetry.TraceIds().filter(record)
    assert f"{record.trace_id}-{record.span_id}" == traceparent(caller)[3:-3]  # type: ignore[attr-defined]
