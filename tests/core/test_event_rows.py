"""Pages that stay rows: what is made of a row, when it is made, and that it equals what was stored."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

import eventfold as ef
from eventfold.core.envelope import StoredEvent
from eventfold.core.event import Recorded
from eventfold.core.event_rows import EventRows
from eventfold.core.registry import Registry
from eventfold.errors import UndecodableEvent, UnknownEventType
from eventfold.log.read import recorded_rows

TYPES = {1: "rows.measured", 2: "rows.named", 3: "rows.unknown", 4: "rows.old"}


class Measured(ef.Event, type="rows.measured"):
    value: int


class Named(ef.Event, type="rows.named"):
    name: str


class Old(ef.Event, type="rows.old"):
    value: int


class New(ef.Event, type="rows.new"):
    value: int
    unit: str


@ef.upcast
def with_unit(old: Old) -> New:
    return New(old.value, "kg")


def row(position: int, type: int = 1, data: bytes = b'{"value":1}', **more: Any) -> tuple[Any, ...]:
    """A row with the checksum 0."""
    columns = {"version": 1, "occurred": None, "metadata": None, "offset": None, "size": None, "codec": None} | more
    version, occurred, metadata, offset, size, codec = columns.values()
    return (position, bytes(16), type, version, data, "a:1\nb:2", 5, occurred, metadata, offset, size, codec, 0, None)


def page(*rows: tuple[Any, ...]) -> EventRows:
    """A page of rows."""
    return EventRows(list(rows), TYPES)


def test_rows_are_a_sequence_of_stored_events() -> None:
    """Equal to the list of them, however it is used: by index, by slice, by iteration, once or again."""
    one = StoredEvent(7, bytes(16), "rows.measured", 1, b'{"value":1}', "a:1\nb:2", 5)
    two = StoredEvent(
        8, bytes(16), "rows.named", 2, b"x", "a:1\nb:2", 5, 4, b'{"actor":"a"}', offset=1, size=3, codec="cbor"
    )
    rows = page(
        row(7),
        row(8, 2, b"x", version=2, occurred=4, metadata=b'{"actor":"a"}', offset=1, size=3, codec="cbor"),
    )
    assert (len(rows), rows[0], rows[-1]) == (2, one, two)
    assert rows[1:] == [two]
    assert list(rows) == [one, two]
    assert list(rows) == list(rows)
    assert rows == [one, two]
    assert [one, two] == rows
    assert rows != [one]
    assert rows[:1] == [one]
    assert rows[1] is rows[1]  # made once, after all of them were asked for
    assert (rows[1].first, rows[1].last, two in rows) == (7, 9, True)
    assert repr(rows) == repr([one, two])


def test_an_envelope_is_made_when_it_is_first_asked_for() -> None:
    """And is then kept; a Recorded of a row equals one of its stored event, also copied or pickled."""
    rows = page(row(7), row(8, 2, b'{"name":"n"}'))
    first, second = recorded_rows(rows, [Measured(1), Named("n")])
    assert (first.position, second.position) == (7, 8)
    expected = Recorded(rows[1], Named("n"))
    for each in (second, copy.copy(second), copy.deepcopy(second), pickle.loads(pickle.dumps(second))):  # noqa: S301
        assert each == expected
        assert expected == each
        assert (each.type, each.tags, each.stored) == ("rows.named", ("a:1", "b:2"), rows[1])
        assert each.stored is each.stored
        assert repr(each) == repr(expected)
    assert first != second
    assert first != Recorded(rows[0], Measured(2))
    assert first != "something else"
    with pytest.raises(AttributeError):
        first.stored = rows[1]  # type: ignore[misc]
    with pytest.raises(TypeError):
        hash(first)


def test_a_page_is_decoded_together() -> None:
    """Of one type or of several, in order; each codec is asked for once."""
    registry, asked = Registry(), list[tuple[str, int]]()

    def codec_of(sample: StoredEvent) -> Any:
        asked.append((sample.type, sample.version))
        return registry.codec_for(sample)

    assert registry.decode_rows(page(row(1), row(2)), codec_of) == [Measured(1), Measured(1)]
    assert asked == [("rows.measured", 1)]
    mixed = page(row(1), row(2, 2, b'{"name":"n"}'), row(3, data=b'{"value":3}', codec="json"))
    assert registry.decode_rows(mixed, registry.codec_for) == [Measured(1), Named("n"), Measured(3)]


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (row(2, data=b'{"value":"x"}'), UndecodableEvent),
        (row(2, data=b"{"), UndecodableEvent),
        (row(2, codec="cbor"), UndecodableEvent),
        (row(2, 3), UnknownEventType),
    ],
)
def test_what_cannot_be_decoded_together_is_decoded_one_by_one(bad: Any, error: type[Exception]) -> None:
    """So that the error is the same, and names the same event."""
    registry = Registry()
    for rows in (page(row(1), bad, row(3)), page(bad)):
        assert registry.decode_rows(rows, registry.codec_for) is None
        with pytest.raises(error, match="2"):
            [registry.decode(stored) for stored in rows]


def test_events_with_an_upcaster_are_decoded_one_by_one() -> None:
    """Alone and among others."""
    registry = Registry()
    assert registry.decode_rows(page(row(1), row(2, 4)), registry.codec_for) is None
    assert registry.decode_rows(page(row(2, 4)), registry.codec_for) is None
    assert registry.decode(page(row(2, 4))[0]) == (New(1, "kg"),)
