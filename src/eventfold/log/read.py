"""Reading: events page by page within bounds, and states folded from them.

Knows: what `at`, `until` and `since` mean. Does not know: whether its caller is sync or async.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date
from itertools import repeat
from typing import Any, TypeVar, cast
from uuid import UUID

import msgspec

from eventfold.core.codec import Codec
from eventfold.core.envelope import StoredEvent, to_micros, to_moment
from eventfold.core.event import Recorded, RecordedRow
from eventfold.core.event_rows import DecodedRows, EventRows
from eventfold.core.query import Cursor, Query
from eventfold.core.registry import Registry, raw_event
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
PAGE = 1_000  # events in one read, at most


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of a read, as a user passes them. See `Store.read`.

    `before` is a position, exclusive: where a backwards read continues, also within an append.
    """

    after: int | Cursor = 0
    until: int | date | None = None
    before: int | None = None
    since: date | None = None
    occurred_since: date | None = None
    occurred_until: date | None = None
    limit: int | None = None
    backwards: bool = False


async def span_of(log: Log, bounds: Bounds) -> Span:
    """Return bounds as positions and µs. Raises InvalidQuery or InvalidInput if they are invalid."""
    after = bounds.after
    after = await position_of(log, after) if isinstance(after, Cursor) else after
    if check_position(after, "after") < 0 or (bounds.limit is not None and bounds.limit < 0):
        raise InvalidQuery(
            f"A read was given after={after}, limit={bounds.limit}.", "Positions and limits are not negative."
        )
    bounded = bounds.until is not None or bounds.before is not None
    if after and (bounds.backwards or bounded or after > LAST_POSITION):
        await known_position(log, after)  # in other cases the first page shows whether it is beyond the head
    if bounds.since is not None:
        after = max(after, await log.engine.position_at(to_micros(to_moment(bounds.since)) - 1))
    until = None if bounds.until is None else await resolve_position(log, bounds.until)
    if bounds.before is not None:
        last = max(bounds.before - 1, 0)
        until = last if until is None else min(until, last)
    return Span(
        after=after,
        until=until,
        backwards=bounds.backwards,
        occurred_since=None if bounds.occurred_since is None else to_micros(to_moment(bounds.occurred_since)),
        occurred_until=None if bounds.occurred_until is None else last_micros(bounds.occurred_until),
    )


def last_micros(until: date) -> int:
    """Return a datetime, or the end of a day in UTC, as µs since 1970 UTC, inclusive. Raises InvalidInput."""
    return to_micros(to_moment(until, late=True))


async def resolve_position(log: Log, at: int | date) -> int:
    """Return a moment as a position: that of the last event recorded by then, at the end of its append.

    `at`: a datetime; a date, which means the end of that day in UTC; or a position, which means the end of the append
    that wrote it. A time in the future means now. Raises PositionBeyondHead, InvalidInput.
    """
    if isinstance(at, date):
        return await log.engine.position_at(last_micros(at))
    if not isinstance(at, int):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidInput(f"{at!r} is no moment.", "Give a position, an aware datetime, or a date.")
    return await log.engine.boundary(await known_position(log, at)) if at else 0


class Reader:
    """A read of a span, page by page: `await next_page()` until it returns None."""

    def __init__(self, log: Log, query: Query, bounds: Bounds, raw: bool = False) -> None:
        self._log, self._query, self._bounds = log, query_of(query), bounds
        self._left = bounds.limit
        self._span: Span | None = None
        self._epoch = log.engine.epoch
        self._last: StoredEvent | None = None  # the last event returned
        self._done = False
        self._records = decoder_for(log, raw)

    async def next_page(self) -> Iterable[Recorded[Any]] | None:
        """Return the next matching events, at least one, decoded, to be iterated over once; None at the end."""
        page = await self.next_stored()
        return None if page is None else self._records(page)

    async def next_stored(self) -> Sequence[StoredEvent] | None:
        """Return the next matching events without decoding them; None at the end."""
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
        """Continue in a new epoch after the last event returned. Raises CursorMismatch if that event is lost."""
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
    """Raise PositionBeyondHead if a read began beyond the head: a mistake, or a position of lost history."""
    if not span.backwards and page.scanned < span.after and (span.until is None or span.until >= span.after):
        raise beyond_head(span.after, page.scanned)


def decoder_for(log: Log, as_raw: bool) -> Callable[[Sequence[StoredEvent]], Iterable[Recorded[Any]]]:
    """Return the function that decodes a page. An event that an upcaster splits becomes several."""
    if as_raw:
        return lambda page: [Recorded(stored, raw_event(stored)) for stored in page]
    registry = log.registry

    def decode(page: Sequence[StoredEvent]) -> Iterable[Recorded[Any]]:
        if isinstance(page, EventRows):
            decoded = registry.decode_in_turn(page, registry.codec_for)
            if decoded is not None:
                return _recorded_in_turn(registry, page, decoded)
        return [Recorded(stored, event) for stored in page for event in registry.decode(stored)]

    return decode


def _recorded_in_turn(registry: Registry, rows: EventRows, decoded: DecodedRows) -> Iterator[Recorded[Any]]:
    """Yield the events of rows as they are decoded. Raises UndecodableEvent at an event that no class can read."""
    try:
        yield from recorded_rows(rows, decoded.payloads)
    except Exception as error:
        registry.report_undecodable(error, decoded, registry.codec_for)
        raise


def recorded_rows(rows: EventRows, events: Iterable[Any]) -> Iterator[Recorded[Any]]:
    """Return the decoded events of rows with their envelopes, which are made when they are first used."""
    return map(cast(Any, RecordedRow), rows.rows, events, repeat(rows.types))


async def event_of(log: Log, id: UUID | str, as_raw: bool) -> Recorded[Any] | None:
    """Return the event with an id; None if there is none. Raises InvalidInput on an invalid id, Unreadable errors."""
    try:
        identity = id if isinstance(id, UUID) else UUID(id)
    except (AttributeError, TypeError, ValueError):
        raise InvalidInput(f"{id!r} is no event id.", "Give a uuid.UUID, or one as text.", id=repr(id)) from None
    position = await require(log.engine, "lookups").position_of(identity.bytes)
    if position is None:
        return None
    page = await log.engine.read(Query(), Span(after=position - 1, until=position))
    parts = list(decoder_for(log, as_raw)([stored for stored in page.events if stored.id == identity.bytes]))
    if len(parts) == 1:
        return parts[0]
    if not any(stored.id == identity.bytes for stored in page.events):
        raise CorruptEvent(
            f"The index lists event {identity} at position {position}, and it is not there.",
            "Keep a copy of the store as it is, check the disk, and restore a backup.",
            position=position,
        )
    raise InvalidInput(
        f"Upcasters turn the event {identity} into {len(parts)} events.",
        f"Read them with store.read(after={position - 1}, until={position}), or read the stored one with raw=True.",
        id=str(identity),
        position=position,
    )


async def tag_of(log: Log, tag: str) -> TagCount:
    """Return the counts of one tag; zeros if no event has it. Raises InvalidQuery if it is not a valid tag."""
    check_name("tag", tag, reserved=True, error=InvalidQuery)
    for count in await log.engine.tags(tag, 1):  # in code point order it comes before the tags that it is a prefix of
        if count.tag == tag:
            return count
    return TagCount(tag, 0, 0, 0)


class StateFold:
    """The fold of a State: its definition, its query, and the codec for each of its event types."""

    def __init__(self, log: Log, question: State) -> None:
        if not isinstance(question, State):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidState(f"{question!r} is no State.", 'Ask with a question, like Account("a-1").')
        self.plan = state_definition_of(type(question))
        self.query = question.query()
        self._log = log
        self._codecs: dict[tuple[str, int], Codec] = {}
        self._wanted = self.plan.events

    def decode(self, page: Sequence[StoredEvent]) -> Iterator[Any]:
        """Yield the decoded events of a page. Classes that `evolve` names win over others of the same stored name."""
        for _, event in self.steps(page):
            yield event

    def steps(self, page: Sequence[StoredEvent]) -> Iterator[tuple[StoredEvent, Any]]:
        """Yield the decoded events of a page, each with its stored event.

        Events that an upcaster made and that `evolve` does not name are left out.
        """
        codecs, decode_as, wanted = self._codecs, self._log.registry.decode_as, self._wanted
        for stored in page:
            codec = codecs.get((stored.type, stored.version)) or self._codec_of(stored)
            for event in decode_as(codec, stored):
                if codec.upcaster is None or isinstance(event, wanted):
                    yield stored, event

    def _codec_of(self, stored: StoredEvent) -> Codec:
        codec = self._codecs.get((stored.type, stored.version))
        if codec is None:
            codec = self._log.registry.codec_among(self.plan.events, stored)
            self._codecs[stored.type, stored.version] = codec
        return codec

    def fold(self, state: State, page: Sequence[StoredEvent]) -> None:
        """Fold a page into a state, in place, with the envelopes if it asks for them."""
        if isinstance(page, EventRows):
            decoded = self._log.registry.decode_in_turn(page, self._codec_of)
            if decoded is not None:
                self._fold_in_turn(state, page, decoded)
                return
        if self.plan.recorded:
            evolve_recorded(state, (Recorded(stored, event) for stored, event in self.steps(page)))
        else:
            evolve_all(state, self.decode(page))

    def _fold_in_turn(self, state: State, rows: EventRows, decoded: DecodedRows) -> None:
        """Fold the events of rows as they are decoded."""
        try:
            if self.plan.recorded:
                evolve_recorded(state, recorded_rows(rows, decoded.payloads))
            else:
                evolve_all(state, decoded.payloads)
        except Exception as error:
            self._log.registry.report_undecodable(error, decoded, self._codec_of)
            raise  # `evolve` raised it


async def load(log: Log, question: S, until: int | None = None) -> tuple[S, int]:
    """Return a copy of the state of a question, and the position that it is folded up to, inclusive."""
    state, position = await load_cached(log, question, until)
    return copy_state(state), position


async def load_cached(log: Log, question: S, until: int | None = None) -> tuple[S, int]:
    """Return the same without copying: the state may be the cached one, so the caller must not change it.

    `until`: a position, inclusive; None: the head, caught up from the cached state if there is one.
    """
    folding = StateFold(log, question)
    while (loaded := await _load_in(log, question, until, folding, log.engine.epoch)) is None:
        continue  # the epoch has changed, as it does once in a failover
    return loaded


async def _load_in(log: Log, question: S, until: int | None, folding: StateFold, epoch: int) -> tuple[S, int] | None:
    """Return the same; None if the store is no longer in `epoch`, so that folded events may be lost."""
    key = folding.plan.key(question)
    cached = log.cache.get(key, epoch)
    if cached is not None and (until is None or cached[1] <= until):
        state, position, is_copy = cast(S, cached[0]), cached[1], False
    else:
        state, position = await load_snapshot(log, question, until) or (folding.plan.initial(question), 0)
        is_copy = True
    folded = 0
    while True:
        page = await log.engine.read(folding.query, Span(after=position, until=until, limit=PAGE))
        if log.engine.epoch != epoch:
            return None
        if page.scanned < position:  # the store lost events that may have been folded
            log.cache.clear()
            state, position, is_copy, folded = folding.plan.initial(question), 0, True, 0
            continue
        if page.events:
            if not is_copy:
                state, is_copy = copy_state(state), True
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
    """Return the state now, at a moment of the log (`at`), or from events that had occurred by `occurred_until`."""
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
    """Every step of a state, page by page: `await next_steps()` until it returns None."""

    def __init__(self, log: Log, question: State, after: int, until: int | date | None) -> None:
        self._log, self._after, self._is_known = log, check_position(after, "after"), False
        self._folding = StateFold(log, question)
        self._reader = Reader(log, self._folding.query, Bounds(until=until))
        self._state = self._folding.plan.initial(question)

    async def next_steps(self) -> list[Step] | None:
        """Return the next events behind `after`, each with a copy of the state after it; None at the end.

        Raises PositionBeyondHead.
        """
        if not self._is_known:
            await known_position(self._log, self._after)
            self._is_known = True
        page = await self._reader.next_stored()
        if page is None:
            return None
        steps: list[Step] = []
        for stored, event in self._folding.steps(page):
            recorded = Recorded(stored, event)
            evolve_recorded(self._state, (recorded,))
            if stored.position > self._after:
                steps.append(Step(recorded, copy_state(self._state)))
        return steps
