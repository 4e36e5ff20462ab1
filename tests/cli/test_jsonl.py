"""An event as a line of JSON, and back: nothing is lost, nothing is added."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from eventfold.core.envelope import NewEvent, digest
from eventfold.core.event_json import KEYS, OPAQUE_PREFIX, build_event, encode_line, parse_line
from eventfold.errors import InvalidEvent

TIME = 1_795_435_200_000_000  # 2026-11-23T12:00Z in µs


def written(event: NewEvent, position: int = 7) -> dict[str, Any]:
    """The line of an event that was recorded, read as any program would."""
    line = encode_line(event.at(position, TIME, 0, 1))
    assert b"\n" not in line and b"\r" not in line
    return json.loads(line)


def test_a_line_has_exactly_these_keys_in_this_order() -> None:
    """position id type tags data metadata time, and nothing else where there is nothing else to say."""
    line = written(build_event("Opened", b'{"owner":"Ann"}', tags=["b:2", "a:1"], metadata=b'{"actor":"eve"}'))
    assert tuple(line) == KEYS
    assert (line["position"], line["type"], line["tags"]) == (7, "Opened", ["a:1", "b:2"])
    assert (line["data"], line["metadata"], line["time"]) == (
        {"owner": "Ann"},
        {"actor": "eve"},
        "2026-11-23T12:00:00.000000Z",
    )


def test_occurred_and_version_stand_there_only_where_they_say_something() -> None:
    """They follow the seven keys when a writer gave a moment, or when the version is not 1."""
    moment = datetime(2013, 1, 1, 5, 15, tzinfo=UTC)
    assert tuple(written(build_event("A", b"{}", tags=[], occurred=moment))) == (*KEYS, "occurred")
    assert tuple(written(build_event("A", b"{}", tags=[], version=3))) == (*KEYS, "version")
    both = written(build_event("A", b"{}", tags=[], version=3, occurred=moment))
    assert (both["occurred"], both["version"]) == ("2013-01-01T05:15:00.000000Z", 3)


PAYLOADS = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    PAYLOADS,
    st.lists(st.text("abcé漢:-", min_size=1, max_size=8), max_size=4),
    st.dictionaries(st.text(min_size=1), st.text(), max_size=2),
    st.none() | st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),
    st.integers(1, 9),
)
def test_what_is_read_can_be_appended_byte_for_byte(
    data: Any, tags: list[str], metadata: dict[str, str], occurred: datetime | None, version: int
) -> None:
    """A line read from one store and appended to another is the same event: same id, same digest."""
    assume(not msgspec.json.encode(data).startswith(OPAQUE_PREFIX))  # means bytes in a line
    event = build_event(
        "Any",
        msgspec.json.encode(data),
        tags=tags,
        occurred=occurred,
        metadata=msgspec.json.encode(metadata),
        version=version,
    )
    again = parse_line(encode_line(event.at(1, TIME, 0, 1)))
    assert again == event
    assert digest([again]) == digest([event])


@pytest.mark.parametrize(
    ("data", "codec", "key"),
    [
        (b"\x00\xff\n", "protobuf", None),
        (b"not json", "json", None),
        (b'{"a": "\xff"}', "json", None),
        (b'{"a":1}', "json", "key-7"),
        (b'{"$bytes":"aGk=","$codec":"x"}', "json", None),
        (b"[" * 100_000, "json", None),
    ],
)
def test_a_payload_that_is_no_json_survives_the_way(data: bytes, codec: str, key: str | None) -> None:
    """Unknown formats, encrypted and broken payloads stand in the line as base64, and come back as they were."""
    event = NewEvent(b"0123456789abcdef", "Odd", 1, data, (), codec=codec, key=key)
    assert parse_line(encode_line(event.at(1, TIME, 0, 1))) == event
    assert set(written(event)["data"]) <= {"$bytes", "$codec", "$key"}


def test_a_payload_with_line_breaks_still_makes_one_line() -> None:
    """Pretty-printed JSON is set in one line; its values are untouched."""
    event = NewEvent(
        b"0123456789abcdef", "Pretty", 1, b'{\n  "a": 1.0,\r\n  "b": "x\\ny"\n}', (), metadata=b'{\n"c":1}'
    )
    line = encode_line(event.at(1, TIME, 0, 1))
    assert b'"data":{"a":1.0,"b":"x\\ny"},"metadata":{"c":1}' in line


def test_of_a_line_only_the_type_is_needed() -> None:
    """Other fields are empty, and the id is new; the store assigns position and time again."""
    event = parse_line(b'{"type":"Opened","position":99,"time":"whenever"}')
    assert (event.type, event.data, event.tags, event.version, event.metadata) == ("Opened", b"{}", (), 1, None)
    assert event.id != parse_line(b'{"type":"Opened"}').id


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("", "This line is not an event"),
        ("[1]", "expected `object`"),
        ("{}", "missing required field `type`"),
        ('{"type":""}', "The event type '' is empty"),
        ('{"type":"$x"}', "reserved for eventfold"),
        ('{"type":"A","tag":["x:1"]}', "unknown field `tag`"),
        ('{"type":"A","tags":["x\\n1"]}', "control character"),
        ('{"type":"A","data":{"a":}}', "This line is not an event"),
        ('{"type":"A","id":"7"}', "UUID"),
        ('{"type":"A","occurred":"2026-11-23T10:00:00"}', "timezone"),
        ('{"type":"A","metadata":[1]}', "metadata of this A is not a JSON object"),
        ('{"type":"A","version":0}', "version 0"),
        ('{"type":"A","data":{"$bytes":7}}', "begins with $bytes"),
        ('{"type":"A","data":{"$bytes":"***","$codec":"x"}}', "begins with $bytes"),
        ('{"type":"A","data":{"$bytes":"äöü","$codec":"x"}}', "begins with $bytes"),
    ],
)
def test_a_line_that_is_no_event_is_refused_in_words(line: str, says: str) -> None:
    """What is wrong, and what a line looks like; nothing is guessed."""
    with pytest.raises(InvalidEvent) as refused:
        parse_line(line)
    assert says in str(refused.value)
    assert refused.value.remedy.endswith(".")
