"""Pages as lines of JSON: the same bytes as one event at a time, whatever an event contains."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventfold.core.envelope import StoredEvent
from eventfold.core.event_json import encode_line
from eventfold.core.event_lines import encode_lines
from eventfold.core.event_rows import EventRows

LAST = 253_402_300_799_999_999
payloads = st.one_of(
    st.recursive(st.none() | st.integers() | st.text(), lambda more: st.lists(more) | st.dictionaries(st.text(), more))
    .map(lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")),
    st.binary(max_size=20),
    st.sampled_from([b'{"a":\n1}', b'{"$bytes":"AA==","$codec":"x"}', b'"\xff"', b"{}}", b'{},"tags":["x"]', b""]),
)  # fmt: skip
tags = st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"), min_size=1), max_size=3)
events = st.builds(
    StoredEvent,
    st.integers(1, 2**63 - 1),
    st.binary(min_size=16, max_size=16),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8),
    st.integers(1, 3),
    payloads,
    tags.map("\n".join),
    st.integers(0, LAST),
    st.none() | st.integers(0, LAST),
    st.none() | st.sampled_from([b'{"actor":"a"}', '{"actor":"ö"}'.encode(), b'{\n"actor":1}', b'{"a":1\r}']),
    codec=st.sampled_from(["json", "msgpack"]),
    key=st.none() | st.just("k"),
)


@given(st.lists(events, max_size=5))
def test_lines_are_the_bytes_of_encode_line(page: list[StoredEvent]) -> None:
    """For payloads that are not JSON, names that need escapes and line breaks too; as objects and as rows."""
    expected = b"".join(encode_line(stored) + b"\n" for stored in page)
    assert encode_lines(page) == expected
    names = {number: stored.type for number, stored in enumerate(page)}
    rows = [
        (e.position, e.id, number, e.version, e.data, e.tags, e.time, e.occurred, e.metadata, 0, 1, e.codec, 0, e.key)
        for number, e in enumerate(page)
    ]
    assert encode_lines(EventRows(rows, names)) == expected
    assert [json.loads(line) for line in expected.splitlines()] or not page


@pytest.mark.parametrize("payload", [b'{"a":}', b"{} {}", b'"\xff"', b'{},"tags":["admin"]', b"[" * 5_000])
def test_a_payload_that_is_not_json_cannot_change_its_line(payload: bytes) -> None:
    """It is written as base64, within a line that has every key once."""
    line = encode_lines([StoredEvent(1, bytes(16), "A", 1, payload, "", 0)])
    assert json.loads(line)["data"].keys() == {"$bytes", "$codec"}
