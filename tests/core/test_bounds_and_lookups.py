"""Look-ups of large queries, lengths of pages, ids and upcasters at their bounds."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

import eventfold as ef
from eventfold.core.envelope import MAX_EVENT_BYTES, NewEvent, StoredEvent, check_encoded, new_id, page_length
from eventfold.core.query import SCANNED_ITEMS, Item, Matcher, Query
from eventfold.errors import InvalidEvent


def test_a_large_query_matches_as_its_items_do() -> None:
    """Items that are looked up by their first tag give the same answer as items tried one after the other."""
    pairs = [(f"k:{n}", f"l:{n % 3}") for n in range(SCANNED_ITEMS)]
    query = Query(
        (*(Item(("A",), pair) for pair in pairs), Item(("B",), ("k:1",)), Item((), ("k:2",)), Item(("C",), ()))
    )
    assert len(query.items) > SCANNED_ITEMS
    tags = ["k:1", "k:2", "k:5", "l:0", "l:1", "l:2", "m:1"]
    matches = Matcher(query).matches
    assert matches != query.matches, "looked up, not scanned"
    for size in range(4):
        for chosen in itertools.combinations(tags, size):
            for type in "ABCD":
                assert matches(type, frozenset(chosen)) == query.matches(type, frozenset(chosen)), (type, chosen)


def test_a_small_query_is_scanned_and_one_with_many_names_is_not() -> None:
    """The number of items and the number of names both decide."""
    assert Matcher(few := Query((Item(("A",), ()),))).matches == few.matches
    many = Query((Item(tuple(f"T{n}" for n in range(SCANNED_ITEMS * SCANNED_ITEMS + 1)), ()),))
    assert Matcher(many).matches != many.matches


def stored(data: int, metadata: int | None) -> StoredEvent:
    """An event of so many bytes."""
    return StoredEvent(1, bytes(16), "T", 1, bytes(data), "", 0, metadata=None if metadata is None else bytes(metadata))


def test_a_page_ends_with_the_event_that_reaches_its_bytes() -> None:
    """Data and metadata count; the limit counts where it is lower."""
    events = [stored(60, 40), stored(100, None), stored(60, 40)]
    assert [page_length(events, 10, most) for most in (1, 100, 101, 200, 201, 300, 301)] == [1, 1, 2, 2, 3, 3, 3]
    assert page_length(events, 1, 300) == 1
    assert page_length(events, 10, 4 * MAX_EVENT_BYTES) == 3


def test_an_event_is_the_first_of_one_until_it_has_a_place() -> None:
    """The defaults of `offset` and `size`."""
    event = stored(1, None)
    assert (event.offset, event.size) == (0, 1)


def test_ids_are_whole_and_differ_in_every_random_bit() -> None:
    """Also where random bytes are drawn again: 16 bytes, version 7, variant 10, 64 values of the six bits beside it."""
    ids = [new_id(0) for _ in range(2_000)]
    assert {len(each) for each in ids} == {16}
    assert {(UUID(bytes=each).version, each[8] >> 6) for each in ids} == {(7, 0b10)}
    assert len({each[8] & 0x3F for each in ids}) == 64


def test_a_moment_after_the_last_of_a_datetime_is_refused() -> None:
    """`occurred` is what a datetime can say, to the microsecond."""
    last = (datetime.max.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    check_encoded(NewEvent(bytes(15) + b"1", "T", 1, b"{}", (), occurred=last))
    with pytest.raises(InvalidEvent):
        check_encoded(NewEvent(bytes(15) + b"1", "T", 1, b"{}", (), occurred=last + 1))


def test_an_upcaster_names_one_source_and_a_target() -> None:
    """One without a target, and one with two sources, are refused when they are declared."""

    class BoundsOld(ef.Event):
        a: int

    class BoundsNew(ef.Event):
        a: int

    def without_target(old: BoundsOld) -> None: ...

    def of_two(old: BoundsOld, other: BoundsNew) -> BoundsNew:
        return other

    for step in (without_target, of_two):
        refused: Any = step
        with pytest.raises(InvalidEvent, match="do not name an old and a new event class"):
            ef.upcast(refused)
