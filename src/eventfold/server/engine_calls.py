"""The calls of the engine port over HTTP, for the remote engine: MessagePack instead of JSON, bytes instead of values.

A caller needs the whole store for them: one that is narrowed to tags or types uses the routes for events.
Knows: messages, the log of a store. Does not know: how an engine works, how clients repeat calls.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from hashlib import blake2b
from typing import Any, TypeVar

import msgspec
from starlette.responses import Response

from eventfold.concurrency.calls import Call as OwnCall
from eventfold.core.envelope import MAX_EVENTS_PER_APPEND, NewEvent, StoredEvent, check_encoded
from eventfold.core.query import check_limits
from eventfold.core.tags import check_name
from eventfold.errors import EventfoldError, InvalidEvent, InvalidInput, InvalidQuery, StoreNotFound, StoreUnavailable
from eventfold.log.cursors import LAST_POSITION
from eventfold.ports import engine_messages as messages
from eventfold.ports.engine import Engine
from eventfold.ports.engine_messages import MEDIA_TYPE, STORE_HEADER, Nothing, SnapshotMessage, TakeIdentity
from eventfold.ports.messages import AppendRequest, Head, Outcome, Span
from eventfold.ports.services import Services, require
from eventfold.server.access.errors import Forbidden
from eventfold.server.call import Call
from eventfold.server.events.rules import writable
from eventfold.server.places import outcome_without_places
from eventfold.server.route import Handler, Route
from eventfold.server.scopes import Caller, Scope
from eventfold.server.visibility import authored, check_condition, check_payload, check_whole_store

T = TypeVar("T")
# What stores record themselves, by processes and operators of their own read models; and the scope that it needs.
OWN_TYPES = {
    **dict.fromkeys(("$timer-set", "$timer-cancelled"), Scope.APPEND),
    **dict.fromkeys(("$projection-acted", "$verified", "$backed-up"), Scope.MANAGE),
    **dict.fromkeys((f"$alert-{each}" for each in "watching raised cleared message target".split()), Scope.APPEND),
    **dict.fromkeys(("$alert-acknowledged", "$alert-snoozed"), Scope.MANAGE),
}
OWN_TAG_PREFIXES = ("$process:", "$fired:", "$projection:", "$alert:", "$deliver:", "$verified:", "$backed-up:")
EPOCH_ATTEMPTS = 3  # of a call during which the store changed its epoch
MAX_BOUNDS = 10_001


class Answer(Response):
    """An answer of these routes: a message, with the store and the epoch that it is of."""

    media_type = MEDIA_TYPE


async def _decoded(call: Call, kind: type[T]) -> T:
    """The message of a call. Raises InvalidInput if it is none, StoreNotFound if it is meant for another store.

    Raises BodyTooLarge as every route does: a caller could fill the memory of the server otherwise.
    """
    check_whole_store(call.caller)
    meant, engine = call.request.headers.get(STORE_HEADER), call.store.engine
    if meant and meant != engine.store_id:
        raise StoreNotFound(
            f"The store {meant[:32]} is not here any more: this address has the store {engine.store_id} now.",
            "Nothing was written. Open the store again if that is right; its old cursors are not valid in it.",
            store=engine.store_id,
        )
    try:
        return msgspec.msgpack.decode(await call.raw_body(), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(
            f"The message is not as this route expects: {str(error).rstrip('.')}.",
            "Use the remote engine of an eventfold that is not older than the server's.",
        ) from error


def _answer(engine: Engine, epoch: int, value: Any) -> Response:
    return Answer(messages.encode(value), headers={STORE_HEADER: f"{engine.store_id}.{epoch}"})


async def _in_one_epoch(call: Call, ask: Callable[[Engine], Awaitable[Any]]) -> Response:
    """Answer with the result of `ask`, which has no effect and is repeated if the epoch changed during it."""
    engine = call.store.engine
    for _ in range(EPOCH_ATTEMPTS):
        epoch = engine.epoch
        value = await ask(engine)
        if engine.epoch == epoch:
            return _answer(engine, epoch, value)
    raise StoreUnavailable("The store changes its epoch again and again.", "Try again later.")


def _pages(limit: int) -> int:
    return max(0, min(limit, messages.MAX_NAMES))


def _checked_span(span: Span) -> Span:
    """The span. Raises InvalidQuery on numbers that no position, count or time can have."""
    times = (span.occurred_since, span.occurred_until)
    _position(span.after)
    if span.until is not None:
        _position(span.until)
    if not 0 < span.limit <= LAST_POSITION or any(each is not None and abs(each) > LAST_POSITION for each in times):
        raise InvalidQuery("The bounds of a page have numbers that are too large.", "Use the remote engine.")
    return span


def _position(value: int) -> int:
    """A position that a log can have, or 0. Raises InvalidQuery otherwise."""
    if value < 0:
        raise InvalidQuery(f"{value} is no position.", "Positions are counted from 1; 0 is before the first event.")
    return _number(value)


def _number(value: int | None) -> int:
    """A number that a log can have. Raises InvalidQuery otherwise."""
    if value is None or not -LAST_POSITION <= value <= LAST_POSITION:
        raise InvalidQuery(f"{value} is no position and no time.", "Positions are counted from 1; times are in µs.")
    return value


# The log


async def identity(call: Call) -> Response:
    """Answer with what a client must know of the store."""
    await _decoded(call, Nothing)

    async def ask(engine: Engine) -> messages.Identity:
        can, services = engine.capabilities, engine.services
        return messages.Identity(
            engine=engine.name,
            durable=can.durable,
            immutable=can.immutable,
            query_conditions=can.query_conditions,
            request_keys=can.request_keys,
            services=[name for name in Services.__struct_fields__ if getattr(services, name) is not None],
        )

    return await _in_one_epoch(call, ask)


async def append(call: Call) -> Response:
    """Write or refuse each request; those of all callers that arrive meanwhile share a commit.

    A request that this caller may not write, or that is not valid, has its error as its outcome: other requests of the
    message may be those of other callers of the client.
    """
    message = await _decoded(call, messages.Append)
    own = OwnCall()
    outcomes = call.server.running.checked(await own.bind(_append(call, message.requests, own)))
    value = messages.Outcomes([outcome_without_places(outcome) for outcome in outcomes])
    engine = call.store.engine
    return _answer(engine, engine.epoch, value)


async def _append(call: Call, requests: list[AppendRequest], own: OwnCall) -> list[Outcome]:
    """Queue all requests at once, so that no other caller's is between them, and wait for their outcomes."""
    checked = list[AppendRequest | EventfoldError]()
    for request in requests:
        try:
            checked.append(await _checked(call, request))
        except EventfoldError as error:
            checked.append(error)
    appender, tickets, outcomes = call.store.log.appender, list[Any](), list[Outcome]()
    for request in checked:
        try:
            tickets.append(request if isinstance(request, EventfoldError) else appender.enqueue(request, own))
        except EventfoldError as error:  # the store was closed: requests before it may be written
            tickets.append(error)
    for ticket in tickets:
        try:
            outcomes.append(ticket if isinstance(ticket, EventfoldError) else await appender.outcome(ticket))
        except EventfoldError as error:
            outcomes.append(error)
    return outcomes


async def _checked(call: Call, request: AppendRequest) -> AppendRequest:
    """The request as it is written for this caller. Raises InvalidInput and its subclasses, Forbidden."""
    if not 1 <= len(request.events) <= MAX_EVENTS_PER_APPEND or request.seen:
        raise InvalidInput(
            f"An append was given {len(request.events)} events, and it takes 1 to {MAX_EVENTS_PER_APPEND:,}.",
            "Use the remote engine, which checks that before.",
        )
    if request.key is not None:
        check_name("request key", request.key, error=InvalidInput)
    for clause in request.unless:
        check_condition(call.caller, check_limits(clause.query))
        _number(clause.after)
    for event in request.events:
        check_encoded(event, reserved=True)
        _check_reserved(call, event)
    if any(event.type in OWN_TYPES for event in request.events):
        written = [
            authored(call.caller, event) if event.type in OWN_TYPES else (await writable(call, [event]))[0]
            for event in request.events
        ]
    else:
        written = await writable(call, request.events)
    return msgspec.structs.replace(request, events=tuple(written))


def _check_reserved(call: Call, event: NewEvent) -> None:
    """Raise InvalidEvent or Forbidden unless the names of an event are its client's own, or eventfold's in clients."""
    names = [name for name in (event.type, *event.tags) if name.startswith("$")]
    for name in names:
        if name != event.type and name.startswith(OWN_TAG_PREFIXES):
            continue
        if name != event.type or event.type not in OWN_TYPES:
            check_name("event type" if name == event.type else "tag", name)
        needed = OWN_TYPES[event.type]
        if needed not in call.caller.scopes:
            raise Forbidden(
                f"Events of the type {event.type} are records of operators, and this credential is not one's.",
                f"Use a credential with the scope {needed.value}.",
                scope=needed.value,
            )


async def read(call: Call) -> Response:
    """Answer with a page."""
    message = await _decoded(call, messages.Read)
    check_payload(call.caller)
    check_limits(message.query)
    span = _checked_span(message.span)

    async def ask(engine: Engine) -> messages.PageMessage:
        return messages.page_message(await engine.read(message.query, span))

    return await _in_one_epoch(call, ask)


async def head(call: Call) -> Response:
    """Answer with the head."""
    await _decoded(call, Nothing)
    return await _in_one_epoch(call, lambda engine: engine.head())


async def watch(call: Call) -> Response:
    """Answer with the head as soon as it has changed, or after a time."""
    message = await _decoded(call, messages.Watch)
    wait_s = max(0.0, min(message.wait_s, messages.MAX_WATCH_S))
    waiting = call.server.remote.commits_of(call.store_name)
    return await _in_one_epoch(call, lambda engine: waiting.wait(message.head, wait_s))


async def count(call: Call) -> Response:
    """Answer with the number of matching events."""
    message = await _decoded(call, messages.Count)
    check_limits(message.query)
    after, until = _position(message.after), None if message.until is None else _position(message.until)

    async def ask(engine: Engine) -> messages.Number:
        return messages.Number(await engine.count(message.query, after, until))

    return await _in_one_epoch(call, ask)


async def position_at(call: Call) -> Response:
    """Answer with the last position at or before a time."""
    time = _number((await _decoded(call, messages.Number)).value)

    async def ask(engine: Engine) -> messages.Number:
        return messages.Number(await engine.position_at(time))

    return await _in_one_epoch(call, ask)


async def event_id(call: Call) -> Response:
    """Answer with the id of the event at a position."""
    position = _number((await _decoded(call, messages.Number)).value)

    async def ask(engine: Engine) -> messages.EventId:
        return messages.EventId(await engine.event_id(position))

    return await _in_one_epoch(call, ask)


async def boundary(call: Call) -> Response:
    """Answer with the last position of the append that wrote a position."""
    position = _number((await _decoded(call, messages.Number)).value)

    async def ask(engine: Engine) -> messages.Number:
        return messages.Number(await engine.boundary(position))

    return await _in_one_epoch(call, ask)


async def receipt(call: Call) -> Response:
    """Answer with the receipt of the append that has a request key."""
    message = await _decoded(call, messages.Key)

    async def ask(engine: Engine) -> messages.ReceiptMessage:
        return messages.ReceiptMessage(await engine.receipt_of(message.value))

    return await _in_one_epoch(call, ask)


async def types(call: Call) -> Response:
    """Answer with every event type."""
    await _decoded(call, Nothing)

    async def ask(engine: Engine) -> messages.Types:
        return messages.Types(await engine.types())

    return await _in_one_epoch(call, ask)


async def tags(call: Call) -> Response:
    """Answer with tags."""
    message = await _decoded(call, messages.Names)

    async def ask(engine: Engine) -> messages.Tags:
        return messages.Tags(await engine.tags(message.prefix, _pages(message.limit), message.after))

    return await _in_one_epoch(call, ask)


async def stats(call: Call) -> Response:
    """Answer with facts for an operator."""
    await _decoded(call, Nothing)

    async def ask(engine: Engine) -> messages.Stats:
        return messages.Stats(await engine.stats())

    return await _in_one_epoch(call, ask)


# Services


async def position_of(call: Call) -> Response:
    """Answer with the position of the event that has an id."""
    message = await _decoded(call, messages.EventId)
    if message.value is None or len(message.value) != 16:
        raise InvalidInput("An event id has 16 bytes.", "Give the bytes of a UUID.")
    id = message.value

    async def ask(engine: Engine) -> messages.Number:
        return messages.Number(await require(engine, "lookups").position_of(id))

    return await _in_one_epoch(call, ask)


async def tag_keys(call: Call) -> Response:
    """Answer with the keys of tags."""
    message = await _decoded(call, messages.Names)

    async def ask(engine: Engine) -> messages.Texts:
        found = await require(engine, "lookups").tag_keys(message.prefix, _pages(message.limit), message.after)
        return messages.Texts(found)

    return await _in_one_epoch(call, ask)


async def tag_names(call: Call) -> Response:
    """Answer with tags, without counts."""
    message = await _decoded(call, messages.Names)

    async def ask(engine: Engine) -> messages.Texts:
        found = await require(engine, "lookups").tag_names(message.prefix, _pages(message.limit), message.after)
        return messages.Texts(found)

    return await _in_one_epoch(call, ask)


async def counts(call: Call) -> Response:
    """Answer with the numbers of matching events in several ranges."""
    message = await _decoded(call, messages.Counts)
    check_limits(message.query)
    if len(message.bounds) > MAX_BOUNDS or message.bounds != sorted(message.bounds):
        raise InvalidQuery(
            f"The bounds are not in order, or more than {MAX_BOUNDS:,}.", "Ask for the ranges in several calls."
        )
    bounds = [_number(bound) for bound in message.bounds]

    async def ask(engine: Engine) -> messages.Numbers:
        return messages.Numbers(await require(engine, "lookups").counts(message.query, bounds))

    return await _in_one_epoch(call, ask)


def snapshot_key(caller: Caller, key: str) -> str:
    """The key under which a snapshot of this caller is stored: each has snapshots of its own.

    A snapshot is a state that readers trust without its events. If one caller's were used by others, or by the server
    itself, a caller that may only append could make them see a state that no events have led to.
    """
    if not caller.identity:
        return key
    return f"caller/{blake2b(caller.identity.encode(), digest_size=12).hexdigest()}/{key}"


async def get_snapshot(call: Call) -> Response:
    """Answer with the snapshot under a key."""
    message = await _decoded(call, messages.Key)
    check_payload(call.caller)

    async def ask(engine: Engine) -> messages.SnapshotMessage:
        found = await require(engine, "snapshots").get(snapshot_key(call.caller, message.value))
        return messages.SnapshotMessage(message.value, found)

    return await _in_one_epoch(call, ask)


async def put_snapshot(call: Call) -> Response:
    """Store a snapshot."""
    message = await _decoded(call, messages.SnapshotMessage)
    engine = call.store.engine
    if message.value is not None:
        await require(engine, "snapshots").put(snapshot_key(call.caller, message.key), message.value)
    return _answer(engine, engine.epoch, Nothing())


async def drop_snapshots(call: Call) -> Response:
    """Delete the snapshots whose keys start with a prefix."""
    message = await _decoded(call, messages.Key)
    engine = call.store.engine
    snapshots = require(engine, "snapshots")
    found = await snapshots.delete_prefix(message.value)
    found += await snapshots.delete_prefix(snapshot_key(call.caller, message.value)) if call.caller.identity else 0
    return _answer(engine, engine.epoch, messages.Number(found))


async def acquire_lock(call: Call) -> Response:
    """Acquire a lock, or answer with its owner."""
    message = await _decoded(call, messages.AcquireLock)
    engine = call.store.engine
    found = await call.server.remote.locks_of(call.store_name).acquire(message.name, message.owner, message.holder)
    return _answer(engine, engine.epoch, messages.Owner(found))


async def renew_locks(call: Call) -> Response:
    """Extend the leases of locks."""
    message = await _decoded(call, messages.RenewLocks)
    engine = call.store.engine
    await call.server.remote.locks_of(call.store_name).renew(message.locks)
    return _answer(engine, engine.epoch, Nothing())


async def release_lock(call: Call) -> Response:
    """Release a lock."""
    message = await _decoded(call, messages.ReleaseLock)
    engine = call.store.engine
    await call.server.remote.locks_of(call.store_name).release(message.name, message.holder)
    return _answer(engine, engine.epoch, Nothing())


async def request_keys(call: Call) -> Response:
    """Answer with request keys, each with the first position of its append."""
    message = await _decoded(call, messages.Names)

    async def ask(engine: Engine) -> messages.RequestKeys:
        found = await require(engine, "replication").keys(message.after, _pages(message.limit))
        return messages.RequestKeys(found)

    return await _in_one_epoch(call, ask)


async def import_events(call: Call) -> Response:
    """Write whole appends of another log."""
    message = await _decoded(call, messages.ImportEvents)
    _check_imported(message.events)
    for key, first in message.keys:
        check_name("request key", key, error=InvalidInput)
        _number(first)
    engine = call.store.engine
    await require(engine, "replication").import_events(message.events, message.keys)
    return _answer(engine, engine.epoch, Nothing())


async def take_identity(call: Call) -> Response:
    """Give an empty store the identity of another."""
    message = await _decoded(call, messages.TakeIdentity)
    engine = call.store.engine
    await require(engine, "replication").take_identity(message.store_id, message.epoch)
    return _answer(engine, engine.epoch, Nothing())


def _check_imported(events: list[StoredEvent]) -> None:
    """Raise InvalidEvent unless these are whole appends at adjacent positions."""
    for before, event in zip([None, *events], events, strict=False):
        check_encoded(  # with reserved names: a log has those of eventfold
            NewEvent(
                *(event.id, event.type, event.version, event.data, event.tag_set, event.occurred, event.metadata),
                *(event.codec, event.key),
            ),
            reserved=True,
        )
        begins = event.offset == 0 and (before is None or before.offset == before.size - 1)
        continues = before is not None and (before.first, before.size) == (event.first, event.size)
        adjacent = before is None or event.position == before.position + 1
        if not (begins or continues) or not adjacent or not 0 <= event.offset < event.size or event.position < 1:
            raise InvalidEvent(
                f"The event at position {event.position} does not continue the log.", "Import whole appends, in order."
            )
    if events and events[-1].offset != events[-1].size - 1:
        raise InvalidEvent(f"The append that ends at {events[-1].last} is incomplete.", "Import whole appends.")


def _route(
    name: str, handler: Handler, scope: Scope, summary: str, request: Any, response: Any, *, writes: bool = False
) -> Route:
    """A route of this module. Those that wait for commits take no place of a call."""
    return Route(
        method="POST",
        path=f"/engine/{name}",
        handler=handler,
        scope=scope,
        summary=summary,
        request=request,
        request_media=(MEDIA_TYPE,),
        response=response,
        media=(MEDIA_TYPE,),
        writes=writes,
        errors=(409,) if writes else (),
        waits=handler is watch,
    )


ROUTES = (
    _route("identity", identity, Scope.READ, "The store and what its engine can do", Nothing, messages.Identity),
    _route("append", append, Scope.APPEND, "Append requests", messages.Append, messages.Outcomes, writes=True),
    _route("read", read, Scope.READ_PAYLOAD, "A page of events", messages.Read, messages.PageMessage),
    _route("head", head, Scope.READ, "The last event's position, time and id", Nothing, Head),
    _route("watch", watch, Scope.READ, "The head, as soon as it changes", messages.Watch, Head),
    _route("count", count, Scope.READ, "How many events match", messages.Count, messages.Number),
    _route("position-at", position_at, Scope.READ, "The position at a time", messages.Number, messages.Number),
    _route("event-id", event_id, Scope.READ, "The id of the event at a position", messages.Number, messages.EventId),
    _route("boundary", boundary, Scope.READ, "The end of an append", messages.Number, messages.Number),
    _route("receipt", receipt, Scope.READ, "The receipt of a request key", messages.Key, messages.ReceiptMessage),
    _route("types", types, Scope.READ, "Event types with counts", Nothing, messages.Types),
    _route("tags", tags, Scope.READ, "Tags with counts", messages.Names, messages.Tags),
    _route("stats", stats, Scope.READ, "Facts for an operator", Nothing, messages.Stats),
    _route("position-of", position_of, Scope.READ, "The position of an id", messages.EventId, messages.Number),
    _route("tag-keys", tag_keys, Scope.READ, "Keys of tags", messages.Names, messages.Texts),
    _route("tag-names", tag_names, Scope.READ, "Tags without counts", messages.Names, messages.Texts),
    _route("counts", counts, Scope.READ, "How many events match in ranges", messages.Counts, messages.Numbers),
    _route("snapshot", get_snapshot, Scope.READ_PAYLOAD, "A snapshot", messages.Key, messages.SnapshotMessage),
    _route("put-snapshot", put_snapshot, Scope.APPEND, "Store a snapshot", SnapshotMessage, Nothing, writes=True),
    _route(
        "drop-snapshots", drop_snapshots, Scope.MANAGE, "Drop snapshots", messages.Key, messages.Number, writes=True
    ),
    _route("acquire-lock", acquire_lock, Scope.APPEND, "Acquire a lock", messages.AcquireLock, messages.Owner),
    _route("renew-locks", renew_locks, Scope.APPEND, "Keep locks", messages.RenewLocks, Nothing),
    _route("release-lock", release_lock, Scope.APPEND, "Release a lock", messages.ReleaseLock, Nothing),
    _route("request-keys", request_keys, Scope.READ, "Request keys", messages.Names, messages.RequestKeys),
    _route("import", import_events, Scope.ADMIN, "Import events", messages.ImportEvents, Nothing, writes=True),
    _route("take-identity", take_identity, Scope.ADMIN, "Take an identity", TakeIdentity, Nothing, writes=True),
)
