"""Every route with every scope, and with a narrowed caller. A route without a rule here fails.

Knows: the table of routes. Does not know: what a route answers, only whether it refuses.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from starlette.testclient import TestClient

import eventfold as ef
from eventfold.server import application
from eventfold.server.asgi import ROUTES
from eventfold.server.route import SSE, Route
from eventfold.server.scopes import Scope
from tests.server.keys import ALL, bearer, issue, with_keys

ADMIN, APPEND, FOLLOW, MANAGE = Scope.ADMIN, Scope.APPEND, Scope.FOLLOW, Scope.MANAGE
READ, PAYLOAD = Scope.READ, Scope.READ_PAYLOAD
WHOLE, PART, SERVER = "whole", "part", "server"


class Rule(NamedTuple):
    """Who may call a route: with `scope` (None: anyone) and `more`; `narrowed` says what a narrowed caller gets.

    PART: an answer about what it may see. WHOLE: a refusal, because the answer is about the whole store. SERVER: a
    refusal also for a caller that is bound to some stores.
    """

    scope: Scope | None
    narrowed: str = PART
    more: tuple[Scope, ...] = ()


PUBLIC = Rule(None)
RULES: dict[str, Rule] = {
    "GET /healthz": PUBLIC,
    "GET /readyz": PUBLIC,
    "GET /v1/openapi.json": PUBLIC,
    "GET /v1/docs": PUBLIC,
    "GET /v1/stores": Rule(READ),
    "GET /metrics": Rule(Scope.METRICS, WHOLE),
    "GET /v1/keys": Rule(ADMIN, SERVER),
    "POST /v1/keys": Rule(ADMIN, SERVER),
    "POST /v1/keys/{id}/rotate": Rule(ADMIN, SERVER),
    "DELETE /v1/keys/{id}": Rule(ADMIN, SERVER),
    "GET /v1/refusals": Rule(ADMIN, SERVER),
    "GET /backup": Rule(ADMIN, WHOLE, (PAYLOAD,)),
    "POST /events": Rule(APPEND),
    "POST /cloudevents": Rule(APPEND),
    "GET /events": Rule(READ),
    "QUERY /events": Rule(READ),
    "POST /events/query": Rule(READ),
    "GET /events/{position}": Rule(READ),
    "GET /events/by-id/{id}": Rule(READ),
    "GET /positions": Rule(READ, WHOLE),
    "GET /receipts/{key:path}": Rule(APPEND),
    "GET /head": Rule(READ),
    "GET /types": Rule(READ, WHOLE),
    "GET /tags": Rule(READ, WHOLE),
    "GET /tag-keys": Rule(READ, WHOLE),
    "QUERY /counts": Rule(READ),
    "POST /counts": Rule(READ),
    "GET /stats": Rule(READ, WHOLE),
    "GET /states": Rule(READ),
    "GET /states/{name}": Rule(READ),
    "GET /states/{name}/history": Rule(READ),
    "GET /projections": Rule(READ, WHOLE),
    "GET /projections/{name}": Rule(READ, WHOLE),
    "GET /projections/{name}/rows": Rule(READ, WHOLE, (PAYLOAD,)),
    "QUERY /projections/{name}/rows": Rule(READ, WHOLE, (PAYLOAD,)),
    "POST /projections/{name}/compare": Rule(MANAGE, WHOLE, (PAYLOAD,)),
    "GET /processes": Rule(READ, WHOLE),
    "GET /processes/{name}": Rule(READ, WHOLE, (PAYLOAD,)),
    "GET /processes/{name}/instance": Rule(READ, WHOLE, (PAYLOAD,)),
    "POST /processes/{name}/retry": Rule(MANAGE, WHOLE),
    "POST /processes/{name}/skip": Rule(MANAGE, WHOLE),
    "GET /alerts": Rule(READ, WHOLE, (PAYLOAD,)),
    "GET /alerts/{name}": Rule(READ, WHOLE, (PAYLOAD,)),
    "POST /alerts/{name}/acknowledge": Rule(MANAGE, WHOLE),
    "POST /alerts/{name}/snooze": Rule(MANAGE, WHOLE),
    "GET /follow": Rule(FOLLOW),
    "GET /consumers": Rule(FOLLOW),
    "GET /consumers/{name}": Rule(FOLLOW),
    "GET /consumers/{name}/parked": Rule(FOLLOW),
    "PUT /consumers/{name}": Rule(MANAGE),
    "DELETE /consumers/{name}": Rule(MANAGE),
    "POST /consumers/{name}/retry": Rule(MANAGE),
    "POST /consumers/{name}/receive": Rule(FOLLOW),
    "POST /consumers/{name}/acknowledge": Rule(FOLLOW),
    "POST /consumers/{name}/reject": Rule(FOLLOW),
    "GET /catalogue": Rule(READ, WHOLE),
    "GET /schemas": Rule(READ),
    "GET /schemas/{type:path}": Rule(READ),
    "GET /schemas/{type:path}/{version}": Rule(READ),
    "PUT /schemas/{type:path}/{version}": Rule(MANAGE, WHOLE),
    "GET /jobs": Rule(READ, WHOLE),
    "POST /jobs": Rule(MANAGE, WHOLE),
    "GET /jobs/{id}": Rule(READ, WHOLE),
    "POST /jobs/{id}/stop": Rule(MANAGE, WHOLE),
    "POST /engine/identity": Rule(READ, WHOLE),
    "POST /engine/append": Rule(APPEND, WHOLE),
    "POST /engine/read": Rule(PAYLOAD, WHOLE),
    "POST /engine/snapshot": Rule(PAYLOAD, WHOLE),
    "POST /engine/put-snapshot": Rule(APPEND, WHOLE),
    "POST /engine/drop-snapshots": Rule(MANAGE, WHOLE),
    "POST /engine/acquire-lock": Rule(APPEND, WHOLE),
    "POST /engine/renew-locks": Rule(APPEND, WHOLE),
    "POST /engine/release-lock": Rule(APPEND, WHOLE),
    "POST /engine/import": Rule(ADMIN, WHOLE),
    "POST /engine/take-identity": Rule(ADMIN, WHOLE),
} | {
    f"POST /projections/{{name}}/{act}": Rule(MANAGE, WHOLE)
    for act in "pause resume retry skip accept begin switch rollback discard remove rebuild verify".split()
} | {
    f"POST /engine/{call}": Rule(READ, WHOLE)
    for call in (
        "head watch count position-at event-id boundary receipt types tags stats position-of tag-keys tag-names counts "
        "request-keys"
    ).split()
}  # fmt: skip
VALUES = {
    "position": "1",
    "id": "AAAAAAAA",
    "name": "none",
    "key:path": "k",
    "type:path": "T",
    "version": "1",
    "file": "x",
}


def name_of(route: Route) -> str:
    """A route as the rules name it."""
    return f"{route.method} {route.path}"


def path_of(route: Route, prefix: str = "/v1") -> str:
    """A path of the route, with values in the place of its parameters."""
    path = route.path if not route.of_store else prefix + route.path
    for parameter, value in VALUES.items():
        path = path.replace("{" + parameter + "}", value)
    return path


def body_of(route: Route) -> bytes:
    """A body that can be decoded, though the route may not find it sensible."""
    if route.path.startswith("/engine/"):
        return msgspec.msgpack.encode({})
    return b"{}"


def test_every_route_has_a_rule() -> None:
    """Who may call it, and what a narrowed caller gets: a new route is added here on purpose."""
    missing = {name_of(route) for route in ROUTES} - set(RULES)
    assert not missing
    assert len({name_of(route) for route in ROUTES}) == len(ROUTES)


@pytest.mark.parametrize("route", ROUTES, ids=name_of)
def test_the_scope_of_a_route_is_that_of_its_rule(route: Route) -> None:
    """And whether it is served without a credential."""
    assert route.scope == RULES[name_of(route)].scope


class Server(NamedTuple):
    """A client, and the headers of callers: of no scope, of one, of all, of all but one, narrowed, of one store."""

    client: TestClient
    one: dict[Scope, dict[str, str]]
    without: dict[Scope, dict[str, str]]
    narrowed: list[dict[str, str]]
    of_store: dict[str, str]

    def status(self, route: Route, headers: dict[str, str], prefix: str = "/v1") -> tuple[int, Any]:
        """The status and the code of the answer."""
        body = {"Content-Type": route.request_media[0]} if route.request is not None else {}
        answer = self.client.request(
            route.method, path_of(route, prefix), headers=headers | body, content=body_of(route)
        )
        is_problem = answer.headers.get("content-type", "").startswith("application/problem+json")
        return answer.status_code, answer.json()["code"] if is_problem else None


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with two stores."""
    folder: Path = tmp_path_factory.mktemp("scopes")
    stores = {name: str(folder / f"{name}.db") for name in ("default", "other")}
    for path in stores.values():
        ef.Store(path).close()
    one = {scope: bearer(issue(folder, scopes=(scope,))) for scope in Scope}
    without = {scope: bearer(issue(folder, scopes=tuple(each for each in ALL if each != scope))) for scope in Scope}
    narrowed = [
        bearer(issue(folder, **narrowing))
        for narrowing in ({"tags": ("tenant:a",)}, {"tag_prefixes": ("tenant:",)}, {"types": ("Opened",)})
    ]
    of_store = bearer(issue(folder, stores=("other",)))
    with TestClient(application(stores, settings=with_keys(folder))) as client:
        yield Server(client, one, without, narrowed, of_store)


PREFIX = "/v1/stores/default"


@pytest.mark.parametrize("route", ROUTES, ids=name_of)
def test_a_route_refuses_every_caller_without_its_scopes(server: Server, route: Route) -> None:
    """No credential: 401. Each scope but its own, alone: 403. All scopes without one that it needs besides: 403."""
    rule = RULES[name_of(route)]
    if rule.scope is None:
        assert server.status(route, {}, PREFIX)[0] not in (401, 403)
        return
    assert server.status(route, {}, PREFIX) == (401, "unauthenticated")
    assert server.status(route, {"Authorization": "Bearer efk_x"}, PREFIX) == (401, "unauthenticated")
    for scope in Scope:
        if scope != rule.scope:
            assert server.status(route, server.one[scope], PREFIX) == (403, "forbidden"), scope
    for scope in rule.more:
        assert server.status(route, server.without[scope], PREFIX) == (403, "forbidden"), scope


@pytest.mark.parametrize("route", [route for route in ROUTES if SSE not in route.media], ids=name_of)
def test_a_route_answers_a_caller_with_its_scopes(server: Server, route: Route) -> None:
    """Its own scope alone is enough if it needs no other; the body may be wrong, but the caller is not refused."""
    rule = RULES[name_of(route)]
    if rule.scope is not None and not rule.more:
        assert server.status(route, server.one[rule.scope], PREFIX)[0] not in (401, 403)


@pytest.mark.parametrize("route", [route for route in ROUTES if route.scope is not None], ids=name_of)
def test_a_narrowed_caller_gets_no_answer_about_the_whole(server: Server, route: Route) -> None:
    """Routes about the whole store refuse every kind of narrowing; routes about the server, callers of one store."""
    rule = RULES[name_of(route)]
    for headers in server.narrowed:
        if rule.narrowed == WHOLE:
            assert server.status(route, headers, PREFIX) == (403, "outside-scope")
        elif rule.narrowed == SERVER:
            assert server.status(route, headers, PREFIX) == (403, "forbidden")
    if rule.narrowed == SERVER:
        assert server.status(route, server.of_store, PREFIX) == (403, "forbidden")


@pytest.mark.parametrize("route", [route for route in ROUTES if route.of_store], ids=name_of)
def test_a_store_of_others_is_absent_on_every_route(server: Server, route: Route) -> None:
    """Its answer is that for a name which no store has."""
    hidden = server.status(route, server.of_store, PREFIX)
    assert hidden == server.status(route, server.of_store, "/v1/stores/nowhere") == (404, "store-not-found")
