"""The filter language over HTTP: pages and streams of events, live streams, consumers, and narrowed callers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.testclient import TestClient

import eventfold as ef
from eventfold.server import application
from eventfold.server.scopes import ANYONE, Caller, Scope
from tests.support.servers.http import serving
from tests.support.sse import Stream
from tests.support.workers import Refused, Worker, positions

CALLERS = {
    "all": ANYONE,
    "acme": Caller(name="acme", scopes=frozenset(Scope), tags=("tenant:acme",)),
    "prefix": Caller(name="prefix", scopes=frozenset(Scope), tag_prefixes=("tenant:ac",)),
    "types": Caller(name="types", scopes=frozenset(Scope), types=("Paid",)),
    "envelopes": Caller(name="envelopes", scopes=frozenset({Scope.READ, Scope.FOLLOW})),
}


def paid(number: int, tenant: str, type: str = "Paid") -> ef.NewEvent:
    """An event with a number, of a tenant."""
    return ef.NewEvent.of(type, b'{"n":%d}' % number, tags=(f"tenant:{tenant}", f"order:{number}"))


def filled() -> ef.AsyncStore:
    """A store in memory of 400 events: of acme every other one; Paid, and every tenth Refunded."""
    store = ef.Store("memory:")
    for number in range(1, 401):
        tenant, type = "acme" if number % 2 else "blue", "Refunded" if number % 10 == 5 else "Paid"
        store.append_encoded(paid(number, tenant, type))
    return ef.AsyncStore(store.engine)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """A client whose header Authorization names the caller."""

    async def authenticate(_: object, request: Request, __: object) -> Caller:
        return CALLERS[request.headers.get("authorization", "all")]

    monkeypatch.setattr("eventfold.server.asgi.Server.authenticate", authenticate)
    with TestClient(application(filled())) as found:
        yield found


def get(client: TestClient, text: str, caller: str = "all", **more: Any) -> Any:
    """The answer to GET /events with a filter."""
    return client.get("/v1/events", params={"filter": text, **more}, headers={"Authorization": caller})


def numbers(answer: Any) -> list[int]:
    """The positions of the events of a page."""
    assert answer.status_code == 200, answer.text
    return [event["position"] for event in answer.json()["events"]]


def test_a_page_has_the_events_that_match(client: TestClient) -> None:
    """By GET, QUERY and POST; with how the filter was answered; in both directions; within a query and bounds."""
    page = get(client, "tenant:acme data.n>390")
    assert numbers(page) == [391, 393, 395, 397, 399]
    assert page.json()["answered"] == "index: tenant:acme → scan: data.n>390"
    assert (page.json()["looked_at"], page.json()["more"], page.json()["next"]) == (200, False, 400)
    assert "etag" not in page.headers
    assert numbers(get(client, "tenant:acme data.n>390", backwards=True, limit=2)) == [399, 397]
    assert numbers(get(client, "data.n>390", after=395, until=398)) == [396, 397, 398]
    body = {"filter": "data.n>380", "query": {"items": [{"types": ["Refunded"]}]}}
    assert numbers(client.request("QUERY", "/v1/events", json=body)) == [385, 395]
    assert numbers(client.post("/v1/events/query", json=body)) == [385, 395]
    assert numbers(get(client, "", limit=2)) == [1, 2]
    assert numbers(get(client, "data.n>1", limit=0)) == []


@pytest.mark.parametrize("backwards", [False, True])
def test_pages_follow_each_other(client: TestClient, backwards: bool) -> None:
    """`next` goes on behind the last event looked at, as `after`, or backwards as `before`."""
    found, bounds = list[int](), dict[str, int]()
    while True:
        page = get(client, "type:Refunded -tenant:blue data.n>50", limit=7, backwards=backwards, **bounds)
        found += numbers(page)
        if not page.json()["more"]:
            break
        bounds = {"before" if backwards else "after": page.json()["next"]}
    expected = list(range(55, 401, 10))
    assert found == (expected[::-1] if backwards else expected)


def test_a_stream_has_every_event_that_matches(client: TestClient) -> None:
    """As NDJSON, without a budget; with a limit, so many."""
    for more, count in (({}, 35), ({"limit": 3}, 3), ({"limit": 3, "backwards": True}, 3), ({"after": 400}, 0)):
        answer = client.get(
            "/v1/events",
            params={"filter": "type:Refunded data.n>50", **more},
            headers={"Accept": "application/x-ndjson"},
        )
        lines = [json.loads(line) for line in answer.text.splitlines()]
        assert len(lines) == count
        assert all(line["type"] == "Refunded" and line["data"]["n"] > 50 for line in lines)
    assert get(client, "data.n>5", after=401).json()["code"] == "position-beyond-head"


def test_a_mistake_is_a_problem_with_the_character(client: TestClient) -> None:
    """Status 422, the code, what to write, and where."""
    problem = get(client, "type:Paid tennant:acme")
    assert problem.status_code == 422
    found = problem.json()
    assert (found["code"], found["fields"]["at"]) == ("invalid-filter", 11)
    assert "Did you mean tenant?" in found["title"]


def test_a_narrowed_caller_finds_its_events_only(client: TestClient) -> None:
    """Neither pages nor counts nor errors depend on events and names outside of the scope."""
    page = get(client, "data.n>390", "acme")
    assert numbers(page) == [391, 393, 395, 397, 399]
    assert (page.json()["looked_at"], page.json()["next"]) == (200, 399)
    assert numbers(get(client, "-tenant:acme", "acme")) == []
    assert numbers(get(client, "pos:2..5", "acme")) == [3, 5]
    assert numbers(get(client, "tenant:blue", "acme")) == []
    assert numbers(get(client, "order:39*", "acme")) == [39, 391, 393, 395, 397, 399]
    assert numbers(get(client, "type:Ref* data.n>390", "acme")) == [395]
    assert numbers(get(client, "data.n>394", "types")) == [396, 397, 398, 399, 400]
    assert numbers(get(client, "tenant:acme since:1h data.n>398", "prefix")) == [399]
    outside = [get(client, text, "prefix") for text in ("data.n>1", "tenant:blue", "since:2030-01-01", "pos:2", "2")]
    assert {(each.status_code, each.json()["code"]) for each in outside} == {(403, "outside-scope")}
    unknown = [get(client, text, "acme").json() for text in ("nokey:1", "order:none", "blue:1")]
    assert all(each["events"] == [] and each["answered"].startswith("index: ") for each in unknown)


def test_a_caller_without_payloads_cannot_ask_about_them(client: TestClient) -> None:
    """A filter over data or metadata would say what they are."""
    for text in ("data.n>1", "refund", "actor:ann", "has:data.n", "type:Paid -meta.x:1"):
        assert get(client, text, "envelopes").status_code == 403
    (event,) = get(client, "order:7", "envelopes").json()["events"]
    assert event["data"] == {"$withheld": True}


@contextmanager
def served(path: Path) -> Iterator[tuple[str, ef.Store]]:
    """A store in a file, and the address of a server of it."""
    with ef.Store(str(path)) as store, serving(application(str(path))) as url:
        yield url, store


def test_a_live_stream_is_filtered(tmp_path: Path) -> None:
    """Old events and new ones, also of types and tags that no event had before; types and tags narrow further."""
    with served(tmp_path / "a.db") as (url, store):
        store.append_encoded(*(paid(n, "acme") for n in range(1, 21)))
        with (
            Stream(url, from_=0, filter="type:Ref*,Paid data.n>18") as one,
            Stream(url, from_=0, filter="data.n>10 OR order:3", types=["Paid"], tags=["tenant:acme"]) as other,
        ):
            assert [message.data["position"] for message in one.until("caught-up")[:-1]] == [19, 20]
            assert [message.data["position"] for message in other.until("caught-up")[:-1]] == [3, *range(11, 21)]
            store.append_encoded(paid(30, "acme", "Refunded"), paid(1, "acme"), paid(31, "blue"), paid(32, "acme"))
            assert [message.data["data"]["n"] for message in one.events(3)] == [30, 31, 32]
            assert [message.data["data"]["n"] for message in other.events(1)] == [32]
        with Stream(url, filter="nokey:1") as wrong:
            assert wrong.status == 422


def test_a_consumer_gets_what_matches(tmp_path: Path) -> None:
    """Its filter is kept; a moment relative to now is refused, since it would mean others each time."""
    with served(tmp_path / "a.db") as (url, store), Worker(url, "mail") as worker:
        store.append_encoded(*(paid(n, "acme" if n % 2 else "blue") for n in range(1, 10)))
        created = worker.create(filter="tenant:acme data.n>2")
        assert created["filter"] == "tenant:acme data.n>2"
        assert positions(worker.receive(10)) == [3, 5, 7, 9]
        with pytest.raises(Refused, match="relative to now"), Worker(url, "other") as other:
            other.create(filter="since:2h")
