"""How many statements each operation takes, which indexes answer them, and how many steps of SQLite they need."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import apsw
import pytest

import eventfold as ef
from eventfold.concurrency.run import run
from eventfold.core.query import ConditionClause, Query
from eventfold.engines.sqlite import SqliteEngine
from eventfold.engines.sqlite.file import File
from eventfold.ports.messages import Span
from tests.engines.sqlite.noted import Noted, foreign, merge, noted, raw, request

Statement = tuple[str, Any]


@pytest.fixture
def trace(monkeypatch: pytest.MonkeyPatch) -> list[Statement]:
    """Every statement that the engine runs, with its bindings."""
    seen: list[Statement] = []
    connect = File._connect

    def connect_and_trace(self: File, more_flags: int = 0) -> apsw.Connection:
        connection = connect(self, more_flags)
        connection.set_exec_trace(lambda _cursor, sql, bindings: seen.append((sql, bindings)) or True)
        return connection

    monkeypatch.setattr(File, "_connect", connect_and_trace)
    return seen


@pytest.fixture
def engine(path: str, trace: list[Statement]) -> Iterator[SqliteEngine]:
    """A store with events of three types and three kinds of tags, with all names cached in the process."""
    made = SqliteEngine(path)
    run(made.open())
    for n in range(60):
        run(made.append_many([request(raw(n, f"a:{n % 5}", f"b:{n % 7}", f"c:{n % 2}", type=f"T{n % 3}"))]))
    merge(made)
    run(made.append_many([request(raw(0, "a:0", type="T0"))]))  # the tail: one event
    yield made
    run(made.close())


def taken(trace: list[Statement], what: Callable[[], Any]) -> Counter[str]:
    """Return the statements that a call runs, counted by their first words."""
    trace.clear()
    what()
    return Counter(" ".join(sql.split()[: 3 if sql.startswith("INSERT") else 2]) for sql, _ in trace)


HEAD = {"SELECT position,": 1}
EVENT, REQUEST = "INSERT INTO event", "INSERT INTO request"
# The inline read models that every append updates, mostly none, and the triggers of another schema.
CHANGED = {**HEAD, "SELECT name,": 2, "PRAGMA schema_version": 1}
COMMITTED = {"BEGIN IMMEDIATE": 1, "COMMIT": 1}


def test_a_lone_append_takes_no_statement_more_than_its_rows(engine: SqliteEngine, trace: list[Statement]) -> None:
    """Begin, insert the event, commit; its tags are indexed later."""
    one = request(raw(1, "a:1", "b:1", type="T1"))
    assert taken(trace, lambda: run(engine.append_many([one]))) == {**COMMITTED, EVENT: 1}


def test_the_head_and_the_inline_models_are_read_only_after_other_commits(
    engine: SqliteEngine, trace: list[Statement], path: str
) -> None:
    """SQLite's data version of the connection says whether anything but the last append changed the file."""
    one, two, three, four = (request(raw(n, "a:1", "b:1", type="T1")) for n in range(4))
    foreign(path, "CREATE TABLE another (one)")
    changed = {**COMMITTED, **CHANGED, EVENT: 1}
    assert taken(trace, lambda: run(engine.append_many([one]))) == changed
    assert taken(trace, lambda: run(engine.append_many([two]))) == {**COMMITTED, EVENT: 1}
    with ef.Store(path) as store:
        store.append(noted(1))
    statements = taken(trace, lambda: run(engine.append_many([three])))
    assert (
        statements["SELECT name,"] == statements["PRAGMA schema_version"] == 1
    )  # and the head, and the event that the other store appended
    assert engine._writer is not None
    engine._writer.transact(lambda _: None)
    statements = taken(trace, lambda: run(engine.append_many([four])))
    assert statements["SELECT name,"] == 1


def test_a_combined_append_shares_all_but_the_rows(engine: SqliteEngine, trace: list[Statement]) -> None:
    """32 appends in one transaction begin and commit once; conditions near the head are judged in memory."""
    head = run(engine.head()).position
    condition = ConditionClause(Query.of(types="T1", tags=["a:1", "zz:1"]), head)
    for unless in ((), (condition,)):
        many = [request(raw(n, "a:1", "b:1", type="T1"), unless=unless) for n in range(32)]
        assert taken(trace, lambda many=many: run(engine.append_many(many))) == {**COMMITTED, EVENT: 32}


def test_new_names_cost_a_look_and_a_row_each(engine: SqliteEngine, trace: list[Statement]) -> None:
    """A type that many events of a batch share is queried and inserted once; a new tag, when it is merged."""
    many = [request(raw(n, "new:1", type="New")) for n in range(8)]
    assert taken(trace, lambda: run(engine.append_many(many))) == {
        **COMMITTED,
        EVENT: 8,
        "SELECT id": 1,
        "INSERT INTO type": 1,
    }


def test_a_condition_that_looks_back_takes_a_statement_for_each_alternative(
    engine: SqliteEngine, trace: list[Statement]
) -> None:
    """Positions before the tail are queried in the index."""
    query = Query.of(types=["T1", "T2"], tags="a:1") | Query.of(tags="b:1") | Query.of(types="T0")
    looking = request(raw(1, "a:1", type="T1"), unless=[ConditionClause(query, 61)])
    assert taken(trace, lambda: run(engine.append_many([looking]))) == {**COMMITTED, EVENT: 1}
    looking = request(raw(1, "a:3", type="T1"), unless=[ConditionClause(Query.of(tags="b:6"), 58)])
    statements = taken(trace, lambda: run(engine.append_many([looking])))
    assert statements == {**COMMITTED, EVENT: 1, "SELECT p.tag,": 1}


def test_a_refusal_and_a_repeat_look_up_the_ids_only_then(engine: SqliteEngine, trace: list[Statement]) -> None:
    """An append is inserted without looking up its ids; only a conflict or a duplicate id makes that necessary."""
    mine = request(raw(1, "a:1", type="T1"))
    refused = request(raw(1, "a:1", type="T1"), unless=[ConditionClause(Query.of(tags="a:1"), 61)])
    run(engine.append_many([mine]))
    statements = taken(trace, lambda: run(engine.append_many([refused])))
    assert statements == {"BEGIN IMMEDIATE": 1, "SELECT position,": 1, "ROLLBACK": 1}
    statements = taken(trace, lambda: run(engine.append_many([mine])))
    assert statements == {"BEGIN IMMEDIATE": 2, "SELECT position,": 1, "ROLLBACK": 2, EVENT: 1}


def test_a_request_key_is_one_look_and_one_row(engine: SqliteEngine, trace: list[Statement]) -> None:
    """A repeat with the same key reads the receipt of the first append."""
    keyed = request(raw(1, "a:1", type="T1"), key="once")
    statements = taken(trace, lambda: run(engine.append_many([keyed])))
    assert statements == {**COMMITTED, EVENT: 1, "SELECT key,": 1, REQUEST: 1}
    statements = taken(trace, lambda: run(engine.append_many([keyed])))
    assert statements == {"BEGIN IMMEDIATE": 1, "SELECT position,": 1, "SELECT key,": 1, "ROLLBACK": 1}


def test_a_page_takes_a_look_at_the_head_and_a_statement_each_for_index_and_rows(
    engine: SqliteEngine, trace: list[Statement]
) -> None:
    """The index is asked once for each alternative; of several tags each is counted first, one statement each."""
    index = "SELECT p.tag,"
    page = {**HEAD, index: 1, "SELECT p.position,": 1}
    assert taken(trace, lambda: run(engine.read(Query(), Span()))) == {**HEAD, "SELECT e.position,": 1}
    assert taken(trace, lambda: run(engine.read(Query.of(tags="a:1"), Span()))) == page
    either = Query.of(types=["T1", "T2"], tags="a:1") | Query.of(types="T0")
    assert taken(trace, lambda: run(engine.read(either, Span(limit=3)))) == {**page, index: 2}
    both = Query.of(tags=["a:1", "b:1"])
    assert taken(trace, lambda: run(engine.read(both, Span()))) == {**page, index: 2, "SELECT ifnull(sum(max(1,": 2}


class NoteCount(ef.State):
    """The number of notes about someone."""

    who: ef.Tag
    count: int = 0

    def evolve(self, event: Noted) -> None:
        """Add one."""
        self.count += 1


def test_warm_states_heads_and_cursors_take_what_they_must(path: str, trace: list[Statement]) -> None:
    """A cached state finds later events in the tail; a repeated decision reads nothing; a head is one statement."""
    with ef.Store(path) as store:
        for n in range(20):
            store.append(noted(n, "a"))
        store.state(NoteCount("a"))
        assert taken(trace, store.head) == HEAD
        assert taken(trace, lambda: store.state(NoteCount("a"))) == HEAD
        store.append(noted(1, "b"))
        assert taken(trace, lambda: store.state(NoteCount("a"))) == HEAD
        assert taken(trace, store.count) == HEAD

        def once_more(state: NoteCount) -> Noted:
            return noted(state.count, "a")

        store.decide(once_more, NoteCount("a"))
        decided = taken(trace, lambda: store.decide(once_more, NoteCount("a")))
        assert decided == {**COMMITTED, EVENT: 1}


# ------------------------------------------------------------------------------------------ plans

of = Query.of
EITHER = of(tags=["a:1", "b:1"]) | of(types="T1", tags="c:1") | of(types="T0")
SHAPES: dict[str, tuple[Query, Span]] = {
    "everything": (Query(), Span(limit=20)),
    "everything backwards": (Query(), Span(limit=20, backwards=True)),
    "everything that occurred": (Query(), Span(occurred_since=1)),
    "a type": (of(types="T1"), Span()),
    "types backwards": (of(types=["T1", "T2"]), Span(backwards=True, until=40)),
    "a tag": (of(tags="a:1"), Span(after=7)),
    "a tag backwards": (of(tags="a:1"), Span(backwards=True)),
    "a tag that occurred": (of(tags="a:1"), Span(occurred_until=5)),
    "a tag and types": (of(types=["T1", "T2"], tags="a:1"), Span()),
    "three tags": (of(tags=["a:1", "b:1", "c:1"]), Span()),
    "alternatives": (EITHER, Span(limit=20)),
    "alternatives backwards": (EITHER, Span(limit=20, backwards=True)),
    "alternatives that occurred": (EITHER, Span(occurred_since=5, backwards=True)),
}
WALKED = re.compile(r"SCAN (p|\(subquery-\d+\))")  # the rows of an inner select, in their order


def plans(path: str, trace: list[Statement]) -> dict[str, list[str]]:
    """Return SQLite's query plan for each select that was run."""
    connection = apsw.Connection(path)
    try:
        return {
            sql: [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", bindings)]
            for sql, bindings in trace
            if sql.startswith("SELECT")
        }
    finally:
        connection.close()


def answer_all(engine: SqliteEngine) -> None:
    """Run every kind of select."""
    for query, span in SHAPES.values():
        run(engine.read(query, span))
    run(engine.count(EITHER))
    run(engine.types())
    run(engine.tags("a:"))
    run(engine.read(Query.any_of(item for n in range(40) for item in of(tags=f"a:{n}").items), Span()))
    run(engine.services.replication.keys())
    run(engine.receipt_of("none"))
    run(engine.boundary(5))
    for query, _ in SHAPES.values():
        run(engine.append_many([request(raw(1, "z:1"), unless=[ConditionClause(query, 57)])]))


def test_every_select_goes_by_an_index_and_none_sorts(path: str, engine: SqliteEngine, trace: list[Statement]) -> None:
    """This also holds after another program ran ANALYZE, whose statistics change SQLite's estimates of cost."""
    trace.clear()
    answer_all(engine)
    first = plans(path, trace)
    assert len(first) >= 16
    for sql, plan in first.items():
        for step in plan:
            few = "FROM (SELECT value AS position FROM json_each(?)) p" in sql  # a page of positions of the tail
            assert "TEMP B-TREE" not in step or few, (sql, plan)
            scans = step.startswith("SCAN") and not WALKED.fullmatch(step)
            few = few or step == "SCAN inlined"  # a handful of names, mostly none
            few = few or (step == "SCAN type" and sql == "SELECT id FROM type")  # a row for each type of event
            few = few or step == "SCAN u VIRTUAL TABLE INDEX 1:"  # the tags that are asked
            last = "ORDER BY position DESC LIMIT 1" in sql and step == "SCAN event"
            assert not scans or last or few, (sql, plan)
    foreign(path, "ANALYZE")
    assert plans(path, trace) == first


@pytest.mark.parametrize("shape", SHAPES)
def test_a_page_is_work_for_a_page_and_not_for_the_log(
    path: str, engine: SqliteEngine, trace: list[Statement], shape: str
) -> None:
    """Twenty of thousands of events, by any query, take a few thousand steps of SQLite's virtual machine."""
    events = [raw(n, f"a:{n % 2}", f"b:{n % 2}", f"c:{n % 2}", type=f"T{n % 3}") for n in range(6_000)]
    for start in range(0, len(events), 1_000):
        run(engine.append_many([request(*[each]) for each in events[start : start + 1_000]]))
    query, span = SHAPES[shape]
    since = None if span.occurred_since is None and span.occurred_until is None else 0
    span = Span(limit=20, backwards=span.backwards, occurred_since=since)
    trace.clear()
    run(engine.read(query, span))
    steps = 0

    def step() -> bool:
        nonlocal steps
        steps += 10
        return False

    connection = apsw.Connection(path)
    connection.set_progress_handler(step, 10)
    for sql, bindings in trace:
        if sql.startswith("SELECT"):  # while nothing is appended, a thread merges the tail
            connection.execute(sql, bindings).fetchall()
    connection.close()
    assert steps < 8_000, steps


def test_hundreds_of_alternatives_are_one_query(engine: SqliteEngine) -> None:
    """More alternatives than SQLite accepts in one compound select give events in order; duplicates do not count."""
    for n in range(300):
        run(engine.append_many([request(raw(n, f"many:{n}", f"more:{n}"))]))
    wide = Query.any_of(item for n in range(300) for tag in ("many", "more") for item in of(tags=f"{tag}:{n}").items)
    assert len(wide.items) == 600
    found = run(engine.read(wide, Span(limit=1_000))).events
    assert [event.position for event in found] == list(range(62, 362))
    assert [event.position for event in run(engine.read(wide, Span(limit=3, backwards=True))).events] == [361, 360, 359]
    assert run(engine.count(wide)) == 300
    refused = run(engine.append_many([request(raw(1), unless=[ConditionClause(wide, 0)])]))[0]
    assert isinstance(refused, ef.AppendConflict)
    beyond = Query.any_of(item for n in range(300) for _ in range(40) for item in of(tags=f"many:{n}").items)
    assert run(engine.count(beyond)) == 300  # a repeated alternative counts once
    types = Query.of(types=[f"T{n}" for n in range(700)])
    assert run(engine.count(types)) == 61
