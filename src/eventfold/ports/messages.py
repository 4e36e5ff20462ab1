"""What is said between the log and an engine: append requests and outcomes, spans and pages, counts, capabilities.

Knows: events, queries, receipts. Does not know: how an engine answers.
"""

from __future__ import annotations

import msgspec

from eventfold.core.envelope import NewEvent, Receipt, StoredEvent
from eventfold.core.query import ConditionClause
from eventfold.errors import EventfoldError


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine can do. A missing one makes the call raise `NotSupported` with a remedy."""

    suspends: bool = False  #          its coroutines really wait on a loop (network engines)
    blocks: bool = True  #             its coroutines block the calling thread (disk, network)
    durable: bool = True  #            an acknowledged append survives a power cut
    shared: bool = True  #             several processes may use the same store at once
    query_conditions: bool = True  #   conditions over any query, not just over one tag
    request_keys: bool = True  #       `AppendRequest.key` is honoured
    pushes: bool = True  #             watchers are woken by notification, not by a poll
    immutable: bool = True  #          the database itself refuses UPDATE and DELETE on the log


class AppendRequest(msgspec.Struct, frozen=True):
    """Some events under a condition: all of them are written, or none.

    `events`  1 to 1,000 encoded events.
    `unless`  the condition: refused if, for any clause, an event matching its query has a position
              greater than its `after` (exclusive; `after` is the head that was scanned for it), and than
              that of the event `behind`, if the clause names one; refused, too, if that event is nowhere.
    `key`     an optional request key, unique in the store: a second append under it writes nothing
              and reports the first one's receipt.
    `seen`    where the append joins its user's transaction: ids of events that were staged in it before, and that
              the decision was made over. Of this transaction only events behind the last of them are a conflict.
    `epoch`   the epoch in which the positions of `unless` were read: in another one they mean nothing,
              and the request is refused as by a conflict. None: not known.
    """

    events: tuple[NewEvent, ...]
    unless: tuple[ConditionClause, ...] = ()
    key: str | None = None
    epoch: int | None = None
    seen: tuple[bytes, ...] = ()


Outcome = Receipt | EventfoldError


class Head(msgspec.Struct, frozen=True):
    """The end of the log: position 0, time 0 and no id when it is empty. Time: µs since 1970, UTC."""

    position: int
    time: int
    id: bytes


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """Which stretch of the log to read.

    `after` exclusive; `until` inclusive (None: the head); `limit` events at the most, softly (see
    `Page`); `backwards` from `until` down to `after`; `occurred_since` / `occurred_until`: µs since
    1970 UTC, both inclusive, compared with `occurred` or, where an event has none, with `time`;
    the order stays that of the positions.
    """

    after: int = 0
    until: int | None = None
    limit: int = 1000
    backwards: bool = False
    occurred_since: int | None = None
    occurred_until: int | None = None


PAGE_BYTES = 8 * 2**20  # of payloads and metadata: the event that reaches it is the last of its page


class Page(msgspec.Struct, frozen=True):
    """Some matching events in order, and how far the log was scanned for them.

    `events`   in position order (descending if backwards). A page ends at the limit of its span, or with the first
               event at which payloads and metadata come to `PAGE_BYTES`; and never inside an append: where it
               would cut one, the rest of its matching events is added.
    `scanned`  every matching event in (after, scanned] is in this page; continue with after=scanned.
               Backwards: every one in [scanned, until]; continue with until=scanned-1.
    `more`     whether a limit, rather than the end of the span, ended this page.
    """

    events: list[StoredEvent]
    scanned: int
    more: bool


class TypeCount(msgspec.Struct, frozen=True):
    """An event type as it stands in the log, with how many events have it."""

    type: str
    count: int
    first: int
    last: int


class TagCount(msgspec.Struct, frozen=True):
    """A tag as it stands in the log: how many events carry it, the positions of the first and the last of them."""

    tag: str
    count: int
    first: int
    last: int
