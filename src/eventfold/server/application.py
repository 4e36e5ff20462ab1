"""The ASGI application: stores by name, the table of routes, and what happens around each call.

Knows: Starlette, every list `ROUTES`. Does not know: what a handler does, sockets (serve.py binds them).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as StarletteRoute

from eventfold.aio import AsyncStore
from eventfold.errors import EventfoldError
from eventfold.server import health, log
from eventfold.server.call import Call
from eventfold.server.problems import Problem, problem_of, problem_response
from eventfold.server.route import Route
from eventfold.server.scopes import ANYONE, Caller

ROUTES: tuple[Route, ...] = (*health.ROUTES, *log.ROUTES)


class Server:
    """The stores of one application, and what its routes share."""

    def __init__(self, stores: Mapping[str, AsyncStore]) -> None:
        self.stores = dict(stores)

    @property
    def only_store(self) -> str | None:
        """The name of the store if there is exactly one: it is also served without its name in the path."""
        return next(iter(self.stores)) if len(self.stores) == 1 else None

    async def authenticate(self, request: Request, route: Route) -> Caller:
        """Return who calls. Raises an error with status 401 or 403 if the caller may not call this route."""
        return ANYONE


def application(stores: AsyncStore | Mapping[str, AsyncStore]) -> Starlette:
    """Return an ASGI application that serves a store, or stores by name.

    The stores are opened when the application starts, and those that it opened are closed when it ends.
    """
    server = Server({"default": stores} if isinstance(stores, AsyncStore) else stores)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None, None]:
        for store in server.stores.values():
            await store.open()
        yield
        for store in server.stores.values():
            await store.close()

    app = Starlette(routes=list(_routes(server)), lifespan=lifespan)
    app.state.server = server
    return app


def _routes(server: Server) -> list[StarletteRoute]:
    found = list[StarletteRoute]()
    for route in ROUTES:
        paths = [route.path] if not route.of_store else [f"/v1/stores/{{store}}{route.path}", f"/v1{route.path}"]
        for path in paths:
            found.append(StarletteRoute(path, _endpoint(server, route), methods=[route.method]))
    return found


def _endpoint(server: Server, route: Route) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            caller = await server.authenticate(request, route)
            name = request.path_params.get("store", server.only_store) if route.of_store else ""
            if name is None or (name and name not in server.stores):
                return problem_response(
                    Problem(
                        status=404,
                        code="store-not-found",
                        title="There is no such store here.",
                        detail="Name a store that the server has: /v1/stores/NAME/…",
                    )
                )
            return await route.handler(Call(request, server, name, caller))
        except EventfoldError as error:
            return problem_response(problem_of(error))

    return endpoint
