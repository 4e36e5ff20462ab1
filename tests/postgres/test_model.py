"""Whatever is asked of it, this engine answers as the memory engine does: the same outcomes, the same log."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from eventfold.bridge import run
from eventfold.engine import AppendRequest, Span
from eventfold.engines.memory import MemoryEngine
from eventfold.engines.postgres import append
from eventfold.errors import EventfoldError
from eventfold.query import Clause, Item, Query
from eventfold.record import NewEvent, Receipt
from tests.postgres.given import Opened

TAGS = ("a:1", "a:2", "b:1")
TYPES = ("T", "U")
IDS = [bytes([n]) * 16 for n in range(24)]

items = st.builds(
    Item,
    st.lists(st.sampled_from(TYPES), max_size=2, unique=True).map(tuple),
    st.lists(st.sampled_from(TAGS), max_size=3, unique=True).map(lambda tags: tuple(sorted(tags))),
)
queries = st.lists(items, max_size=2).map(Query.any_of)
events = st.builds(
    NewEvent,
    id=st.sampled_from(IDS),
    type=st.sampled_from(TYPES),
    version=st.sampled_from([1, 1, 2]),
    data=st.sampled_from([b"{}", b"{}", b'{"x":1}']),
    tags=st.lists(st.sampled_from(TAGS), max_size=2, unique=True).map(lambda tags: tuple(sorted(tags))),
    occurred=st.sampled_from([None, None, 5]),
    metadata=st.sampled_from([None, None, b"{}"]),
    codec=st.sampled_from(["json", "json", "raw"]),
    key=st.sampled_from([None, None, "k"]),
)
requests = st.builds(
    AppendRequest,
    st.lists(events, min_size=1, max_size=3).map(tuple),
    st.lists(st.builds(Clause, queries, st.integers(0, 12)), max_size=2).map(tuple),
    st.sampled_from([None, None, None, "k-1", "k-2"]),
)


def seen(outcome: Any) -> Any:
    """An outcome without what differs between two stores: ids of the store, and times."""
    if isinstance(outcome, Receipt):
        return msgspec.structs.replace(outcome, store="", epoch=0, time=0)
    assert isinstance(outcome, EventfoldError)
    return type(outcome), str(outcome), outcome.fields


def timeless(stored: list[Any]) -> list[Any]:
    """A log without its times."""
    return [msgspec.structs.replace(each, time=0) for each in stored]


@given(st.lists(st.lists(requests, min_size=1, max_size=6), min_size=1, max_size=5), st.lists(queries, max_size=3))
def test_it_behaves_as_the_memory_engine_does(
    server: Any, calls: list[list[AppendRequest]], asked: list[Query]
) -> None:
    """Any calls, with reused ids, known keys, conditions on each other and on what is not there yet; then any reads."""
    model, engine = MemoryEngine(), Opened(server.url(), schema=f"m{uuid4().hex}")
    engine.open()
    try:
        for call in calls:
            expected = run(model.append_many(call))
            assert [seen(outcome) for outcome in engine.append_many(call)] == [seen(outcome) for outcome in expected]
        for query in [Query(), *asked]:
            for span in (Span(), Span(limit=2), Span(limit=1, backwards=True), Span(after=1, until=3)):
                ours, theirs = engine.read(query, span), run(model.read(query, span))
                assert timeless(ours.events) == timeless(theirs.events)
                assert ours.scanned == theirs.scanned or ours.more
            assert engine.count(query) == run(model.count(query))
        assert engine.types() == run(model.types())
        assert engine.tags() == run(model.tags())
        assert engine.keys() == run(model.keys())
    finally:
        engine.end()


def test_calls_are_cut_where_one_request_repeats_another() -> None:
    """A call holds no id and no key twice, and not too many requests that bear on each other."""

    def asking(number: int, key: str | None = None, unless: tuple[Clause, ...] = ()) -> AppendRequest:
        return AppendRequest((NewEvent(bytes([number]) * 16, "T", 1, b"{}", ("a:1",)),), unless, key)

    same_id = [asking(1), asking(2), asking(1), asking(3)]
    assert [len(batch.requests) for batch in append.batches(same_id)] == [2, 2]
    same_key = [asking(1, "k"), asking(2), asking(3, "k")]
    assert [len(batch.requests) for batch in append.batches(same_key)] == [2, 1]
    apart = [asking(n, unless=(Clause(Query.of(tags="b:1"), 0),)) for n in range(9)]
    assert [(len(batch.requests), batch.matches) for batch in append.batches(apart)] == [(9, [])]
    close = [asking(n, unless=(Clause(Query.of(tags="a:1"), n),)) for n in range(9)]
    (batch,) = append.batches(close)
    assert batch.matches == [(n, 1, 0) for n in range(1, 10)]
    many = [
        asking(n % 250, unless=tuple(Clause(Query.of(types=["T", f"U{i}"]), 0) for i in range(n, n + 30)))
        for n in range(200)
    ]
    cut = list(append.batches(many))
    assert sum(len(batch.requests) for batch in cut) == 200
    assert len(cut) > 1
