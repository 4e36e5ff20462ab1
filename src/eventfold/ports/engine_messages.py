"""The calls of an engine as messages, for an engine whose log is in another process: the remote engine and its server.

Each call is one message and one answer, as MessagePack. Fields that a side does not know are ignored, so that a newer
client and an older server understand each other.
Knows: the arguments and results of the port. Does not know: HTTP, who calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from eventfold.core.envelope import Receipt, StoredEvent
from eventfold.core.event_rows import EventRows
from eventfold.core.query import Query
from eventfold.core.snapshot import Snapshot
from eventfold.errors import EventfoldError
from eventfold.ports.messages import AppendRequest, Outcome, Page, Span, TagCount, TypeCount

T = TypeVar("T")
MEDIA_TYPE = "application/msgpack"
STORE_HEADER = "Eventfold-Store"  # of a request: the id of the store that is meant; of an answer: ID.EPOCH
LOCK_LEASE_S = 10.0  # a lock whose holder does not renew it within this time is released
MAX_WATCH_S = 30.0  # the longest time that an answer to `Watch` may wait for a commit
MAX_NAMES = 10_000  # tags, keys of tags or request keys in one answer

encode = msgspec.msgpack.Encoder().encode

# position, id, type (a number), version, data, tags, time, occurred, metadata, offset, size, codec, key, no checksum
EventRow = tuple[
    int,
    bytes,
    int,
    int,
    bytes,
    str,
    int,
    int | None,
    bytes | None,
    int | None,
    int | None,
    str | None,
    str | None,
    None,
]


class Nothing(msgspec.Struct):
    """A message without arguments, or an answer without a result."""


class Identity(msgspec.Struct, kw_only=True):
    """What a client must know of a store: its engine's name, capabilities, and which services it has."""

    engine: str
    durable: bool
    immutable: bool
    query_conditions: bool
    request_keys: bool
    services: list[str]


class Append(msgspec.Struct):
    """Append requests, judged in this order."""

    requests: list[AppendRequest]


class ErrorMessage(msgspec.Struct, omit_defaults=True):
    """An error of eventfold: the code of its class, its two sentences and its fields."""

    code: str
    what: str
    remedy: str
    fields: dict[str, Any] = {}


class OutcomeMessage(msgspec.Struct, omit_defaults=True):
    """The outcome of one request: a receipt, or an error."""

    receipt: Receipt | None = None
    error: ErrorMessage | None = None


class Outcomes(msgspec.Struct):
    """One outcome for each request, in order."""

    outcomes: list[OutcomeMessage]


class Read(msgspec.Struct):
    """A page is asked for."""

    query: Query
    span: Span


class PageMessage(msgspec.Struct):
    """A page: its events as rows, in which a type is a number; `types` has the names of these numbers."""

    rows: list[EventRow]
    types: dict[int, str]
    scanned: int
    more: bool


class Count(msgspec.Struct):
    """The number of matching events in (after, until] is asked for."""

    query: Query
    after: int = 0
    until: int | None = None


class Counts(msgspec.Struct):
    """The numbers of matching events in the ranges between `bounds` are asked for."""

    query: Query
    bounds: list[int]


class Numbers(msgspec.Struct):
    """Several numbers."""

    value: list[int]


class Number(msgspec.Struct):
    """A position, a time in µs since 1970 UTC, or a number of things; None: there is none."""

    value: int | None


class EventId(msgspec.Struct):
    """The id of an event, 16 bytes; None: there is none."""

    value: bytes | None


class Key(msgspec.Struct):
    """A request key, the key of a snapshot, or a prefix of such keys."""

    value: str


class ReceiptMessage(msgspec.Struct):
    """A receipt; None: there is none."""

    value: Receipt | None


class Names(msgspec.Struct):
    """Up to `limit` tags, keys of tags or request keys are asked for: with this prefix, greater than `after`."""

    prefix: str = ""
    limit: int = 1000
    after: str = ""


class Types(msgspec.Struct):
    """Every event type with its counts."""

    value: list[TypeCount]


class Tags(msgspec.Struct):
    """Tags with their counts."""

    value: list[TagCount]


class Texts(msgspec.Struct):
    """Tags, or keys of tags."""

    value: list[str]


class Stats(msgspec.Struct):
    """Facts for an operator."""

    value: dict[str, Any]


class Watch(msgspec.Struct):
    """The head is asked for as soon as it is not `head` any more; at the latest after `wait_s` seconds."""

    head: int
    wait_s: float


class SnapshotMessage(msgspec.Struct):
    """The snapshot under a key; None: there is none, or (as a message) none is stored."""

    key: str
    value: Snapshot | None


class AcquireLock(msgspec.Struct):
    """A lock is asked for. `holder` is a text of the client's that no other attempt has: a repeat is recognised."""

    name: str
    owner: str
    holder: str


class ReleaseLock(msgspec.Struct):
    """A lock is released, if this holder has it."""

    name: str
    holder: str


class RenewLocks(msgspec.Struct):
    """The locks that a client holds. Those that it has lost, because the server was started again, are acquired."""

    locks: list[AcquireLock]


class Owner(msgspec.Struct):
    """The owner of a lock that another caller holds; None: it was acquired."""

    value: str | None


class RequestKeys(msgspec.Struct):
    """Request keys, each with the first position of its append."""

    value: list[tuple[str, int]]


class ImportEvents(msgspec.Struct):
    """Whole appends of another log, and request keys."""

    events: list[StoredEvent]
    keys: list[tuple[str, int]]


class TakeIdentity(msgspec.Struct):
    """The identity that an empty store takes over."""

    store_id: str
    epoch: int


def error_message(error: EventfoldError) -> ErrorMessage:
    """Return an error as a message. Fields that are not plain values are left out."""
    fields = {key: value for key, value in error.fields.items() if isinstance(value, str | int | float | bool | None)}
    return ErrorMessage(error.code, error.what, error.remedy, fields)


def outcome_message(outcome: Outcome) -> OutcomeMessage:
    """Return an outcome as a message."""
    return OutcomeMessage(outcome) if isinstance(outcome, Receipt) else OutcomeMessage(error=error_message(outcome))


def page_message(page: Page) -> PageMessage:
    """Return a page as a message."""
    rows, types = _rows_of(page.events)
    return PageMessage(rows, types, page.scanned, page.more)


def page_of(message: PageMessage) -> Page:
    """Return the page of a message."""
    rows = [(*row[:12], None, row[12]) for row in message.rows]  # as EventRows has them
    return Page(EventRows(rows, message.types), message.scanned, message.more)


def _rows_of(events: Sequence[StoredEvent]) -> tuple[list[Any], dict[int, str]]:
    if isinstance(events, EventRows):
        rows: list[Any] = [(*row[:12], row[13], None) for row in events.rows]
        return rows, {number: events.types[number] for number in {row[2] for row in rows}}
    numbers: dict[str, int] = {}
    rows = [
        (
            *(e.position, e.id, numbers.setdefault(e.type, len(numbers)), e.version, e.data, e.tags, e.time),
            *(e.occurred, e.metadata, e.offset, e.size, e.codec, e.key, None),
        )
        for e in events
    ]
    return rows, {number: name for name, number in numbers.items()}


def errors_by_code() -> dict[str, type[EventfoldError]]:
    """Return every class of the library's errors by its code."""
    found: dict[str, type[EventfoldError]] = {}
    waiting: list[type[EventfoldError]] = [EventfoldError]
    while waiting:
        kind = waiting.pop()
        found.setdefault(kind.code, kind)
        waiting += (each for each in kind.__subclasses__() if each.__module__ == EventfoldError.__module__)
    return found
