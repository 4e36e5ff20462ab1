"""Two tenants of one store: whatever one of them asks, the answer does not depend on the events of the other.

Every route of the table is asked, so that a new one is included. The answers of tenant A are compared before and after
tenant B writes; and no answer, refusal or header to A contains a text, an id or a position that is B's.
Knows: the table of routes, what a request may contain. Does not know: what a route answers.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote
from uuid import UUID, uuid4

import msgspec
import pytest
from starlette.testclient import TestClient

import eventfold as ef
from eventfold.core.query import Cursor
from eventfold.search import find
from eventfold.server import application
from eventfold.server.asgi import ROUTES
from eventfold.server.events import filtered
from eventfold.server.route import SSE, Route
from eventfold.server.settings import EventSettings, Settings
from tests.server import bank as bank_module
from tests.server.keys import bearer, issue, with_keys
from tests.server.test_scopes import body_of, name_of, path_of

CANARY = "canary"
MINE = "tenants.mine"
VARYING = re.compile(
    r'("request_id":")[0-9a-f]{32}|(x-request-id: )[0-9a-f]{32}|(date: )[^\n]+'
    r'|("lag_seconds":|content-length: )[0-9.e-]+'
)
NARROWINGS: dict[str, dict[str, Any]] = {
    "tag": {"tags": ("tenant:a",)},
    "prefix": {"tag_prefixes": ("tenant:a",)},
    "tag and types": {"tags": ("tenant:a",), "types": (MINE, "Noted")},
}


class Mine(ef.Event, type="tenants.mine"):
    """An event of a tenant."""

    tenant: ef.Tag
    n: int = 1


class Tally(ef.State):
    """How often something happened to a tenant."""

    tenant: ef.Tag
    count: int = 0

    def evolve(self, event: Mine) -> None:
        self.count += event.n


class Request(NamedTuple):
    """What tenant A sends."""

    method: str
    path: str
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


class World(NamedTuple):
    """A server, the store behind it, the key of tenant A, and what is B's."""

    client: TestClient
    store: ef.Store
    key: dict[str, str]
    ids: list[UUID]

    def answer(self, request: Request) -> str:
        """The status, the headers and the body of an answer, without what differs between equal answers."""
        media = {"Content-Type": "application/json"} | dict(request.headers)
        found = self.client.request(request.method, request.path, content=request.body, headers=self.key | media)
        headers = "".join(f"{name}: {value}\n" for name, value in sorted(found.headers.items()))
        return VARYING.sub(lambda m: m[1] or m[2] or m[3] or m[4], f"{found.status_code}\n{headers}\n{found.text}")

    def write_as_b(self, count: int, type: str = "CanaryType") -> None:
        """Append events of tenant B, with a canary in every place."""
        events = [
            ef.NewEvent.of(
                type,
                json.dumps({"text": f"{CANARY}-data"}).encode(),
                tags=["tenant:b", f"patient:{CANARY}-{number}", "account:a-1"],
                metadata={"actor": f"{CANARY}-actor"},
                id=uuid4(),
            )
            for number in range(count)
        ]
        self.store.append_encoded(*events, key=f"{CANARY}-key-{uuid4()}")
        self.ids.extend(UUID(bytes=event.id) for event in events)

    def write_as_a(self, count: int) -> None:
        """Append events of tenant A."""
        self.store.append_encoded(
            *(ef.NewEvent.of(MINE, b'{"tenant":"a","n":1}', tags=["tenant:a", "account:a-1"]) for _ in range(count))
        )


@pytest.fixture(scope="module", autouse=True)
def _timeless() -> Iterator[None]:
    """A page of a search ends by its number of events, never because this machine was slow."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filtered, "Budget", partial(filtered.Budget, seconds=None))
        patch.setattr(filtered, "STREAM_BUDGET", msgspec.structs.replace(filtered.STREAM_BUDGET, seconds=None))
        patch.setattr(find, "BATCH_SECONDS", math.inf)
        yield


@pytest.fixture(params=NARROWINGS, scope="module")
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Events of both tenants in turn, the last one of A."""
    folder: Path = tmp_path_factory.mktemp("tenants")
    ef.Store(str(folder / "shared.db")).close()
    key = bearer(issue(folder, "a", **NARROWINGS[request.param]))
    settings = with_keys(folder, Settings(events=EventSettings(accept_unknown=True)))
    app = application(
        {"default": str(folder / "shared.db")}, modules=[bank_module, sys.modules[__name__]], settings=settings
    )
    with TestClient(app) as client, ef.Store(str(folder / "shared.db")) as store:
        found = World(client, store, key, [])
        found.write_as_b(2)
        found.write_as_a(2)
        found.write_as_b(1)
        found.write_as_a(1)
        query = {"items": [{"types": [MINE], "tags": ["tenant:a"]}]}
        for name, begin in (("mine", 0), ("later", "now"), ("far", 9_999)):
            made = client.put(f"/v1/consumers/{name}", headers=key, json={"query": query, "from": begin})
            assert made.status_code == 201
        yield found


def reads(world: World) -> list[Request]:
    """Requests that change nothing: those of every route, and more that try to learn something."""
    found = [
        Request(route.method, path_of(route), body_of(route) if route.request is not None else b"", _media(route))
        for route in ROUTES
        if SSE not in route.media and not route.is_writing and route.scope is not None
    ]
    engine = world.store.engine
    mine = {"items": [{"tags": ["tenant:a"]}]}
    theirs = {"items": [{"tags": ["tenant:b"]}]}
    queries: list[Any] = [
        None,
        {"items": []},
        mine,
        theirs,
        {"items": [{"types": ["CanaryType"]}]},
        {"items": [{"types": ["CanaryType"], "tags": ["tenant:a"]}]},
        {"items": [{"types": ["NeverUsed"], "tags": ["tenant:a"]}]},
        {"items": [{"tags": ["account:a-1"]}]},
        {"items": [{"tags": ["tenant:a"]}, {"tags": ["tenant:b"]}]},
        {"items": [{"tags": ["tenant:a", f"patient:{CANARY}-0"]}]},
    ]
    cursors = [
        str(Cursor(engine.store_id, engine.epoch, position, id))
        for position in (0, 1, 3, 6, 7, 10_000)
        for id in ("", world.ids[0].hex, "0" * 32)
    ]
    for query in queries:
        for more in ({}, {"backwards": True}, {"after": 1}, {"after": 6}, {"after": 9_999}, {"until": 9_999}):
            body = json.dumps({**({} if query is None else {"query": query}), **more, "limit": 3}).encode()
            found.append(Request("QUERY", "/v1/events", body))
        found.append(Request("QUERY", "/v1/events", body, (("Accept", "application/x-ndjson"),)))
        for bounds in (None, [0, 3, 9_999], ["2020-01-01T00:00Z", "2099-01-01T00:00Z"]):
            body = json.dumps({"query": query, **({} if bounds is None else {"bounds": bounds})}).encode()
            found.append(Request("QUERY", "/v1/counts", body))
    found += [Request("QUERY", "/v1/events", json.dumps({"query": mine, "after": each}).encode()) for each in cursors]
    for position in (*range(12), 9_999, 2**63):
        found.append(Request("GET", f"/v1/events/{position}"))
        for state in ("Account?account=a-1", "Tally?tenant=a", "Tally?tenant=b"):
            name, _, question = state.partition("?")
            found.append(Request("GET", f"/v1/states/{name}?{question}&at={position}"))
            found.append(Request("GET", f"/v1/states/{name}/history?{question}&until={position}"))
            found.append(Request("GET", f"/v1/states/{name}/history?{question}&after={position}"))
    found += [Request("GET", f"/v1/events/by-id/{id}") for id in (world.ids[0], uuid4())]
    found += [Request("GET", f"/v1/{path}") for path in ("types", "tags?prefix=tenant:", "tag-keys", "stats")]
    filters = (
        "type:CanaryType",
        "type:Canary*",
        f"type:{MINE}",
        "tenant:a",
        "tenant:b",
        "tenant:*",
        f"patient:{CANARY}-0",
        "patient:*",
        "account:a-1",
        "data.n=1",
        f'data.text="{CANARY}-data"',
        "-tenant:a",
        "tenant:a OR tenant:b",
        f"id:{world.ids[0]}",
        f"actor:{CANARY}-actor",
        "position:1..9999",
        "position:1",
        "at:2020-01-01..",
        "nosuchkey:x",
        "mine",
    )
    for text in filters:
        found.append(Request("GET", f"/v1/events?filter={quote(text)}"))
        found.append(Request("GET", f"/v1/events?backwards=true&filter={quote(text)}"))
        for query in (None, mine, theirs):
            body = json.dumps({"filter": text, **({} if query is None else {"query": query})}).encode()
            found.append(Request("QUERY", "/v1/events", body))
    found += [Request("GET", f"/v1/states/Tally{more}?tenant=a") for more in ("", "/history")]
    found += [
        Request("GET", f"/v1/states/Tally?tenant=a&{bound}") for bound in ("at=2099-01-01", "occurred_until=2099-01-01")
    ]
    found += [Request("GET", f"/v1/consumers/{name}") for name in ("mine", "later", "far")]
    found += [Request("GET", f"/v1/receipts/{CANARY}-key"), Request("GET", "/v1/receipts/other")]
    found.append(Request("QUERY", "/v1/events", json.dumps({"query": mine, "until": "2099-01-01"}).encode()))
    found.append(Request("QUERY", "/v1/events", json.dumps({"query": mine, "since": "2099-01-01"}).encode()))
    return found


def _media(route: Route) -> tuple[tuple[str, str], ...]:
    return (("Content-Type", route.request_media[0]),) if route.request is not None else ()


def is_clean(world: World, request: Request, answer: str) -> bool:
    """Whether an answer has nothing of B, apart from what the request itself has."""
    sent = (request.path + request.body.decode(errors="replace")).lower()
    own = [CANARY, *(text for id in world.ids for text in (str(id), id.hex))]
    return not [text for text in own if text.lower() in answer.lower() and text.lower() not in sent]


def test_no_answer_depends_on_the_events_of_the_other_tenant(world: World) -> None:
    """A asks everything, B writes events, and every answer is the same, byte for byte, with each of its headers."""
    requests = reads(world)
    before = [world.answer(request) for request in requests]
    assert sum(text.startswith("200") for text in before) > 20
    world.write_as_b(7)
    world.write_as_b(1, type=MINE)
    after = [world.answer(request) for request in requests]
    for request, first, second in zip(requests, before, after, strict=True):
        assert first == second, request
        assert is_clean(world, request, first), request


def test_an_event_of_the_other_tenant_is_as_absent_as_none(world: World) -> None:
    """By position, by id, by the key of its append."""
    theirs = world.answer(Request("GET", "/v1/events/1"))
    assert theirs == world.answer(Request("GET", "/v1/events/99999")).replace("99999", "1")
    assert world.answer(Request("GET", f"/v1/events/by-id/{world.ids[0]}")) == world.answer(
        Request("GET", f"/v1/events/by-id/{uuid4()}")
    )
    assert "404" in theirs


def appended(world: World, *, id: UUID | None = None, tags: list[str], **more: Any) -> tuple[str, str]:
    """Append an event as A; returns the answer, and what it says: the status and the problem's code."""
    event = {"type": "Noted", "data": {}, "tags": tags, **({} if id is None else {"id": str(id)})}
    request = Request("POST", "/v1/events", json.dumps({"events": [event], **more}).encode())
    answer = world.answer(request)
    assert is_clean(world, request, answer), answer
    code = re.search(r'"code":"([a-z-]+)"', answer)
    return answer, f"{answer[:3]} {code[1] if code else ''}".strip()


def test_a_condition_on_events_of_the_other_tenant_is_refused_before_it_is_judged(world: World) -> None:
    """The refusal is the same whether they exist or not, and the same without a position that would make it true."""
    own = ["tenant:a"]
    for after in (0, 5, 99_999):
        refusals = {
            appended(world, tags=own, unless={"items": [item]}, after=after)[1]
            for item in (
                {"tags": ["tenant:b"]},
                {"tags": ["tenant:none"]},
                {"tags": [f"patient:{CANARY}-0"]},
                {"types": ["CanaryType"]},
                {"types": ["NeverUsed"]},
                {"tags": ["account:a-1"]},
            )
        }
        assert refusals == {"403 outside-scope"}
    assert appended(world, tags=own, unless={"items": [{"types": [MINE], "tags": own}]})[1] == "409 append-conflict"


def test_an_id_of_the_other_tenant_is_refused_without_a_fact_about_it(world: World) -> None:
    """The answer has the id that was sent, and neither position nor type nor tags."""
    answer, what = appended(world, tags=["tenant:a"], id=world.ids[0])
    assert what == "409 event-id-reused"
    assert "position" not in answer


def test_request_keys_of_tenants_do_not_meet(world: World) -> None:
    """A uses a key that B has used: its events are written, and its receipt is its own."""
    world.store.append_encoded(ef.NewEvent.of("CanaryType", b"{}", tags=["tenant:b"]), key="order-7")
    assert appended(world, tags=["tenant:a"], key="order-7")[1] == "201"
    receipt = world.client.get("/v1/receipts/order-7", headers=world.key).json()
    (event,) = world.client.get(f"/v1/events/{receipt['first']}", headers=world.key).json()["tags"]
    assert event == "tenant:a"
    theirs = world.store.receipt("order-7")
    assert theirs is not None
    assert theirs.first != receipt["first"]


@pytest.mark.parametrize("tags", [["tenant:b"], ["tenant:a", "tenant:b"], ["tenant"], [], [f"patient:{CANARY}-0"]])
def test_no_event_is_written_where_the_other_tenant_sees_it(world: World, tags: list[str]) -> None:
    """Nor one that the writer itself could not read."""
    assert appended(world, tags=tags)[1] == "403 outside-scope"


def test_a_cursor_of_a_page_names_events_of_its_reader_only(world: World) -> None:
    """Also where the last event of the log, or the position asked for, is of another tenant."""
    world.write_as_b(3)
    seen = set[str]()
    for body in ({"after": 1}, {"after": 3}, {"limit": 1}, {"after": 99_999}, {"until": "2099-01-01"}):
        given = {"query": {"items": [{"tags": ["tenant:a"]}]}, **body}
        page = world.client.request("QUERY", "/v1/events", headers=world.key, json=given)
        seen.add(page.json()["cursor"])
    head = world.client.get("/v1/head", headers=world.key)
    if head.status_code == 200:  # a caller that is narrowed to prefixes has no query for all that it may see
        seen.add(head.json()["cursor"])
    own = {recorded.id.hex for recorded in world.store.read(ef.Query.of(tags="tenant:a"), raw=True)}
    assert {Cursor.parse(text).event_id for text in seen} <= own | {""}


def test_a_page_backwards_does_not_say_how_many_events_there_were_at_a_time(world: World) -> None:
    """`next` is at or after an event that the reader sees, or 1, also for a time among the events of the other one."""
    world.write_as_b(4)
    world.write_as_b(4)
    times = [recorded.time.isoformat() for recorded in world.store.read(raw=True)][-5:]
    own = {recorded.position for recorded in world.store.read(ef.Query.of(tags="tenant:a"), raw=True)}
    expected = {1} | own | {position + 1 for position in own}
    for time in times:
        for bounds in ({"since": time}, {"until": time, "limit": 0}, {"until": time}):
            for more in ({"query": {"items": [{"tags": ["tenant:a"]}]}}, {"filter": "tenant:a"}):
                given = {"backwards": True, **bounds, **more}
                page = world.client.request("QUERY", "/v1/events", headers=world.key, json=given)
                assert page.status_code == 200, page.text
                assert page.json()["next"] in expected, (given, page.text)


def test_a_consumer_delivers_events_of_its_owner_only(world: World) -> None:
    """Also from the beginning of the log, and whatever the other tenant appends meanwhile."""
    world.write_as_b(2)
    world.write_as_a(1)
    request = Request("POST", "/v1/consumers/mine/receive", json.dumps({"max": 100}).encode())
    answer = world.answer(request)
    assert is_clean(world, request, answer)
    delivered = json.loads(answer.partition("\n\n")[2])["deliveries"]
    assert delivered
    assert all("tenant:a" in each["event"]["tags"] for each in delivered)


def test_the_routes_that_are_asked_are_all_that_read() -> None:
    """The streams are tested elsewhere; all others are asked above."""
    streams = {name_of(route) for route in ROUTES if SSE in route.media}
    assert streams == {"GET /follow"}
