"""Every appended value is read back equal and of its own type, and stored bytes are not changed."""

# Mistakes are made here on purpose.
# pyright: basic

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any
from uuid import UUID

import msgspec
import pytest

import eventfold as ef
from eventfold.core.envelope import NewEvent, check_encoded, new_id
from eventfold.errors import CorruptEvent, InvalidEvent, UndecodableEvent
from eventfold.ports.messages import AppendRequest
from eventfold.store import Store
from eventfold.testing.conformance.events import Noted, positions


class Paint(Enum):
    """An enumeration of texts."""

    RED = "red"
    GREEN = "green"


class Size(IntEnum):
    """An enumeration of numbers."""

    SMALL = 1


class Point(msgspec.Struct, frozen=True):
    """A struct as a field of an event."""

    x: int
    y: Decimal
    label: str | None = None


class Everything(ef.Event, type="conformance.everything", kw_only=True):
    """An event with a field of every kind."""

    text: str = ""
    number: int = 0
    real: float = 0.0
    truth: bool = False
    decimal: Decimal = Decimal(0)
    identity: UUID = UUID(int=0)
    moment: datetime = datetime(2000, 1, 1, tzinfo=UTC)
    day: date = date(2000, 1, 1)
    clock: time = time(0)
    lapse: timedelta = timedelta(0)
    raw: bytes = b""
    paint: Paint = Paint.RED
    size: Size = Size.SMALL
    point: Point = Point(0, Decimal(0))
    maybe: Decimal | None = None
    items: list[Decimal] = []
    pair: tuple[int, str] = (0, "")
    row: tuple[date, ...] = ()
    names: frozenset[str] = frozenset()
    by_name: dict[str, Point] = {}
    by_number: dict[int, list[Paint]] = {}


VALUES: dict[str, list[Any]] = {
    "text": ["", "ä€\U0001f600", "\u0000", 'quote " backslash \\ slash / newline \n', "\u2028\u2029", "e\u0301", " x "],
    "number": [0, -1, 2**53 + 1, 2**63 - 1, -(2**63), 2**64 - 1],
    "real": [0.1, -0.0, 1e308, 5e-324, 1 / 3, float(2**53), 123456789.123456789],
    "truth": [True],
    "decimal": [
        Decimal("1.10"),
        Decimal("-0"),
        Decimal("1E+30"),
        Decimal("0.1234567890123456789012345678901234567890"),
    ],
    "identity": [UUID("01890a5d-ac96-774b-bcce-b302099a8057"), UUID(int=2**128 - 1)],
    "moment": [
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(2024, 2, 29, 12, 0, 0, 1, tzinfo=timezone(timedelta(hours=-9, minutes=-30))),
    ],
    "day": [date(1, 1, 1), date(9999, 12, 31)],
    "clock": [time(23, 59, 59, 999999), time(12, 0, tzinfo=UTC)],
    "lapse": [timedelta(days=-1, microseconds=1), timedelta(days=10_000, seconds=1)],
    "raw": [b"\x00\xff\n", bytes(range(256))],
    "paint": [Paint.GREEN],
    "size": [Size.SMALL],
    "point": [Point(1, Decimal("2.50"), "p")],
    "maybe": [None, Decimal("0.00")],
    "items": [[Decimal("1.0"), Decimal("1.00")]],
    "pair": [(1, "a")],
    "row": [(), (date(2020, 1, 1), date(2019, 1, 1))],
    "names": [frozenset({"b", "a", "c"})],
    "by_name": [{"": Point(1, Decimal(1)), "z": Point(2, Decimal(2), ""), "a": Point(3, Decimal(3))}],
    "by_number": [{-1: [], 10: [Paint.GREEN, Paint.RED], 2: [Paint.RED]}],
}


def test_values_are_read_back_equal(store: Store) -> None:
    """A value of any supported type is read back equal and of the same type, also at its extremes."""
    for field, values in VALUES.items():
        given, head = [Everything(**{field: value}) for value in values], store.head()
        store.append(*given)
        for before, recorded in zip(given, store.read(after=head), strict=True):
            value, back = getattr(before, field), getattr(recorded.event, field)
            assert recorded.event == before
            same = (type(back), repr(back)) == (type(value), repr(value))
            assert same or isinstance(value, (datetime, time, frozenset)), field


def test_the_order_of_a_dict_is_kept(store: Store) -> None:
    """The keys of a dict are read back in their order."""
    store.append(Everything(by_number={3: [], 1: [], 2: []}))
    (recorded,) = store.read()
    assert list(recorded.event.by_number) == [3, 1, 2]


def new(data: bytes, **more: Any) -> NewEvent:
    """An event of encoded bytes, as another program or a copy would append it."""
    return NewEvent(**({"id": new_id(), "type": "conformance.noted", "version": 1, "data": data, "tags": ()} | more))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b' { "b":1,  "a" : 2, "a":3 } ',
        b"\x00\xff\xfe",
        b"1e400",
        '"\\u0000ä"'.encode(),
        b"\n" * 3,
        bytes(range(256)),
    ],
    ids=repr,
)
def test_bytes_are_stored_unchanged(store: Store, port: Any, data: bytes) -> None:
    """A payload is stored byte for byte: no key is sorted, no space removed, no character refused."""
    if is_written(port, new(data)):
        (recorded,) = store.read(raw=True)
        assert recorded.event.data == data


def is_written(port: Any, *events: NewEvent) -> bool:
    """Append the events. Returns False if they were refused: an engine may refuse what `append_encoded` refuses."""
    (outcome,) = port.append_many([AppendRequest(events)])
    if isinstance(outcome, InvalidEvent):
        with pytest.raises(InvalidEvent):
            [check_encoded(event) for event in events]
        assert port.head().position == 0
        return False
    return True


@pytest.mark.parametrize(
    ("earliest", "latest"),
    [(-(2**62), 2**62), (-62_135_596_800_000_000, 253_402_300_799_999_999)],
    ids=["bits", "years"],
)
def test_the_whole_envelope_is_read_back(store: Store, port: Any, earliest: int, latest: int) -> None:
    """Every field of an event's envelope is read back equal, also at its extremes."""
    events = (
        new(b"{}", version=2**31 - 1, tags=("a", "b:ä", "z" * 255), occurred=earliest, metadata=b'{"b":1,"a":2}'),
        new(b"\x01", codec="cbor", key="key-7", type="t" * 255, occurred=0),
        new(b"{}", occurred=latest, metadata=None),
    )
    if not is_written(port, *events):
        return
    for before, recorded in zip(events, store.read(raw=True), strict=True):
        after = recorded.stored
        assert after.is_same_as(before)
        for name in NewEvent.__struct_fields__:
            expected = "\n".join(before.tags) if name == "tags" else getattr(before, name)
            assert getattr(after, name) == expected


def test_a_payload_of_another_codec_is_read_raw_only(store: Store, port: Any) -> None:
    """A payload of an unknown codec is UndecodableEvent in a typed read, and bytes in a raw one."""
    port.append_many([AppendRequest((new(b"\x01", codec="cbor"),))])
    with pytest.raises(UndecodableEvent) as refused:
        list(store.read())
    assert refused.value.fields["codec"] == "cbor"
    (recorded,) = store.read(raw=True)
    assert (recorded.event.codec, recorded.event.data) == ("cbor", b"\x01")
    with pytest.raises(ef.EventfoldError):
        recorded.event.json()


def test_the_largest_event_fits(store: Store) -> None:
    """An event of just below one million bytes can be written and read."""
    text = "x" * 999_000
    store.append(Noted(text))
    (recorded,) = store.read()
    assert recorded.event.text == text


def test_sixty_four_tags_fit(store: Store) -> None:
    """An event may have 64 tags of up to 255 bytes, and each of them selects it."""
    tags = tuple(sorted(f"{n:02}:{'ä' * 126}" for n in range(64)))
    assert {len(tag.encode()) for tag in tags} == {255}
    store.append(Noted(), ef.Draft(Noted(), tags=tags))
    for tag in tags:
        assert positions(store.read(ef.Query.of(tags=tag))) == [2]
    assert positions(store.read(ef.Query.of(tags=tags))) == [2]


def test_tags_are_compared_exactly(store: Store) -> None:
    """Tags are different if any character differs: letters, accents, spaces, even if they look alike."""
    names = [
        "k:a",
        "k:A",
        "k:a ",
        " k:a",
        "k:á",
        "k:a\u0301",
        "K:a",
        "k:ａ",
        "k:%",
        "k:_",
        "k:'",
        'k:"',
        "k:;--",
        "k:{}",
        "k",
    ]
    for name in names:
        store.append(ef.Draft(Noted(name), tags=(name,)))
    for name in names:
        assert [recorded.event.text for recorded in store.read(ef.Query.of(tags=name))] == [name]


def test_a_sound_log_has_no_corrupt_event(store: Store) -> None:
    """Reading verifies checksums: CorruptEvent is an Unreadable error, and is not raised for an undamaged log."""
    store.append(*[Noted(str(n)) for n in range(100)])
    try:
        assert len(list(store.read())) == 100
    except CorruptEvent as error:  # pragma: no cover
        raise AssertionError("a sound log was called corrupt") from error
