"""Appends that are answered by the connection itself: no client can see a difference, and no guard is missing.

Each request is sent to two servers, one of which has no short path. Their responses are equal byte for byte, but for
ids, times and what is made from them.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest

import eventfold as ef
from eventfold.server import Settings, application
from eventfold.server.access.settings import AccessSettings
from eventfold.server.known_heads import MAX_HEADS, KnownHeads
from eventfold.server.scopes import Scope
from eventfold.server.settings import EventSettings, LimitSettings, ServerSettings
from tests.server.connections import Connections, connections
from tests.server.keys import bearer, issue, with_keys

ANY_TYPE = Settings(events=EventSettings(accept_unknown=True), limits=LimitSettings(body_bytes=2_000))
ID = str(UUID(int=7))
VARIABLE = (
    (re.compile(rb'"(store|time|digest|request_id)":"[^"]*"'), rb'"\1":"-"'),
    (re.compile(rb'"ids":\["(?!00000000)[^]]*\]'), b'"ids":[]'),
    (re.compile(rb'(retry-after: |retry_after":|in )\d+'), rb"\1some"),
    (re.compile(rb"x-request-id: [0-9a-f]{32}\r"), b"x-request-id: new\r"),
)


def same(answer: bytes) -> bytes:
    """A response without what differs from server to server."""
    for pattern, other in VARIABLE:
        answer = pattern.sub(other, answer)
    return answer


def request(
    body: bytes | dict[str, Any],
    *headers: str,
    path: str = "/v1/events",
    media: str | None = "application/json",
    length: str | None = "",
    first: str = "",
    host: str = "Host: 127.0.0.1:8000",
) -> bytes:
    """A request; `first`: the request line, if it is another one."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [first or f"POST {path} HTTP/1.1", *([host] if host else []), *headers]
    lines += [] if media is None else [f"Content-Type: {media}"]
    lines += [] if length is None else [length or f"Content-Length: {len(raw)}"]
    return "\r\n".join([*lines, "", ""]).encode() + raw


def event(type: str = "Scanned", **more: Any) -> dict[str, Any]:
    """An append of one event."""
    return {"events": [{"type": type, "tags": ["parcel:a"], "data": {"depot": 1}} | more]}


PLAIN = event()
TAKEN: dict[str, bytes] = {
    "an event": request(PLAIN),
    "an event with an id": request(event(id=ID)),
    "the same event again": request(event(id=ID)),
    "another event with that id": request(event(id=ID, type="Lost")),
    "two events": request({"events": [PLAIN["events"][0], PLAIN["events"][0]]}),
    "no events": request({"events": []}),
    "a condition that holds": request(PLAIN | {"unless": {"items": [{"tags": ["parcel:none"]}]}}),
    "a condition that does not hold": request(PLAIN | {"unless": {"items": [{"tags": ["parcel:a"]}]}}),
    "a condition after a position": request(PLAIN | {"unless": {"items": [{"tags": ["parcel:a"]}]}, "after": 99}),
    "a condition after a cursor of another store": request(PLAIN | {"unless": {}, "after": "efc1.zzz"}),
    "after without a condition": request(PLAIN | {"after": 3}),
    "a key": request(PLAIN | {"key": "k-1"}),
    "the key again, as a header": request(PLAIN, "Idempotency-Key: k-1"),
    "two keys that differ": request(PLAIN | {"key": "k-1"}, "Idempotency-Key: k-2"),
    "two headers with a key": request(PLAIN, "Idempotency-Key: k-1", "Idempotency-Key: k-1"),
    "a body that is no JSON": request(b'{"events": ['),
    "a body that is not UTF-8": request(b'{"events":[{"type":"\xff\xfe"}]}'),
    "a number as the body": request(b"7"),
    "deep JSON": request(b'{"events":[{"type":"A","data":' + b"[" * 500 + b"]" * 500 + b"}]}"),
    "a field that is not known": request(PLAIN | {"unles": {}}),
    "a reserved type": request(event("$schema-registered")),
    "a type with a line break": request(event("Scan\nned")),
    "a tag that is too long": request(event(tags=["parcel:" + "x" * 300])),
    "too many tags": request(event(tags=[f"t:{n}" for n in range(65)])),
    "data that is no JSON": request(event(data={"$bytes": "!", "$codec": "x"})),
    "metadata": request(event(metadata={"actor": "someone"})),
    "metadata that is no object": request(event(metadata=[1])),
    "a time without a zone": request(event(occurred="2026-11-29T10:00:00")),
    "a version of 0": request(event(version=0)),
    "a registered type": request(event("bank.opened", data={"account": "a-1", "owner": "Ann"}, tags=[])),
    "a registered type with other data": request(event("bank.opened", data={"account": 7})),
    "no media type": request(PLAIN, media=None),
    "another media type": request(PLAIN, media="text/plain"),
    "a media type with a parameter": request(PLAIN, media="Application/JSON; charset=utf-8"),
    "an encoding that is not read": request(PLAIN, "Content-Encoding: br"),
    "a body in gzip": request(gzip.compress(json.dumps(PLAIN).encode()), "Content-Encoding: gzip"),
    "a body that is no gzip": request(PLAIN, "Content-Encoding: gzip"),
    "a body that is too large": request(b" " * 3_000),
    "a body that is too large, uncompressed": request(gzip.compress(b" " * 9_000), "Content-Encoding: gzip"),
    "an id of the request": request(PLAIN, "X-Request-Id: mine-7"),
    "an id of the request that is not accepted": request(PLAIN, "X-Request-Id: <script>"),
    "two ids of the request": request(PLAIN, "X-Request-Id: a", "X-Request-Id: b"),
    "the name of the store": request(PLAIN, path="/v1/stores/default/events"),
    "a store that is not there": request(PLAIN, path="/v1/stores/none/events"),
    "an escaped path": request(PLAIN, path="/v1/stores/def%61ult/events"),
    "a query string": request(PLAIN, first="POST /v1/events?a=/events HTTP/1.1"),
    "a page of another host": request(PLAIN, "Origin: https://evil.example"),
    "a page of this machine": request(PLAIN, "Origin: http://localhost:3000"),
    "a browser that says cross-site": request(PLAIN, "Sec-Fetch-Site: cross-site"),
    "another host": request(PLAIN, host="Host: evil.example"),
    "a credential that is not needed": request(PLAIN, "Authorization: Bearer efk_no"),
    "a connection that stays": request(PLAIN, "Connection: keep-alive"),
    "a header in Latin-1": request(PLAIN, "X-Note: \u00e9").replace("\u00e9".encode(), b"\xe9"),
}
NOT_TAKEN: dict[str, bytes] = {
    "HTTP/1.0": request(PLAIN, first="POST /v1/events HTTP/1.0"),
    "the end of the connection": request(PLAIN, "Connection: close"),
    "a client behind a proxy": request(PLAIN, "X-Forwarded-For: 192.0.2.7"),
    "a body in chunks": request(b"2\r\n{}\r\n0\r\n\r\n", "Transfer-Encoding: chunked", length=None),
    "two ways to end the body": request(PLAIN, "Transfer-Encoding: chunked"),
    "no host": request(PLAIN, host=""),
    "two hosts": request(PLAIN, "Host: 127.0.0.1"),
    "two lengths": request(PLAIN, "Content-Length: 7"),
    "a length that is no number": request(PLAIN, length="Content-Length: many"),
    "a negative length": request(PLAIN, length="Content-Length: -1"),
    "no body": request(b""),
    "a header that ends with LF": request(PLAIN, "X-A: 1\nX-B: 2"),
    "a header with a NUL": request(PLAIN, "X-A: 1\0"),
    "a header without a name": request(PLAIN, ": 1"),
    "a space before the colon": request(PLAIN, "X-A : 1"),
    "a line that is folded": request(PLAIN, "X-A: 1\r\n 2"),
    "too many headers": request(PLAIN, *[f"X-{n}: 1" for n in range(200)]),
    "a long header": request(PLAIN, "X-A: " + "1" * 5_000),
    "an upgrade": request(PLAIN, "Connection: upgrade", "Upgrade: h2c"),
    "100-continue": request(PLAIN, "Expect: 100-continue"),
    "another method": request(PLAIN, first="PUT /v1/events HTTP/1.1"),
    "another route": request(b"[]", path="/v1/events/query"),
    "no route that ends so": request({}, path="/v2/events"),
    "an address with a host": request(PLAIN, first="POST http://127.0.0.1/v1/events HTTP/1.1"),
}


def both(
    scenario: Callable[[Connections], Coroutine[Any, Any, list[bytes]]],
    make: Callable[[str], Any],
    taken: int | None = None,
) -> list[bytes]:
    """Run a scenario with the short path and without. Returns the responses, which are the same."""

    async def run(short: bool) -> tuple[list[bytes], int]:
        async with connections(lambda: make("short" if short else "usual"), short=short) as running:
            return list(map(same, await scenario(running))), running.short

    usual, none = asyncio.run(run(short=False))
    found, count = asyncio.run(run(short=True))
    assert found == usual
    assert none == 0
    assert count > 0 if taken is None else count == taken
    return found


def on_one_connection(*requests: bytes) -> Callable[[Connections], Coroutine[Any, Any, list[bytes]]]:
    """A scenario: requests one after the other on one connection, or on the next one when it was closed."""

    async def scenario(running: Connections) -> list[bytes]:
        client, found = running.connect(), list[bytes]()
        for each in requests:
            if client.is_closed:
                client = running.connect()
            client.send(each)
            found += await client.answers()
        return found

    return scenario


def in_memory(_name: str, settings: Settings = ANY_TYPE) -> Any:
    """An application over a new store in memory."""
    return application(ef.AsyncStore("memory:"), modules=["tests.server.bank"], settings=settings)


def test_responses_are_the_same_for_every_request_that_takes_the_short_path() -> None:
    """In one sequence, so that ids, keys and conditions meet what came before."""
    found = both(on_one_connection(*TAKEN.values()), in_memory, taken=len(TAKEN))
    statuses = [int(each[9:12]) for each in found]
    assert {201, 200, 409, 400, 415, 413, 422, 404, 403} <= {*statuses, 400}
    assert statuses[:4] == [201, 201, 200, 409]
    assert len(found) == len(TAKEN)


@pytest.mark.parametrize("name", NOT_TAKEN)
def test_a_request_that_is_unusual_takes_the_usual_way(name: str) -> None:
    """And is answered as before; a usual one after it, too, if the connection stays open."""
    both(on_one_connection(NOT_TAKEN[name]), in_memory, taken=0)


@pytest.mark.parametrize("name", ["an event", "a key", "a condition that does not hold", "a body that is no JSON"])
def test_responses_are_the_same_over_a_file(name: str, tmp_path: Path) -> None:
    """The writer is another thread there, so that the calls wait."""

    def make(part: str) -> Any:
        path = str(tmp_path / f"{part}.db")
        ef.Store(path).close()
        return application(path, settings=ANY_TYPE)

    both(on_one_connection(TAKEN["an event"], TAKEN[name], TAKEN[name]), make, taken=3)


def test_callers_are_authenticated_narrowed_and_refused_as_on_the_usual_way(tmp_path: Path) -> None:
    """Every kind of credential, with every scope, and what each may write."""
    keys = [issue(tmp_path, f"one-{scope.value}", (scope,)) for scope in Scope]
    keys += [
        issue(tmp_path, "all"),
        issue(tmp_path, "tags", tags=("parcel:a",)),
        issue(tmp_path, "prefixes", tag_prefixes=("parcel:",)),
        issue(tmp_path, "types", types=("Lost",)),
        issue(tmp_path, "other-store", stores=("other",)),
    ]
    texts = [bearer(each)["Authorization"] for each in keys]
    texts += ["Bearer efk_no", "Bearer", "Basic eDp5", "Bearer " + "x" * 200, texts[0] + "x", texts[0].lower()]
    bodies = [
        PLAIN,
        event("Lost", tags=["parcel:b"]),
        event(metadata={"actor": "someone"}),
        PLAIN | {"unless": {"items": [{"tags": ["parcel:b"]}]}},
        PLAIN | {"key": "k"},
    ]
    requests = [request(body, f"Authorization: {text}") for text in texts for body in bodies]
    requests += [request(PLAIN), request(PLAIN, f"Authorization: {texts[0]}", f"Authorization: {texts[0]}")]
    settings = with_keys(tmp_path, ANY_TYPE)
    found = both(on_one_connection(*requests), lambda name: in_memory(name, settings), taken=len(requests))
    assert {int(each[9:12]) for each in found} >= {201, 401, 403, 404, 409}


def test_rates_count_calls_of_both_ways() -> None:
    """The third call within a minute is refused, whichever way each takes."""
    settings = msgspec.structs.replace(ANY_TYPE, access=AccessSettings(rate_per_address="2/minute"))
    requests = (TAKEN["an event"], NOT_TAKEN["another route"], TAKEN["an event"])
    found = both(on_one_connection(*requests), lambda name: in_memory(name, settings), taken=2)
    assert [each[9:12] for each in found] == [b"201", b"422", b"429"]


def test_events_carry_the_trace_of_their_request_on_both_ways() -> None:
    """Also the trace that a repeat finds; the next request of the connection has none."""
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    traced = request(event(id=ID), f"traceparent: {parent}", "tracestate: vendor=x")
    other = request(event(id=str(UUID(int=8))))
    read = b"GET /v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"

    async def scenario(running: Connections) -> list[bytes]:
        *answers, events = await on_one_connection(traced, traced, other, read)(running)
        return [*answers, *re.findall(rb'"metadata":\{[^}]*\}', events)]

    found = both(scenario, in_memory, taken=3)
    assert [each[9:12] for each in found[:3]] == [b"201", b"200", b"201"]
    assert json.loads(found[3].partition(b":")[2]) == {"traceparent": parent, "tracestate": "vendor=x"}
    assert found[4:] == [b'"metadata":{}']


def test_a_server_in_read_only_mode_refuses_appends_of_both_ways() -> None:
    """403, as for every other call that writes."""
    settings = msgspec.structs.replace(ANY_TYPE, read_only=True)
    found = both(on_one_connection(TAKEN["an event"]), lambda name: in_memory(name, settings), taken=1)
    assert found[0][9:12] == b"403"


def test_requests_that_arrive_together_or_in_pieces_are_answered_in_order() -> None:
    """The short path takes only what arrives alone and whole; what comes meanwhile waits for its response."""
    one, two = request(event(id=str(UUID(int=1)))), request(event(id=str(UUID(int=2))))

    cases = (
        (2, [one + two]),  # both take the usual way
        (2, [one, two]),  # the second comes while the first is answered
        (5, [one, two, one, two, one]),
        (2, [one + two[:30], two[30:]]),
        (2, [one, two[:30], two[30:]]),
        (2, [one[:30], one[30:], two]),
        (1, [b"\r\n", one]),
    )

    async def scenario(running: Connections) -> list[bytes]:
        found = list[bytes]()
        for count, parts in cases:
            client = running.connect()
            for part in parts:
                client.send(part)
            found += await client.answers(count)
            assert client.written == b""
        return found

    found = both(scenario, in_memory, taken=4)
    assert {each[9:12] for each in found} == {b"201", b"200"}


@pytest.mark.parametrize("refused", ["nonsense", "no host", "two lengths", "a header with a NUL"])
def test_what_is_no_request_does_not_take_the_answer_of_the_append_before_it(refused: str) -> None:
    """That one may be written: it is answered, and then the connection ends."""
    later = NOT_TAKEN.get(refused, b"nonsense\r\n\r\n")

    async def scenario(running: Connections) -> list[bytes]:
        client = running.connect()
        client.send(TAKEN["an event"])
        client.send(later)
        client.send(TAKEN["an event"])  # is not read
        found = await client.answers(3)
        assert client.is_closed
        other = running.connect()
        other.send(b"GET /v1/head HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        other.send(later)
        found += await other.answers(2)
        assert other.is_closed
        return [each.partition(b"\r\n")[0] for each in found]

    assert both(scenario, in_memory, taken=1) == [b"HTTP/1.1 201 Created", b"HTTP/1.1 200 OK"]


def test_a_call_waits_for_a_place_and_is_refused_without_one(tmp_path: Path) -> None:
    """One call at once, one that waits, for a moment: the third is refused at once, the second after it."""
    limits = LimitSettings(calls=1, waiting_calls=1, wait_seconds=0.05)
    settings = msgspec.structs.replace(ANY_TYPE, limits=limits)

    async def scenario(running: Connections) -> list[bytes]:
        admission = running.app.app.server.admission
        async with admission:
            clients = [running.connect() for _ in range(2)]
            for each in clients:
                each.send(TAKEN["an event"])
            refused = [(await each.answers())[0] for each in clients]
        clients[0].send(TAKEN["an event"])
        return [*refused, *await clients[0].answers()]

    found = both(scenario, lambda name: in_memory(name, settings), taken=3)
    assert [each[9:12] for each in found] == [b"503", b"503", b"201"]


def test_a_client_that_leaves_gets_nothing_and_its_append_is_finished(tmp_path: Path) -> None:
    """The end of the server waits for it, as for every call in progress."""
    path = str(tmp_path / "log.db")
    ef.Store(path).close()

    async def main() -> None:
        async with connections(lambda: application(path, settings=ANY_TYPE), short=True) as running:
            client = running.connect()
            client.send(TAKEN["an event"])
            client.leave()
            state = running.server.server_state
            assert running.short == 1
            assert len(state.tasks) == 1
            while state.tasks:
                await asyncio.wait(state.tasks)
            assert client.written == b""
            assert not state.connections

    asyncio.run(main())
    with ef.Store(path) as store:
        assert store.head() == 1


def test_at_shutdown_a_call_in_progress_is_answered_and_its_connection_ends(tmp_path: Path) -> None:
    """With `connection: close`, on both ways."""

    async def scenario(running: Connections) -> list[bytes]:
        client = running.connect()
        client.send(TAKEN["an event"])
        client.protocol.shutdown()
        found = await client.answers()
        assert client.is_closed
        return found

    def make(name: str) -> Any:
        path = str(tmp_path / f"{name}.db")
        ef.Store(path).close()
        return application(path, settings=ANY_TYPE)

    found = both(scenario, make, taken=1)
    assert b"\r\nconnection: close\r\n\r\n" in found[0]


def test_a_connection_without_requests_ends_and_one_that_waits_for_its_response_does_not() -> None:
    """The timer between two requests is not started again for each one: it looks at the time of the last response."""
    limits = LimitSettings(calls=1, wait_seconds=60)
    settings = msgspec.structs.replace(ANY_TYPE, limits=limits)

    async def scenario(running: Connections) -> list[bytes]:
        client = running.connect()
        client.protocol.timeout_keep_alive = 0.05  # pyright: ignore[reportAttributeAccessIssue]
        found = list[bytes]()
        for each in (TAKEN["an event"], TAKEN["an event"], NOT_TAKEN["another route"], TAKEN["an event"]):
            client.send(each)
            found += await client.answers()
        async with running.app.app.server.admission:
            client.send(TAKEN["an event"])
            await asyncio.sleep(0.2)  # four times as long as a connection may wait for a request
            assert not client.is_closed
        found += await client.answers()
        assert await client.answers() == []  # it was closed
        assert client.is_closed
        return found

    found = both(scenario, lambda name: in_memory(name, settings), taken=4)
    assert [each[9:12] for each in found] == [b"201", b"201", b"422", b"201", b"201"]


def test_paths_behind_a_proxy_that_removes_their_beginning_are_found() -> None:
    """`root_path` is part of Location."""
    settings = msgspec.structs.replace(ANY_TYPE, server=ServerSettings(root_path="/log"))
    found = both(on_one_connection(TAKEN["an event"]), lambda name: in_memory(name, settings), taken=1)
    assert b"location: /log/v1/events/1\r\n" in found[0]


def test_an_error_of_the_server_itself_ends_in_the_same_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """500, with the id of the request and nothing about the cause."""

    def broken(_call: Any, _events: Any) -> Any:
        raise ZeroDivisionError("the secret of the server")

    monkeypatch.setattr("eventfold.server.events.append.writable", broken)
    found = both(on_one_connection(TAKEN["an event"]), in_memory, taken=1)
    assert found[0][9:12] == b"500"
    assert b"secret" not in found[0]


def test_heads_that_are_kept_are_bounded() -> None:
    """A client that sends a new head each time does not fill the memory."""
    heads = KnownHeads(65_536, 128)
    for number in range(MAX_HEADS + 10):
        assert heads.find(request(PLAIN, f"X-Number: {number}")) is not None
    assert len(heads) == MAX_HEADS
    first, body = heads.find(request(PLAIN, "X-Number: 5")) or pytest.fail("it was dropped, and is parsed again")
    assert first.length == len(body)
