"""The next page of a read model, read, decoded and tallied while the current page is written.

A log only grows, so a page that was read early is still right when it is used. Prefetching changes nothing: a page
that is not needed is dropped.
Knows: pages, their tallies. Does not know: threads (a function that starts one is a parameter), how pages are used.
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
    """A page, its decoded events of one partition, and the tally of those."""

    page: Page
    items: Sequence[DecodedEvent]
    seen: Tally


StartInThread = Callable[[Coroutine[Any, Any, Prepared]], Callable[[], Prepared]]


class Prefetcher:
    """Prefetches one page at a time.

    `decoder` is not thread-safe: its owner calls `take` or `drop` before using it.
    """

    def __init__(self, log: Log, query: Query, decoder: PageDecoder, start_in_thread: StartInThread | None) -> None:
        self._log, self._query, self._decoder, self._start_in_thread = log, query, decoder, start_in_thread
        self._coming: tuple[Span, Callable[[], Prepared]] | None = None
        self._known: tuple[list[StoredEvent], Tally] | None = None

    def begin(self, span: Span) -> None:
        """Start to read this span in a thread. No event of it may be parked."""
        if self._start_in_thread is not None:
            self._coming = (span, self._start_in_thread(self._prepare(span)))

    async def _prepare(self, span: Span) -> Prepared:
        page = await self._log.engine.read(self._query, span)
        items = self._decoder.items(page.events, {})
        return Prepared(page, items, tally(stored_events(items)))

    def take(self, span: Span) -> Prepared | None:
        """Return the page of this span; None if it was not begun, or if reading or decoding it failed."""
        coming, self._coming, self._known = self._coming, None, None
        if coming is None:
            return None
        try:
            found = coming[1]()
        except Exception:  # noqa: BLE001 (the caller reads the page again and handles its errors)
            return None
        if coming[0] != span:
            return None
        self._known = (stored_events(found.items), found.seen)
        return found

    def drop(self) -> None:
        """Wait for a read that was begun, and drop its page."""
        if self._coming is not None:
            self.take(self._coming[0])
        self._known = None

    def tally(self, events: list[StoredEvent]) -> Tally:
        """Return the tally of events; it is not computed again where `events` is the list of the last page taken."""
        if self._known is not None and self._known[0] is events:
            return self._known[1]
        return tally(events)
