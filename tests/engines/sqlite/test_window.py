"""Conditions judged from memory and from the file: they mean what `Query.matches` means, whichever engine wrote."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventfold.concurrency.run import run
from eventfold.core.envelope import NewEvent, Receipt
from eventfold.core.query import ConditionClause, Item, Query
from eventfold.engines.sqlite import SqliteEngine, batch, writer
from eventfold.engines.sqlite.recent_window import RecentWindow
from eventfold.errors import AppendConflict
from eventfold.ports.messages import AppendRequest, Outcome
from tests.engines.sqlite.noted import raw, request

TYPES, TAGS = ("T0", "T1", "T2"), ("a", "b", "c", "d")
tag_sets = st.sets(st.sampled_from(TAGS), max_size=3).map(lambda tags: tuple(sorted(tags)))
kinds = st.tuples(st.sampled_from(TYPES), tag_sets)
items = st.builds(Item, st.sets(st.sampled_from(TYPES), max_size=2).map(tuple), tag_sets)
queries = st.lists(items, min_size=1, max_size=3).map(Query.any_of)

Kind = tuple[str, tuple[str, ...]]


class PlannedRequest(NamedTuple):
    """A request to be built: the kinds of its events, and conditions with `after` as a distance back from the head."""

    kinds: list[Kind]
    clauses: list[tuple[Query, int]]
    repeat: bool


planned_requests = st.builds(
    PlannedRequest,
    st.lists(kinds, min_size=1, max_size=3),
    st.lists(st.tuples(queries, st.integers(0, 25)), max_size=2),
    st.booleans(),
)
turns = st.lists(
    st.tuples(st.integers(0, 1), st.lists(planned_requests, min_size=1, max_size=4)), min_size=1, max_size=12
)


def first_match(log: list[Kind], query: Query, after: int) -> int | None:
    """Return the first match by the definition, event by event. It is the oracle of these tests."""
    return next((p for p in range(after + 1, len(log) + 1) if query.matches(*log[p - 1])), None)


@given(st.integers(0, 9), st.lists(kinds, max_size=30), queries, st.integers(0, 45))
def test_a_window_finds_the_first_event_that_matches(start: int, log: list[Kind], query: Query, after: int) -> None:
    """This holds after any position, from the window's start on."""
    window = RecentWindow()
    window.restart(start)
    for position, (type, tags) in enumerate(log, start=start + 1):
        window.add(position, type, tags)
    everything = [("", ())] * start + log
    assert window.first_match(query, after) == first_match(everything, query, max(after, start))
    assert window.end == start + len(log)


@pytest.fixture(scope="module", autouse=True)
def small_bounds() -> object:
    """Bounds so small that conditions are judged by every path: from the window, from the file, before the lock."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch, "MAX_EVENTS", 7)
        patch.setattr(writer, "OLD_CONDITION_POSITIONS", 4)
        yield


@given(turns)
def test_conditions_mean_what_queries_mean_with_several_writers(turns: list[tuple[int, list[PlannedRequest]]]) -> None:
    """Two writers of one file, in any order, with batches, repeats and refusals: each outcome is the oracle's."""
    with TemporaryDirectory(prefix="eventfold-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        engines = [SqliteEngine(f"{folder}/log.db") for _ in range(2)]
        for engine in engines:
            run(engine.open())
        log: list[Kind] = []
        done: list[tuple[AppendRequest, Receipt]] = []
        for who, batch in turns:
            head = len(log)
            made = [_request(one, head, done) for one in batch]
            for each, outcome in zip(made, run(engines[who].append_many(made)), strict=True):
                _compare(log, each, outcome, done)
        for engine in engines:
            run(engine.close())


def _request(one: PlannedRequest, head: int, done: list[tuple[AppendRequest, Receipt]]) -> AppendRequest:
    if one.repeat and done:
        return done[len(one.kinds) % len(done)][0]
    events = [raw(0, *tags, type=type) for type, tags in one.kinds]
    return request(*events, unless=[ConditionClause(query, max(0, head - back)) for query, back in one.clauses])


def _compare(log: list[Kind], made: AppendRequest, outcome: Outcome, done: list[tuple[AppendRequest, Receipt]]) -> None:
    earlier = next((receipt for known, receipt in done if known is made), None)
    if earlier is not None:
        assert isinstance(outcome, Receipt) and outcome.repeated
        assert (outcome.first, outcome.last, outcome.ids) == (earlier.first, earlier.last, earlier.ids)
        return
    for clause in made.unless:
        found = first_match(log, clause.query, clause.after)
        if found is not None:
            assert isinstance(outcome, AppendConflict), (clause, found, outcome)
            assert outcome.fields["found"] == found
            return
    assert isinstance(outcome, Receipt), outcome
    assert outcome.first == len(log) + 1
    log += [_kind(event) for event in made.events]
    done.append((made, outcome))


def _kind(event: NewEvent) -> Kind:
    return event.type, event.tags


def test_a_batch_of_refusals_costs_later_conditions_nothing(path: str) -> None:
    """Nothing was written, so the window does not change."""
    engine = SqliteEngine(path)
    run(engine.open())
    assert engine._writer is not None
    run(engine.append_many([request(raw(n, "a")) for n in range(5)]))
    before = (engine._writer.window.start, engine._writer.window.end)
    outcomes = run(
        engine.append_many([request(raw(1), unless=[ConditionClause(Query.of(tags="a"), 2)]) for _ in range(3)])
    )
    assert [type(each) for each in outcomes] == [AppendConflict] * 3
    assert before == (engine._writer.window.start, engine._writer.window.end) == (0, 5)
    run(engine.close())


def test_a_failed_batch_leaves_nothing_in_the_window(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was never written must not make a later append conflict."""
    engine = SqliteEngine(path)
    run(engine.open())
    run(engine.append_many([request(raw(1, "a"))]))
    with monkeypatch.context() as broken:
        broken.setattr(batch.Batch, "insert", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(engine.append_many([request(raw(2, "b"))]))
    outcome = run(engine.append_many([request(raw(3, "b"), unless=[ConditionClause(Query.of(tags="b"), 1)])]))[0]
    assert isinstance(outcome, Receipt) and outcome.first == 2
    run(engine.close())
