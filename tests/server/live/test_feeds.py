"""Which readers an event is sent to, and the bytes that wait for one: without a server and a log."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from eventfold.core.envelope import StoredEvent
from eventfold.core.query import Item, Query
from eventfold.server.live.feeds import Feeds
from eventfold.server.live.reader import Chunk, Reader
from eventfold.server.live.view import View

TYPES = ("Opened", "Closed", "Noted")
TAGS = ("a:1", "a:2", "at:2026-11-29T10:00:00+00:00", "at:2026-11-29T11:00:00+01:00")

items = st.builds(
    Item,
    st.lists(st.sampled_from(TYPES), unique=True).map(tuple),
    st.lists(st.sampled_from(TAGS), unique=True).map(sorted).map(tuple),
).filter(lambda item: bool(item.types or item.tags))
queries = st.lists(items, max_size=3).map(tuple).map(Query)


async def allowed() -> None:
    """The credential is still good."""


def reader(query: Query, limit: int = 100) -> Reader:
    """A reader of a query."""
    return Reader(View(query), limit, "", allowed)


@given(st.lists(queries, max_size=6), st.sampled_from(TYPES), st.sets(st.sampled_from(TAGS)), st.data())
def test_an_event_is_sent_to_exactly_the_readers_whose_query_matches(
    asked: list[Query], type: str, tags: set[str], data: st.DataObject
) -> None:
    """Also after some of them have gone, and whatever spelling a moment has."""
    feeds, readers = Feeds(), [reader(query) for query in asked]
    for each in readers:
        feeds.add(each)
    gone = data.draw(st.sets(st.sampled_from(readers))) if readers else set()
    for each in gone:
        feeds.remove(each)
    stored = StoredEvent(1, bytes(16), type, 1, b"{}", "\n".join(sorted(tags)), 0)
    found = [each for feed in feeds.matching(stored) for each in feed.readers]
    assert len(found) == len(set(found))
    assert set(found) == {each for each in readers if each not in gone and each.view.query.matches(type, tags)}
    for each in set(readers) - gone:
        feeds.remove(each)
    assert len(feeds) == 0
    assert not (feeds._by_tag or feeds._by_type or feeds._others)


def chunk(*positions: int) -> Chunk:
    """A chunk whose frames are ten bytes each."""
    return Chunk(positions, [b"%010d" % position for position in positions], f"cursor {positions[-1]}")


def test_a_reader_gets_only_the_events_after_those_it_has_read_itself() -> None:
    """A chunk is cut where its first events were read before."""
    one = reader(Query())
    for part in (chunk(1, 2), chunk(3, 5, 8), chunk(9)):
        one.offer(part)
    one.skip_through = 5
    assert one.take() == b"00000000080000000009"
    assert (one.cursor, one.pending_bytes, one.take()) == ("cursor 9", 0, b"")


def test_a_reader_is_dropped_when_more_would_wait_than_its_limit() -> None:
    """What waits is given up, since the client resumes by the cursor of what it was sent. One chunk always fits."""
    one = reader(Query(), limit=50)
    one.offer(chunk(*range(1, 9)))
    assert (one.pending_bytes, one.is_ending) == (80, False)
    one.take()
    one.offer(chunk(9))
    one.offer(chunk(*range(10, 15)))
    assert (one.is_ending, one.pending_bytes, one.take()) == (True, 0, b"")
    assert b'"cursor":"cursor 8"' in (one.final or b"")
    one.offer(chunk(15))
    assert one.take() == b""
