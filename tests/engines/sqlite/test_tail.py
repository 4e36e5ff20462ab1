"""The tail: answers from memory and from the tables mean what `Query.matches` means, after writes of any process."""

from __future__ import annotations

import itertools
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventfold.concurrency.run import run
from eventfold.core.envelope import NewEvent, Receipt, StoredEvent
from eventfold.core.query import ConditionClause, Item, Query
from eventfold.engines.sqlite import SqliteEngine, batch, merge_schedule, tail, writer
from eventfold.engines.sqlite.tail import Labels, Segment, Tail, find_in_tail, first_in_tail, tag_stretch, type_stretch
from eventfold.errors import AppendConflict
from eventfold.ports.messages import AppendRequest, Outcome, Span
from tests.engines.sqlite.noted import assert_whole, raw, request

TYPES, TAGS = ("T0", "T1", "T2"), ("a", "b", "c", "d")
tag_sets = st.sets(st.sampled_from(TAGS), max_size=3).map(lambda tags: tuple(sorted(tags)))
kinds = st.tuples(st.sampled_from(TYPES), tag_sets)
items = st.builds(Item, st.sets(st.sampled_from(TYPES), max_size=2).map(tuple), tag_sets)
queries = st.lists(items, min_size=1, max_size=3).map(Query.any_of)

Kind = tuple[str, tuple[str, ...]]


class Asked(NamedTuple):
    """A request to be made: its events' kinds, and conditions whose `after` is so many events back from the head."""

    kinds: list[Kind]
    clauses: list[tuple[Query, int]]
    repeat: bool


asked = st.builds(
    Asked,
    st.lists(kinds, min_size=1, max_size=3),
    st.lists(st.tuples(queries, st.integers(0, 25)), max_size=2),
    st.booleans(),
)
turns = st.lists(st.tuples(st.integers(0, 1), st.lists(asked, min_size=1, max_size=4)), min_size=1, max_size=12)


def first_match(log: list[Kind], query: Query, after: int) -> int | None:
    """The oracle: the definition, event by event."""
    return next((p for p in range(after + 1, len(log) + 1) if query.matches(*log[p - 1])), None)


def all_matches(log: list[Kind], query: Query, after: int, until: int) -> list[int]:
    """The oracle: the definition, event by event."""
    return [p for p in range(after + 1, min(until, len(log)) + 1) if query.matches(*log[p - 1])]


def stored(position: int, kind: Kind) -> StoredEvent:
    """An event as the tail reads it."""
    type, tags = kind
    return StoredEvent(position, b"", type, 1, b"{}", "\n".join(tags), 0, None, None, 0, 1, "json", None)


@given(
    st.integers(0, 9),
    st.lists(
        st.tuples(st.sampled_from(["extend", "extend", "catch up", "merge", "break", "forget"]), kinds), max_size=30
    ),
    queries,
    st.integers(0, 45),
    st.integers(0, 45),
    st.integers(1, 7),
    st.integers(0, 4),
)
def test_a_tail_finds_the_events_that_match(
    start: int, steps: list[tuple[str, Kind]], query: Query, after: int, until: int, merge_events: int, pending: int
) -> None:
    """Whether this process wrote them or another, whatever was merged, and after an exception at any point."""
    log: list[Kind] = [("", ())] * start
    through = start

    def read(_connection: Any, low: int, high: int) -> list[StoredEvent]:
        return [stored(p, log[p - 1]) for p in range(low + 1, high + 1)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tail, "CATCH_UP_ROWS", 3)
        asked = Tail(read, lambda _connection: through, lambda *_: [], merge_events)
        asked._most_pending = pending
        for step, kind in steps:
            log.append(kind)  # by another process, unless the step adds it
            if step == "extend":
                asked.extend(len(log), Labels([kind[0]], [kind[1]], [2]))
            elif step == "catch up":
                asked.covering(None, len(log))  # type: ignore[arg-type]
            elif step == "merge":
                through = asked.segments[0].end if len(asked.segments) > 1 else len(log)
                asked.drop_through(through)
            elif step == "break" and asked.segments:
                asked.segments[-1].is_partial = True
            elif step == "forget":
                asked.forget()
        segments = asked.covering(None, len(log))  # type: ignore[arg-type]
    begin = segments[0].start
    assert begin <= through and segments[-1].end == len(log)
    assert all(one.end == other.start for one, other in itertools.pairwise(segments))
    assert all(each.end - each.start <= merge_events for each in segments)
    low = max(begin, after)
    expected = all_matches(log, query, low, until)
    if query.items:
        assert find_in_tail(segments, query, low, until) == expected
        assert find_in_tail(segments, query, low, until, backwards=True) == expected[::-1]
    assert first_in_tail(segments, query, low, until) == (expected[0] if expected else None)
    for tag in TAGS:
        places = [p for p in range(begin + 1, min(len(log), until) + 1) if tag in log[p - 1][1]]
        assert tag_stretch(segments, tag, until) == ((len(places), places[0], places[-1]) if places else None)
    for type in TYPES:
        places = [p for p in range(begin + 1, min(len(log), until) + 1) if log[p - 1][0] == type]
        assert type_stretch(segments, type, until) == ((len(places), places[0], places[-1]) if places else None)


def test_many_alternatives_are_found_in_the_tail() -> None:
    """More than there are events: each event is compared once."""
    segment = Segment(0, 1_000)
    for n in range(1, 4):
        segment.add(Labels(["T"], [(f"a:{n}", "b")], [2]))
    wide = Query.any_of(item for n in range(9) for item in Query.of(types="T", tags=[f"a:{n}", "b"]).items)
    assert find_in_tail((segment,), wide, 1, 3) == [2, 3]


def test_the_tail_of_a_process_that_slept_begins_at_the_mark() -> None:
    """It does not read what others have written and merged meanwhile."""
    reads: list[tuple[int, int]] = []

    def read(_connection: Any, low: int, high: int) -> list[StoredEvent]:
        reads.append((low, high))
        return [stored(p, ("T", ())) for p in range(low + 1, high + 1)]

    through = 0
    asked = Tail(read, lambda _connection: through, lambda *_: [])
    asked.covering(None, 10)  # type: ignore[arg-type]
    through = 999_990
    (segment,) = asked.covering(None, 1_000_000)  # type: ignore[arg-type]
    assert (segment.start, segment.end, reads) == (999_990, 1_000_000, [(0, 10), (999_990, 1_000_000)])


@pytest.fixture(scope="module", autouse=True)
def small_bounds() -> object:
    """Slices of a few entries, and conditions that are long after a few events, so that all paths meet."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merge_schedule, "SLICE_POSTINGS", 4)
        patch.setattr(writer, "OLD_CONDITION_POSITIONS", 4)
        yield


@given(turns)
def test_conditions_mean_what_queries_mean_with_two_writers(turns: list[tuple[int, list[Asked]]]) -> None:
    """Two writers of one file, in any order, with batches, repeats and refusals: each outcome is the oracle's."""
    with TemporaryDirectory(prefix="eventfold-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        engines = [SqliteEngine(f"{folder}/log.db", merge_events=size) for size in (3, 5)]
        for engine in engines:
            run(engine.open())
        log: list[Kind] = []
        done: list[tuple[AppendRequest, Receipt]] = []
        for who, batch in turns:
            head = len(log)
            made = [_request(one, head, done) for one in batch]
            for each, outcome in zip(made, run(engines[who].append_many(made)), strict=True):
                _compare(log, each, outcome, done)
            _compare_answers(log, engines)
        assert all(not list(engine.check()) for engine in engines)
        for engine in engines:
            run(engine.close())
        assert assert_whole(f"{folder}/log.db") == len(log)


def _compare_answers(log: list[Kind], engines: list[SqliteEngine]) -> None:
    """Reads, counts, types and tags of both, which see the same at different stages of their tails."""
    query = Query.of(types="T1", tags="a") | Query.of(types="T2")
    expected = all_matches(log, query, 0, len(log))
    types = {name: [p for p, kind in enumerate(log, start=1) if kind[0] == name] for name in TYPES}
    tags = {name: [p for p, kind in enumerate(log, start=1) if name in kind[1]] for name in TAGS}
    for engine in engines:
        for span in (Span(), Span(limit=3), Span(limit=3, backwards=True), Span(after=2, until=7, backwards=True)):
            end = len(log) if span.until is None else span.until
            places = [p for p in expected if span.after < p <= end]
            found = [event.position for event in run(engine.read(query, span)).events]
            whole = places[::-1] if span.backwards else places
            assert found == whole[: len(found)] and len(found) >= min(span.limit, len(whole))
        assert run(engine.count(query)) == len(expected)
        assert [(t.type, t.count, t.first, t.last) for t in run(engine.types())] == [
            (name, len(places), places[0], places[-1]) for name, places in types.items() if places
        ]
        assert [(t.tag, t.count, t.first, t.last) for t in run(engine.tags())] == [
            (name, len(places), places[0], places[-1]) for name, places in tags.items() if places
        ]
        assert run(engine.stats())["tags"] == sum(1 for places in tags.values() if places)


def _request(one: Asked, head: int, done: list[tuple[AppendRequest, Receipt]]) -> AppendRequest:
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
    """The tail is what it was: nothing was written."""
    engine = SqliteEngine(path)
    run(engine.open())
    run(engine.append_many([request(raw(n, "a")) for n in range(5)]))
    before = [(each.start, each.end) for each in engine._names.tail.segments]
    outcomes = run(
        engine.append_many([request(raw(1), unless=[ConditionClause(Query.of(tags="a"), 2)]) for _ in range(3)])
    )
    assert [type(each) for each in outcomes] == [AppendConflict] * 3
    assert before == [(each.start, each.end) for each in engine._names.tail.segments] == [(0, 5)]
    run(engine.close())


def test_a_failed_batch_leaves_nothing_in_the_tail(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
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
