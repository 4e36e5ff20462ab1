"""Read models, followers and effects over HTTP: where each stands, and what an operator does with them.

An act is POST /projections/NAME/ACT with a reason, which is kept in the log with the actor.
Knows: the administration of a store's projections. Does not know: rows (projection_rows.py), jobs (jobs.py).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from starlette.responses import Response

from eventfold.core.moments import parse_position_or_time
from eventfold.core.wire import Natural
from eventfold.ports.target import Checkpoint, ParkedEvent, ProjectionRecord
from eventfold.projections.admin import ProjectionAdmin
from eventfold.projections.async_admin import AsyncProjectionAdmin
from eventfold.projections.catalog import Named
from eventfold.projections.comparison import Comparison
from eventfold.projections.definition import projection_definition
from eventfold.projections.generations import require_record
from eventfold.projections.status import Status
from eventfold.server.acts import Act, administration
from eventfold.server.call import Call, json_response
from eventfold.server.refusals import NotFound
from eventfold.server.route import Parameter, Route
from eventfold.server.scopes import Caller, Scope
from eventfold.server.visibility import check_payload, check_whole_store, may_read_payload

MAX_PARKED = 100  # parked events in the answer about one projection


class Projections(msgspec.Struct):
    """The status of every projection, by name."""

    projections: list[Status]


class CheckpointJson(msgspec.Struct):
    """A checkpoint of a partition of a generation: positions, numbers of events, its lease. Times in µs since 1970."""

    generation: int
    partition: int
    position: int
    seen: int
    handled: int
    until: int | None
    holder: str
    expires: int
    advanced: int
    fingerprint: str


class ParkedJson(msgspec.Struct):
    """An event that was not handled: parked with its error, due for another attempt, or skipped for a reason."""

    position: int
    event_id: str
    type: str
    key: str
    state: str
    error: str
    attempts: int
    because: str


class ProjectionDetail(msgspec.Struct):
    """A projection: its status and record, its checkpoints, the first parked events.

    `columns`: with their kinds, if the read model is registered here. `parked` is empty for a caller that may not
    read payloads: keys and errors quote them.
    """

    status: Status
    record: ProjectionRecord
    checkpoints: list[CheckpointJson]
    parked: list[ParkedJson]
    columns: dict[str, str] | None


class ActOnEvent(Act):
    """An act on one event. `generation`: by default the live one."""

    position: Annotated[int, Meta(ge=1)]


class ActOnEvents(Act):
    """An act on the event at `position`, or on all parked ones."""

    position: Annotated[int, Meta(ge=1)] | None = None


class ActFrom(Act):
    """An act that begins after a position, a time or a date."""

    at: Natural | str


class ActOnGeneration(Act):
    """An act on a generation; by default the one being built."""

    generation: Annotated[int, Meta(ge=1)] | None = None


class Acted(msgspec.Struct, omit_defaults=True):
    """What was done: `events` is their number, `position` where it continues; `status` is that of now."""

    projection: str
    act: str
    events: int | None = None
    position: int | None = None
    status: Status | None = None


async def listed(call: Call) -> Response:
    """Answer with the status of every projection."""
    check_whole_store(call.caller)
    found = await call.store.projections.status()
    return json_response(Projections([visible_status(call.caller, each) for each in found]))


def visible_status(caller: Caller, status: Status) -> Status:
    """The status as the caller may see it: a sentence that quotes keys and errors needs the right to read payloads."""
    if may_read_payload(caller) or status.state not in ("parked", "stopped", "paused", "away"):
        return status
    return msgspec.structs.replace(status, sentence="The reason quotes data: read it with the scope read-payload.")


async def detail(call: Call) -> Response:
    """Answer with all about one projection."""
    check_whole_store(call.caller)
    name = call.request.path_params["name"]
    shows_parked = may_read_payload(call.caller)
    registered = call.server.registered.projections.get(name)
    named: Named = name if registered is None else registered

    def ask(admin: ProjectionAdmin) -> tuple[Status, ProjectionRecord, list[Checkpoint], list[ParkedEvent]]:
        (status,) = admin.status(name)
        parked = admin.parked(name)[:MAX_PARKED] if shows_parked else list[ParkedEvent]()
        return status, require_record(admin.target(name), name), admin.checkpoints(name), parked

    status, record, checkpoints, parked = await call.store.projections.ask(ask)
    columns = None if isinstance(named, str) else columns_of(named)
    return json_response(
        ProjectionDetail(
            visible_status(call.caller, status),
            record,
            [_checkpoint(each) for each in checkpoints],
            [_parked(each) for each in parked],
            columns,
        )
    )


def columns_of(projection: Any) -> dict[str, str] | None:
    """The columns of a read model with their kinds; None for one without a row class."""
    rows = projection_definition(projection).rows
    return None if rows is None else {column.name: column.kind for column in rows.table.columns}


def _checkpoint(each: Checkpoint) -> CheckpointJson:
    return CheckpointJson(
        each.place.generation,
        each.place.partition,
        each.position,
        each.seen.count,
        each.handled.count,
        each.until,
        each.holder,
        each.expires,
        each.at,
        each.fingerprint,
    )


def _parked(each: ParkedEvent) -> ParkedJson:
    return ParkedJson(*msgspec.structs.astuple(each))


def registered(call: Call, name: str) -> Any:
    """The registered class of a projection. Raises NotFound if the server does not know it."""
    found = call.server.registered.projections.get(name)
    if found is None:
        known = ", ".join(sorted(call.server.registered.projections)) or "none"
        raise NotFound(
            f"The code of a projection {name[:60]!r} is not registered here.",
            f"Registered are: {known}. Others are registered by `modules` of the server.",
            projection=name[:60],
        )
    return found


Work = Callable[[AsyncProjectionAdmin, Any, Any], Awaitable[dict[str, Any]]]


def _act(name: str, kind: type[Act], work: Work, *, needs_code: bool) -> Callable[[Call], Awaitable[Response]]:
    async def act(call: Call) -> Response:
        check_whole_store(call.caller)
        projection = call.request.path_params["name"]
        given = await call.body(kind)
        named = registered(call, projection) if needs_code else projection
        facts = await work(administration(call, given), named, given)
        gone = name == "remove"
        status = None if gone else (await call.store.projections.status(projection))[0]
        visible = None if status is None else visible_status(call.caller, status)
        return json_response(Acted(projection, name, status=visible, **facts))

    act.__name__ = name
    act.__doc__ = f"Carry out {name}, and answer with what was done."
    return act


async def _pause(admin: AsyncProjectionAdmin, named: Any, given: Act) -> dict[str, Any]:
    await admin.pause(named, given.reason)
    return {}


async def _resume(admin: AsyncProjectionAdmin, named: Any, given: Act) -> dict[str, Any]:
    await admin.resume(named)
    return {}


async def _retry(admin: AsyncProjectionAdmin, named: Any, given: ActOnEvents) -> dict[str, Any]:
    return {"events": await admin.retry(named, given.position)}


async def _skip(admin: AsyncProjectionAdmin, named: Any, given: ActOnEvent) -> dict[str, Any]:
    await admin.skip(named, given.position, given.reason)
    return {"events": 1, "position": given.position}


async def _accept(admin: AsyncProjectionAdmin, named: Any, given: Act) -> dict[str, Any]:
    await admin.accept(named)
    return {}


async def _begin(admin: AsyncProjectionAdmin, named: Any, given: ActFrom) -> dict[str, Any]:
    at = given.at if isinstance(given.at, int) else parse_position_or_time(given.at)
    return {"position": await admin.begin(named, at)}


async def _switch(admin: AsyncProjectionAdmin, named: Any, given: Act) -> dict[str, Any]:
    await admin.switch(named)
    return {}


async def _rollback(admin: AsyncProjectionAdmin, named: Any, given: Act) -> dict[str, Any]:
    await admin.rollback(named)
    return {}


async def _discard(admin: AsyncProjectionAdmin, named: Any, given: ActOnGeneration) -> dict[str, Any]:
    await admin.discard(named, given.generation)
    return {}


async def _remove(admin: AsyncProjectionAdmin, named: Any, given: Act) -> dict[str, Any]:
    return {"position": await admin.remove(named)}


async def compare(call: Call) -> Response:
    """Compare the live generation with another, and answer with the differences."""
    check_whole_store(call.caller)
    check_payload(call.caller)
    given = await call.body(ActOnGeneration)
    named = registered(call, call.request.path_params["name"])
    found: Comparison = await administration(call, given).compare(named, given.generation)
    return json_response(
        ComparisonJson(
            found.name,
            *found.generations,
            *found.positions,
            *found.rows,
            found.different,
            [
                DifferenceJson(
                    [str(part) for part in each.key],
                    None if each.before is None else [str(value) for value in each.before],
                    None if each.after is None else [str(value) for value in each.after],
                )
                for each in found.differences
            ],
            list(found.left_out),
        )
    )


class DifferenceJson(msgspec.Struct):
    """A row that differs: its key, and its values as text in both generations; null where there is none."""

    key: list[str]
    before: list[str] | None
    after: list[str] | None


class ComparisonJson(msgspec.Struct):
    """The live generation beside another: positions, numbers of rows, and the first 20 differences.

    `left_out`: columns that one of the two does not have.
    """

    projection: str
    live: int
    other: int
    live_position: int
    other_position: int
    live_rows: int
    other_rows: int
    different: int
    differences: list[DifferenceJson]
    left_out: list[str] = []


NAME = Parameter(name="name", type=str, summary="The name of the projection.", place="path", required=True)


def _route(act: str, kind: type[Act], work: Work, summary: str, *, needs_code: bool = False) -> Route:
    return Route(
        method="POST",
        path=f"/projections/{{name}}/{act}",
        handler=_act(act, kind, work, needs_code=needs_code),
        scope=Scope.MANAGE,
        summary=summary,
        parameters=(NAME,),
        request=kind,
        response=Acted,
        errors=(404, 409),
    )


ROUTES = (
    Route(
        method="GET",
        path="/projections",
        handler=listed,
        scope=Scope.READ,
        summary="The status of every projection: where it stands, and why it is behind",
        response=Projections,
    ),
    Route(
        method="GET",
        path="/projections/{name}",
        handler=detail,
        scope=Scope.READ,
        summary="One projection: status, checkpoints, parked events, columns",
        parameters=(NAME,),
        response=ProjectionDetail,
        errors=(404,),
    ),
    _route("pause", Act, _pause, "Pause a projection in all processes; its status shows the reason"),
    _route("resume", Act, _resume, "Resume after a pause, or try the event again at which it stopped"),
    _route("retry", ActOnEvents, _retry, "Mark parked events due for another attempt: one, or all"),
    _route("skip", ActOnEvent, _skip, "Skip one parked event for good"),
    _route("accept", Act, _accept, "Accept the existing rows as right for code that has changed", needs_code=True),
    _route("begin", ActFrom, _begin, "Continue an effect or a process after a position", needs_code=False),
    _route("switch", Act, _switch, "Make the generation that was built the live one", needs_code=True),
    _route("rollback", Act, _rollback, "Make the previous generation live again"),
    _route("discard", ActOnGeneration, _discard, "Drop the generation that is being built, or one of the past"),
    _route("remove", Act, _remove, "Remove a follower's progress, or a read model with its rows"),
    Route(
        method="POST",
        path="/projections/{name}/compare",
        handler=compare,
        scope=Scope.MANAGE,
        summary="Compare the live generation with another, row by row",
        parameters=(NAME,),
        request=ActOnGeneration,
        response=ComparisonJson,
        errors=(404, 409),
    ),
)
