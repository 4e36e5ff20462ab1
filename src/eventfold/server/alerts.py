"""Alerts over HTTP: what is raised, what was not delivered, acknowledge and snooze.

Knows: the administration of a store's alerts. Does not know: rules, how messages are sent.
"""

from __future__ import annotations

import time
from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta
from starlette.responses import Response

from eventfold.alerts.async_admin import AsyncAlertAdmin
from eventfold.alerts.delivery.undelivered import TargetStatus
from eventfold.alerts.episode_view import EpisodeView, episode_view, state_of
from eventfold.alerts.facts import Episode
from eventfold.core.envelope import from_micros
from eventfold.errors import UnknownAlert
from eventfold.server.acts import Act, actor_of
from eventfold.server.call import Call, json_response
from eventfold.server.parameters import declare, parse
from eventfold.server.refusals import NotFound
from eventfold.server.route import Parameter, Route
from eventfold.server.scopes import Scope
from eventfold.server.visibility import check_payload, check_whole_store

Until = Annotated[datetime, Meta(tz=True, description="The end, exclusive: a time in the future, with its zone.")]


class AlertListing(msgspec.Struct, forbid_unknown_fields=True):
    """Parameters of a list of episodes."""

    limit: Annotated[int, Meta(ge=1, le=1_000, description="Episodes at most.")] = 100
    cleared: Annotated[bool, Meta(description="Also those that are cleared.")] = False


class KeyListing(msgspec.Struct, forbid_unknown_fields=True):
    """Parameters of the episodes of one alert."""

    limit: Annotated[int, Meta(ge=1, le=1_000, description="Episodes at most.")] = 100
    key: Annotated[str, Meta(max_length=1_000, description="Of this key only.")] | None = None


class TargetView(msgspec.Struct, frozen=True):
    """A target. `failed`: messages that were tried and not delivered; `since`: when the first of them was written."""

    target: str
    failed: int
    waiting: int
    runs: bool
    since: datetime | None
    error: str | None
    attempts: int


class Alerts(msgspec.Struct):
    """Episodes, newest first, and the targets to which messages are delivered."""

    episodes: list[EpisodeView]
    targets: list[TargetView]


class Episodes(msgspec.Struct):
    """Episodes of one alert, newest first: open ones and those that have ended."""

    alert: str
    episodes: list[EpisodeView]


class Acknowledge(Act, kw_only=True):
    """Someone works on the open episode of a key: no reminders until the end. `key`: "" for an alert without keys."""

    key: Annotated[str, Meta(max_length=1_000)] = ""
    until: Until


class Snooze(Act, kw_only=True):
    """No messages about a key, or about the whole alert (null), until the end."""

    key: Annotated[str, Meta(max_length=1_000)] | None = None
    until: Until


class AlertNoted(msgspec.Struct):
    """What was noted. `position`: of the fact in the log."""

    alert: str
    key: str | None
    act: str
    until: datetime
    position: int


async def listed(call: Call) -> Response:
    """Answer with what is raised, and with the targets."""
    _check(call)
    asked, alerts = parse(call, AlertListing), call.store.alerts
    found = await alerts.list(open_only=not asked.cleared, limit=asked.limit)
    targets = [_target(each) for each in await alerts.targets()]
    return json_response(Alerts(await _views(alerts, found), targets))


async def shown(call: Call) -> Response:
    """Answer with the episodes of one alert."""
    _check(call)
    name, asked, alerts = call.request.path_params["name"], parse(call, KeyListing), call.store.alerts
    try:
        found = await alerts.show(name, asked.key, limit=asked.limit)
    except UnknownAlert as error:
        raise _unknown(name, error) from None
    return json_response(Episodes(name, await _views(alerts, found)))


async def acknowledge(call: Call) -> Response:
    """Note that a person works on an open episode."""
    check_whole_store(call.caller)
    name, given = call.request.path_params["name"], await call.body(Acknowledge)
    try:
        receipt = await call.store.alerts.acknowledge(
            name, given.key, until=given.until, because=given.reason, actor=actor_of(call, given.actor)
        )
    except UnknownAlert as error:
        raise _unknown(name, error) from None
    return json_response(AlertNoted(name, given.key, "acknowledge", given.until, receipt.first))


async def snooze(call: Call) -> Response:
    """Send no messages about a key or an alert for a while."""
    check_whole_store(call.caller)
    name, given = call.request.path_params["name"], await call.body(Snooze)
    try:
        receipt = await call.store.alerts.snooze(
            name, given.key, until=given.until, because=given.reason, actor=actor_of(call, given.actor)
        )
    except UnknownAlert as error:
        raise _unknown(name, error) from None
    return json_response(AlertNoted(name, given.key, "snooze", given.until, receipt.first))


def _check(call: Call) -> None:
    check_whole_store(call.caller)
    check_payload(call.caller)  # reasons and errors quote it


def _unknown(name: str, error: UnknownAlert) -> NotFound:
    return NotFound(error.what, error.remedy or "GET /alerts lists them.", alert=name[:60])


async def _views(alerts: AsyncAlertAdmin, found: list[Episode]) -> list[EpisodeView]:
    states, now = await alerts.open(), time.time_ns() // 1000
    return [episode_view(each, state_of(each, states, now)) for each in found]


def _target(each: TargetStatus) -> TargetView:
    since = from_micros(each.since) if each.since else None
    return TargetView(each.name, each.failed, each.waiting, each.runs, since, each.error or None, each.attempts)


NAME = Parameter(name="name", type=str, summary="The name of the alert.", place="path", required=True)
ROUTES = (
    Route(
        method="GET",
        path="/alerts",
        handler=listed,
        scope=Scope.READ,
        summary="What is raised, and what was not delivered",
        parameters=declare(AlertListing),
        response=Alerts,
    ),
    Route(
        method="GET",
        path="/alerts/{name}",
        handler=shown,
        scope=Scope.READ,
        summary="The episodes of one alert",
        parameters=(NAME, *declare(KeyListing)),
        response=Episodes,
        errors=(404,),
    ),
    Route(
        method="POST",
        path="/alerts/{name}/acknowledge",
        handler=acknowledge,
        scope=Scope.MANAGE,
        summary="Note that a person works on an open episode",
        parameters=(NAME,),
        request=Acknowledge,
        response=AlertNoted,
        errors=(404,),
    ),
    Route(
        method="POST",
        path="/alerts/{name}/snooze",
        handler=snooze,
        scope=Scope.MANAGE,
        summary="Send no messages about a key, or about an alert, for a while",
        parameters=(NAME,),
        request=Snooze,
        response=AlertNoted,
        errors=(404,),
    ),
)
