"""Appending: encode events, submit a request, and repeat it while its outcome is unknown.

Knows: the limits of a request, what each outcome means. Does not know: how requests are combined into commits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from types import CoroutineType
from typing import Any

from eventfold.concurrency.calls import Call
from eventfold.core.backoff import Backoff
from eventfold.core.codec import with_metadata
from eventfold.core.envelope import (
    MAX_EVENTS_PER_APPEND,
    NewEvent,
    Receipt,
    as_first_answer,
    check_encoded,
    check_new,
)
from eventfold.core.query import ConditionClause, Cursor, Query, check_limits
from eventfold.core.state import State
from eventfold.core.tags import check_name
from eventfold.errors import AppendUnconfirmed, InvalidInput, InvalidQuery, StoreUnavailable
from eventfold.log.context import CONTEXT, WRITING, Appender, Log, Options, metadata_of, refuse_nested_append
from eventfold.log.cursors import LAST_POSITION, check_position, known_position, position_of
from eventfold.ports.messages import PAGE_BYTES, AppendRequest, Outcome
from eventfold.ports.services import require

Asked = Query | State  # what a condition, a read or a lock is about
Unless = Asked | Sequence[tuple[Asked, int]] | None
ENCODED_TOGETHER, SMALL_PAYLOAD = 64, 8_192  # events of `extend`; bytes of a payload on average
MAX_ATTEMPTS = 8  # of an unconfirmed append, at most: with the pauses between them it is repeated for 2.54 s
UNCONFIRMED_BACKOFF = Backoff(0.02, 2.56)


async def append(
    log: Log, options: Options, events: Sequence[Any], unless: Unless, after: int | Cursor, key: str | None
) -> Receipt:
    """Append events under a condition. Returns the receipt; raises the outcome if it is an error."""
    if unless is None and after == 0:
        clauses, epoch = (), None
    elif type(unless) is Query and type(after) is int and 0 <= after <= LAST_POSITION:  # the usual one, in few calls
        clauses, epoch = (ConditionClause(check_limits(unless), after),), None
    else:
        clauses, epoch = await _condition_of(log, unless, after)
    encoded = encode(log, options, events)
    request = AppendRequest(encoded, clauses, options.command_id if key is None else key, epoch)
    return await (write if options.connection is None else stage)(log, options, request)


def append_now(
    log: Log, options: Options, events: Sequence[Any], unless: Unless, after: int | Cursor, key: str | None
) -> Receipt | CoroutineType[Any, Any, Receipt]:
    """Append events within this call if they have no condition and no other append is queued or being committed.

    Returns the receipt, or what is to be awaited for it. So the lone append of a thread needs no coroutine.
    """
    if unless is not None or after != 0 or options.connection is not None:
        return append(log, options, events, unless, after, key)
    request = AppendRequest(encode(log, options, events), (), options.command_id if key is None else key)
    outcome = _begin(log, options, request)
    return outcome if isinstance(outcome, Receipt) else _finish(log, options, request, None, outcome)


async def append_encoded(
    log: Log, options: Options, events: Sequence[NewEvent], unless: Unless, after: int | Cursor, key: str | None
) -> Receipt:
    """Append encoded events under a condition. See append."""
    clauses, epoch = await _condition_of(log, unless, after)
    request = AppendRequest(checked(options, events), clauses, options.command_id if key is None else key, epoch)
    return await (write if options.connection is None else stage)(log, options, request)


async def _condition_of(
    log: Log, unless: Unless, after: int | Cursor
) -> tuple[tuple[ConditionClause, ...], int | None]:
    """Return a user's condition as clauses, and the epoch of their positions; None for plain numbers: unknown."""
    epoch = log.engine.epoch if isinstance(after, Cursor) else None
    clauses = await clauses_of(log, unless, after)
    for each in clauses:
        if each.after > LAST_POSITION:  # greater than an engine accepts
            await known_position(log, each.after)
    return clauses, epoch


async def append_next(log: Log, options: Options, rest: Iterator[Any], batch: int) -> int:
    """Append the next events, at most `batch`, and fewer once they have PAGE_BYTES. Returns how many; 0 at the end."""
    metadata, size = metadata_of(options), 0
    events: list[NewEvent] = []
    while len(events) < batch and size < PAGE_BYTES:
        count = ENCODED_TOGETHER if events and size <= len(events) * SMALL_PAYLOAD else 1  # no large one is read early
        given = list(islice(rest, min(count, batch - len(events))))
        if not given:
            break
        encoded = log.registry.encode_all(given, metadata)
        size += sum([len(event.data) for event in encoded])
        events += encoded
    if events:
        await write(log, options, AppendRequest(tuple(events)))
    return len(events)


def encode(log: Log, options: Options, events: Sequence[Any]) -> tuple[NewEvent, ...]:
    """Return the events encoded and checked. Raises InvalidInput if there are none or too many, InvalidEvent."""
    metadata = metadata_of(options) if options.metadata or CONTEXT.get() is not None else None
    if len(events) == 1:
        return (log.registry.encode(events[0], metadata),)
    _refuse_count(events)
    return tuple(log.registry.encode_all(events, metadata))


def checked(options: Options, events: Sequence[NewEvent]) -> tuple[NewEvent, ...]:
    """Return encoded events, checked and with the caller's metadata added. Raises InvalidInput, InvalidEvent."""
    _refuse_count(events)
    metadata = metadata_of(options)
    return tuple([check_new(with_metadata(check_encoded(event), metadata)) for event in events])


def _refuse_count(events: Sequence[Any]) -> None:
    if not 1 <= len(events) <= MAX_EVENTS_PER_APPEND:
        raise InvalidInput(
            f"An append was given {len(events)} events, and it takes 1 to {MAX_EVENTS_PER_APPEND:,}.",
            "Give at least one; for more use store.extend(…), which appends them in batches.",
            count=len(events),
        )


def check_batches(options: Options, batch: int) -> None:
    """Raise InvalidInput if an `extend` has an impossible batch size, or a command id, which names one append only."""
    if not 1 <= batch <= MAX_EVENTS_PER_APPEND:
        raise InvalidInput(
            f"extend was given batch={batch}.", f"Give 1 to {MAX_EVENTS_PER_APPEND:,} events per append.", batch=batch
        )
    if options.command_id is not None:
        raise InvalidInput(
            "extend makes several appends, and a command id names one.",
            "Give each event an id of its own, ef.Draft(event, id=…): then repeating an import is safe.",
            command_id=options.command_id,
        )


def submit(appender: Appender, request: AppendRequest) -> CoroutineType[Any, Any, Outcome]:
    """Queue one request and wait for its outcome. Does not repeat an unconfirmed append. To be awaited."""
    call = Call()
    return call.bind(_submit(appender, request, call))


async def _submit(appender: Appender, request: AppendRequest, call: Call) -> Outcome:
    return await appender.outcome(appender.enqueue(request, call))


async def write(log: Log, options: Options, request: AppendRequest, ticket: Any = None) -> Receipt:
    """Write one request, and repeat it unchanged while its outcome is unknown.

    `ticket`: the ticket of the request if it is checked and queued already. Raises the outcome if it is an error.
    """
    outcome = _begin(log, options, request) if ticket is None else None
    return outcome if isinstance(outcome, Receipt) else await _finish(log, options, request, ticket, outcome)


def _begin(log: Log, options: Options, request: AppendRequest) -> Outcome | None:
    """Check a request and make its first attempt, if no other is queued. Returns the outcome; None: to be queued."""
    if request.key is not None or WRITING.get():
        check_request(log, request)
    return log.appender.append_alone(request) if options.attempts > 0 else None


def _finish(
    log: Log, options: Options, request: AppendRequest, ticket: Any, outcome: Outcome | None
) -> CoroutineType[Any, Any, Receipt]:
    call = Call()
    return call.bind(_write(log, options, request, call, ticket, outcome))


async def _write(
    log: Log, options: Options, request: AppendRequest, call: Call, ticket: Any, outcome: Outcome | None
) -> Receipt:
    """Write a request. `ticket`: if it is queued already; `outcome`: of its first attempt, if that has one already."""
    attempts, unconfirmed, appender = min(options.attempts, MAX_ATTEMPTS), None, log.appender
    for attempt in range(attempts):
        if outcome is None:
            outcome = await appender.outcome(appender.enqueue(request, call) if ticket is None else ticket)
        if isinstance(outcome, Receipt):
            return outcome if unconfirmed is None else as_first_answer(outcome, request.events)
        if isinstance(outcome, AppendUnconfirmed):
            unconfirmed = outcome
        elif unconfirmed is None or not isinstance(outcome, StoreUnavailable):
            raise outcome  # a decision of the engine: if an earlier attempt had been written, this would be a receipt
        # An earlier outcome is unknown. It stays unknown while the store is not available.
        if attempt + 1 == attempts:
            raise unconfirmed
        ticket = outcome = None
        await log.runtime.sleep(UNCONFIRMED_BACKOFF.pause(attempt + 1))
    raise InvalidInput("An append was given no attempts.", "Use attempts=1 or more.")


def check_request(log: Log, request: AppendRequest) -> None:
    """Raise InvalidInput if a request must not be queued."""
    refuse_nested_append(log)
    if request.key is not None:
        check_name("request key", request.key, error=InvalidInput)


async def stage(log: Log, options: Options, request: AppendRequest) -> Any:
    """Stage one request in the transaction of the user's connection. Raises NotSupported if the engine cannot."""
    if request.key is not None:
        check_name("request key", request.key, error=InvalidInput)
    return (await require(log.engine, "transactions").stage(options.connection, [request]))[0]


async def clauses_of(log: Log, unless: Unless, after: int | Cursor) -> tuple[ConditionClause, ...]:
    """Return a user's condition as clauses. `unless`: one query, with `after`, or pairs of (query, position)."""
    if isinstance(after, Cursor):
        after = await position_of(log, after)
    if unless is None:
        if after:
            raise InvalidQuery(
                "An append was given after= without unless=.",
                "Name the events that would forbid it: unless=query, after=position.",
            )
        return ()
    if isinstance(unless, (Query, State, str, type)):
        return (clause(unless, after),)
    if after:
        raise InvalidQuery(
            "An append was given after= together with pairs, which have positions of their own.",
            "Leave after= away, or give one query alone.",
        )
    try:
        pairs = [(query, position) for query, position in unless]
    except (TypeError, ValueError) as error:
        raise InvalidQuery(
            "An append was given unless= that is neither one query nor pairs of (query, position).",
            "Write unless=query, after=position, or unless=[(query, position), …]; for several queries with the same "
            "position write Query.any_of([…]).",
        ) from error
    clauses = tuple(clause(query, position) for query, position in pairs)
    if not clauses:
        raise InvalidQuery(
            "An append was given unless=[], which names no event that would forbid it.",
            "Leave unless= away for an append without a condition; to refuse after any event write unless=Query().",
        )
    return clauses


def clause(query: Asked, after: int) -> ConditionClause:
    """Return one clause of a condition. Raises InvalidQuery if `after` is not a position."""
    if check_position(after, "after") < 0:
        raise InvalidQuery(
            f"A condition was given after={after}.", "Positions are not negative; 0 is before the first event."
        )
    return ConditionClause(query_of(query), after)


def query_of(query: Asked) -> Query:
    """Return a query as it is, or the query of a state. Raises InvalidQuery if it is neither, or has too many items."""
    if isinstance(query, State):
        return query.query()
    if not isinstance(query, Query):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidQuery(f"{query!r} is no query.", "Give an ef.Query, for example ef.Query.of(types=…, tags=…).")
    return check_limits(query)
