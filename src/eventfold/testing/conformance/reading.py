"""A read returns all matching events in order; the events of an earlier read never change."""

# Mistakes are made here on purpose.
# pyright: basic

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any
from uuid import UUID

import pytest

import eventfold as ef
from eventfold.core.envelope import NewEvent, new_id
from eventfold.core.event import RawEvent
from eventfold.core.query import Item, Query
from eventfold.errors import InvalidInput, InvalidQuery, UndecodableEvent, UnknownEventType
from eventfold.ports.messages import AppendRequest
from eventfold.store import Store
from eventfold.testing.conformance.events import (
    Deposited,
    Moved,
    Noted,
    Opened,
    Withdrawn,
    about,
    amounts,
    deposit,
    deposits,
    draft,
    positions,
)

QUERIES: dict[str, tuple[Query, list[int]]] = {
    "everything": (Query(), [1, 2, 3, 4, 5, 6]),
    "one tag": (about("a-1"), [1, 3, 4, 6]),
    "another tag": (about("a-2"), [2, 4, 5]),
    "a tag that a prefix would find": (about("a-"), []),
    "one type": (Query.of(types=Deposited), [3, 5]),
    "two types": (Query.of(types=[Deposited, Withdrawn]), [3, 5, 6]),
    "a type by its stored name": (Query.of(types="conformance.moved"), [4]),
    "a type and a tag": (Query.of(types=Deposited, tags="account:a-1"), [3]),
    "two types and a tag": (Query.of(types=[Opened, Withdrawn], tags="account:a-1"), [1, 6]),
    "two tags": (Query.of(tags=["account:a-1", "account:a-2"]), [4]),
    "two tags, one unknown": (Query.of(tags=["account:a-1", "account:zzz"]), []),
    "two alternatives that overlap": (about("a-1") | Query.of(types=[Deposited, Moved]), [1, 3, 4, 5, 6]),
    "three alternatives": (Query.of(types=Opened, tags="owner:bob") | about("zzz") | Query.of(types=Moved), [2, 4]),
    "the same alternative twice": (Query((Item((), ("account:a-2",)),) * 2), [2, 4, 5]),
    "an unknown type": (Query.of(types="conformance.never"), []),
}


def small_log(store: Store) -> None:
    """Six events in three appends."""
    store.append(Opened("a-1", "ada"), Opened("a-2", "bob"))
    store.append(deposit("a-1", 10), Moved("a-1", "a-2", deposit().amount), deposit("a-2", 5))
    store.append(Withdrawn("a-1", deposit().amount))


def test_a_query_selects_what_it_matches(store: Store) -> None:
    """A query selects the events of any of an item's types with all of its tags, each once, in order."""
    small_log(store)
    events = list(store.read())
    for name, (query, found) in QUERIES.items():
        assert [r.position for r in events if query.matches(r.type, r.tags)] == found, name
        assert positions(store.read(query)) == found, name
        assert positions(store.read(query, backwards=True)) == found[::-1], name
        assert store.count(query) == len(found), name


def test_bounds_cut_a_query(store: Store) -> None:
    """`after` is exclusive and `until` inclusive, for every query, in both directions, for `count` as for `read`."""
    small_log(store)
    for (name, (query, found)), after, until in product(QUERIES.items(), [0, 1, 3, 5, 6], [1, 2, 5, 6]):
        whole = {1: 2, 3: 5}.get(until, until)  # the last position of the append that wrote `until`
        expected = [position for position in found if after < position <= whole]
        assert positions(store.read(query, after=after, until=until)) == expected, name
        assert positions(store.read(query, after=after, until=until, backwards=True)) == expected[::-1], name
        assert store.count(query, after=after, until=until) == len(expected), name


@pytest.mark.parametrize("limit", [0, 1, 3, 4, 99])
def test_a_limit_returns_the_first_events(store: Store, limit: int) -> None:
    """`limit` returns at most this number of events: the first in order, or the last if read backwards."""
    small_log(store)
    assert positions(store.read(limit=limit)) == [1, 2, 3, 4, 5, 6][:limit]
    assert positions(store.read(limit=limit, backwards=True)) == [6, 5, 4, 3, 2, 1][:limit]
    assert positions(store.read(about("a-1"), after=1, limit=limit)) == [3, 4, 6][:limit]
    assert positions(store.read(about("a-1"), until=4, limit=limit, backwards=True)) == [4, 3, 1][:limit]


def test_the_last_event_is_read_backwards(store: Store) -> None:
    """`backwards=True, limit=1` returns the newest matching event, however long the log is."""
    store.extend(deposits(2_200, "a-1"))
    store.append(deposit("a-2"))
    (last,) = store.read(about("a-1"), backwards=True, limit=1)
    assert last.position == 2_200


@pytest.mark.parametrize("size", [1, 7, 1_000])
def test_a_long_log_is_read_without_gap_or_repeat(store: Store, port: Any, size: int) -> None:
    """A read returns every event once, in order, over any number of pages and sizes of appends."""
    events = [store.registry.encode(event) for event in deposits(2_345)]
    appends = [AppendRequest(tuple(events[n : n + size])) for n in range(0, len(events), size)]
    for n in range(0, len(appends), 500):
        port.append_many(appends[n : n + 500])
    assert amounts(store.read()) == list(range(1, 2_346))
    assert amounts(store.read(about("a-1"), backwards=True)) == list(range(2_345, 0, -1))
    assert amounts(store.read(after=33, limit=1_002)) == list(range(34, 1_036))


def test_sparse_matches_are_found_in_a_long_log(store: Store) -> None:
    """A query finds few events among many others, in both directions."""
    events = [deposit("rare" if n % 700 == 0 else f"a-{n % 9}", n) for n in range(2_500)]
    store.extend(events)
    assert amounts(store.read(about("rare"))) == [0, 700, 1_400, 2_100]
    assert amounts(store.read(about("rare"), backwards=True)) == [2_100, 1_400, 700, 0]
    assert amounts(store.read(about("rare"), after=701, until=2_101)) == [1_400, 2_100]


def test_read_events_never_change(store: Store) -> None:
    """Reading a range again returns the same events, whatever was appended meanwhile."""
    small_log(store)
    before = [recorded.stored for recorded in store.read()]
    store.append(*deposits(10))
    assert [recorded.stored for recorded in store.read(until=6)] == before


def test_a_read_may_be_abandoned(store: Store) -> None:
    """A reader that stops in the middle blocks no other reader or writer."""
    store.extend(deposits(1_500))
    reading = iter(store.read())
    assert next(reading).position == 1
    store.append(deposit("a-2"))
    assert store.head() == 1_501
    assert next(reading).position == 2
    del reading
    assert store.append(deposit("a-2")).first == 1_502


def test_events_are_read_as_equal_objects_of_their_class(store: Store) -> None:
    """An event is read as an object of its class that equals the appended one."""
    event = Moved("a-1", "a-2", deposit(amount="12.50").amount)
    store.append(event)
    (recorded,) = store.read()
    assert recorded.event == event
    assert type(recorded.event) is Moved
    assert (recorded.type, recorded.version) == ("conformance.moved", 3)
    assert recorded.tags == ("account:a-1", "account:a-2")


def test_tags_are_sorted_without_duplicates(store: Store) -> None:
    """The tags of an event, of its fields and of its draft, are sorted and without duplicates."""
    store.append(ef.Draft(Moved("b", "b", deposit().amount), tags=("z:1", "a:9", "account:b")))
    assert [recorded.tags for recorded in store.read()] == [("a:9", "account:b", "z:1")]


def test_any_event_can_be_read_raw(store: Store) -> None:
    """`raw=True` returns the stored bytes, whatever the type; the rest of the envelope is as usual."""
    store.append(deposit("a-1", "1.50"))
    (recorded,) = store.read(raw=True)
    assert isinstance(recorded.event, RawEvent)
    assert recorded.event.data == b'{"account":"a-1","amount":"1.50"}'
    assert recorded.event.json() == {"account": "a-1", "amount": "1.50"}
    assert (recorded.type, recorded.tags) == ("conformance.deposited", ("account:a-1",))


def unknown(store: Store, port: Any, data: bytes, name: str = "conformance.from-elsewhere") -> None:
    """Append an event that no class here can decode, as another deployment would."""
    from msgspec.structs import replace

    new = replace(store.registry.encode(deposit("a-1")), type=name, data=data)
    port.append_many([AppendRequest((new,))])


def test_an_unknown_type_is_named_and_not_skipped(store: Store, port: Any) -> None:
    """An event of an unknown type stops a typed read with UnknownEventType, and can be read raw."""
    store.append(deposit())
    unknown(store, port, b'{"what": 1}')
    store.append(deposit())
    with pytest.raises(UnknownEventType) as refused:
        list(store.read())
    assert (refused.value.fields["position"], refused.value.fields["type"]) == (2, "conformance.from-elsewhere")
    assert [r.event.data for r in store.read(raw=True)][1] == b'{"what": 1}'
    assert positions(store.read(Query.of(types=Deposited))) == [1, 3]
    assert positions(store.read(Query.of(types="conformance.from-elsewhere"), raw=True)) == [2]


def test_an_undecodable_payload_is_reported(store: Store, port: Any) -> None:
    """A payload that its class cannot decode is UndecodableEvent, with position, type and field."""
    unknown(store, port, b'{"account":"a-1","amount":[]}', name="conformance.deposited")
    with pytest.raises(UndecodableEvent) as refused:
        list(store.read())
    assert refused.value.fields["position"] == 1
    assert refused.value.fields["type"] == "conformance.deposited"
    assert refused.value.fields["field"] == "amount"
    assert [r.event.json()["amount"] for r in store.read(raw=True)] == [[]]


@pytest.mark.parametrize("bounds", [{"after": -1}, {"limit": -1}, {"until": -1}], ids=str)
def test_negative_bounds_are_refused(store: Store, bounds: dict[str, Any]) -> None:
    """Negative positions and limits are InvalidQuery."""
    store.append(deposit())
    with pytest.raises(InvalidQuery):
        list(store.read(**bounds))


def test_reading_from_beyond_the_head_is_refused(store: Store) -> None:
    """Reading after a position that does not exist yet is InvalidQuery: it would skip the events up to it."""
    store.append(deposit())
    assert list(store.read(after=1)) == []
    for query in (Query(), about("a-1"), about("unused")):
        with pytest.raises(InvalidQuery):
            list(store.read(query, after=2))


def test_recorded_time_bounds_a_read(store: Store, clock: Callable[[], int]) -> None:
    """`since` and `until` as aware datetimes are inclusive bounds on the recorded time, in any time zone."""
    moments: list[datetime] = []
    for amount in range(1, 6):
        moments.append(clock.advance(10))  # type: ignore[attr-defined]
        store.append(deposit(amount=amount), deposit("a-2", amount))
    query, tick = about("a-1"), timedelta(microseconds=1)
    assert amounts(store.read(query, since=moments[1], until=moments[3])) == [2, 3, 4]
    assert amounts(store.read(query, since=moments[1] + tick, until=moments[3] - tick)) == [3]
    assert amounts(store.read(query, since=moments[0] - tick)) == [1, 2, 3, 4, 5]
    assert amounts(store.read(query, until=moments[0] - tick)) == []
    assert amounts(store.read(query, since=moments[4] + tick)) == []
    far_east = moments[2].astimezone(datetime.strptime("+0930", "%z").tzinfo)
    assert amounts(store.read(query, since=far_east, backwards=True)) == [5, 4, 3]
    assert store.count(query, until=moments[2]) == 3


def test_occurred_bounds_a_read(store: Store) -> None:
    """`occurred_since` and `occurred_until` are inclusive; for an event without `occurred` its recorded time counts."""
    day = datetime(2013, 6, 1, tzinfo=UTC)
    for number in (3, 1, 2):
        store.append(ef.Draft(deposit(amount=number), occurred=day + timedelta(days=number)))
    store.append(deposit(amount=9))
    read = lambda **bounds: amounts(store.read(**bounds))  # noqa: E731
    assert read(occurred_since=day + timedelta(days=2)) == [3, 2, 9]
    assert read(occurred_until=day + timedelta(days=2)) == [1, 2]
    assert read(occurred_since=day + timedelta(days=2), occurred_until=day + timedelta(days=2)) == [2]
    assert read(occurred_since=day, occurred_until=day + timedelta(days=9), backwards=True) == [2, 1, 3]
    assert read(occurred_since=datetime.now(UTC) - timedelta(hours=1)) == [9]
    assert read(occurred_until=day, after=1) == []
    assert read(occurred_since=day, limit=2) == [3, 1]


def test_occurred_is_stored(store: Store) -> None:
    """`occurred` is read back as the same time in UTC, at microseconds, for any year; None if it was not given."""
    moments = [
        datetime(1800, 1, 1, 12, 30, 15, 123456, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    ]
    store.append(*[ef.Draft(Noted(), occurred=moment) for moment in moments])
    store.append(Noted())
    assert [recorded.occurred for recorded in store.read()] == [*moments, None]


def test_an_event_is_found_by_its_id(store: Store, lookups: Any) -> None:
    """An event looked up by its id is as a read returns it; None if no event has that id."""
    first = store.append(*deposits(3))
    store.append(draft(deposit(amount=9), 1, tags=("x:1",)))
    for recorded in list(store.read()):
        found = store.event(recorded.id)
        assert found == recorded
        assert store.event(str(recorded.id)) == recorded
        assert lookups.position_of(recorded.id.bytes) == recorded.position
    middle = store.event(first.event_ids[1])
    assert middle is not None
    assert (middle.position, middle.first, middle.last) == (2, 1, 3)
    assert store.event(UUID(int=7)) is None
    assert lookups.position_of(bytes(16)) is None
    for bad in ("no id", 7, None, b"x" * 16):
        with pytest.raises(InvalidInput):
            store.event(bad)  # pyright: ignore[reportArgumentType]


def test_an_event_of_an_unknown_type_is_found_raw(store: Store, port: Any, lookups: Any) -> None:
    """Without its class an event can be looked up raw; otherwise the error is that of a read."""
    new = NewEvent(new_id(), "conformance.unheard-of", 1, b'{"x":1}', ())
    port.append_many([AppendRequest((new,))])
    identity = UUID(bytes=new.id)
    found = store.event(identity, raw=True)
    assert found is not None
    assert (found.event.type, found.event.json()) == ("conformance.unheard-of", {"x": 1})
    with pytest.raises(UnknownEventType):
        store.event(identity)
