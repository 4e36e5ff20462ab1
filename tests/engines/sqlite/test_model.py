"""The SQLite engine answers every call as the memory engine does: the same outcomes, the same log."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventfold.concurrency import run
from eventfold.core.query import Query
from eventfold.engines.memory import MemoryEngine
from eventfold.engines.sqlite import SqliteEngine
from eventfold.engines.sqlite import queries as sql_queries
from eventfold.ports.messages import AppendRequest, Span
from tests.model.calls import queries, requests, seen, timeless


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the files of all examples."""
    return tmp_path_factory.mktemp("model")


@pytest.mark.parametrize("few", [None, 0], ids=["item by item", "as many items are"])
@given(st.lists(st.lists(requests, min_size=1, max_size=6), min_size=1, max_size=5), st.lists(queries, max_size=3))
def test_it_behaves_as_the_memory_engine_does(
    place: Path, few: int | None, calls: list[list[AppendRequest]], read_queries: list[Query]
) -> None:
    """Any calls: reused ids, known keys, conditions on each other, also after events of any call; then any reads."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (
            (("SCANNED_ITEMS", few), ("MAX_STRETCH_POSITIONS", 3), ("MIN_STRETCH", 1)) if few is not None else ()
        ):
            patch.setattr(sql_queries, name, value)
        compare(SqliteEngine(str(place / f"{uuid4().hex}.db"), durability="normal"), calls, read_queries)


def compare(engine: SqliteEngine, calls: list[list[AppendRequest]], read_queries: list[Query]) -> None:
    """Make the calls on the engine and in memory, and compare."""
    model = MemoryEngine()
    run(engine.open())
    try:
        for call in calls:
            expected = run(model.append_many(call))
            assert [seen(outcome) for outcome in run(engine.append_many(call))] == [seen(each) for each in expected]
        for query in [Query(), *read_queries]:
            for span in (Span(), Span(limit=2), Span(limit=1, backwards=True), Span(after=1, until=3)):
                ours, theirs = run(engine.read(query, span)), run(model.read(query, span))
                assert timeless(ours.events) == timeless(theirs.events)
                assert ours.scanned == theirs.scanned or ours.more
            assert run(engine.count(query)) == run(model.count(query))
        assert run(engine.services.replication.keys()) == run(model.keys())
    finally:
        run(engine.close())
