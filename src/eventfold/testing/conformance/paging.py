"""A page of the port has the position up to which it scanned, and never splits an append."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from eventfold.core.envelope import NewEvent
from eventfold.core.query import Query
from eventfold.ports.messages import PAGE_BYTES, Page, Span
from eventfold.store import Store
from eventfold.testing.conformance.events import about, deposit, deposits

SIZES = (1, 3, 2, 1, 4, 1, 1)  # appends of so many events: boundaries at 1, 4, 6, 7, 11, 12, 13
EDGES = {1, 4, 6, 7, 11, 12, 13}


def log(store: Store) -> list[int]:
    """Appends of several sizes; every other event is about a-2. Returns the positions of events about a-1."""
    number = 0
    for size in SIZES:
        events = [deposit("a-1" if (number + n) % 2 == 0 else "a-2") for n in range(size)]
        number += size
        store.append(*events)
    return [position for position in range(1, number + 1) if position % 2]


def pages(port: Any, query: Query, span: Span) -> list[Page]:
    """Every page of a span, read as the port specifies."""
    from msgspec.structs import replace

    found: list[Page] = []
    while len(found) < 50:
        page: Page = port.read(query, span)
        found.append(page)
        if not page.more:
            return found
        span = replace(span, until=page.scanned - 1) if span.backwards else replace(span, after=page.scanned)
    raise AssertionError("a read that never ends")


@pytest.mark.parametrize("backwards", [False, True], ids=["forwards", "backwards"])
def test_all_pages_together_contain_every_event(store: Store, port: Any, backwards: bool) -> None:
    """The pages, continued as the port specifies, contain every matching event once and in order, for any limit."""
    odd = log(store)
    asked = ((Query(), list(range(1, 14))), (about("a-1"), odd), (about("unused"), list[int]()))
    for (query, all_of_them), limit, after, until in product(asked, (1, 2, 3, 5, 13, 100), (0, 4), (None, 11, 0)):
        end = 13 if until is None else until
        expected = [position for position in all_of_them if after < position <= end]
        span = Span(after=after, until=until, limit=limit, backwards=backwards)
        found = [event.position for page in pages(port, query, span) for event in page.events]
        assert found == (expected[::-1] if backwards else expected)


@pytest.mark.parametrize("backwards", [False, True], ids=["forwards", "backwards"])
def test_a_page_never_ends_inside_an_append(store: Store, port: Any, backwards: bool) -> None:
    """If the limit would split an append, the rest of its matching events is added."""
    log(store)
    for query, limit in product((Query(), about("a-1")), range(1, 14)):
        matching = {event.position for event in port.read(query, Span()).events}
        for page in pages(port, query, Span(limit=limit, backwards=backwards)):
            for event in (page.events[0], page.events[-1]) if page.events else ():
                mates = set(range(event.first, event.last + 1)) & matching
                assert mates <= {other.position for other in page.events}


def test_a_page_exceeds_its_limit_only_to_complete_an_append(store: Store, port: Any) -> None:
    """A page has at most `limit` events, and the rest of one append."""
    log(store)
    for limit in range(1, 14):
        page: Page = port.read(Query(), Span(limit=limit))
        assert limit <= len(page.events) <= limit + max(SIZES) - 1


def test_scanned_covers_what_did_not_match(store: Store, port: Any) -> None:
    """`scanned` reaches the end of the span if nothing more matches, so that followers advance."""
    log(store)
    assert (port.read(about("unused"), Span()).scanned, port.read(about("a-1"), Span()).scanned) == (13, 13)
    assert port.read(Query(), Span(until=11)).scanned == 11
    assert port.read(about("unused"), Span(after=13)).scanned == 13


def test_no_matching_event_is_missing_up_to_scanned(store: Store, port: Any) -> None:
    """Every matching event between `after` and `scanned` is in the page, so that continuing after it skips none."""
    odd = log(store)
    after = 0
    for page in pages(port, about("a-1"), Span(limit=2)):
        assert [e.position for e in page.events] == [p for p in odd if after < p <= page.scanned]
        assert page.scanned >= after
        after = page.scanned


def test_following_more_reaches_the_end(store: Store, port: Any) -> None:
    """`more` is true if the limit ended the page; continuing reaches a page without it."""
    store.append(*deposits(3))
    last = pages(port, Query(), Span(limit=3))[-1]
    assert not last.more
    assert port.read(Query(), Span(limit=4)).more is False


@pytest.mark.parametrize("number", [0, 1, 40], ids=["everything", "one alternative", "many alternatives"])
def test_a_page_of_large_events_is_bounded_by_their_bytes(store: Store, port: Any, number: int) -> None:
    """A page ends with the event that reaches PAGE_BYTES, and with the rest of the append of that event."""
    large = 900_000
    accounts = [f"a-{n}" for n in range(number)]
    query = Query.any_of([item for name in accounts for item in about(name).items]) if number else Query()
    events = [NewEvent.of("conformance.noted", b'"' + b"x" * large + b'"', tags=["account:a-0"]) for _ in range(13)]
    for event in events[:8]:
        store.append_encoded(event)
    store.append_encoded(*events[8:12])
    store.append_encoded(events[12])
    assert 9 * large < PAGE_BYTES < 10 * large
    assert [len(page.events) for page in pages(port, query, Span())] == [12, 1]
    assert [len(page.events) for page in pages(port, query, Span(backwards=True))] == [10, 3]
    assert [len(page.events) for page in pages(port, query, Span(limit=4))] == [4, 4, 4, 1]
    assert [len(page.events) for page in pages(port, query, Span(until=9))] == [9]
    (first, *_) = pages(port, query, Span(occurred_since=1))
    assert [event.position for event in first.events] == list(range(1, 13))


def test_an_empty_log_has_an_empty_page(store: Store, port: Any) -> None:
    """The page of an empty log or an empty span has no events, and `more` is false."""
    for span in (Span(), Span(backwards=True), Span(until=0), Span(limit=1)):
        page: Page = port.read(Query(), span)
        assert (page.events, page.more) == ([], False)
        assert page.scanned <= 1


def test_a_span_beyond_the_head_scans_to_the_head(store: Store, port: Any) -> None:
    """`scanned` of a page after a position beyond the head is less than that position, which shows the mistake."""
    store.append(*deposits(3))
    page: Page = port.read(Query(), Span(after=10))
    assert (page.events, page.more, page.scanned) == ([], False, 3)


@pytest.mark.parametrize("limit", [1, 2, 100])
def test_pages_respect_bounds_on_occurred(store: Store, port: Any, limit: int) -> None:
    """Bounds on `occurred` apply to every page, and `scanned` advances past events outside them."""
    import eventfold as ef
    from eventfold.core.envelope import from_micros

    for moment in (50, 10, 30, 99, 20, 40):
        store.append(
            ef.Draft(deposit(), occurred=from_micros(moment)), ef.Draft(deposit("a-2"), occurred=from_micros(7))
        )
    for backwards in (False, True):
        span = Span(occurred_since=20, occurred_until=50, limit=limit, backwards=backwards)
        for query in (Query(), about("a-1")):
            found = pages(port, query, span)
            moments = [event.occurred for page in found for event in page.events]
            assert moments == ([40, 20, 30, 50] if backwards else [50, 30, 20, 40])
    assert port.read(Query(), Span(occurred_since=10**15)).scanned == 12
