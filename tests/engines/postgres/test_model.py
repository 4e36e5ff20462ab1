"""The PostgreSQL engine answers every call as the memory engine does: the same outcomes, the same log."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventfold.concurrency import run
from eventfold.core.envelope import NewEvent
from eventfold.core.query import ConditionClause, Query
from eventfold.engines.memory import MemoryEngine
from eventfold.engines.postgres import batch as batching
from eventfold.engines.postgres import large_queries, reader
from eventfold.ports.messages import AppendRequest, Span
from tests.engines.postgres.given import Opened
from tests.model.calls import queries, requests, seen, timeless


@pytest.mark.parametrize("few", [None, 0], ids=["item by item", "as many items are"])
@given(st.lists(st.lists(requests, min_size=1, max_size=6), min_size=1, max_size=5), st.lists(queries, max_size=3))
def test_it_behaves_as_the_memory_engine_does(
    server: Any, few: int | None, calls: list[list[AppendRequest]], read_queries: list[Query]
) -> None:
    """Any calls: reused ids, known keys, conditions on each other, also after events of any call; then any reads."""
    with pytest.MonkeyPatch.context() as patch:
        if few is not None:
            patch.setattr(large_queries, "MAX_WALKS", few)
            patch.setattr(reader, "MAX_POSITIONS_PER_RANGE", 3)
            patch.setattr(reader, "MIN_RANGE_POSITIONS", 1)
        compare(Opened(server.url(), schema=f"m{uuid4().hex}"), calls, read_queries)


def compare(engine: Opened, calls: list[list[AppendRequest]], read_queries: list[Query]) -> None:
    """Make the calls on the engine and in memory, and compare."""
    model = MemoryEngine()
    engine.open()
    try:
        for call in calls:
            expected = run(model.append_many(call))
            assert [seen(outcome) for outcome in engine.append_many(call)] == [seen(outcome) for outcome in expected]
        for query in [Query(), *read_queries]:
            for span in (Span(), Span(limit=2), Span(limit=1, backwards=True), Span(after=1, until=3)):
                found, expected = engine.read(query, span), run(model.read(query, span))
                assert timeless(found.events) == timeless(expected.events)
                assert found.scanned == expected.scanned or found.more
            assert engine.count(query) == run(model.count(query))
        assert engine.types() == run(model.types())
        assert engine.tags() == run(model.tags())
        assert engine.replication.keys() == run(model.keys())
    finally:
        engine.end()


def test_calls_are_cut_where_one_request_repeats_another() -> None:
    """A batch contains no id and no key twice, and not too many requests whose conditions match each other."""

    def asking(number: int, key: str | None = None, unless: tuple[ConditionClause, ...] = ()) -> AppendRequest:
        return AppendRequest((NewEvent(bytes([number]) * 16, "T", 1, b"{}", ("a:1",)),), unless, key)

    same_id = [asking(1), asking(2), asking(1), asking(3)]
    assert [len(batch.requests) for batch in batching.split_batches(same_id)] == [2, 2]
    same_key = [asking(1, "k"), asking(2), asking(3, "k")]
    assert [len(batch.requests) for batch in batching.split_batches(same_key)] == [2, 1]
    apart = [asking(n, unless=(ConditionClause(Query.of(tags="b:1"), 0),)) for n in range(9)]
    assert [(len(batch.requests), batch.matches) for batch in batching.split_batches(apart)] == [(9, [])]
    close = [asking(n, unless=(ConditionClause(Query.of(tags="a:1"), n),)) for n in range(9)]
    (batch,) = batching.split_batches(close)
    assert batch.matches == [(n, 1, 0) for n in range(1, 10)]
    many = [
        asking(n % 250, unless=tuple(ConditionClause(Query.of(types=["T", f"U{i}"]), 0) for i in range(n, n + 30)))
        for n in range(200)
    ]
    cut = list(batching.split_batches(many))
    assert sum(len(batch.requests) for batch in cut) == 200
    assert len(cut) > 1
