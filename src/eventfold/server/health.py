"""Whether the server runs, and whether it can serve: for load balancers and supervisors.

Knows: the stores of the server. Does not know: why a store is unavailable.
"""

from __future__ import annotations

import msgspec
from starlette.responses import Response

from eventfold.errors import StoreDamaged
from eventfold.server.call import Call, json_response
from eventfold.server.problems import Problem, problem_response
from eventfold.server.route import Route
from eventfold.server.scopes import Scope


class Health(msgspec.Struct):
    """The server answers."""

    status: str = "ok"


class Ready(msgspec.Struct):
    """Every store of the server can be used; `read_only`: none of them can be written to."""

    read_only: bool
    status: str = "ready"


class StoreInfo(msgspec.Struct):
    """A store that the caller may use: whether it is ready, why not, and whether it can be written to."""

    name: str
    ready: bool
    read_only: bool
    code: str | None = None


class StoreList(msgspec.Struct):
    """The stores that the caller may use, by name."""

    stores: list[StoreInfo]


async def healthz(call: Call) -> Response:
    """Answer at once, without asking a store."""
    return json_response(Health())


async def readyz(call: Call) -> Response:
    """Answer with 200 if every store can be used, else with 503 and the reasons. Names of stores are not revealed."""
    if call.server.running.stopping.is_set():
        return _not_ready(["stopping"], "The server is about to end.")
    states = await call.server.readiness.states()
    reasons = sorted({state.code for state in states.values() if state.code is not None})
    if reasons:
        if StoreDamaged.code in reasons:
            call.server.running.damaged.set()  # its file may have been replaced
        return _not_ready(reasons, "A store of the server cannot be used.")
    return json_response(Ready(all(state.read_only for state in states.values())))


def _not_ready(reasons: list[str], title: str) -> Response:
    problem = Problem(
        status=503,
        code="not-ready",
        title=title,
        detail="Wait and ask again; /v1/stores says which store it is, and the log of the server says why.",
        fields={"reasons": reasons},
    )
    return problem_response(problem, {"Retry-After": "1"})


async def stores(call: Call) -> Response:
    """Answer with the stores that the caller may use."""
    states = await call.server.readiness.states()
    found = [
        StoreInfo(name, state.is_ready, state.read_only, state.code)
        for name, state in sorted(states.items())
        if call.caller.may_use_store(name)
    ]
    return json_response(StoreList(found))


ROUTES = (
    Route(
        method="GET",
        path="/healthz",
        handler=healthz,
        scope=None,
        summary="Whether the server runs",
        of_store=False,
        response=Health,
    ),
    Route(
        method="GET",
        path="/readyz",
        handler=readyz,
        scope=None,
        summary="Whether the server can be used: every store answers, and no disk is full",
        of_store=False,
        response=Ready,
        errors=(503,),
    ),
    Route(
        method="GET",
        path="/v1/stores",
        handler=stores,
        scope=Scope.READ,
        summary="The stores that the caller may use",
        of_store=False,
        response=StoreList,
    ),
)
