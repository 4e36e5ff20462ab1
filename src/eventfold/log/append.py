"""Appending: encode, submit, and say again what got no answer.

Knows: the limits of a request, what an outcome means. Does not know: how requests are combined.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from types import CoroutineType
from typing import Any

from eventfold.concurrency.calls import Call
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
from eventfold.log.context import Appender, Log, Options, metadata_of, refuse_nested_append
from eventfold.log.cursors import LAST_POSITION, check_position, known_position, position_of
from eventfold.ports.messages import PAGE_BYTES, AppendRequest, Outcome
from eventfold.ports.services import require

Asked = Query | State
Unless = Asked | Sequence[tuple[Asked, int]] | None
MOST_REPEATS = 8
FIRST_PAUSE = 0.02  # seconds, doubled with each repetition of an unconfirmed append: some 2.5 s in eight attempts


async def append(
    log: Log, options: Options, events: Sequence[Any], unless: Unless, after: int | Cursor, key: str | None
) -> Receipt:
    """Append events under a condition. Returns the receipt; raises an outcome that is an error."""
    clauses, epoch = await _condition_of(log, unless, after)
    request = AppendRequest(encode(log, options, events), clauses, options.command_id if key is None else key, epoch)
    return await (write if options.connection is None else stage)(log, options, request)


async def append_encoded(
    log: Log, options: Options, events: Sequence[NewEvent], unless: Unless, after: int | Cursor, key: str | None
) -> Receipt:
    """Append events that are encoded already. Otherwise the same."""
    clauses, epoch = await _condition_of(log, unless, after)
    request = AppendRequest(checked(options, events), clauses, options.command_id if key is None else key, epoch)
    return await (write if options.connection is None else stage)(log, options, request)


async def _condition_of(
    log: Log, unless: Unless, after: int | Cursor
) -> tuple[tuple[ConditionClause, ...], int | None]:
    """A user's condition as clauses, and the epoch they are of: None for plain positions, whose epoch is unknown."""
    epoch = log.engine.epoch if isinstance(after, Cursor) else None
    clauses = await clauses_of(log, unless, after)
    for each in clauses:
        if each.after > LAST_POSITION:  # more than an engine can be asked
            await known_position(log, each.after)
    return clauses, epoch


async def append_next(log: Log, options: Options, rest: Iterator[Any], batch: int) -> int:
    """One append of the next events, up to `batch` of them, fewer where these have PAGE_BYTES; how many there were."""
    metadata, size = metadata_of(options), 0
    events: list[NewEvent] = []
    for event in islice(rest, batch):
        events.append(log.registry.encode(event, metadata))
        size += len(events[-1].data)
        if size >= PAGE_BYTES:
            break
    if events:
        await write(log, options, AppendRequest(tuple(events)))
    return len(events)


def encode(log: Log, options: Options, events: Sequence[Any]) -> tuple[NewEvent, ...]:
    """The events, encoded and checked. Raises InvalidInput when there are none, or too many."""
    _refuse_count(events)
    metadata = metadata_of(options)
    return tuple([log.registry.encode(event, metadata) for event in events])


def checked(options: Options, events: Sequence[NewEvent]) -> tuple[NewEvent, ...]:
    """Encoded events, checked, with the metadata of whoever appends. Raises InvalidInput, InvalidEvent."""
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
    """Refuse an `extend` that would write nothing, or less than it says. Raises InvalidInput."""
    if not 1 <= batch <= MAX_EVENTS_PER_APPEND:
        raise InvalidInput(
            f"extend was given batch={batch}.", f"An append takes 1 to {MAX_EVENTS_PER_APPEND:,} events.", batch=batch
        )
    if options.command_id is not None:
        raise InvalidInput(
            "extend makes several appends, and a command id stands for one.",
            "Give each event an id of its own, ef.Draft(event, id=…): then repeating an import is safe.",
            command_id=options.command_id,
        )


def submit(appender: Appender, request: AppendRequest) -> CoroutineType[Any, Any, Outcome]:
    """Queue one request and wait for its outcome, to be awaited. An unconfirmed append is not repeated."""
    call = Call()
    return call.bind(_submit(appender, request, call))


async def _submit(appender: Appender, request: AppendRequest, call: Call) -> Outcome:
    return await appender.outcome(appender.enqueue(request, call))


def write(log: Log, options: Options, request: AppendRequest, ticket: Any = None) -> CoroutineType[Any, Any, Receipt]:
    """Write one request, and repeat it, identical, while its answer is lost. To be awaited.

    `ticket`: of a request that is checked and in the queue already.
    """
    call = Call()
    return call.bind(_write(log, options, request, call, ticket))


async def _write(log: Log, options: Options, request: AppendRequest, call: Call, ticket: Any) -> Receipt:
    if ticket is None:
        check_request(log, request)
    attempts, lost, appender = min(options.attempts, MOST_REPEATS), None, log.appender
    for attempt in range(attempts):
        outcome = await appender.outcome(appender.enqueue(request, call) if ticket is None else ticket)
        ticket = None
        if isinstance(outcome, Receipt):
            return outcome if lost is None else as_first_answer(outcome, request.events)
        if isinstance(outcome, AppendUnconfirmed):
            lost = outcome
        elif lost is None or not isinstance(outcome, StoreUnavailable):
            raise outcome  # judged: had the lost one been written, this would be its receipt
        # An answer was lost before, so a store that is away now leaves it as open as it was.
        if attempt + 1 == attempts:
            raise lost
        await log.runtime.sleep(FIRST_PAUSE * 2**attempt)
    raise InvalidInput("An append was given no attempts.", "Use attempts=1 or more.")


def check_request(log: Log, request: AppendRequest) -> None:
    """Refuse a request that must not be queued. Raises InvalidInput."""
    refuse_nested_append(log)
    if request.key is not None:
        check_name("request key", request.key, error=InvalidInput)


async def stage(log: Log, options: Options, request: AppendRequest) -> Any:
    """Stage one request in the transaction of the user's own connection. Raises NotSupported where an engine cannot."""
    if request.key is not None:
        check_name("request key", request.key, error=InvalidInput)
    return (await require(log.engine, "transactions").stage(options.connection, [request]))[0]


async def clauses_of(log: Log, unless: Unless, after: int | Cursor) -> tuple[ConditionClause, ...]:
    """A user's condition as clauses: one query with `after`, or pairs of (query, position)."""
    if isinstance(after, Cursor):
        after = await position_of(log, after)
    if unless is None:
        if after:
            raise InvalidQuery(
                "An append was given after= without unless=.",
                "Say which events would forbid it: unless=query, after=position.",
            )
        return ()
    if isinstance(unless, (Query, State, str, type)):
        return (clause(unless, after),)
    if after:
        raise InvalidQuery(
            "An append was given after= beside pairs, which have positions of their own.",
            "Leave after= away, or give one query alone.",
        )
    try:
        pairs = [(asked, position) for asked, position in unless]
    except (TypeError, ValueError) as error:
        raise InvalidQuery(
            "An append was given unless= that is neither one query nor pairs of (query, position).",
            "Write unless=query, after=position, or unless=[(query, position), …]; queries that are looked up from one "
            "position can be one: Query.any_of([…]).",
        ) from error
    clauses = tuple(clause(asked, position) for asked, position in pairs)
    if not clauses:
        raise InvalidQuery(
            "An append was given unless=[], which names nothing that would forbid it.",
            "Leave unless= away for an append without a condition; for any event at all write unless=Query(), after=….",
        )
    return clauses


def clause(asked: Asked, after: int) -> ConditionClause:
    """One piece of a condition. Raises InvalidQuery if its position is none."""
    if check_position(after) < 0:
        raise InvalidQuery(
            f"A condition was given after={after}.", "Positions are not negative; 0 is before the first event."
        )
    return ConditionClause(query_of(asked), after)


def query_of(asked: Asked) -> Query:
    """A query, or the query a state asks. Raises InvalidQuery if it is neither, or names too much."""
    if isinstance(asked, State):
        return asked.query()
    if not isinstance(asked, Query):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidQuery(f"{asked!r} is no query.", "Give an ef.Query, for example ef.Query.of(types=…, tags=…).")
    return check_limits(asked)
