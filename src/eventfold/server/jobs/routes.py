"""Jobs over HTTP: begin a rebuild or a verification, watch it, stop it.

Knows: the jobs of the server. Does not know: how a job runs.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from starlette.responses import Response

from eventfold.core.envelope import new_id
from eventfold.core.event_json import format_datetime
from eventfold.core.wire import Natural, to_position_or_moment
from eventfold.errors import InvalidInput
from eventfold.server.acts import Act, facts_of
from eventfold.server.call import Call, json_response
from eventfold.server.jobs.board import RunningJob, facts_of_event
from eventfold.server.jobs.facts import JobBegun, JobInLog, Kind
from eventfold.server.parameters import declare, parse
from eventfold.server.projections import registered
from eventfold.server.refusals import NotFound
from eventfold.server.route import Parameter, Route
from eventfold.server.scopes import Scope
from eventfold.server.states import last_position
from eventfold.server.visibility import check_whole_store, may_read_payload

State = Literal["running", "waiting", "done", "failed", "stopped"]


class RebuildAct(Act):
    """A rebuild of a registered read model. `at`: as of a position or a time, for inspection. `switch`: then live."""

    at: Natural | str | None = None
    switch: bool = False


class VerifyAct(Act):
    """A verification of one projection. `rows`: fold it again, and compare every row."""

    rows: bool = False


class VerifyStoreAct(Act):
    """A verification of the log and of every projection. `rows`: fold them again, and compare every row."""

    kind: Literal["verify"] = "verify"
    rows: bool = False


class Job(msgspec.Struct, kw_only=True):
    """A job. `state`: running (here), waiting (for a server that continues it), or how it ended.

    `done` and `all` are positions, or numbers of events that are counted; both 0 if it runs elsewhere. `verdict` is one
    sentence, `proved` the result of a verification.
    """

    id: str
    kind: Kind
    projection: str
    state: State
    done: int
    all: int
    rows: bool
    at: int | None
    switch: bool
    began: str
    ended: str | None
    actor: str | None
    reason: str | None
    verdict: str | None
    proved: bool | None


class JobList(msgspec.Struct):
    """Jobs, newest first."""

    jobs: list[Job]


class Listing(msgspec.Struct, forbid_unknown_fields=True):
    """Parameters of a list of jobs."""

    limit: Annotated[int, Meta(ge=1, le=500, description="Jobs at most.")] = 100


async def listed(call: Call) -> Response:
    """Answer with the jobs of the store."""
    check_whole_store(call.caller)
    asked, found = parse(call, Listing), list[Job]()
    async for each in call.server.jobs.in_log(call.store):
        if len(found) == asked.limit:
            break
        found.append(_job(call, each))
    return json_response(JobList(found))


async def one(call: Call) -> Response:
    """Answer with one job."""
    check_whole_store(call.caller)
    return json_response(_job(call, await _find(call)))


async def stop(call: Call) -> Response:
    """Stop a job, and answer with it."""
    check_whole_store(call.caller)
    given, job = await call.body(Act), await _find(call)
    if job.ended is None:
        await call.server.jobs.stop(call.store_name, job.begun.event.job, facts_of(call, given))
        job = await _find(call)
    return json_response(_job(call, job))


async def rebuild(call: Call) -> Response:
    """Begin a rebuild."""
    check_whole_store(call.caller)
    name, given = call.request.path_params["name"], await call.body(RebuildAct)
    registered(call, name)
    moment = None if given.at is None else to_position_or_moment(given.at, "at")
    at = moment if moment is None or isinstance(moment, int) else await last_position(call, moment)
    if at is not None and given.switch:
        raise InvalidInput("A generation of the past cannot go live.", "Omit `at`, or `switch`.", field="switch")
    await call.store.projections.status(name)  # raises UnknownProjection
    return await _begin(call, given, JobBegun(new_id().hex(), "rebuild", name, at=at, switch=given.switch))


async def verify(call: Call) -> Response:
    """Begin a verification of one projection."""
    check_whole_store(call.caller)
    name, given = call.request.path_params["name"], await call.body(VerifyAct)
    await call.store.projections.status(name)  # raises UnknownProjection
    if given.rows:
        registered(call, name)
    return await _begin(call, given, JobBegun(new_id().hex(), "verify", name, rows=given.rows))


async def verify_store(call: Call) -> Response:
    """Begin a verification of the whole store."""
    check_whole_store(call.caller)
    given = await call.body(VerifyStoreAct)
    return await _begin(call, given, JobBegun(new_id().hex(), "verify", rows=given.rows))


async def _begin(call: Call, given: Act, begun: JobBegun) -> Response:
    head = await call.store.head()
    whole = JobBegun(begun.job, begun.kind, begun.projection, head, begun.rows, begun.at, begun.switch)
    await call.server.jobs.begin(call.store_name, whole, facts_of(call, given))
    root: str = call.request.scope.get("root_path") or ""
    location = f"{root}/v1/stores/{call.store_name}/jobs/{begun.job}"
    return json_response(_job(call, await _find(call, begun.job)), 202, {"location": location})


async def _find(call: Call, id: str | None = None) -> JobInLog:
    wanted: str = call.request.path_params["id"] if id is None else id
    async for each in call.server.jobs.in_log(call.store):
        if each.begun.event.job == wanted:
            return each
    raise NotFound("There is no such job here.", "GET /jobs lists them.", job=wanted[:60])


def _job(call: Call, found: JobInLog) -> Job:
    begun, running = found.begun.event, call.server.jobs.running(call.store_name, found.begun.event.job)
    ended = None if found.ended is None else found.ended.event
    facts = facts_of_event(found.begun)
    state: State = "running" if running else "waiting"
    done, all = _progress(running)
    verdict = None if ended is None else ended.verdict
    return Job(
        id=begun.job,
        kind=begun.kind,
        projection=begun.projection,
        state=state if ended is None else ended.outcome,
        done=done,
        all=all,
        rows=begun.rows,
        at=begun.at,
        switch=begun.switch,
        began=format_datetime(found.begun.time),
        ended=None if found.ended is None else format_datetime(found.ended.time),
        actor=facts.get("actor"),
        reason=facts.get("reason") if may_read_payload(call.caller) else None,
        verdict=verdict if may_read_payload(call.caller) else None,
        proved=None if ended is None else ended.proved,
    )


def _progress(running: RunningJob | None) -> tuple[int, int]:
    return (0, 0) if running is None else (running.done, running.all)


NAME = Parameter(name="name", type=str, summary="The name of the projection.", place="path", required=True)
ID = Parameter(name="id", type=str, summary="The id of the job.", place="path", required=True)
_BEGINS: dict[str, Any] = {"method": "POST", "scope": Scope.MANAGE, "response": Job, "status": 202}
ROUTES = (
    Route(
        method="GET",
        path="/jobs",
        handler=listed,
        scope=Scope.READ,
        summary="Jobs, newest first, with their progress",
        parameters=declare(Listing),
        response=JobList,
    ),
    Route(
        path="/jobs",
        handler=verify_store,
        summary="Begin to verify the log and every projection",
        request=VerifyStoreAct,
        **_BEGINS,
    ),
    Route(
        method="GET",
        path="/jobs/{id}",
        handler=one,
        scope=Scope.READ,
        summary="One job",
        parameters=(ID,),
        response=Job,
        errors=(404,),
    ),
    Route(
        method="POST",
        path="/jobs/{id}/stop",
        handler=stop,
        scope=Scope.MANAGE,
        summary="Stop a job; a rebuild that is begun again continues where it stopped",
        parameters=(ID,),
        request=Act,
        response=Job,
        errors=(404,),
    ),
    Route(
        path="/projections/{name}/rebuild",
        handler=rebuild,
        summary="Begin to rebuild a read model beside the live rows",
        parameters=(NAME,),
        request=RebuildAct,
        errors=(404, 409),
        **_BEGINS,
    ),
    Route(
        path="/projections/{name}/verify",
        handler=verify,
        summary="Begin to prove that a projection handled every event once",
        parameters=(NAME,),
        request=VerifyAct,
        errors=(404,),
        **_BEGINS,
    ),
)
