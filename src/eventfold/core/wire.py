"""The JSON of queries, conditions, appends, reads, receipts and pages: the same in the server, its clients and the CLI.

    query    {"items": [{"types": ["Opened"], "tags": ["account:a-1"]}, …]}; {} selects every event
    append   {"events": […], "unless": query, "after": position or cursor, "key": "…"}
             or, as `unless`, clauses: [{"query": query, "after": position, "after_event": id}, …]
    read     {"query": query, "after": …, "until": …, "since": …, "limit": …, "backwards": …}

A field that is not known is refused: a misspelt `unless` would silently drop a condition.
Knows: JSON and the values that it stands for. Does not know: HTTP, stores.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, TypeVar
from uuid import UUID

import msgspec

from eventfold.core.envelope import MAX_EVENTS_PER_APPEND, NewEvent, Receipt, to_micros
from eventfold.core.event_json import EventLine, InputLine, event_of_line, format_id, format_time
from eventfold.core.moments import parse_time
from eventfold.core.query import ConditionClause, Cursor, Item, Query, check_limits
from eventfold.core.tags import check_name
from eventfold.errors import InvalidEvent, InvalidInput, InvalidQuery

T = TypeVar("T")
Natural = Annotated[int, msgspec.Meta(ge=0)]
DIGITS = re.compile(r"\d{1,18}", re.ASCII)


class ItemJson(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """An alternative of a query: any of these types (none: any type), and all of these tags. Not both empty."""

    types: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()


class QueryJson(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A query: an event matches if any item does. Without `items` every event matches; an empty list is refused."""

    items: tuple[ItemJson, ...] | None = None


class ClauseJson(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A clause of a condition: no event after position `after` (exclusive) matches the query.

    `after_event`: the id of an event that must be in the log; events up to it, inclusive, are ignored too.
    """

    query: QueryJson
    after: Natural = 0
    after_event: UUID | None = None


class AppendJson(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """An append: 1 to 1,000 events, written all or none.

    `unless`: the condition, a query (with `after`, a position or a cursor) or clauses, which have positions of their
    own. `key`: a request key; a second append with it writes nothing. `epoch`: the epoch of the positions, if known.
    """

    events: list[InputLine]
    unless: QueryJson | tuple[ClauseJson, ...] | None = None
    after: Natural | str = 0
    key: str | None = None
    epoch: int | None = None


class ReadJson(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """A read: which events, within which bounds. Times are RFC 3339 with an offset, or dates (in UTC).

    `after`: a position or a cursor, exclusive. `until`: a position (which stands for its whole append) or a time,
    inclusive. `before`: a position, exclusive. `since`: the first time of recording. `occurred_since`,
    `occurred_until`: inclusive. `filter`: a line of the filter language. `limit`: of events.
    """

    query: QueryJson | None = None
    filter: str | None = None
    after: Natural | str = 0
    until: Natural | str | None = None
    before: Natural | None = None
    since: str | None = None
    occurred_since: str | None = None
    occurred_until: str | None = None
    limit: Natural | None = None
    backwards: bool = False


class ReceiptJson(msgspec.Struct):
    """A receipt: it proves later which events were acknowledged. `first` and `last` are positions, inclusive."""

    store: str
    epoch: int
    first: int
    last: int
    time: str
    ids: list[str]
    digest: str
    repeated: bool


class EventsPage(msgspec.Struct, omit_defaults=True):
    """Events in order, and how to continue.

    `more`: whether there are more events within the bounds. `next`: the position to give as `after` for them (as
    `before`, if the read is backwards); `cursor`: the same place as a cursor, forwards only, which is verified when it
    is used. `head`: the last position of the log (of what the caller sees of it) when the page was read. By a filter a
    page may have few events, or none, and `more`: then `looked_at` is how many were tested for it, `undecodable` how
    many payloads could not be looked into, `answered` how the filter was answered.
    """

    events: list[EventLine]
    more: bool
    next: int
    head: int
    cursor: str | None = None
    looked_at: int | None = None
    undecodable: int = 0
    answered: str | None = None


def decode(raw: bytes | bytearray, kind: type[T], what: str = "body") -> T:
    """Return the JSON as a value of this type. Raises InvalidInput with the path of the field at fault."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(
            f"The {what} is not as expected: {reason(error)}.",
            "Correct it; the OpenAPI document at /v1/openapi.json describes it.",
        ) from error


def reason(error: Exception) -> str:
    """Return the text of an error of msgspec, to be put into a sentence."""
    text = str(error).rstrip(".")
    return text if text[1:2].isupper() else text[:1].lower() + text[1:]  # "JSON is malformed"


def to_query(given: QueryJson | None, where: str = "query") -> Query:
    """Return the query of its JSON. Raises InvalidQuery, which names the item; `where` is the path of the field."""
    if given is None or given.items is None:
        return Query()
    if not given.items:
        raise InvalidQuery(
            f"{where}.items is empty, so no event could match.",
            f"Name types or tags in an item; for every event leave {where}.items away.",
        )
    return check_limits(Query(tuple(_to_item(item, f"{where}.items[{i}]") for i, item in enumerate(given.items))))


def _to_item(given: ItemJson, where: str) -> Item:
    try:
        for name in given.types:
            check_name("type", name, reserved=True)
        tags = {check_name("tag", tag, reserved=True) for tag in given.tags}
    except InvalidEvent as error:
        raise InvalidQuery(f"{where}: {error.what}", error.remedy, **error.fields) from None
    if not given.types and not tags:
        raise InvalidQuery(f"{where} has no type and no tag.", "Name one; for every event send a query without items.")
    return Item(given.types, tuple(sorted(tags)))


def from_query(query: Query) -> QueryJson:
    """Return the JSON of a query."""
    return QueryJson(tuple(ItemJson(item.types, item.tags) for item in query.items) if query.items else None)


def to_clauses(unless: QueryJson | tuple[ClauseJson, ...] | None, after: int) -> tuple[ConditionClause, ...]:
    """Return a condition as clauses; `after` is the position of a query. Raises InvalidQuery."""
    if unless is None or not isinstance(unless, QueryJson):
        if after:
            raise InvalidQuery(
                "`after` was given without a query as `unless`.",
                "Name the events that would forbid the append in `unless`; clauses have positions of their own.",
            )
        if unless == ():
            raise InvalidQuery(
                "`unless` is an empty list, which names no event that would forbid the append.",
                "Leave `unless` away for an append without a condition.",
            )
        return tuple(
            ConditionClause(
                to_query(each.query, f"unless[{i}].query"),
                each.after,
                None if each.after_event is None else each.after_event.bytes,
            )
            for i, each in enumerate(unless or ())
        )
    return (ConditionClause(to_query(unless, "unless"), after),)


def from_clauses(clauses: tuple[ConditionClause, ...]) -> tuple[ClauseJson, ...] | None:
    """Return the JSON of a condition; None if there is none."""
    return (
        tuple(
            ClauseJson(
                from_query(each.query), each.after, None if each.after_event is None else UUID(bytes=each.after_event)
            )
            for each in clauses
        )
        or None
    )


def to_events(given: list[InputLine]) -> tuple[NewEvent, ...]:
    """Return the events of an append, checked. Raises InvalidInput, or InvalidEvent with the field `index`."""
    if not 1 <= len(given) <= MAX_EVENTS_PER_APPEND:
        raise InvalidInput(
            f"An append was given {len(given)} events, and it takes 1 to {MAX_EVENTS_PER_APPEND:,}.",
            "Send at least one; send more than that in several appends.",
            count=len(given),
        )
    found = list[NewEvent]()
    for index, line in enumerate(given):
        try:
            found.append(event_of_line(line))
        except InvalidEvent as error:
            raise at_index(error, index) from None
    return tuple(found)


def at_index(error: InvalidEvent, index: int) -> InvalidEvent:
    """Return the error with the place of its event in an append."""
    return InvalidEvent(f"events[{index}]: {error.what}", error.remedy, **(error.fields | {"index": index}))


def to_position(given: int | str, where: str = "after") -> int | Cursor:
    """Return a position, or the cursor of a text. Raises InvalidInput, CursorMismatch."""
    if isinstance(given, int):
        return given
    if DIGITS.fullmatch(given):
        return int(given)
    if given.startswith("efc"):
        return Cursor.parse(given)
    raise InvalidInput(
        f"{where} is {given[:60]!r}, which is neither a position nor a cursor.",
        "Send a number, or the text of a cursor as this server returned it.",
        field=where,
    )


def to_moment(given: str, where: str, *, end_of_day: bool = False) -> datetime:
    """Return a text as an aware datetime; a date is its first moment in UTC, or its last. Raises InvalidInput."""
    try:
        return parse_time(given, end_of_day=end_of_day)
    except InvalidInput as error:
        raise InvalidInput(
            f"{where}: {error.what}", f"{error.remedy} In a URL, + is written %2B.", field=where, **error.fields
        ) from None


def to_position_or_moment(given: int | str, where: str) -> int | datetime:
    """Return a position, or the moment of a text; a date is its last moment in UTC. Raises InvalidInput."""
    if isinstance(given, int):
        return given
    return int(given) if DIGITS.fullmatch(given) else to_moment(given, where, end_of_day=True)


def to_bounds(given: ReadJson) -> dict[str, Any]:
    """Return the bounds of a read, as keyword arguments of `Bounds` in log/read.py.

    Raises InvalidInput, CursorMismatch.
    """

    def moment(name: str, end_of_day: bool = False) -> datetime | None:
        text = getattr(given, name)
        return None if text is None else to_moment(text, name, end_of_day=end_of_day)

    return {
        "after": to_position(given.after),
        "until": None if given.until is None else to_position_or_moment(given.until, "until"),
        "before": given.before,
        "since": moment("since"),
        "occurred_since": moment("occurred_since"),
        "occurred_until": moment("occurred_until", True),
        "limit": given.limit,
        "backwards": given.backwards,
    }


def from_receipt(receipt: Receipt) -> ReceiptJson:
    """Return the JSON of a receipt."""
    return ReceiptJson(
        receipt.store,
        receipt.epoch,
        receipt.first,
        receipt.last,
        format_time(receipt.time),
        [format_id(identity) for identity in receipt.ids],
        receipt.digest,
        receipt.repeated,
    )


def to_receipt(given: ReceiptJson) -> Receipt:
    """Return the receipt of its JSON. Raises InvalidInput."""
    try:
        return Receipt(
            store=given.store,
            epoch=given.epoch,
            first=given.first,
            last=given.last,
            time=to_micros(datetime.fromisoformat(given.time)),
            ids=tuple(UUID(text).bytes for text in given.ids),
            digest=given.digest,
            repeated=given.repeated,
        )
    except ValueError as error:
        raise InvalidInput(
            f"This is no receipt: {reason(error)}.", "Send a receipt as the server returned it."
        ) from error
