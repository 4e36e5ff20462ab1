"""What a reader of a live stream sees: the part of it that makes two readers equal, so that they share their bytes.

Knows: queries, what a caller may see, the JSON of an event. Does not know: connections, the log.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from eventfold.core.envelope import StoredEvent
from eventfold.core.event_json import to_line
from eventfold.core.query import Cursor, Matcher, Query
from eventfold.server.live.sse import event_frame
from eventfold.server.scopes import Caller
from eventfold.server.visibility import may_read_payload, visible_query, withheld

_encode = msgspec.json.Encoder().encode


class View(msgspec.Struct, frozen=True):
    """What a reader is shown. Equal views are shared, so everything that decides what is shown is a part of it.

    `query` matches only events that the caller may see (`visible_query`). `is_narrowed`: other events exist that the
    caller may not see. `with_payload`: data and metadata are shown.
    """

    query: Query
    filter: str = ""
    is_narrowed: bool = False
    with_payload: bool = True

    @classmethod
    def of(cls, caller: Caller, query: Query, filter_text: str = "") -> View:
        """The view of a caller who asks for this. Raises OutsideScope."""
        return cls(visible_query(caller, query), filter_text, caller.is_narrowed, may_read_payload(caller))

    def predicate(self) -> Callable[[StoredEvent], bool]:
        """A function that says of a stored event whether this view shows it."""
        matches = Matcher(self.query).matches
        return lambda stored: matches(stored.type, stored.tag_set)


class FrameEncoder:
    """Stored events as frames of Server-Sent Events, for one history of one store."""

    def __init__(self, store_id: str, epoch: int) -> None:
        self._store_id, self._epoch = store_id, epoch

    def cursor(self, stored: StoredEvent) -> str:
        """The text of the cursor after an event."""
        return str(Cursor(self._store_id, self._epoch, stored.position, stored.id.hex()))

    def frame(self, stored: StoredEvent, with_payload: bool) -> bytes:
        """The bytes of an event."""
        line = to_line(stored)
        if not with_payload:
            line = withheld(line)
        return event_frame(self.cursor(stored), _encode(line))
