"""Reading: bounds resolved once, then page after page, decoded; states folded, warm or cold.

Knows: what `at`, `until` and `since` mean. Does not know: which mode is waiting for the page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date
from typing import Any, TypeVar, cast
from uuid import UUID

import msgspec

from eventfold.core.codec import Codec
from eventfold.core.envelope import StoredEvent, to_micros, to_moment
from eventfold.core.event import Recorded
from eventfold.core.query import Cursor, Query
from eventfold.core.registry import raw_event
from eventfold.core.state import State, Step, copy_state, evolve_all, evolve_recorded, state_definition_of
from eventfold.core.tags import check_name
from eventfold.errors import CorruptEvent, CursorMismatch, InvalidInput, InvalidQuery, InvalidState
from eventfold.log.append import query_of
from eventfold.log.context import Log
from eventfold.log.cursors import LAST_POSITION, check_position, known_position, position_of
from eventfold.log.snapshots import is_snapshot_due, load_snapshot, save_snapshot
from eventfold.ports.messages import Page, Span, TagCount
from eventfold.ports.refusals import beyond_head
from eventfold.ports.services import require

S = TypeVar("S", bound=State)
PAGE = 1_000


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """What a user may say about which stretch to read. See `Store.read`."""

    after: int | Cursor = 0
    until: int | date | None = None
    since: date | None = None
    occurred_since: date | None = None
    occurred_until: date | None = None
    limit: int | None = None
    backwards: bool = False


async def span_of(log: Log, bounds: Bounds) -> Span:
    """Bounds as positions and µs. Raises InvalidQuery or InvalidInput on those that mean nothing."""
    after = bounds.after
    after = await position_of(log, after) if isinstance(after, Cursor) else after
    if check_position(after) < 0 or (bounds.limit is not None and bounds.limit < 0):
        raise InvalidQuery(
            f"A read was given after={after}, limit={bounds.limit}.", "Positions and limits are not negative."
        )
    if after and (bounds.backwards or bounds.until is not None or after > LAST_POSITION):
        await known_position(log, after)  # elsewhere the first page tells
    if bounds.since is not None:
        after = max(after, await log.engine.position_at(to_micros(to_moment(bounds.since)) - 1))
    until = None if bounds.until is None else await resolve_position(log, bounds.until)
    return Span(
        after=after,
        until=until,
        backwards=bounds.backwards,
        occurred_since=None if bounds.occurred_since is None else to_micros(to_moment(bounds.occurred_since)),
        occurred_until=None if bounds.occurred_until is None else last_micros(bounds.occurred_until),
    )


def last_micros(until: date) -> int:
    """Until when, inclusive: a datetime, or the end of a day in UTC. Raises InvalidInput."""
    return to_micros(to_moment(until, late=True))


async def resolve_position(log: Log, at: int | date) -> int:
    """A moment as a position: the last one recorded by then, never inside an append.

    A position means the moment of the append that wrote it, so all of that append is included; a date the end of that
    day in UTC. Raises PositionBeyondHead; a time in the future is simply now.
    """
    if isinstance(at, date):
        return await log.engine.position_at(last_micros(at))
    if not isinstance(at, int):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidInput(f"{at!r} is no moment.", "Give a position, an aware datetime, or a date.")
    return await log.engine.boundary(await known_position(log, at)) if at else 0


class Reader:
    """Reads a span page by page: `await next_page()` until it returns None."""

    def __init__(self, log: Log, query: Query, bounds: Bounds, raw: bool = False) -> None:
        self._log, self._query, self._bounds = log, query_of(query), bounds
        self._left = bounds.limit
        self._span: Span | None = None
        self._epoch = log.engine.epoch
        self._last: StoredEvent | None = None  # of what was given
        self._done = False
        self._records = decoder_for(log, raw)

    async def next_page(self) -> list[Recorded[Any]] | None:
        """The next matching events, at least one; None at the end."""
        page = await self.next_stored()
        return None if page is None else self._records(page)

    async def next_stored(self) -> list[StoredEvent] | None:
        """The same without decoding."""
        while not self._done and self._left != 0:
            span = self._span or await span_of(self._log, self._bounds)
            page = await self._log.engine.read(
                self._query, msgspec.structs.replace(span, limit=PAGE if self._left is None else min(PAGE, self._left))
            )
            if self._log.engine.epoch != self._epoch:
                await self._begin_again()
                continue
            refuse_future(page, span)
            self._done = not page.more
            self._span = (
                msgspec.structs.replace(span, until=page.scanned - 1)
                if span.backwards
                else msgspec.structs.replace(span, after=page.scanned)
            )
            events = page.events
            if self._left is not None:
                events = events[: self._left]
                self._left -= len(events)
            if events:
                self._last = events[-1]
                return events
        return None

    async def _begin_again(self) -> None:
        """In another epoch: go on behind what was given, if that is still there. Raises CursorMismatch."""
        self._epoch, last = self._log.engine.epoch, self._last
        span = await span_of(self._log, self._bounds)
        if last is not None:
            if await self._log.engine.event_id(last.position) != last.id:
                raise CursorMismatch(
                    f"The event read last, at position {last.position}, is not in this store any more: it failed over "
                    "or was restored while it was read.",
                    "What was read after the restored point is not in this log; read again from the beginning.",
                    position=last.position,
                )
            bound: dict[str, int] = {"until": last.position - 1} if span.backwards else {"after": last.position}
            span = msgspec.structs.replace(span, **bound)
        self._span = span


def refuse_future(page: Page, span: Span) -> None:
    """Reading after a position that is not there yet is a mistake, or a cursor of another history."""
    if not span.backwards and page.scanned < span.after and (span.until is None or span.until >= span.after):
        raise beyond_head(span.after, page.scanned)


def decoder_for(log: Log, as_raw: bool) -> Callable[[list[StoredEvent]], list[Recorded[Any]]]:
    """How stored events become what the user sees. An event that an upcaster splits is seen as its parts."""
    if as_raw:
        return lambda page: [Recorded(stored, raw_event(stored)) for stored in page]
    decode = log.registry.decode
    return lambda page: [Recorded(stored, event) for stored in page for event in decode(stored)]


async def event_of(log: Log, given: UUID | str, as_raw: bool) -> Recorded[Any] | None:
    """The event of an id, or None. Raises InvalidInput on what is no id, and Unreadable errors."""
    try:
        identity = given if isinstance(given, UUID) else UUID(given)
    except (AttributeError, TypeError, ValueError):
        raise InvalidInput(f"{given!r} is no event id.", "Give a uuid.UUID, or one as text.", id=repr(given)) from None
    position = await require(log.engine, "lookups").position_of(identity.bytes)
    if position is None:
        return None
    page = await log.engine.read(Query(), Span(after=position - 1, until=position))
    found = decoder_for(log, as_raw)([stored for stored in page.events if stored.id == identity.bytes])
    if len(found) == 1:
        return found[0]
    if not any(stored.id == identity.bytes for stored in page.events):
        raise CorruptEvent(
            f"The event {identity} is said to stand at position {position}, and is not there.",
            "Keep a copy of the store as it is, check the disk, and restore a backup.",
            position=position,
        )
    raise InvalidInput(
        f"The event {identity} is read as {len(found)} events by its upcasters.",
        f"Read them with store.read(after={position - 1}, until={position}), or what was written with raw=True.",
        id=str(identity),
        position=position,
    )


async def tag_of(log: Log, tag: str) -> TagCount:
    """What is known of one tag; zeros where no event has it. Raises InvalidQuery on what no event could have."""
    check_name("tag", tag, reserved=True, error=InvalidQuery)
    for found in await log.engine.tags(tag, 1):  # of those that begin with it, it is the first
        if found.tag == tag:
            return found
    return TagCount(tag, 0, 0, 0)


class StateFold:
    """A State being folded: which codec reads each of its event types."""

    def __init__(self, log: Log, question: State) -> None:
        if not isinstance(question, State):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidState(f"{question!r} is no State.", 'Ask with a question, like Account("a-1").')
        self.plan = state_definition_of(type(question))
        self.query = question.query()
        self._log = log
        self._codecs: dict[tuple[str, int], Codec] = {}
        self._wanted = self.plan.events

    def decode(self, page: list[StoredEvent]) -> Iterator[Any]:
        """The typed events of a page. The classes evolve names win over others of the same stored name."""
        for _, event in self.steps(page):
            yield event

    def steps(self, page: list[StoredEvent]) -> Iterator[tuple[StoredEvent, Any]]:
        """The same, each with the stored event it came from. What an upcaster split off for others is left out."""
        codecs, decode_as, wanted = self._codecs, self._log.registry.decode_as, self._wanted
        for stored in page:
            codec = codecs.get((stored.type, stored.version))
            if codec is None:
                codec = self._log.registry.codec_among(self.plan.events, stored)
                codecs[stored.type, stored.version] = codec
            for event in decode_as(codec, stored):
                if codec.upcaster is None or isinstance(event, wanted):
                    yield stored, event

    def fold(self, state: State, page: list[StoredEvent]) -> None:
        """Fold a page into a state, in place, with the envelopes if it asks for them."""
        if self.plan.recorded:
            evolve_recorded(state, (Recorded(stored, event) for stored, event in self.steps(page)))
        else:
            evolve_all(state, self.decode(page))


async def load(log: Log, question: S, until: int | None = None) -> tuple[S, int]:
    """The state of a question and the position it is folded through: a copy the caller may keep."""
    state, position = await load_cached(log, question, until)
    return copy_state(state), position


async def load_cached(log: Log, question: S, until: int | None = None) -> tuple[S, int]:
    """The same without the copy: the state may be the cached one, so it must not be changed.

    Without `until` it is the state now, caught up from the one folded last; with it, a state of the past.
    """
    folding = StateFold(log, question)
    while (loaded := await _load_in(log, question, until, folding, log.engine.epoch)) is None:
        continue  # the epoch has changed, which it does once in a failover
    return loaded


async def _load_in(log: Log, question: S, until: int | None, folding: StateFold, epoch: int) -> tuple[S, int] | None:
    """The same; None where the store has come to another epoch than this meanwhile, so that history may be lost."""
    key = folding.plan.key(question)
    kept = log.cache.get(key, epoch)
    if kept is not None and (until is None or kept[1] <= until):
        state, position, ours = cast(S, kept[0]), kept[1], False
    else:
        state, position = await load_snapshot(log, question, until) or (folding.plan.initial(question), 0)
        ours = True
    folded = 0
    while True:
        page = await log.engine.read(folding.query, Span(after=position, until=until, limit=PAGE))
        if log.engine.epoch != epoch:
            return None
        if page.scanned < position:  # the store lost history: what was folded from it is worth nothing
            log.cache.clear()
            state, position, ours, folded = folding.plan.initial(question), 0, True, 0
            continue
        if page.events:
            if not ours:
                state, ours = copy_state(state), True
            folding.fold(state, page.events)
            folded += len(page.events)
        position = page.scanned
        if not page.more:
            break
    if until is None:
        log.cache.put(key, state, position, epoch)
        if is_snapshot_due(log, key, folded) and await save_snapshot(log, question, state, position, epoch):
            log.cache.count_folded(key, None)
    return state, position


async def state_at(log: Log, question: S, at: int | date | None, occurred_until: date | None) -> S:
    """The state now, at a moment of the log, or as far as the business had come by a moment of its own."""
    if at is None and occurred_until is None:
        return (await load(log, question))[0]
    if occurred_until is None and at is not None:
        return (await load(log, question, await resolve_position(log, at)))[0]
    folding = StateFold(log, question)
    reader = Reader(log, folding.query, Bounds(until=at, occurred_until=occurred_until))
    state = folding.plan.initial(question)
    while (page := await reader.next_stored()) is not None:
        folding.fold(state, page)
    return state


class History:
    """Every step of a state: `await next_steps()` until it returns None."""

    def __init__(self, log: Log, question: State, bounds: Bounds) -> None:
        self._folding = StateFold(log, question)
        self._reader = Reader(log, self._folding.query, bounds)
        self._state = self._folding.plan.initial(question)

    async def next_steps(self) -> list[Step] | None:
        """The next events, each with a copy of the state after it; None at the end."""
        page = await self._reader.next_stored()
        if page is None:
            return None
        steps: list[Step] = []
        for stored, event in self._folding.steps(page):
            recorded = Recorded(stored, event)
            evolve_recorded(self._state, (recorded,))
            steps.append(Step(recorded, copy_state(self._state)))
        return steps
