"""What people type: moments, positions, cursors, alternatives, and which argument is the store."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from eventfold.cli.options import (
    build_query,
    hide_password,
    parse_position_or_cursor,
    split_store_argument,
)
from eventfold.core.moments import parse_position_or_time, parse_time
from eventfold.core.query import Cursor, Query
from eventfold.errors import CursorMismatch, EventfoldError, InvalidInput, InvalidQuery


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-23T10:15Z", datetime(2026, 11, 23, 10, 15, tzinfo=UTC)),
        ("2026-11-23 10:15:30.5+01:00", datetime(2026, 11, 23, 9, 15, 30, 500_000, tzinfo=UTC)),
        ("2026-11-23", datetime(2026, 11, 23, tzinfo=UTC)),
    ],
)
def test_a_moment_is_a_time_with_its_zone_or_a_date(text: str, moment: datetime) -> None:
    """Offsets are heeded; a date alone begins with its first moment in UTC."""
    assert parse_time(text) == moment


def test_a_date_as_an_end_is_the_whole_day() -> None:
    """`--until 2026-11-23` includes everything recorded on that day, in UTC."""
    assert parse_position_or_time("2026-11-23") == datetime(2026, 11, 23, 23, 59, 59, 999_999, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "before"), [("90s", 90), ("15m ago", 900), ("2h", 7200), ("7d", 604_800), ("1w", 604_800)]
)
def test_a_moment_may_be_some_time_ago(text: str, before: int) -> None:
    """Seconds, minutes, hours, days and weeks, counted from now."""
    assert abs(datetime.now(UTC) - timedelta(seconds=before) - parse_time(text)) < timedelta(seconds=30)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("2026-11-23T10:15", "Write 2026-11-23T10:15Z if you mean UTC"),
        ("2026-11-23 10:15", "Write 2026-11-23T10:15Z if you mean UTC"),
        ("yesterday", "'yesterday' is not a time"),
        ("2026-02-30", "is not a time"),
        ("17", "'17' is a position, not a time"),
        ("", "is not a time"),
        ("999999w", "is not a time"),
        ("0001-01-01T00:00+05:00", "is not a time"),
    ],
)
def test_what_names_no_moment_is_refused_with_how_to_write_one(text: str, says: str) -> None:
    """A time without a zone above all: it would mean something else on another machine."""
    with pytest.raises(InvalidInput) as refused:
        parse_time(text)
    assert says in str(refused.value)


def test_a_place_is_a_position_or_a_moment() -> None:
    """Digits are a position, however they are grouped."""
    assert [parse_position_or_time("17"), parse_position_or_time("1,017"), parse_position_or_time("1_017")] == [
        17,
        1017,
        1017,
    ]


def test_after_takes_a_position_or_a_cursor() -> None:
    """And nothing else."""
    cursor = Cursor("ab" * 16, 1, 7, "cd" * 16)
    assert parse_position_or_cursor(None) == 0
    assert parse_position_or_cursor("1,017") == 1017
    assert parse_position_or_cursor(str(cursor)) == cursor
    with pytest.raises(InvalidInput):
        parse_position_or_cursor("last")
    with pytest.raises(CursorMismatch):
        parse_position_or_cursor("efc1_!!!")


@pytest.mark.parametrize(
    ("types", "tags", "where", "query"),
    [
        ([], [], [], Query()),
        (["A", "B"], ["x:1", "y:2"], [], Query.of(["A", "B"], ["x:1", "y:2"])),
        ([], [], ["type=A,B tag=x:1 tag=y:2"], Query.of(["A", "B"], ["x:1", "y:2"])),
        (["A"], [], ["tag=x:1"], Query.of("A") | Query.of(tags="x:1")),
        ([], [], ["type=A", "type=B tag=x:1"], Query.of("A") | Query.of("B", "x:1")),
        ([], [], ["tag='name:Ann Example' tag=a:b=c,d"], Query.of(tags=["name:Ann Example", "a:b=c,d"])),
    ],
)
def test_flags_make_one_query(types: list[str], tags: list[str], where: list[str], query: Query) -> None:
    """Types any of, tags all of; each --where is another alternative; values may be quoted."""
    assert build_query(types, tags, where) == query


@pytest.mark.parametrize("where", ["", "A", "type=", "tags=x:1", "tag='x", "type=A,", "type=A tag"])
def test_an_alternative_that_means_nothing_is_refused(where: str) -> None:
    """With how to write one; it never silently means everything."""
    with pytest.raises(EventfoldError) as refused:
        build_query([], [], [where])
    assert isinstance(refused.value, InvalidQuery)


@pytest.mark.parametrize(
    ("words", "needed", "store", "others"),
    [
        (["bank.db"], 0, "bank.db", []),
        (["bank.db", "Opened"], 0, "bank.db", ["Opened"]),
        (["Opened"], 0, "home.db", ["Opened"]),
        (["account:"], 0, "home.db", ["account:"]),
        (["memory:x", "account:"], 0, "memory:x", ["account:"]),
        (["./bank"], 0, "./bank", []),
        (["copy.db"], 1, "home.db", ["copy.db"]),
        (["bank.db", "copy.db"], 1, "bank.db", ["copy.db"]),
        (["home.db"], 0, "home.db", []),
    ],
)
def test_the_environment_may_name_the_store(
    words: list[str], needed: int, store: str, others: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With EVENTFOLD_URL set, the first argument is a store only where it looks like one, or must be."""
    monkeypatch.setenv("EVENTFOLD_URL", "home.db")
    assert split_store_argument(words[0], words[1:], needed) == (store, others)


def test_no_password_is_shown() -> None:
    """An address in an answer or a hint has … in its place."""
    assert hide_password("postgresql://ann:s3cret@db:5432/bank") == "postgresql://ann:…@db:5432/bank"
    assert hide_password("postgresql://ann@db/bank") == "postgresql://ann@db/bank"
    assert hide_password("bank.db") == "bank.db"


def test_without_the_environment_the_first_argument_is_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it looks like."""
    monkeypatch.delenv("EVENTFOLD_URL", raising=False)
    assert split_store_argument("bank", ["Opened"], 1) == ("bank", ["Opened"])
