"""Processes and effects over HTTP: which instances wait or are stuck, retry and skip.

Knows: the administration of a store's processes. Does not know: timers, how a process reacts.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta
from starlette.responses import Response

from eventfold.core.json_values import to_json_value
from eventfold.processes import Effect
from eventfold.processes.async_admin import AsyncProcessAdmin
from eventfold.processes.classes import Process
from eventfold.processes.inspection import Instance
from eventfold.server.acts import administration
from eventfold.server.call import Call, json_response
from eventfold.server.parameters import declare, parse
from eventfold.server.projections import ActOnEvent, ActOnEvents
from eventfold.server.refusals import NotFound
from eventfold.server.route import Parameter, Route
from eventfold.server.scopes import Scope
from eventfold.server.visibility import check_payload, check_whole_store


class Listing(msgspec.Struct, forbid_unknown_fields=True):
    """Parameters of a list of instances."""

    limit: Annotated[int, Meta(ge=1, le=1_000, description="Instances at most.")] = 100


class InstanceKey(msgspec.Struct, forbid_unknown_fields=True):
    """Parameters of one instance."""

    key: Annotated[str, Meta(max_length=1_000, description="The key of the instance, as the list shows it.")]


class ProcessNames(msgspec.Struct):
    """The names of all processes and effects of the store."""

    processes: list[str]


class Instances(msgspec.Struct):
    """Instances of a process: stuck ones first. Those that run or are finished are known of a registered class only."""

    process: str
    instances: list[Instance]


class InstanceDetail(msgspec.Struct, omit_defaults=True):
    """One instance; of a registered process with its folded state."""

    instance: Instance
    state: dict[str, Any] | None = None


class ProcessActed(msgspec.Struct):
    """What was done, to how many events."""

    process: str
    act: str
    events: int


async def listed(call: Call) -> Response:
    """Answer with the names of processes and effects."""
    check_whole_store(call.caller)
    return json_response(ProcessNames(await call.store.processes.names()))


async def instances(call: Call) -> Response:
    """Answer with the instances of one process or effect."""
    _check(call)
    name, asked = call.request.path_params["name"], parse(call, Listing)
    found = await call.store.processes.list(_process(call, name), limit=asked.limit)
    return json_response(Instances(name, found))


async def instance(call: Call) -> Response:
    """Answer with one instance."""
    _check(call)
    name, asked = call.request.path_params["name"], parse(call, InstanceKey)
    process = _process(call, name)
    found = await call.store.processes.instance(process, asked.key)
    if found is None:
        raise NotFound(
            f"{name} has no instance with this key that waits or is stuck.",
            "Check the key; instances that run or are finished are known if the class is registered.",
            process=name,
        )
    state = None if isinstance(process, str) else await call.store.processes.state(process, asked.key)
    return json_response(InstanceDetail(found, None if state is None else to_json_value(state)))


async def retry(call: Call) -> Response:
    """Try stuck events again."""
    check_whole_store(call.caller)
    name, given = call.request.path_params["name"], await call.body(ActOnEvents)
    await _require(call, name)
    count = await AsyncProcessAdmin(administration(call, given)).retry(name, given.position)
    return json_response(ProcessActed(name, "retry", count))


async def skip(call: Call) -> Response:
    """Skip one stuck event for good."""
    check_whole_store(call.caller)
    name, given = call.request.path_params["name"], await call.body(ActOnEvent)
    await _require(call, name)
    await AsyncProcessAdmin(administration(call, given)).skip(name, given.position, given.reason)
    return json_response(ProcessActed(name, "skip", 1))


def _check(call: Call) -> None:
    check_whole_store(call.caller)
    check_payload(call.caller)  # keys and errors quote it


def _process(call: Call, name: str) -> str | type[Process]:
    """The registered class of a process; the name of an effect, and of a process that is not registered."""
    found = call.server.registered.processes.get(name)
    return name if found is None or isinstance(found, Effect) else found


async def _require(call: Call, name: str) -> None:
    if name not in await call.store.processes.names():
        raise NotFound(
            f"The store has no process or effect {name[:60]!r}.", "GET /processes lists them.", process=name[:60]
        )


NAME = Parameter(name="name", type=str, summary="The name of the process or effect.", place="path", required=True)
ROUTES = (
    Route(
        method="GET",
        path="/processes",
        handler=listed,
        scope=Scope.READ,
        summary="The names of all processes and effects",
        response=ProcessNames,
    ),
    Route(
        method="GET",
        path="/processes/{name}",
        handler=instances,
        scope=Scope.READ,
        summary="Instances that wait or are stuck",
        parameters=(NAME, *declare(Listing)),
        response=Instances,
        errors=(404,),
    ),
    Route(
        method="GET",
        path="/processes/{name}/instance",
        handler=instance,
        scope=Scope.READ,
        summary="One instance, with its state if its class is registered",
        parameters=(NAME, *declare(InstanceKey)),
        response=InstanceDetail,
        errors=(404,),
    ),
    Route(
        method="POST",
        path="/processes/{name}/retry",
        handler=retry,
        scope=Scope.MANAGE,
        summary="Try stuck events again: one, or all",
        parameters=(NAME,),
        request=ActOnEvents,
        response=ProcessActed,
        errors=(404, 409),
    ),
    Route(
        method="POST",
        path="/processes/{name}/skip",
        handler=skip,
        scope=Scope.MANAGE,
        summary="Skip one stuck event for good",
        parameters=(NAME,),
        request=ActOnEvent,
        response=ProcessActed,
        errors=(404, 409),
    ),
)
