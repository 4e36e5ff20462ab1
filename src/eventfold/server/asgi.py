"""The ASGI application: stores by name, the table of routes, and what happens around each call.

Knows: Starlette, every list `ROUTES`. Does not know: what a handler does, sockets (serve.py binds them).
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from time import perf_counter
from types import ModuleType
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route as StarletteRoute
from starlette.types import Receive, Scope, Send

from eventfold.aio import AsyncStore
from eventfold.concurrency import in_thread
from eventfold.errors import EventfoldError, StoreReadOnly
from eventfold.server import (
    alerts,
    backup,
    catalogue,
    docs,
    engine_calls,
    events,
    health,
    keys,
    log,
    lookups,
    metrics,
    processes,
    projection_rows,
    projections,
    states,
)
from eventfold.server.access.authentication import Authentication, address_of
from eventfold.server.access.errors import Forbidden
from eventfold.server.admission import Admission
from eventfold.server.backup_copy import remove_left_copies
from eventfold.server.bodies import Bodies, HeldBody
from eventfold.server.call import Call
from eventfold.server.consumers import routes as consumers
from eventfold.server.consumers.ownership import OwnedConsumers
from eventfold.server.delivering import Delivering
from eventfold.server.direct import call_directly
from eventfold.server.events.append import append
from eventfold.server.exchange import CORS_METHODS, CORS_REQUEST_HEADERS, CORS_RESPONSE_HEADERS, Exchange
from eventfold.server.jobs import routes as jobs
from eventfold.server.jobs.board import Jobs
from eventfold.server.live import follow
from eventfold.server.live.hub import Hub
from eventfold.server.logs import ROUTE, RequestLog
from eventfold.server.metrics import MONITOR, Meter, is_local_scrape
from eventfold.server.pieces import Pieces
from eventfold.server.places import Asked
from eventfold.server.problems import Problem, error_response, problem_response
from eventfold.server.readiness import Readiness
from eventfold.server.registered import Registered
from eventfold.server.remote_state import RemoteState
from eventfold.server.request import IndexedRequest
from eventfold.server.route import Route
from eventfold.server.routing import IndexedRouter
from eventfold.server.running import Running
from eventfold.server.schemas import routes as schemas
from eventfold.server.schemas.kept import StoreSchemas
from eventfold.server.scopes import Caller
from eventfold.server.settings import Settings
from eventfold.server.visible_positions import hide_facts

ROUTES: tuple[Route, ...] = (
    *backup.ROUTES,
    *catalogue.ROUTES,
    *docs.ROUTES,
    *engine_calls.ROUTES,
    *events.ROUTES,
    *health.ROUTES,
    *keys.ROUTES,
    *log.ROUTES,
    *schemas.ROUTES,
    *lookups.ROUTES,
    *states.ROUTES,
    *projections.ROUTES,
    *projection_rows.ROUTES,
    *processes.ROUTES,
    *alerts.ROUTES,
    *jobs.ROUTES,
    *follow.ROUTES,
    *consumers.ROUTES,
    *metrics.ROUTES,
)
SNAPSHOTS = 1_000  # events folded from one snapshot of a state to the next, as AsyncStore has it


class Server:
    """The stores of one application, and what its routes share.

    `stores` maps names to stores. `running` starts with the first call at the latest, and `running.stopping` is set
    when the server is about to end.
    """

    def __init__(
        self,
        stores: Mapping[str, AsyncStore | str],
        modules: Sequence[str | ModuleType] = (),
        settings: Settings = Settings(),  # noqa: B008 - it is frozen
    ) -> None:
        self.settings, self.registered = settings, Registered(modules)
        create = settings.server.create
        snapshots = 0 if settings.read_only else SNAPSHOTS  # a state that is read may be stored as one
        own = {
            name: AsyncStore(each, create=create or each.startswith("memory:"), snapshots=snapshots)
            for name, each in stores.items()
            if isinstance(each, str)
        }
        self.meter = Meter(records=settings.metrics.record)
        self.stores: dict[str, AsyncStore] = {
            name: self.meter.measured(name, own[name] if isinstance(each, str) else each)
            for name, each in stores.items()
        }
        self.routes = ROUTES
        self.jobs = Jobs(self.stores, self.registered, read_only=settings.read_only)
        self.schemas = {name: StoreSchemas(store) for name, store in self.stores.items()}
        self.running = Running(self.stores, own)
        if self.meter.records:
            self.running.at_error(self.meter.note)
        self.running.at_stop(self.meter.close)
        self.authentication = Authentication(self.settings.access)
        self.running.before_start(self.authentication.open)
        self.running.at_stop(self.authentication.close)
        self.running.at_start(self.jobs.open)
        self.running.at_stop(self.jobs.close)
        delivering = Delivering(self.stores, settings)
        self.running.at_start(delivering.open)
        self.running.at_stop(delivering.close)
        limits = settings.limits
        self.admission = Admission(limits.calls, limits.waiting_calls, limits.wait_seconds)
        self.bodies = Bodies(limits.bodies_bytes, limits.body_bytes)
        self.remote = RemoteState(self.stores, self.running.stopping)
        self.running.at_stop(self.remote.close)
        self.hub = Hub(self.settings, self.running, self.meter.dropped)
        self.consumers = OwnedConsumers(self.running)
        self.readiness = Readiness(self.stores, settings)
        self.copying: set[str] = set()  # names of the stores of which a backup is being made
        self.addresses = list[str]()  # where its stores and its keys are
        self.running.at_start(self._note_addresses)
        self.running.at_start(self._remove_left_copies)

    @property
    def only_store(self) -> str | None:
        """The name of the store if there is exactly one: it is also served without its name in the path."""
        return next(iter(self.stores)) if len(self.stores) == 1 else None

    async def _note_addresses(self) -> None:
        targets = [store.engine.default_target for store in self.stores.values()]
        named = (*self.settings.stores.values(), self.settings.access.keys, *targets)
        self.addresses = [each for each in named if each]

    async def _remove_left_copies(self) -> None:
        for store in self.stores.values():
            await in_thread(remove_left_copies, store, self.settings.backup.folder)

    def authenticate(self, request: Request, route: Route) -> Coroutine[Any, Any, Caller]:
        """Return who calls. Raises an error with status 401 or 403 if the caller may not call this route. Awaited."""
        if route.path == metrics.PATH and self.settings.metrics.loopback_without_key and is_local_scrape(request):
            return _monitor()
        return self.authentication.caller_of(request, route)


async def _monitor() -> Caller:
    return MONITOR


class Application(Starlette):
    """The ASGI application of a server. `server` holds its stores and settings."""

    server: Server
    _direct: IndexedRouter | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request: directly, if its path names a route and nothing was added around the routes."""
        self._settle()
        endpoint = self.endpoint_of(scope) if scope["type"] == "http" else None
        if endpoint is not None:
            await call_directly(endpoint, scope, receive, send, _failed)
        else:
            await super().__call__(scope, receive, send)

    def endpoint_of(self, scope: Scope) -> Endpoint | None:
        """Return the endpoint of an HTTP request that is answered directly, with its values in the scope."""
        self._settle()
        route = None if self._direct is None else self._direct.find(scope)
        if route is None or not isinstance(route.endpoint, Endpoint):
            return None
        scope["app"] = self
        return route.endpoint

    def _settle(self) -> None:
        """Before the first message, also that of its start: see whether nothing was added around the routes."""
        if self.middleware_stack is None:  # from now on Starlette refuses to add a middleware
            self.middleware_stack = self.build_middleware_stack()
            is_plain = [each.cls for each in self.user_middleware] == [Exchange, RequestLog, Pieces]
            self._direct = self.router if is_plain and isinstance(self.router, IndexedRouter) else None

    def lifespan(self) -> AbstractAsyncContextManager[None]:
        """Open the stores, and close at the end those that were given by address.

        An application that is run by itself enters it at its start. One that is mounted in another application gets no
        notice of its start: enter it in the lifespan of that one. Without it the first call opens the stores,
        and nothing closes them.
        """
        return lifespan_of(self.server)


@asynccontextmanager
async def lifespan_of(server: Server) -> AsyncGenerator[None, None]:
    """Start a server, and stop it at the end."""
    try:
        await server.running.start()
        yield
    finally:
        await server.running.stop()


def application(
    stores: AsyncStore | str | Mapping[str, AsyncStore | str],
    *,
    modules: Sequence[str | ModuleType] = (),
    settings: Settings | None = None,
) -> Application:
    """Return an ASGI application that serves a store, or stores by name: AsyncStores, or their addresses.

    It opens the stores when it starts, or at the first call if it is mounted in another application. It closes those
    that were given by address when it ends; an AsyncStore stays open. `modules`: modules, or their import paths, with
    the events, States, projections and processes to be served. Of `settings`, the sections `server` and `limits` and
    the stores and modules are used by `eventfold serve`.
    """
    named = {"default": stores} if isinstance(stores, AsyncStore | str) else stores
    server = Server(named, modules, settings or Settings())

    app = Application(
        routes=list(_routes(server)),
        lifespan=lambda _: lifespan_of(server),
        middleware=_middleware(server.settings.access.origins),
        exception_handlers={HTTPException: partial(_unrouted, server.meter), Exception: _failed},
    )
    # Slashes are not corrected: that would make an address from the header Host, which anyone may write.
    app.router = IndexedRouter(app.routes, redirect_slashes=False, lifespan=app.router.lifespan_context)
    app.server = server
    return app


def _middleware(origins: Sequence[str]) -> list[Middleware]:
    found = [Middleware(Exchange, cross_origin=bool(origins)), Middleware(RequestLog)]
    if origins:
        found.append(
            Middleware(
                CORSMiddleware,
                allow_origins=list(origins),
                allow_methods=list(CORS_METHODS),
                allow_headers=list(CORS_REQUEST_HEADERS),
                expose_headers=list(CORS_RESPONSE_HEADERS),
            )
        )
    return [*found, Middleware(Pieces)]


def _routes(server: Server) -> list[StarletteRoute]:
    found = list[StarletteRoute]()
    endpoint = _MeasuredEndpoint if server.meter.records else Endpoint
    for route in ROUTES:
        paths = [route.path] if not route.of_store else [f"/v1/stores/{{store}}{route.path}", f"/v1{route.path}"]
        for path in paths:
            found.append(StarletteRoute(path, endpoint(server, route), methods=[route.method]))
    return found


class Endpoint:
    """What is done around each call of a route. Not a function: Starlette would put two more around it.

    `is_append`: whether the calls append, and their responses are small and whole.
    """

    def __init__(self, server: Server, route: Route) -> None:
        self.is_append = route.handler is append
        self._server, self._route = server, route
        self._is_refused = server.settings.read_only and route.is_writing
        self._takes_a_place = route.takes_a_place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        response = await self.answer(IndexedRequest(scope, receive, send))
        await response(scope, receive, send)

    async def answer(self, request: Request) -> Response:
        """Return the response to a request: also that to every error."""
        server, route = self._server, self._route
        request.scope[ROUTE] = route.path
        caller: Caller | None = None
        call: Call | None = None
        held: HeldBody | None = None
        try:
            if not server.running.is_started:
                await server.running.start()
            caller = await server.authenticate(request, route)
            name = request.path_params.get("store", server.only_store) if route.of_store else ""
            if name is None or (name and (name not in server.stores or not caller.may_use_store(name))):
                return problem_response(
                    Problem(
                        status=404,
                        code="store-not-found",
                        title="There is no such store here.",
                        detail="Name one of the stores that GET /v1/stores lists: /v1/stores/NAME/…",
                    )
                )
            if self._is_refused:
                raise StoreReadOnly("The server is in read-only mode.", "Send writes to the server that accepts them.")
            call = Call(request, server, name, caller)
            if route.request is not None:
                held = HeldBody(server.bodies, caller.identity or address_of(request))
                await call.receive(held)
            if not self._takes_a_place:
                return await route.handler(call)
            async with server.admission:
                return await route.handler(call)
        except EventfoldError as error:
            server.running.note(error)
            error = await server.running.shown(error)
            if isinstance(error, Forbidden) and caller is not None:
                server.authentication.refuse(request, route, caller, error)
            asked = Asked() if call is None else Asked(call.text, server.addresses)
            return error_response(error if caller is None else hide_facts(caller, error), asked)
        except ClientDisconnect:  # in the middle of its body: nothing was done, and no client reads the response
            return Response(status_code=400)
        except Exception as error:  # noqa: BLE001 - the caller gets a problem, the operator a log line
            return _failed(request, error)
        finally:
            if held is not None:
                held.release()


class _MeasuredEndpoint(Endpoint):
    """An endpoint whose calls are counted."""

    def __init__(self, server: Server, route: Route) -> None:
        super().__init__(server, route)
        self._observe = server.meter.durations_of(route.path).observe

    async def answer(self, request: Request) -> Response:
        """Return the response to a request: also that to every error."""
        started = perf_counter()
        response = await Endpoint.answer(self, request)
        self._observe(perf_counter() - started)
        self._server.meter.answered(self._route.path, self._route.method, response.status_code)
        return response


def _unrouted(meter: Meter, request: Request, error: Exception) -> Response:
    """The response to a path or a method that no route has."""
    assert isinstance(error, HTTPException)
    meter.unmatched(request.method, error.status_code)
    titles = {404: "There is nothing at this path.", 405: "This path has no such method."}
    return problem_response(
        Problem(
            status=error.status_code,
            code="method-not-allowed" if error.status_code == 405 else "route-not-found",
            title=titles.get(error.status_code, "The request cannot be answered."),
            detail="The page /v1/docs and the OpenAPI document /v1/openapi.json list every path with its methods.",
        ),
        dict(error.headers or {}),
    )


def _failed(request: Request, error: Exception) -> Response:
    """The response to a defect: where it was raised is logged, and nothing about it is sent."""
    logging.getLogger("eventfold.server").error("A request failed.", exc_info=error)
    return problem_response(
        Problem(
            status=500,
            code="server-failed",
            title="The server failed to answer the request.",
            detail="Repeat it; if it fails again, ask the operator, who finds the cause in the log of the server.",
        )
    )
