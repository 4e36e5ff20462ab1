"""Consumers over HTTP: create, receive, acknowledge, reject, status, retry, remove.

Knows: requests and answers, callers. Does not know: how deliveries are ordered and stored.
"""

from __future__ import annotations

import functools

import msgspec
from starlette.responses import Response

from eventfold.aio import opened_log
from eventfold.core.envelope import now_micros
from eventfold.core.event_json import to_line
from eventfold.core.query import Cursor, Query
from eventfold.core.wire import from_query, to_query
from eventfold.errors import EventfoldError
from eventfold.ports.messages import Span
from eventfold.ports.target import ParkedEvent
from eventfold.projections.status import Status
from eventfold.server.access.errors import Forbidden
from eventfold.server.acts import as_caller
from eventfold.server.call import Call, json_response
from eventfold.server.consumers import storage
from eventfold.server.consumers.consumer import Consumer
from eventfold.server.consumers.definition import ConsumerDefinition
from eventfold.server.consumers.item import Delivery, Token
from eventfold.server.consumers.messages import (
    AcknowledgeJson,
    ConsumerJson,
    Consumers,
    ConsumerStatus,
    DeliveriesJson,
    DeliveryJson,
    Outcome,
    ParkedEvents,
    ParkedJson,
    ReceiveJson,
    RejectJson,
    Removed,
    Retried,
    RetryJson,
)
from eventfold.server.consumers.names import named_for, shown_name, stored_name
from eventfold.server.live.filters import lasting_filter, live_filter
from eventfold.server.route import Handler, Parameter, Route
from eventfold.server.scopes import Scope
from eventfold.server.visibility import may_read_payload, redact, visible_query
from eventfold.server.visible_positions import last_visible, verified_cursor, visible_cursor

NAME = Parameter(name="name", type=str, summary="The name of the consumer", place="path", required=True)
RECEIVE_S = 20.0  # for which a call waits until its credential is verified again


async def put_consumer(call: Call) -> Response:
    """Create a consumer, or change its limits: status 201 or 200."""
    name, given = _name(call), await call.body(ConsumerJson)
    definition = ConsumerDefinition(
        query=visible_query(call.caller, to_query(given.query)),
        filter=given.filter,
        key=given.key,
        max_in_flight=given.max_in_flight,
        lease_seconds=given.lease_seconds,
        attempts=given.attempts,
    )
    read_by = await _read_by(call, definition)
    start = await _start(call, definition.query, given.begin)
    is_new = await call.store.projections.ask(lambda admin: storage.create(admin, name, definition, start, read_by))
    owned = call.server.consumers.owned(call.store_name, name)
    if owned is not None:
        await owned.reload()
    return json_response(await _status(call, name), 201 if is_new else 200)


async def get_consumers(call: Call) -> Response:
    """List the consumers with their status."""
    stored = await call.store.projections.ask(storage.consumers)
    seen = [record.name for record, _ in stored if shown_name(call.caller, record.name) is not None]
    return json_response(Consumers([await _status(call, name) for name in seen]))


async def get_consumer(call: Call) -> Response:
    """Answer with the status of one consumer."""
    return json_response(await _status(call, _name(call)))


async def delete_consumer(call: Call) -> Response:
    """Remove a consumer with its progress."""
    name = _name(call)
    definition = await call.store.projections.ask(lambda admin: storage.definition_of(admin, name))
    await call.server.consumers.release(call.store_name, name)
    position = await as_caller(call).projections.remove(name)
    if call.caller.is_narrowed:
        done = await last_visible(await opened_log(call.store), definition.query, position)
        position = 0 if done is None else done.position
    return json_response(Removed(shown_name(call.caller, name) or name, position))


async def receive(call: Call) -> Response:
    """Deliver events to a worker. While it waits, the credential is verified again."""
    given = await call.body(ReceiveJson)
    consumer, left = await _consumer(call), given.wait
    while True:
        part = min(left, RECEIVE_S)
        taken = await consumer.receive(given.max, part, call.request.is_disconnected)
        left -= part
        if taken or left <= 0 or call.server.running.stopping.is_set():
            break
        if await call.server.authenticate(call.request, RECEIVE) != call.caller:
            raise Forbidden("The rights of this credential have changed.", "Call again.", scope=Scope.FOLLOW.value)
    found = [_delivery(call, each) for each in taken]
    return json_response(DeliveriesJson(found, consumer.definition.lease_seconds))


async def acknowledge(call: Call) -> Response:
    """Finish delivered events."""
    given = await call.body(AcknowledgeJson)
    tokens = [Token.parse(text) for text in given.tokens]
    consumer = await _consumer(call)
    return _outcome(given.tokens, await consumer.acknowledge(tokens))


async def reject(call: Call) -> Response:
    """Give delivered events back."""
    given = await call.body(RejectJson)
    tokens = [Token.parse(text) for text in given.tokens]
    consumer = await _consumer(call)
    done = await consumer.reject(tokens, delay_s=given.delay, park=given.park, reason=given.reason)
    return _outcome(given.tokens, done)


async def get_parked(call: Call) -> Response:
    """List parked and skipped events."""
    name = _name(call)
    await call.store.projections.ask(lambda admin: storage.definition_of(admin, name))
    shows_reasons = may_read_payload(call.caller)  # which may quote data
    parked = await call.store.projections.parked(name)
    return json_response(ParkedEvents([_parked(each, shows_reasons) for each in parked]))


async def retry(call: Call) -> Response:
    """Make parked events due for another delivery."""
    name, given = _name(call), await call.body(RetryJson)
    await call.store.projections.ask(lambda admin: storage.definition_of(admin, name))
    count = await as_caller(call).projections.retry(name, given.position)
    owned = call.server.consumers.owned(call.store_name, name)
    if owned is not None:
        await owned.reload()
    return json_response(Retried(count))


def _name(call: Call) -> str:
    return stored_name(call.caller, call.request.path_params["name"])


async def _consumer(call: Call) -> Consumer:
    """The consumer that the path names, owned by this server. Its query must be within what the caller sees."""
    consumer = await call.server.consumers.consumer(call.store_name, call.store, _name(call))
    if visible_query(call.caller, consumer.definition.query) != consumer.definition.query:
        raise storage.unknown(_name(call))
    if consumer.definition.filter and not may_read_payload(call.caller):
        await _read_by(call, consumer.definition)
    return consumer


async def _read_by(call: Call, definition: ConsumerDefinition) -> Query:
    """The query by which a consumer is read. Raises Forbidden if its filter is about data withheld from the caller."""
    log = await opened_log(call.store)
    await live_filter(call.caller, log, definition.filter, definition.query)
    return (await lasting_filter(log, definition.filter, definition.query)).query


async def _start(call: Call, query: Query, begin: int | str) -> Cursor:
    log = await opened_log(call.store)
    if begin == "now":
        return await visible_cursor(call.caller, log, query)
    if isinstance(begin, int) or (begin.isascii() and begin.isdigit() and len(begin) <= 19):
        return await visible_cursor(call.caller, log, query, int(begin))
    return await verified_cursor(call.caller, log, Cursor.parse(begin))


async def _status(call: Call, name: str) -> ConsumerStatus:
    store = call.store
    definition = await store.projections.ask(lambda admin: storage.definition_of(admin, name))
    (status,) = await store.projections.status(name)
    answer = _status_of(call, status, definition)
    return await _within_scope(call, answer, definition) if call.caller.is_narrowed else answer


async def _within_scope(call: Call, status: ConsumerStatus, definition: ConsumerDefinition) -> ConsumerStatus:
    """The status for a narrowed caller: positions and numbers of the events of this consumer, not of the whole log."""
    log = await opened_log(call.store)
    last = await last_visible(log, definition.query)
    done = await last_visible(log, definition.query, status.position)
    position = 0 if done is None else done.position
    waiting = await log.engine.read(definition.query, Span(after=position, limit=1))
    return msgspec.structs.replace(
        status,
        position=position,
        head=0 if last is None else last.position,
        lag=await call.store.count(definition.query, after=position),
        lag_seconds=max(0.0, (now_micros() - waiting.events[0].time) / 1e6) if waiting.events else 0.0,
        sentence="",
    )


def _status_of(call: Call, status: Status, definition: ConsumerDefinition) -> ConsumerStatus:
    owned = call.server.consumers.owned(call.store_name, status.name)
    return ConsumerStatus(
        name=shown_name(call.caller, status.name) or status.name,
        query=from_query(definition.query),
        filter=definition.filter,
        key=definition.key,
        max_in_flight=definition.max_in_flight,
        lease_seconds=definition.lease_seconds,
        attempts=definition.attempts,
        position=status.position,
        head=status.head,
        lag=status.behind,
        lag_seconds=status.seconds,
        parked=status.parked,
        skipped=status.skipped,
        in_flight=None if owned is None else owned.deliveries.delivered,
        state=status.state,
        sentence=status.sentence,
    )


def _delivery(call: Call, delivery: Delivery) -> DeliveryJson:
    return DeliveryJson(delivery.token, delivery.attempt, redact(call.caller, to_line(delivery.stored)))


def _outcome(tokens: list[str], done: list[bool]) -> Response:
    stale = [token for token, is_done in zip(tokens, done, strict=True) if not is_done]
    return json_response(Outcome(len(tokens) - len(stale), stale))


def _parked(entry: ParkedEvent, shows_reason: bool) -> ParkedJson:
    reason = "" if not shows_reason else entry.because if entry.state == "skipped" else entry.error
    return ParkedJson(entry.position, entry.type, entry.key, entry.state, entry.attempts, reason)


def _of_one(handler: Handler) -> Handler:
    """The handler, whose errors have the name by which the caller knows the consumer."""

    @functools.wraps(handler)
    async def named(call: Call) -> Response:
        try:
            return await handler(call)
        except EventfoldError as error:
            raise named_for(call.caller, call.request.path_params["name"], error) from error

    return named


def _route(
    method: str, part: str, handler: Handler, scope: Scope, summary: str, response: type, request: type | None = None
) -> Route:
    """A route of one consumer."""
    return Route(
        method=method,
        path=f"/consumers/{{name}}{part}",
        handler=_of_one(handler),
        scope=scope,
        summary=summary,
        parameters=(NAME,),
        request=request,
        response=response,
        errors=(404,) if request is None else (404, 409),
    )


_RECEIVE = "Receive events, each with a delivery token"
_FINISH = "Finish delivered events"
_REJECT = "Give delivered events back, for a later delivery or to be parked"
RECEIVE = _route("POST", "/receive", receive, Scope.FOLLOW, _RECEIVE, DeliveriesJson, ReceiveJson)
ROUTES = (
    Route(
        method="PUT",
        path="/consumers/{name}",
        handler=_of_one(put_consumer),
        scope=Scope.MANAGE,
        summary="Create a consumer, or change its limits",
        parameters=(NAME,),
        request=ConsumerJson,
        response=ConsumerStatus,
        status=201,
        errors=(200, 409),
    ),
    Route(
        method="GET",
        path="/consumers",
        handler=get_consumers,
        scope=Scope.FOLLOW,
        summary="All consumers and their status",
        response=Consumers,
    ),
    _route("GET", "", get_consumer, Scope.FOLLOW, "The status of a consumer", ConsumerStatus),
    _route("DELETE", "", delete_consumer, Scope.MANAGE, "Remove a consumer and its progress", Removed),
    RECEIVE,
    _route("POST", "/acknowledge", acknowledge, Scope.FOLLOW, _FINISH, Outcome, AcknowledgeJson),
    _route("POST", "/reject", reject, Scope.FOLLOW, _REJECT, Outcome, RejectJson),
    _route("GET", "/parked", get_parked, Scope.FOLLOW, "Parked and skipped events", ParkedEvents),
    _route("POST", "/retry", retry, Scope.MANAGE, "Deliver parked events again", Retried, RetryJson),
)
