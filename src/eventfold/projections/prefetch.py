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
from eventfold.ports.target import Target
from eventfold.projections.page import DecodedEvent, PageDecoder, stored_events


class Prepared(msgspec.Struct):
    """A page, its decoded events of one partition, and the tally of those."""

    page: Page
    items: Sequence[DecodedEvent]
    seen: Tally


StartInThread = Callable[[Coroutine[Any, Any, Prepared]], Callable[[], Prepared]]


def can_prefetch(log: Log, target: Target) -> bool:
    """Whether a thread can read a page while another writes one. Both would wait for the interpreter otherwise."""
    return log.engine.capabilities.releases_interpreter or getattr(target, "releases_interpreter", True)


class Prefetcher:
    """Prefetches one page at a time.

    `decoder` is not thread-safe: its owner calls `take` or `drop` before using it.
    """

    def __init__(self, log: Log, query: Query, decoder: PageDecoder, start_in_thread: StartInThread | None) -> None:
        self._log, self._query, self._decoder, self._start_in_thread = log, query, decoder, start_in_thread
        self._pending: tuple[Span, Callable[[], Prepared]] | None = None
        self._last_tally: tuple[Sequence[StoredEvent], Tally] | None = None

    def begin(self, span: Span) -> None:
        """Start to read this span in a thread. No event of it may be parked."""
        if self._start_in_thread is not None:
            self._pending = (span, self._start_in_thread(self._prepare(span)))

    async def _prepare(self, span: Span) -> Prepared:
        page = await self._log.engine.read(self._query, span)
        items = self._decoder.items(page.events, {})
        return Prepared(page, items, tally(stored_events(items)))

    def take(self, span: Span) -> Prepared | None:
        """Return the page of this span; None if it was not begun, or if reading or decoding it failed."""
        pending, self._pending, self._last_tally = self._pending, None, None
        if pending is None:
            return None
        try:
            prepared = pending[1]()
        except Exception:  # noqa: BLE001 (the caller reads the page again and handles its errors)
            return None
        if pending[0] != span:
            return None
        self._last_tally = (stored_events(prepared.items), prepared.seen)
        return prepared

    def drop(self) -> None:
        """Wait for a read that was begun, and drop its page."""
        if self._pending is not None:
            self.take(self._pending[0])
        self._last_tally = None

    def tally(self, events: Sequence[StoredEvent]) -> Tally:
        """Return the tally of events; it is not computed again where `events` is the list of the last page taken."""
        if self._last_tally is not None and self._last_tally[0] is events:
            return self._last_tally[1]
        return tally(events)
