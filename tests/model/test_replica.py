"""Judging on a copy and appending to the log give the same outcomes, on every engine that holds copies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventfold.concurrency import run
from eventfold.core.envelope import Receipt
from eventfold.core.query import Query
from eventfold.engines.memory import MemoryEngine
from eventfold.engines.sqlite.replica_engine import SqliteReplica
from eventfold.ports.engine import Engine
from eventfold.ports.messages import AppendRequest, Span
from eventfold.ports.services import ReplicaOf, require
from tests.model.calls import queries, requests, seen

Copies = Callable[[MemoryEngine], Engine]


@pytest.fixture(scope="module", params=["memory", "sqlite"])
def copies(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Copies:
    """Makes an empty copy of a log."""
    place: Path = tmp_path_factory.mktemp("copies")

    def copy_of(log: MemoryEngine) -> Engine:
        of = ReplicaOf(log.store_id, log.epoch, "memory:log")
        if request.param == "memory":
            return MemoryEngine()
        return SqliteReplica(str(place / f"{uuid4().hex}.db"), of, merge_events=4)

    return copy_of


@given(
    st.lists(st.tuples(st.lists(requests, min_size=1, max_size=6), st.booleans()), min_size=1, max_size=6),
    st.lists(queries, max_size=2),
)
def test_a_verdict_is_the_outcome_of_the_append(
    copies: Copies, calls: list[tuple[list[AppendRequest], bool]], read_queries: list[Query]
) -> None:
    """Any calls are judged on a copy and then made on the log; what the log accepted is imported, some of it twice."""
    now = [0]
    log = MemoryEngine(clock=lambda: now[0])
    copy = copies(log)
    run(copy.open())
    try:
        replica = require(copy, "replica")
        for call, again in calls:
            now[0] += 7 if again else -3
            judged, before = run(replica.judge(call, now[0])), run(log.head())
            keys_before = dict(run(log.keys()))
            outcomes = run(log.append_many(call))
            assert (judged.head, len(judged.verdicts)) == (before, len(call))
            for verdict, outcome in zip(judged.verdicts, outcomes, strict=True):
                if verdict is None:
                    assert isinstance(outcome, Receipt)
                    assert (outcome.repeated, outcome.time) == (False, judged.time)
                else:
                    assert seen(verdict) == seen(outcome)
            accepted = {r.key for r, verdict in zip(call, judged.verdicts, strict=True) if verdict is None and r.key}
            new_keys = [pair for pair in run(log.keys()) if pair[0] not in keys_before]
            assert sorted(judged.keys) == [pair for pair in new_keys if pair[0] not in accepted]
            after = run(log.boundary(max(1, before.position // 2))) if again and before.position else before.position
            imported = run(log.read(Query(), Span(after=after))).events
            run(replica.import_events(imported, new_keys))
        for query in [Query(), *read_queries]:
            assert list(run(copy.read(query, Span())).events) == list(run(log.read(query, Span())).events)
            assert run(copy.count(query)) == run(log.count(query))
        assert run(require(copy, "replication").keys()) == run(log.keys())
    finally:
        run(copy.close())
