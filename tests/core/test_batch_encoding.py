"""Events that are encoded together are stored as if encoded one by one, and refused with the same errors."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import eventfold as ef
from eventfold.core.batch_encoding import encode_alike
from eventfold.core.envelope import new_ids
from eventfold.core.registry import MIN_ALIKE, Registry
from eventfold.errors import InvalidEvent


class Moved(ef.Event, type="batch-moved"):
    """Two tags, one of them of any kind."""

    who: ef.Tag
    where: Annotated[str | int | None, ef.tag("place")] = None
    what: Any = None


class Twice(ef.Event):
    """Two fields are tags of one key."""

    one: Annotated[str, ef.tag("side")]
    other: Annotated[str, ef.tag("side")]


class Nested(ef.Event):
    """Keys of which one begins with the other."""

    outer: Annotated[str, ef.tag("a")]
    inner: Annotated[str, ef.tag("a:b")]


class Color(Enum):
    """A tag that is not a text."""

    RED = "red"


class Painted(ef.Event):
    """A tag that is an enum."""

    color: ef.Tag[Color]


class Priced(ef.Event):
    """A decimal needs a look of its own."""

    price: Decimal


class Quoted(ef.Event):
    """JSON as it was written, which may have line breaks."""

    text: msgspec.Raw


class Untagged(ef.Event):
    """No tags at all."""

    number: float


class Open(ef.Event):
    """Keeps fields that it does not know."""

    who: ef.Tag
    more: ef.UnknownFields = {}


@ef.event
@dataclass(frozen=True)
class Counted:
    """A dataclass."""

    who: ef.Tag
    at: datetime


@ef.event
@attrs.frozen
class Kept:
    """An attrs class."""

    who: ef.Tag


AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
texts = st.text(max_size=70) | st.sampled_from(["a", "é", "x" * 54, "x" * 300, "line\nbreak", "", "2026-01-02T03:04Z"])
events = st.one_of(
    st.builds(Moved, texts, texts | st.integers() | st.none(), st.none() | st.floats() | st.lists(st.integers())),
    st.builds(Twice, texts, texts),
    st.builds(Nested, texts, texts),
    st.builds(Priced, st.decimals(allow_nan=False) | st.just(0.1)),
    st.builds(Quoted, st.sampled_from([b"1", b"[1,\n2]", b'{"a": 1}', b"nonsense"]).map(msgspec.Raw)),
    st.builds(Untagged, st.floats()),
    st.builds(Open, texts),
    st.builds(Counted, texts, st.datetimes(timezones=st.just(UTC))),
    st.builds(Kept, texts),
    st.builds(Painted, st.just(Color.RED)),
    st.builds(ef.Draft, st.builds(Untagged, st.just(1.0)), tags=st.just(("more",))),
    st.just(object()),
)
alike = st.sampled_from([Moved, Twice, Nested, Untagged]).flatmap(
    lambda cls: st.lists(events.filter(lambda event: type(event) is cls), min_size=MIN_ALIKE, max_size=MIN_ALIKE + 8)
)


def one_by_one(given: list[Any], metadata: bytes | None) -> list[Any] | str:
    """Return what each event is stored as, without ids, or the message of the first that is refused."""
    registry = Registry()
    try:
        return [without_id(registry.encode(event, metadata)) for event in given]
    except InvalidEvent as refused:
        return refused.what


def without_id(event: Any) -> Any:
    """Return an encoded event with an id that is the same for all."""
    return msgspec.structs.replace(event, id=bytes(16))


@given(st.lists(events, max_size=20) | alike, st.sampled_from([None, b'{"actor":"me"}']))
def test_events_are_encoded_together_as_one_by_one(given: list[Any], metadata: bytes | None) -> None:
    """Any mixture of classes, valid or not, with one metadata."""
    expected = one_by_one(given, metadata)
    try:
        encoded = Registry().encode_all(given, metadata)
    except InvalidEvent as refused:
        reasons = [one_by_one([event], metadata) for event in given]
        assert refused.what in [reason for reason in reasons if isinstance(reason, str)]
        return
    assert [without_id(event) for event in encoded] == expected
    assert len({event.id for event in encoded}) == len(given)


@pytest.mark.parametrize(
    "usual",
    [
        [Moved(f"w-{n}", f"p-{n % 3}", n) for n in range(9)],
        [Untagged(float(n)) for n in range(9)],
        [Counted(f"w-{n}", AT + timedelta(n)) for n in range(9)],
        [Kept(f"w-{n}") for n in range(9)],
    ],
)
def test_usual_events_are_encoded_together(usual: list[Any]) -> None:
    """Structs, dataclasses and attrs classes with short texts as tags, or none."""
    codec = Registry().codec(type(usual[0]))
    encoded = encode_alike(codec, usual, new_ids(len(usual)), None)
    assert encoded is not None
    assert [without_id(event) for event in encoded] == one_by_one(usual, None)
    assert [event.id for event in encoded] == sorted(event.id for event in encoded)


def test_an_error_of_a_signal_handler_is_not_taken_for_one_of_an_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is raised at once: the events are not encoded once more."""

    class Stopped(Exception):
        pass

    def stop(_: object) -> bytes:
        raise Stopped

    monkeypatch.setattr("eventfold.core.batch_encoding.encode_lines", stop)
    monkeypatch.setattr("eventfold.core.batch_encoding.is_from_handler", lambda error: isinstance(error, Stopped))
    with pytest.raises(Stopped):
        Registry().encode_all([Untagged(1.0)] * MIN_ALIKE)
    monkeypatch.setattr("eventfold.core.batch_encoding.is_from_handler", lambda error: False)
    assert len(Registry().encode_all([Untagged(1.0)] * MIN_ALIKE)) == MIN_ALIKE


def test_extend_ends_a_batch_of_large_events_where_it_did() -> None:
    """It reads no event after the one with which the payloads reach 8 MiB; small ones are encoded together."""
    read: list[int] = []

    def given(size: int, count: int) -> Any:
        for n in range(count):
            read.append(n)
            yield Moved("w", what="x" * size)

    with ef.Store(":memory:") as store:
        store.extend(given(900_000, 12), progress=lambda written: read.append(-written))
        assert read == [*range(10), -10, 10, 11, -12]
        read.clear()
        assert store.extend(given(10, 1_500), progress=lambda written: read.append(-written)) == 1_500
        assert [each for each in read if each < 0] == [-1_000, -1_500]
