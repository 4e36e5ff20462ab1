"""A page of the port says how far it has scanned, and never shows half of an append."""

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
    """Appends of several sizes; every other event is about a-2. Returns the positions about a-1."""
    number = 0
    for size in SIZES:
        events = [deposit("a-1" if (number + n) % 2 == 0 else "a-2") for n in range(size)]
        number += size
        store.append(*events)
    return [position for position in range(1, number + 1) if position % 2]


def pages(port: Any, query: Query, span: Span) -> list[Page]:
    """Every page of a span, read by the rule of the port."""
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
def test_pages_together_are_the_whole(store: Store, port: Any, backwards: bool) -> None:
    """Page after page, continued as the port says, gives every matching event once and in order, for any limit."""
    odd = log(store)
    asked = ((Query(), list(range(1, 14))), (about("a-1"), odd), (about("nobody"), list[int]()))
    for (query, all_of_them), limit, after, until in product(asked, (1, 2, 3, 5, 13, 100), (0, 4), (None, 11, 0)):
        end = 13 if until is None else until
        expected = [position for position in all_of_them if after < position <= end]
        span = Span(after=after, until=until, limit=limit, backwards=backwards)
        found = [event.position for page in pages(port, query, span) for event in page.events]
        assert found == (expected[::-1] if backwards else expected)


@pytest.mark.parametrize("backwards", [False, True], ids=["forwards", "backwards"])
def test_a_page_never_ends_inside_an_append(store: Store, port: Any, backwards: bool) -> None:
    """Where the limit would cut an append, the rest of its matching events is added."""
    log(store)
    for query, limit in product((Query(), about("a-1")), range(1, 14)):
        matching = {event.position for event in port.read(query, Span()).events}
        for page in pages(port, query, Span(limit=limit, backwards=backwards)):
            for event in (page.events[0], page.events[-1]) if page.events else ():
                mates = set(range(event.first, event.last + 1)) & matching
                assert mates <= {other.position for other in page.events}


def test_a_page_is_hardly_longer_than_its_limit(store: Store, port: Any) -> None:
    """A page holds at most its limit, but for the rest of one append."""
    log(store)
    for limit in range(1, 14):
        page: Page = port.read(Query(), Span(limit=limit))
        assert limit <= len(page.events) <= limit + max(SIZES) - 1


def test_scanned_covers_what_did_not_match(store: Store, port: Any) -> None:
    """`scanned` reaches the end of the span when nothing more matches, so that followers get past it."""
    log(store)
    assert (port.read(about("nobody"), Span()).scanned, port.read(about("a-1"), Span()).scanned) == (13, 13)
    assert port.read(Query(), Span(until=11)).scanned == 11
    assert port.read(about("nobody"), Span(after=13)).scanned == 13


def test_scanned_is_true_at_every_page(store: Store, port: Any) -> None:
    """Every matching event between `after` and `scanned` is in the page, so no one who continues there skips any."""
    odd = log(store)
    after = 0
    for page in pages(port, about("a-1"), Span(limit=2)):
        assert [e.position for e in page.events] == [p for p in odd if after < p <= page.scanned]
        assert page.scanned >= after
        after = page.scanned


def test_a_full_page_at_the_end_may_say_more_only_if_there_is_more(store: Store, port: Any) -> None:
    """`more` is said when the limit ended the page; following it leads to an end."""
    store.append(*deposits(3))
    last = pages(port, Query(), Span(limit=3))[-1]
    assert not last.more
    assert port.read(Query(), Span(limit=4)).more is False


@pytest.mark.parametrize("number", [0, 1, 40], ids=["everything", "one alternative", "many alternatives"])
def test_a_page_of_large_events_is_bounded_by_their_bytes(store: Store, port: Any, number: int) -> None:
    """It ends with the event that reaches PAGE_BYTES, and with the rest of the append of that one."""
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
    """An empty log, or an empty span, is a page without events, without more."""
    for span in (Span(), Span(backwards=True), Span(until=0), Span(limit=1)):
        page: Page = port.read(Query(), span)
        assert (page.events, page.more) == ([], False)
        assert page.scanned <= 1


def test_a_span_that_begins_in_the_future_scans_to_the_head(store: Store, port: Any) -> None:
    """Asked after a position that is not there, a page scans less than it was asked for: so it is noticed."""
    store.append(*deposits(3))
    page: Page = port.read(Query(), Span(after=10))
    assert (page.events, page.more, page.scanned) == ([], False, 3)


@pytest.mark.parametrize("limit", [1, 2, 100])
def test_pages_keep_to_the_business_time(store: Store, port: Any, limit: int) -> None:
    """Bounds on the business's time hold on every page, and `scanned` gets past what lies outside them."""
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
