"""The next page of a read model, read, decoded and tallied while the one in hand is written.

Knows: that a log only grows, so that what was read early is as good as what is read in time. Does not know: threads
(it is given one), what is done with a page. Nothing is changed here: a page that is not wanted is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import msgspec

from eventfold.core.envelope import StoredEvent
from eventfold.core.query import Query
from eventfold.core.tally import Tally, tally
from eventfold.log.context import Log
from eventfold.ports.messages import Page, Span
from eventfold.projections.page import DecodedEvent, PageDecoder, stored_events


class Prepared(msgspec.Struct):
    """A page, its events as items, and the tally of them."""

    page: Page
    items: Sequence[DecodedEvent]
    seen: Tally


StartInThread = Callable[[Coroutine[Any, Any, Prepared]], Callable[[], Prepared]]


class Prefetcher:
    """One page at most. Whoever uses `decoder` meanwhile calls `take` or `drop` first: it is for one at a time."""

    def __init__(self, log: Log, query: Query, decoder: PageDecoder, start_in_thread: StartInThread | None) -> None:
        self._log, self._query, self._decoder, self._start_in_thread = log, query, decoder, start_in_thread
        self._coming: tuple[Span, Callable[[], Prepared]] | None = None
        self._known: tuple[list[StoredEvent], Tally] | None = None

    def begin(self, span: Span) -> None:
        """Begin to read this span, whose events are all to be taken."""
        if self._start_in_thread is not None:
            self._coming = (span, self._start_in_thread(self._prepare(span)))

    async def _prepare(self, span: Span) -> Prepared:
        page = await self._log.engine.read(self._query, span)
        items = self._decoder.items(page.events, {})
        return Prepared(page, items, tally(stored_events(items)))

    def take(self, span: Span) -> Prepared | None:
        """The page of this span, if it was begun and nothing went wrong."""
        coming, self._coming, self._known = self._coming, None, None
        if coming is None:
            return None
        try:
            found = coming[1]()
        except Exception:  # noqa: BLE001 (it is done again, where what goes wrong is dealt with)
            return None
        if coming[0] != span:
            return None
        self._known = (stored_events(found.items), found.seen)
        return found

    def drop(self) -> None:
        """Wait for what was begun, and forget it."""
        if self._coming is not None:
            self.take(self._coming[0])
        self._known = None

    def tally(self, events: list[StoredEvent]) -> Tally:
        """The tally of events, which may be known already."""
        if self._known is not None and self._known[0] is events:
            return self._known[1]
        return tally(events)
