"""Queries: one meaning of `matches`, held against sets; cursors, which are text and back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import eventfold as ef
from eventfold.core.query import ConditionClause, Cursor, Item, Query
from eventfold.errors import CursorMismatch, InvalidQuery

letters = st.sampled_from("abcd")
items = st.builds(
    lambda types, tags: Item(tuple(types), tuple(sorted(tags))),
    st.lists(letters, max_size=3),
    st.lists(letters, max_size=3),
)
some_items = st.lists(items.filter(lambda item: item != Item()), max_size=4)
queries = some_items.map(lambda found: Query(tuple(found)))
tag_sets = st.frozensets(letters)


def meant(query: Query, type: str, tags: frozenset[str]) -> bool:
    """The specification of dcb.events in sets."""
    if not query.items:
        return True
    return any((not item.types or {type} <= set(item.types)) and set(item.tags) <= tags for item in query.items)


@given(queries, letters, tag_sets)
def test_matches_is_the_specification(query: Query, type: str, tags: frozenset[str]) -> None:
    """Any item: any of its types, if it names some, and all of its tags."""
    assert query.matches(type, tags) is meant(query, type, tags)
    assert query.matches(type, tuple(sorted(tags))) is meant(query, type, tags)


@given(queries, queries, letters, tag_sets)
def test_or_is_either(one: Query, other: Query, type: str, tags: frozenset[str]) -> None:
    """A joined query matches what either of its parts matches."""
    assert (one | other).matches(type, tags) is (one.matches(type, tags) or other.matches(type, tags))


@given(st.lists(items, min_size=1, max_size=4), letters, tag_sets)
def test_any_of_is_a_union(some: list[Item], type: str, tags: frozenset[str]) -> None:
    """A union of items matches what any of them matches; one that means everything makes it everything."""
    parts = [Query((item,)) if item != Item() else Query() for item in some]
    assert Query.any_of(some).matches(type, tags) is any(part.matches(type, tags) for part in parts)


@given(st.lists(letters, max_size=3), st.lists(letters, max_size=3), letters, tag_sets)
def test_of_is_types_any_and_tags_all(types: list[str], tags: list[str], type: str, carried: frozenset[str]) -> None:
    """`Query.of` asks for any of the types and all of the tags."""
    expected = (not types or type in types) and set(tags) <= carried
    assert Query.of(types, tags).matches(type, carried) is expected


def test_everything_stays_everything() -> None:
    """Everything or anything is everything, on either side."""
    assert (Query() | Query.of(tags="a")) == (Query.of(tags="a") | Query()) == Query.of() == Query()
    assert Query.any_of([Item(("a",)), Item()]) == Query()


def test_an_item_that_names_nothing_is_refused() -> None:
    """A query by hand with an empty item is InvalidQuery: beside others it would quietly mean everything."""
    for items in ((Item(),), (Item(("a",)), Item())):
        with pytest.raises(InvalidQuery):
            Query(items)


def test_equal_questions_are_equal_queries() -> None:
    """The order of tags and doubled tags or items make no other query; queries can be keys."""
    assert Query.of(tags=["b", "a", "b"]) == Query.of(tags=["a", "b"])
    assert Query.of(tags="a") | Query.of(tags="a") == Query.of(tags="a")
    assert len({Query.of(tags="a"), Query.of(tags=["a"]), Query.of(tags=("a",))}) == 1


class Base(ef.Event, type="queries.base"):
    """Has descendants."""


class Derived(Base, type="queries.derived", aliases=("queries.derived-before",)):
    """Has an older name."""


def test_a_class_means_all_its_names() -> None:
    """A class in a query means its name, its aliases, and those of the classes derived from it."""
    assert set(Query.of(types=Base).items[0].types) == {"queries.base", "queries.derived", "queries.derived-before"}
    assert set(Query.of(types=Derived).items[0].types) == {"queries.derived", "queries.derived-before"}


def test_event_means_any_type() -> None:
    """`ef.Event` in a query means any type, alone or among others."""
    assert Query.of(types=ef.Event) == Query()
    assert Query.of(types=[Base, ef.Event]) == Query()
    assert Query.of(types=[ef.Event, "x"], tags="a") == Query.of(tags="a")


@pytest.mark.parametrize(
    "arguments",
    [
        {"tags": ""},
        {"tags": "a\n"},
        {"tags": [None]},
        {"types": ""},
        {"types": 5},
        {"types": [5]},
        {"types": "x" * 256},
        {"types": str},
        {"tags": 5},
    ],
    ids=str,
)
def test_a_query_for_nothing_that_could_be_is_refused(arguments: dict[str, Any]) -> None:
    """Names that no event could have are InvalidQuery, not an empty answer."""
    with pytest.raises(InvalidQuery):
        Query.of(**arguments)


def test_a_query_reads_as_a_sentence() -> None:
    """The repr of a query is short and says what is asked."""
    assert repr(Query()) == "Query(everything)"
    assert repr(Query.of(["A", "B"], ["x:1", "y:2"]) | Query.of(tags="z:3")) == "Query(A or B; x:1 and y:2 | z:3)"


@given(queries, st.integers(0, 6), st.lists(st.tuples(letters, tag_sets), max_size=8))
def test_a_condition_is_broken_by_what_its_query_matches(
    query: Query, after: int, log: list[tuple[str, frozenset[str]]]
) -> None:
    """The memory engine refuses an append exactly if `Query.matches` matches an event after the clause's position."""
    from eventfold.concurrency import run
    from eventfold.core.envelope import NewEvent, Receipt, new_id
    from eventfold.engines.memory import MemoryEngine
    from eventfold.errors import AppendConflict
    from eventfold.ports.messages import AppendRequest

    after = min(after, len(log))
    engine = MemoryEngine()
    for type, tags in log:
        run(engine.append_many([AppendRequest((NewEvent(new_id(), type, 1, b"{}", tuple(sorted(tags))),))]))
    request = AppendRequest((NewEvent(new_id(), "new", 1, b"{}", ()),), (ConditionClause(query, after),))
    (outcome,) = run(engine.append_many([request]))
    broken = [n for n, (type, tags) in enumerate(log, start=1) if n > after and meant(query, type, tags)]
    assert isinstance(outcome, AppendConflict if broken else Receipt)
    if isinstance(outcome, AppendConflict):
        assert outcome.fields["found"] == broken[0]


# ------------------------------------------------------------------------------------------ cursors


@given(
    st.builds(
        Cursor,
        st.uuids().map(lambda u: u.hex),
        st.integers(0, 9),
        st.integers(0, 2**60),
        st.uuids().map(lambda u: u.hex),
    )
)
def test_a_cursor_comes_back_from_its_text(cursor: Cursor) -> None:
    """The text of a cursor gives the same cursor."""
    assert Cursor.parse(str(cursor)) == cursor


@given(st.text(max_size=60))
def test_any_other_text_is_refused(text: str) -> None:
    """No text makes the parser raise anything but CursorMismatch."""
    for given_text in (text, "efc1_" + text):
        try:
            cursor = Cursor.parse(given_text)
        except CursorMismatch:
            continue
        assert isinstance(cursor, Cursor)


@pytest.mark.parametrize("value", [None, 5, b"efc1_x", Cursor("a", 1, 1, "")])
def test_a_cursor_is_parsed_from_text_only(value: Any) -> None:
    """What is no text is no cursor's text: CursorMismatch."""
    with pytest.raises(CursorMismatch):
        Cursor.parse(value)
