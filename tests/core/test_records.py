"""Records: ids that grow with time, a digest that is specified, a checksum that notices, limits that hold."""

from __future__ import annotations

import hashlib
import random
import struct
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventfold.core.envelope import (
    MAX_EVENT_BYTES,
    NewEvent,
    Receipt,
    StoredEvent,
    check_encoded,
    check_new,
    checksum,
    digest,
    from_micros,
    make_receipt,
    new_id,
    to_micros,
)
from eventfold.core.tags import check_name
from eventfold.errors import InvalidEvent, InvalidInput

names = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=8)
news = st.builds(
    NewEvent,
    id=st.binary(min_size=16, max_size=16),
    type=names,
    version=st.integers(1, 2**31 - 1),
    data=st.binary(max_size=30),
    tags=st.lists(names, max_size=3, unique=True).map(lambda tags: tuple(sorted(tags))),
    occurred=st.none() | st.integers(-(2**62), 2**62),
    metadata=st.none() | st.binary(min_size=1, max_size=10),
    codec=st.sampled_from(["json", "cbor"]),
    key=st.none() | names,
)

# ------------------------------------------------------------------------------------------ ids


def test_ids_are_uuids_of_version_7() -> None:
    """An id has the version, the variant and the millisecond of RFC 9562."""
    identity = UUID(bytes=new_id(1_700_000_000_123_456_789))
    assert (identity.version, identity.variant) == (7, UUID(int=0, version=4).variant)
    assert identity.int >> 80 == 1_700_000_000_123


@given(st.integers(0, 2**60), st.integers(0, 2**60))
def test_ids_order_by_time(one: int, other: int) -> None:
    """Of two ids the one of the later time is greater, down to a quarter of a microsecond."""
    if abs(one - other) >= 1_000:
        first, second = sorted((one, other))
        assert new_id(first) < new_id(second)


def test_ids_are_not_repeated() -> None:
    """Ids of one instant differ."""
    assert len({new_id(5) for _ in range(2_000)}) == 2_000


@given(st.integers(0, 2**61))
def test_an_ids_time_can_be_read_from_it(ns: int) -> None:
    """The first 48 bits are milliseconds; the 12 after the version are their fraction."""
    identity = int.from_bytes(new_id(ns))
    millis, fraction = identity >> 80, (identity >> 64) & 0xFFF
    assert millis == ns // 1_000_000
    assert fraction == ns % 1_000_000 * 4096 // 1_000_000


# ------------------------------------------------------------------------------------------ digest, checksum


def specified(events: list[NewEvent]) -> str:
    """The digest, written from its specification by other means."""
    out = hashlib.sha256()
    for e in events:
        out.update(e.id)
        for part in (e.type, e.data, "\n".join(e.tags), e.metadata or b"", e.codec, e.key or ""):
            raw = part.encode() if isinstance(part, str) else part
            out.update(struct.pack(">I", len(raw)))
            out.update(raw)
        out.update(struct.pack(">Iq", e.version, -(2**63) if e.occurred is None else e.occurred))
    return out.hexdigest()


@given(st.lists(news, min_size=1, max_size=4))
def test_the_digest_is_as_specified(events: list[NewEvent]) -> None:
    """A second implementation, from the specification, comes to the same digest, stored or not yet."""
    assert digest(events) == specified(events)
    stored = [event.at(n + 1, 77, n, len(events)) for n, event in enumerate(events)]
    assert digest(stored) == digest(events)


@given(news, news)
def test_different_events_have_different_digests(one: NewEvent, other: NewEvent) -> None:
    """No two envelopes share a digest: every part's length is in it, so nothing can move from one part to another."""
    assert (digest([one]) == digest([other])) == (one == other)


def test_the_digest_does_not_depend_on_where_an_event_stands() -> None:
    """Position, time and boundaries are the store's, and not in the digest: a copy has the same."""
    event = NewEvent(bytes(16), "t", 1, b"{}", ("a",))
    assert digest([event.at(1, 5, 0, 1)]) == digest([event.at(9, 6, 3, 4)])


@given(news, st.integers(0, 200))
def test_a_flipped_bit_changes_the_checksum(event: NewEvent, where: int) -> None:
    """Any single bit of the data makes another checksum."""
    if event.data:
        tags = "\n".join(event.tags)
        before = checksum(3, 99, event.data, tags, event.metadata)
        flipped = bytearray(event.data)
        flipped[where % len(flipped)] ^= 1 << where % 8
        assert checksum(3, 99, bytes(flipped), tags, event.metadata) != before


def test_the_checksum_depends_on_tags_and_metadata() -> None:
    """Changed tags, or changed metadata, make another checksum of the same data."""
    seen = {checksum(3, 99, b"{}", tags, metadata) for tags in ("", "a", "b") for metadata in (None, b"1", b"2")}
    assert len(seen) == 9


# ------------------------------------------------------------------------------------------ stored events, receipts


@given(news, st.integers(1, 2**40), st.integers(0, 5), st.integers(1, 5))
def test_a_stored_event_is_the_event_in_its_place(event: NewEvent, position: int, offset: int, more: int) -> None:
    """Nothing of an event changes when it gets its place, which also tells the append it was part of."""
    size = offset + more
    stored = event.at(position + offset, 5, offset, size)
    assert stored.is_same_as(event)
    assert (stored.first, stored.last) == (position, position + size - 1)
    assert stored.tag_set == event.tags


@pytest.mark.parametrize(
    "change",
    [
        {"id": b"1" * 16},
        {"type": "u"},
        {"version": 2},
        {"data": b"{ }"},
        {"tags": ("a", "b")},
        {"tags": ()},
        {"occurred": 1},
        {"occurred": None},
        {"metadata": None},
        {"metadata": b"{}"},
        {"codec": "cbor"},
        {"key": "k"},
    ],
    ids=str,
)
def test_an_event_is_the_same_only_in_everything(change: dict[str, Any]) -> None:
    """Whatever its writer chose otherwise makes it another event."""
    from msgspec.structs import replace

    event = NewEvent(bytes(16), "t", 1, b"{}", ("a",), 0, b'{"a":1}')
    assert event.at(1, 5, 0, 1).is_same_as(event)
    assert not event.at(1, 5, 0, 1).is_same_as(replace(event, **change))


def test_a_receipt_is_made_of_what_stands_in_the_log() -> None:
    """Positions, ids, time and digest of a receipt are those of the events."""
    events = [NewEvent(new_id(), "t", 1, b"{}", ()).at(5 + n, 9, n, 3) for n in range(3)]
    made = make_receipt("s" * 32, 2, events)
    assert (made.store, made.epoch, made.first, made.last, made.time, made.repeated) == ("s" * 32, 2, 5, 7, 9, False)
    assert made.positions == range(5, 8)
    assert made.event_ids == tuple(UUID(bytes=event.id) for event in events)
    assert made.digest == digest(events)


# ------------------------------------------------------------------------------------------ times


@given(
    st.datetimes(
        timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=45)), ZoneInfo("America/New_York")])
    )
)
def test_times_come_back_to_the_microsecond(moment: datetime) -> None:
    """A moment in any zone comes back as the same moment in UTC; one that would not come back is refused."""
    try:
        expected = moment.astimezone(UTC)
    except OverflowError:  # before year 1 or after 9999 in UTC
        with pytest.raises(InvalidInput, match="years 1 to 9999"):
            to_micros(moment)
        return
    assert from_micros(to_micros(moment)) == expected


@pytest.mark.parametrize("moment", [datetime(2020, 1, 1), date(2020, 1, 1), "2020-01-01", 5, None])
def test_what_names_no_moment_is_refused(moment: Any) -> None:
    """A naive datetime, a date or a text is no moment."""
    with pytest.raises(InvalidInput) as refused:
        to_micros(moment)
    assert "aware datetime" in refused.value.remedy


# ------------------------------------------------------------------------------------------ limits


@pytest.mark.parametrize("name", ["a", "x" * 255, "ä" * 127, "account:a-1", "日本", "with space", "%_*?[]", "a$"])
def test_usual_names_are_fine(name: str) -> None:
    """1 to 255 bytes of printable text are a name."""
    assert check_name("tag", name) == name


@pytest.mark.parametrize(
    "name", ["", "x" * 256, "ä" * 128, "a\nb", "\t", "a\x00", "\x7f", "\ud800", "\u2028", "$a", 5, b"a", None]
)
def test_other_names_are_refused(name: Any) -> None:
    """Empty, too long, unprintable or reserved names, and what is no text, are refused by the error asked for."""
    for error in (InvalidEvent, InvalidInput):
        with pytest.raises(error) as refused:
            check_name("tag", name, error=error)
        assert type(refused.value) is error


def test_names_of_our_own_are_allowed_where_said() -> None:
    """The reserved namespace can be asked for, though not written to."""
    assert check_name("tag", "$x", reserved=True) == "$x"


def test_limits_hold_at_their_edge() -> None:
    """An event of exactly the largest size passes, one byte more does not; 64 tags pass, 65 do not."""
    event = lambda size: NewEvent(bytes(16), "t", 1, b"x" * (size - 1), ())  # noqa: E731
    assert check_new(event(MAX_EVENT_BYTES))
    with pytest.raises(InvalidEvent):
        check_new(event(MAX_EVENT_BYTES + 1))
    tags = tuple(str(n) for n in range(65))
    assert check_new(NewEvent(bytes(16), "t", 1, b"", tags[:64]))
    with pytest.raises(InvalidEvent):
        check_new(NewEvent(bytes(16), "t", 1, b"", tags))


@pytest.mark.parametrize("version", [1, 30, 2**31 - 1])
def test_versions_that_fit_a_signed_32_bit_integer_are_accepted(version: int) -> None:
    """Versions are 1 to 2**31 - 1, inclusive."""
    check_encoded(NewEvent(bytes(16), "t", version, b"{}", ()))


@pytest.mark.parametrize("version", [-1, 0, 2**31])
def test_other_versions_are_refused(version: int) -> None:
    """A version below 1, or one that needs more than 31 bits: InvalidEvent."""
    with pytest.raises(InvalidEvent):
        check_encoded(NewEvent(bytes(16), "t", version, b"{}", ()))


def test_the_fields_of_a_receipt_are_given_by_name() -> None:
    """A receipt has several numbers in a row: positional arguments raise TypeError, since two could be swapped."""
    with pytest.raises(TypeError):
        Receipt("store", 1, 1, 1, 1, (), "digest")  # pyright: ignore[reportCallIssue]
    named = Receipt(store="store", epoch=1, first=1, last=1, time=1, ids=(), digest="digest")
    assert not named.repeated


def test_checksums_tell_neighbours_apart() -> None:
    """The same data at another position or time has another checksum, so that swapped rows are noticed."""
    seen = {checksum(position, 10_000, b"{}", "a", None) for position in random.Random(1).sample(range(10_000), 500)}
    assert len(seen) == 500


def test_stored_events_without_tags_have_none() -> None:
    """No tags are no tags, rather than one empty tag."""
    assert StoredEvent(1, bytes(16), "t", 1, b"{}", "", 0).tag_set == ()


@pytest.mark.parametrize(
    "wrong",
    [
        {"tags": "account:a-1"},
        {"tags": [1]},
        {"id": "0190f3a2-0000-7000-8000-000000000000"},
        {"occurred": datetime(2020, 1, 1)},
        {"metadata": {"x": object()}},
        {"data": b"no json"},
        {"type": "$ours"},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_an_event_cannot_be_encoded_wrongly(wrong: dict[str, Any]) -> None:
    """`NewEvent.of` refuses what could not be stored or read: InvalidInput."""
    with pytest.raises(InvalidInput):
        NewEvent.of(**({"type": "T", "data": b"{}"} | wrong))
