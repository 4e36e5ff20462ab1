"""Which types and tags the log has, its size, and numbers of events: for completion, overviews and histograms.

Knows: the look-ups of a store. Does not know: events.
"""

from __future__ import annotations

from datetime import datetime
from operator import add
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from starlette.responses import Response

from eventfold.aio import opened_log
from eventfold.core.query import Query
from eventfold.core.wire import Natural, QueryJson, to_position_or_moment, to_query
from eventfold.errors import InvalidFilter
from eventfold.log.cursors import LAST_POSITION
from eventfold.log.lookups import MAX_RANGES
from eventfold.log.read import resolve_position
from eventfold.ports.messages import TypeCount
from eventfold.server.call import Call, json_response
from eventfold.server.content import compressed
from eventfold.server.etags import entity_tag, is_known, not_modified, tag_headers
from eventfold.server.events.filtered import plan_for
from eventfold.server.logs import ROUTE
from eventfold.server.parameters import declare, parse
from eventfold.server.route import Route
from eventfold.server.scopes import Scope
from eventfold.server.visibility import check_whole_store, visible_query

Limit = Annotated[int, Meta(ge=1, le=10_000, description="How many at most.")]
PLACES = frozenset({"path", "server", "replica"})  # figures that say where the store is, which is not for clients
Prefix = Annotated[str, Meta(max_length=255, description="Only those that start with this text.")]
After = Annotated[str, Meta(max_length=255, description="Only those after this one, exclusive: `next` of a page.")]


class Names(msgspec.Struct, forbid_unknown_fields=True):
    """Parameters of a page of names, in the order of their code points."""

    prefix: Prefix = ""
    limit: Limit = 1_000
    after: After = ""


class TagNames(msgspec.Struct, forbid_unknown_fields=True):
    """Parameters of a page of tags."""

    prefix: Prefix = ""
    limit: Limit = 1_000
    after: After = ""
    counts: Annotated[
        bool, Meta(description="Whether to count the events of each tag, which takes time in proportion to them.")
    ] = True


class Types(msgspec.Struct, omit_defaults=True):
    """Event types with their numbers of events; `next` is the `after` of the next page, absent on the last one."""

    types: list[TypeCount]
    next: str | None = None


class Tag(msgspec.Struct, omit_defaults=True):
    """A tag; if asked for, with the number of its events and the positions of the first and the last of them."""

    tag: str
    count: int | None = None
    first: int | None = None
    last: int | None = None


class Tags(msgspec.Struct, omit_defaults=True):
    """Tags; `next` is the `after` of the next page, absent on the last one."""

    tags: list[Tag]
    next: str | None = None


class TagKeys(msgspec.Struct, omit_defaults=True):
    """Keys of tags: "account:" of "account:a-1". `next` is the `after` of the next page, absent on the last one."""

    keys: list[str]
    next: str | None = None


class Stats(msgspec.Struct):
    """Figures about the store by name: sizes in bytes, settings, versions. The names differ between engines."""

    stats: dict[str, Any]


class CountsQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Which events to count, and the bounds of the ranges: positions, or times as text, in ascending order.

    A range is exclusive at its lower bound and inclusive at its upper one. Without bounds the whole log is one range.
    `filter`: a line of the filter language that the index answers, such as `type:Paid customer:42`; with a query, both.
    """

    query: QueryJson | None = None
    filter: Annotated[str, Meta(max_length=10_000)] | None = None
    bounds: Annotated[list[Natural | str], Meta(max_length=MAX_RANGES + 1)] | None = None


class Counts(msgspec.Struct):
    """How many events match in each range, one fewer than bounds, and in all of them together."""

    counts: list[int]
    total: int


async def _at_head(call: Call, asked: msgspec.Struct) -> str:
    """The entity tag of an answer that depends on the log as it is, and on parameters."""
    log = await opened_log(call.store)
    return entity_tag(log.engine, (await log.engine.head()).position, call.request.scope[ROUTE], asked)


async def _tagged(call: Call, tag: str, answer: msgspec.Struct) -> Response:
    return await compressed(call.request, json_response(answer, headers=tag_headers(tag)))


async def types(call: Call) -> Response:
    """Answer with the types of the log."""
    check_whole_store(call.caller)
    asked = parse(call, Names)
    if is_known(call.request, tag := await _at_head(call, asked)):
        return not_modified(tag)
    found = sorted(
        (each for each in await call.store.types() if each.type.startswith(asked.prefix) and each.type > asked.after),
        key=lambda each: each.type,
    )
    more = len(found) > asked.limit
    return await _tagged(call, tag, Types(found[: asked.limit], found[asked.limit - 1].type if more else None))


async def tags(call: Call) -> Response:
    """Answer with tags, with or without counts."""
    check_whole_store(call.caller)
    asked = parse(call, TagNames)
    if is_known(call.request, tag := await _at_head(call, asked)):
        return not_modified(tag)
    if asked.counts:
        counted = await call.store.tags(asked.prefix, limit=asked.limit + 1, after=asked.after)
        found = [Tag(each.tag, each.count, each.first, each.last) for each in counted]
    else:
        found = list(map(Tag, await call.store.tag_names(asked.prefix, limit=asked.limit + 1, after=asked.after)))
    more = len(found) > asked.limit
    return await _tagged(call, tag, Tags(found[: asked.limit], found[asked.limit - 1].tag if more else None))


async def tag_keys(call: Call) -> Response:
    """Answer with keys of tags."""
    check_whole_store(call.caller)
    asked = parse(call, Names)
    if is_known(call.request, tag := await _at_head(call, asked)):
        return not_modified(tag)
    found = await call.store.tag_keys(asked.prefix, limit=asked.limit + 1, after=asked.after)
    more = len(found) > asked.limit
    return await _tagged(call, tag, TagKeys(found[: asked.limit], found[asked.limit - 1] if more else None))


async def counts(call: Call) -> Response:
    """Answer with numbers of events."""
    asked = await call.body(CountsQuery)
    given = [0, LAST_POSITION] if asked.bounds is None else asked.bounds
    bounds = [to_position_or_moment(bound, f"bounds[{i}]") for i, bound in enumerate(given)]
    query = visible_query(call.caller, to_query(asked.query))
    if asked.filter is None or not asked.filter.strip():
        found = await call.store.counts(query, bounds)
    else:
        found = await _filtered_counts(call, asked.filter, query, bounds)
    return json_response(Counts(found, sum(found)))


async def _filtered_counts(call: Call, text: str, query: Query, bounds: list[int | datetime]) -> list[int]:
    """The numbers of events that match a filter too. Raises InvalidFilter if each event would have to be looked at."""
    log = await opened_log(call.store)
    plan = await plan_for(call.caller, log, text, query)
    if plan.test is not None:
        raise InvalidFilter(
            f"The index does not answer {plan.scan}, so each event would have to be read to count it.",
            "Leave that part out; or read the events by the filter, in pages.",
        )
    positions = [bound if isinstance(bound, int) else await resolve_position(log, bound) for bound in bounds]
    found = [0] * max(0, len(positions) - 1)
    for segment in plan.segments:  # parts of the log, which do not overlap
        within = [min(max(each, segment.after), segment.until) for each in positions]
        found = list(map(add, found, await call.store.counts(segment.query, within)))
    return found


async def stats(call: Call) -> Response:
    """Answer with figures of the engine."""
    check_whole_store(call.caller)
    found = await call.store.stats()
    return json_response(Stats({name: value for name, value in found.items() if name not in PLACES}))


_COUNTS: dict[str, Any] = {
    "path": "/counts",
    "handler": counts,
    "scope": Scope.READ,
    "request": CountsQuery,
    "response": Counts,
}
ROUTES = (
    Route(
        method="GET",
        path="/types",
        handler=types,
        scope=Scope.READ,
        summary="The event types of the log, with their numbers of events",
        parameters=declare(Names),
        response=Types,
        errors=(304,),
    ),
    Route(
        method="GET",
        path="/tags",
        handler=tags,
        scope=Scope.READ,
        summary="Tags of the log by prefix",
        parameters=declare(TagNames),
        response=Tags,
        errors=(304,),
    ),
    Route(
        method="GET",
        path="/tag-keys",
        handler=tag_keys,
        scope=Scope.READ,
        summary="The keys of the log's tags",
        parameters=declare(Names),
        response=TagKeys,
        errors=(304,),
    ),
    Route(method="QUERY", summary="Numbers of events that match a query, by ranges of positions or of time", **_COUNTS),
    Route(method="POST", summary="The same, for clients that cannot send QUERY", **_COUNTS),
    Route(
        method="GET", path="/stats", handler=stats, scope=Scope.READ, summary="Figures about the store", response=Stats
    ),
)
