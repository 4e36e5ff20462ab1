"""The application within other applications: two levels deep in Starlette, beside Django, behind a proxy."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from eventfold import AsyncStore, Store
from eventfold.errors import StoreClosed
from eventfold.server import Settings, application
from eventfold.server.asgi import Application
from eventfold.server.settings import EventSettings
from tests.cli.commands import environment

ANY_TYPE = Settings(events=EventSettings(accept_unknown=True))
EVENT = {"events": [{"type": "Opened", "data": {}, "tags": ["account:a-1"]}]}


def bank(folder: Path) -> str:
    """The address of an empty store."""
    Store(str(folder / "bank.db")).close()
    return str(folder / "bank.db")


def check_links(client: TestClient, root: str) -> None:
    """Every path works below `root`, and every link that a response has is below it."""
    assert client.get(f"{root}/healthz").json() == {"status": "ok"}
    written = client.post(f"{root}/v1/events", json=EVENT)
    assert written.status_code == 201
    assert written.headers["location"] == f"{root}/v1/events/1"
    assert client.get(written.headers["location"]).json()["type"] == "Opened"
    assert client.get(f"{root}/v1/openapi.json").json()["servers"] == [{"url": root or "/"}]
    assert client.get(f"{root}/v1/stores/default/head").json()["position"] == 1
    assert client.get(f"{root}/v1/none").json()["code"] == "route-not-found"
    named = client.post(f"{root}/v1/stores/default/events", json=EVENT)
    assert client.get(named.headers["location"]).json()["position"] == 2


def test_by_itself_links_have_no_prefix(tmp_path: Path) -> None:
    """The address of the server is in none of them."""
    with TestClient(application(bank(tmp_path), settings=ANY_TYPE)) as client:
        check_links(client, "")


def test_two_levels_deep_in_starlette_links_have_both_prefixes(tmp_path: Path) -> None:
    """The outer application enters the lifespan, which opens and closes the store."""
    inner = application(bank(tmp_path), settings=ANY_TYPE)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        async with inner.lifespan():
            yield

    middle = Starlette(routes=[Mount("/deep", inner)])
    with TestClient(Starlette(routes=[Mount("/outer", middle)], lifespan=lifespan)) as client:
        check_links(client, "/outer/deep")
    with pytest.raises(StoreClosed):
        asyncio.run(inner.server.stores["default"].head())


def test_a_mounted_application_without_a_lifespan_opens_its_stores_at_the_first_call(tmp_path: Path) -> None:
    """A store of the caller stays open, and one given by address is opened too."""
    store = AsyncStore(bank(tmp_path))
    app = application({"default": store, "other": "memory:"}, settings=ANY_TYPE)
    with TestClient(Starlette(routes=[Mount("/eventfold", app)])) as client:
        assert client.get("/eventfold/v1/stores/default/head").json()["position"] == 0
        assert client.get("/eventfold/v1/stores/other/head").json()["position"] == 0
    assert asyncio.run(store.head()) == 0


@pytest.mark.parametrize("removes", [True, False], ids=["prefix removed", "prefix kept"])
def test_links_have_the_root_path_whether_or_not_it_was_removed_from_the_path(tmp_path: Path, removes: bool) -> None:
    """The ASGI specification keeps it in the path; proxies and some frameworks remove it."""
    inner = application(bank(tmp_path), settings=ANY_TYPE)

    async def outer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            inside = scope["path"].removeprefix("/api") if removes else scope["path"]
            scope = {**scope, "root_path": "/api", "path": inside}
        await inner(scope, receive, send)

    with TestClient(outer) as client:
        check_links(client, "/api")


def beside_django(eventfold: Application, pages: ASGIApp) -> ASGIApp:
    """What an asgi.py of Django has: one path for eventfold, all others for Django, and the life of the stores."""

    async def switch(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":  # Django has none
            await eventfold(scope, receive, send)
        elif scope["path"].startswith("/eventfold/"):
            await eventfold({**scope, "root_path": f"{scope.get('root_path', '')}/eventfold"}, receive, send)
        else:
            await pages(scope, receive, send)

    return switch


DJANGO = """
import asyncio, sys
import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpResponse
from django.urls import path
from starlette.testclient import TestClient
from eventfold.errors import StoreClosed
from eventfold.server import application
from tests.server.test_mounting import ANY_TYPE, beside_django, check_links

urlpatterns = [path("page", lambda request: HttpResponse("a page"))]
settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="test", USE_TZ=True)
django.setup()
inner = application(sys.argv[1], settings=ANY_TYPE)
with TestClient(beside_django(inner, get_asgi_application())) as client:
    assert client.get("/page").text == "a page"
    check_links(client, "/eventfold")
    assert client.get("/none").status_code == 404
try:
    asyncio.run(inner.server.stores["default"].head())
except StoreClosed:
    print("both were served")
"""


def test_beside_django_both_are_served(tmp_path: Path) -> None:
    """The paths of the one do not hide those of the other. In a process of its own: Django is configured once."""
    ran = subprocess.run(
        [sys.executable, "-c", DJANGO, bank(tmp_path)], capture_output=True, text=True, timeout=90, env=environment()
    )
    assert ran.stdout == "both were served\n", ran.stderr
