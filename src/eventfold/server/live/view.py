"""What a reader of a live stream sees: the part of it that makes two readers equal, so that they share their bytes.

Knows: queries, what a caller may see, the JSON of an event. Does not know: connections, the log.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from eventfold.core.envelope import StoredEvent
from eventfold.core.event_json import to_line
from eventfold.core.query import Cursor, Matcher, Query
from eventfold.server.live.filters import LiveFilter
from eventfold.server.live.sse import event_frame
from eventfold.server.scopes import Caller
from eventfold.server.visibility import may_read_payload, withheld

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class View:
    """What a reader is shown. Equal views are shared, so everything that decides what is shown is a part of it.

    `query` matches only events that the caller may see (`visible_query`). `filter` identifies what `test` accepts.
    `is_narrowed`: other events exist that the caller may not see. `with_payload`: data and metadata are shown.
    """

    query: Query
    filter: str = ""
    is_narrowed: bool = False
    with_payload: bool = True
    test: Callable[[StoredEvent], bool] | None = field(default=None, compare=False)

    @classmethod
    def of(cls, caller: Caller, asked: LiveFilter) -> View:
        """The view of a caller who asks for this."""
        return cls(asked.query, asked.key, caller.is_narrowed, may_read_payload(caller), asked.test)

    def predicate(self) -> Callable[[StoredEvent], bool]:
        """A function that says of a stored event whether this view shows it."""
        matches, test = Matcher(self.query).matches, self.test
        if test is None:
            return lambda stored: matches(stored.type, stored.tag_set)
        return lambda stored: matches(stored.type, stored.tag_set) and test(stored)


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
