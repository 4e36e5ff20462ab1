"""The JSON of queries, conditions, reads and receipts."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID, uuid4

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import eventfold as ef
from eventfold.core import wire
from eventfold.core.query import ConditionClause, Cursor, Item, Query
from eventfold.errors import CursorMismatch, InvalidEvent, InvalidInput, InvalidQuery

names = st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=12).filter(lambda name: name[0] != "$")


def item(types: list[str], tags: set[str]) -> Item:
    """An item as Query.of makes it."""
    return Item(tuple(types), tuple(sorted(tags)))


def query(found: list[Item]) -> Query:
    """A query of these items."""
    return Query(tuple(found))


items = st.builds(item, st.lists(names, max_size=3), st.sets(names, max_size=3)).filter(lambda i: i != Item())
queries = st.builds(query, st.lists(items, max_size=4))


@given(queries)
def test_a_query_is_the_same_after_json(query: Query) -> None:
    """Encoded, decoded as strictly as the server does, and turned into a query again."""
    text = msgspec.json.encode(wire.from_query(query))
    assert wire.to_query(wire.decode(text, wire.QueryJson)) == query


@given(st.lists(st.tuples(queries, st.integers(0, 2**62), st.none() | st.uuids(version=4)), min_size=1, max_size=3))
def test_a_condition_is_the_same_after_json(clauses: list[tuple[Query, int, UUID | None]]) -> None:
    """Every clause keeps its query, its position and the event that it names."""
    given_clauses = tuple(
        ConditionClause(query, after, None if event is None else event.bytes) for query, after, event in clauses
    )
    text = msgspec.json.encode(wire.from_clauses(given_clauses))
    again = wire.decode(text, tuple[wire.ClauseJson, ...])
    assert wire.to_clauses(again, 0) == given_clauses


def test_a_receipt_is_the_same_after_json() -> None:
    """A client can keep the JSON and prove by it what was acknowledged."""
    with ef.Store("memory:") as store:
        receipt = store.append_encoded(ef.NewEvent.of("Opened", b"{}"), ef.NewEvent.of("Opened", b"{}"))
        text = msgspec.json.encode(wire.from_receipt(receipt))
        assert wire.to_receipt(wire.decode(text, wire.ReceiptJson)) == receipt


def test_a_receipt_with_a_wrong_id_is_refused() -> None:
    """The error is InvalidInput, not that of the uuid module."""
    wrong = wire.ReceiptJson("s", 1, 1, 1, "2026-11-23T10:15:00Z", ["x"], "d", False)
    with pytest.raises(InvalidInput):
        wire.to_receipt(wrong)


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (b'{"events": [], "unles": {}}', "unles"),
        (b'{"events": [{"type": "A", "tag": []}]}', "$.events[0]"),
        (b'{"events": [], "unless": {"items": [{"typs": []}]}}', "$.unless"),
        (b'{"events": [], "after": -1}', "after"),
        (b'{"events": [], "unless": [{"query": {}, "after": -1}]}', "$.unless"),
        (b'{"events": [', "truncated"),
        (b'{"key": ' + b"[" * 100_000, "key"),
        (b'{"key": "\xff\xfe"}', "utf-8"),
        (b"null", "got `null`"),
    ],
)
def test_json_that_is_not_an_append_is_refused_with_the_place(body: bytes, path: str) -> None:
    """A misspelt field is an error too: without it a condition would be lost."""
    with pytest.raises(InvalidInput) as caught:
        wire.decode(body, wire.AppendJson)
    assert path in caught.value.what


def test_an_empty_condition_is_refused_instead_of_being_ignored() -> None:
    """Each of these is a mistake of a client that builds its condition from an empty list."""
    with pytest.raises(InvalidQuery, match=r"unless\.items is empty"):
        wire.to_clauses(wire.QueryJson(()), 0)
    with pytest.raises(InvalidQuery, match="no event that would forbid"):
        wire.to_clauses((), 0)
    with pytest.raises(InvalidQuery, match=r"query\.items\[1\] has no type and no tag"):
        wire.to_query(wire.QueryJson((wire.ItemJson(("A",)), wire.ItemJson())))
    with pytest.raises(InvalidQuery, match="without a query"):
        wire.to_clauses(None, 3)


def test_a_query_without_items_is_every_event() -> None:
    """As a condition it forbids the append after any event."""
    assert wire.to_query(None) == wire.to_query(wire.QueryJson()) == Query()
    assert wire.to_clauses(wire.QueryJson(), 7) == (ConditionClause(Query(), 7),)


def test_a_name_that_no_event_can_have_is_refused_with_its_item() -> None:
    """An empty type, for example."""
    with pytest.raises(InvalidQuery, match=r"unless\[0\]\.query\.items\[0\]: The tag"):
        wire.to_clauses((wire.ClauseJson(wire.QueryJson((wire.ItemJson(tags=("a\n",)),))),), 0)


def test_an_invalid_event_is_named_by_its_index() -> None:
    """So a client with a thousand events knows which one to correct."""
    lines = wire.decode(b'[{"type": "A"}, {"type": "B", "tags": ["$x"]}]', list[wire.InputLine])
    with pytest.raises(InvalidEvent, match=r"^events\[1\]: The tag '\$x'") as caught:
        wire.to_events(lines)
    assert caught.value.fields["index"] == 1


@pytest.mark.parametrize("count", [0, 1_001])
def test_an_append_has_1_to_1_000_events(count: int) -> None:
    """As in every other interface."""
    with pytest.raises(InvalidInput, match=str(count)):
        wire.to_events([wire.InputLine(type="A")] * count)


def test_positions_cursors_and_times_are_distinguished() -> None:
    """A number is a position, also as text in a URL."""
    cursor = Cursor("0" * 32, 1, 3, uuid4().hex)
    assert wire.to_position(3) == wire.to_position("3") == 3
    assert wire.to_position(str(cursor)) == cursor
    assert wire.to_position_or_moment("12", "until") == wire.to_position_or_moment(12, "until") == 12
    assert wire.to_moment("2026-11-23", "since") == datetime(2026, 11, 23, tzinfo=UTC)
    assert wire.to_position_or_moment("2026-11-23", "until") == datetime(2026, 11, 23, 23, 59, 59, 999_999, UTC)
    assert wire.to_moment("2026-11-23T10:15:00+01:00", "since") == datetime(2026, 11, 23, 9, 15, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "now", "2026-11-23T10:15:00", "2026-13-01", "12"])
def test_a_text_that_is_no_moment_is_refused_with_its_field(text: str) -> None:
    """A time without an offset is refused too: it names no moment."""
    with pytest.raises(InvalidInput, match=r"^since: ") as caught:
        wire.to_moment(text, "since")
    assert caught.value.fields["field"] == "since"


def test_a_text_that_is_no_position_is_refused() -> None:
    """Neither digits nor a cursor."""
    with pytest.raises(InvalidInput, match="neither a position nor a cursor"):
        wire.to_position("abc")
    with pytest.raises(CursorMismatch):
        wire.to_position("efc1_%%%")
