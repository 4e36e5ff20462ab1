"""Read-only mode: every route that writes is refused, and every other one is not, as the table of routes says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from eventfold import AsyncStore, Store
from eventfold.concurrency.run import run
from eventfold.ports.services import require
from eventfold.server import Settings, application
from eventfold.server.asgi import ROUTES
from eventfold.server.route import SAFE_METHODS, Route
from eventfold.server.scopes import Scope
from tests.server.bank import Deposited

READING = {Scope.READ, Scope.READ_PAYLOAD}


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    """A client of an application in read-only mode; no test changes anything in it."""
    app = application(AsyncStore("memory:"), settings=Settings(read_only=True))
    with TestClient(app, raise_server_exceptions=False) as found:
        yield found


def path_of(route: Route) -> str:
    """A path of a route, with a value for each parameter."""
    path = re.sub(r"\{[^}]*\}", "x", route.path)
    return f"/v1{path}" if route.of_store else path


def name_of(route: Route) -> str:
    """A route as a test is named."""
    return f"{route.method} {route.path}"


@pytest.mark.parametrize("route", [each for each in ROUTES if each.is_writing], ids=name_of)
def test_every_writing_route_is_refused(client: TestClient, route: Route) -> None:
    """Before its body is read."""
    answer = client.request(route.method, path_of(route), content=b"no JSON")
    assert (answer.status_code, answer.json()["code"]) == (403, "store-read-only")


@pytest.mark.parametrize(
    "route", [each for each in ROUTES if not each.is_writing and "follow" not in each.path], ids=name_of
)
def test_no_reading_route_is_refused(client: TestClient, route: Route) -> None:
    """It answers as without the mode."""
    answer = client.request(route.method, path_of(route))
    if answer.headers["content-type"] == "application/problem+json":
        assert answer.json()["code"] != "store-read-only"


def test_a_route_with_an_unsafe_method_writes_unless_it_reads_by_its_scope_or_says_so() -> None:
    """A new route is refused in read-only mode until it is known to be safe."""
    for route in ROUTES:
        if route.method in SAFE_METHODS:
            assert not route.is_writing, f"{name_of(route)}: a method that must not change anything"
        elif not route.is_writing:
            assert route.scope in READING or route.writes is False


def test_a_state_that_is_read_is_not_stored_as_a_snapshot(tmp_path: Path) -> None:
    """Without the mode it is: a snapshot is written to the store."""
    path = str(tmp_path / "bank.db")
    with Store(path) as store:
        store.extend(Deposited(account="a-1", amount=Decimal(1)) for _ in range(1_500))
    for read_only, expected in ((True, 0), (False, 1)):
        app = application(path, modules=["tests.server.bank"], settings=Settings(read_only=read_only))
        with TestClient(app) as client:
            assert client.get("/v1/states/Account?account=a-1").status_code == 200
        with Store(path) as store:
            assert run(require(store.engine, "snapshots").delete_prefix("")) == expected
