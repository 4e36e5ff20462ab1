"""The values passed between the log and an engine: append requests and outcomes, spans and pages, counts, capabilities.

Knows: events, queries, receipts. Does not know: how an engine works.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from eventfold.core.envelope import NewEvent, Receipt, StoredEvent
from eventfold.core.query import ConditionClause
from eventfold.errors import EventfoldError


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine can do. (P9) A call that needs a missing capability raises `NotSupported` with a remedy."""

    suspends: bool = False  #          its coroutines suspend on an event loop (network engines)
    blocks: bool = True  #             its coroutines block the calling thread (disk, network)
    durable: bool = True  #            (P4) an acknowledged append survives a power cut
    shared: bool = True  #             several processes may use the same store at once
    query_conditions: bool = True  #   (P2) conditions over any query, not only over one tag
    request_keys: bool = True  #       (P5) `AppendRequest.key` is honoured
    pushes: bool = True  #             (P7) watchers are woken by a notification, not by polling
    immutable: bool = True  #          (P6) the database itself refuses UPDATE and DELETE on the log
    releases_interpreter: bool = False  # a read mostly waits for a server, while other threads of the process run


class AppendRequest(msgspec.Struct, frozen=True, gc=False):
    """Events to append under a condition: all of them are written, or none.

    `events`  1 to 1,000 encoded events.
    `unless`  the condition. The request is refused if, for any clause, an event that matches its query has a position
              greater than `after` (exclusive: the head up to which the log was scanned for the query). A clause may
              name an event, `after_event`: then only events after that one count, and the request is also refused if
              that event is not in the log.
    `key`     an optional request key, unique in the store: a second append with it writes nothing and returns the
              receipt of the first.
    `epoch`   the epoch in which the positions of `unless` were read. In another epoch the request is refused with an
              `AppendConflict`, since the positions may belong to other events there. None: unknown.
    `seen`    only for an append within a user's transaction: ids of events that were staged in the transaction
              before, and that the decision took into account. Of the events staged in this transaction, only those
              after the last of them are a conflict.
    """

    events: tuple[NewEvent, ...]
    unless: tuple[ConditionClause, ...] = ()
    key: str | None = None
    epoch: int | None = None
    seen: tuple[bytes, ...] = ()


Outcome = Receipt | EventfoldError


class Head(msgspec.Struct, frozen=True):
    """The last event of the log. `time`: µs since 1970 UTC. If the log is empty: position 0, time 0, id b""."""

    position: int
    time: int
    id: bytes


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """The part of the log to read.

    `after`           exclusive; 0 is before the first event.
    `until`           inclusive; None: the head.
    `limit`           how many events a page has at most; it may have a few more (see `Page`).
    `backwards`       read from `until` down to `after`.
    `occurred_since`, `occurred_until`
                      µs since 1970 UTC, both inclusive; compared with `occurred`, or with `time` for an event that has
                      no `occurred`. The order is by position in any case.
    """

    after: int = 0
    until: int | None = None
    limit: int = 1000
    backwards: bool = False
    occurred_since: int | None = None
    occurred_until: int | None = None


PAGE_BYTES = 8 * 2**20  # bytes of payloads and metadata: a page ends with the event at which they reach this sum


class Page(msgspec.Struct, frozen=True):
    """Matching events in order, and how far the log was scanned for them.

    `events`   in position order (descending if backwards). A page ends at the limit of its span, or with the first
               event at which payloads and metadata reach `PAGE_BYTES`. (P1) It never ends inside an append: it
               includes all other matching events of the append of its last event.
    `scanned`  every matching event in (after, scanned] is in this page; continue with after=scanned.
               Backwards: every one in [scanned, until]; continue with until=scanned-1.
    `more`     whether a limit, rather than the end of the span, ended this page.
    """

    events: Sequence[StoredEvent]
    scanned: int
    more: bool


class TypeCount(msgspec.Struct, frozen=True):
    """An event type in the log: how many events have it, and the positions of the first and the last of them."""

    type: str
    count: int
    first: int
    last: int


class TagCount(msgspec.Struct, frozen=True):
    """A tag in the log: how many events have it, and the positions of the first and the last of them."""

    tag: str
    count: int
    first: int
    last: int
