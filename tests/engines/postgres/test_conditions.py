"""Conditions under concurrency, and their query plans: only b-trees are walked, at any size, generic plan or not."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from eventfold.core.envelope import Receipt
from eventfold.core.query import ConditionClause, Item, Query
from eventfold.engines.postgres import schema as store_schema
from eventfold.engines.postgres.arrays import ArrayDumpers
from eventfold.engines.postgres.large_queries import MAX_POSITIONS_PER_RANGE, LargeQuery, is_large
from eventfold.engines.postgres.statements import MAX_POSITION, ReadStatements
from eventfold.errors import AppendConflict
from eventfold.ports.messages import AppendRequest, Span
from tests.engines.postgres.conftest import Open
from tests.engines.postgres.given import Opened, event, request, sql, tagged, together
from tests.support.servers.postgres import PostgresServer

EVENTS = 120_000
QUERIES = {
    "a tag": tagged("account:a-7"),
    "a broad tag": tagged("region:r-1"),
    "a tag and types": Query.of(types=["Deposited", "Nothing"], tags="account:a-7"),
    "two tags": tagged("account:a-7", "region:r-1"),
    "three tags and a type": Query.of(types="Deposited", tags=["account:a-7", "kind:k-1", "region:r-1"]),
    "a type": Query.of(types="Deposited"),
    "types": Query.of(types=["Opened", "Closed"]),
    "alternatives": tagged("account:a-7") | Query.of(types="Nothing") | tagged("account:a-9", "region:r-2"),
    "many alternatives": Query(
        tuple(
            item
            for n in range(12)
            for query in (
                tagged(f"account:a-{n}"),
                Query.of(types=["Deposited", f"Nothing{n}"], tags=f"account:a-{n + 50}"),
                tagged(f"account:a-{n}", "region:r-1"),
                Query.of(types=f"Nothing{n}"),
            )
            for item in query.items
        )
    ),
    "everything": Query(),
}


@pytest.mark.parametrize("joined", [False, True], ids=["appends", "joined transactions"])
def test_of_racing_appends_exactly_one_wins(url: str, opening: Open, joined: bool) -> None:
    """Sixteen connections race for each of forty tags under the same condition: forty winners."""
    racers, rounds = 16, 40
    engines = [opening() for _ in range(racers)]
    start = threading.Barrier(racers)
    wins: list[str] = []

    def race(engine: Opened) -> None:
        with psycopg.connect(url) as connection:
            for turn in range(rounds):
                tag = f"seat:{turn}"
                contested = request(event("Taken", tag), unless=tagged(tag), after=0)
                start.wait(60)
                if joined:
                    engine.transactions.stage(connection, [contested])
                    try:
                        connection.commit()
                        wins.append(tag)
                    except psycopg.Error as error:
                        assert error.sqlstate == "EF001"
                        connection.rollback()
                elif isinstance(outcome := engine.append_many([contested])[0], Receipt):
                    wins.append(tag)
                else:
                    assert isinstance(outcome, AppendConflict)

    assert together(*[lambda e=e: race(e) for e in engines]) == []
    assert sorted(wins) == sorted(f"seat:{turn}" for turn in range(rounds))
    assert engines[0].head().position == rounds


def test_a_long_condition_is_judged_before_the_lock(url: str, opening: Open, schema: str) -> None:
    """Events far before the head are searched before the lock; a later match is not missed."""
    engine = opening()
    for _ in range(3):
        engine.append(*[event("Deposited", f"n:{n}") for n in range(1000)])
    engine.append(event("Taken", "seat:1"))
    refused = engine.append_many([request(event("Taken", "seat:1"), unless=tagged("seat:1"))])[0]
    assert isinstance(refused, AppendConflict)
    assert refused.fields["found"] == 3001
    # A rival has the lock, and appends a matching event, while the long part is searched.
    rival = opening()
    with psycopg.connect(url) as connection:
        rival.transactions.stage(connection, [request(event("Taken", "seat:2"))])
        connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
        outcomes: list[Any] = []
        late = threading.Thread(
            target=lambda: outcomes.extend(
                engine.append_many([request(event("Taken", "seat:2"), unless=tagged("seat:2"))])
            )
        )
        late.start()
        late.join(0.3)
        assert outcomes == [], "it waits for the lock"
        connection.commit()
        late.join(60)
    assert isinstance(outcomes[0], AppendConflict)
    assert outcomes[0].fields["found"] == 3002


@pytest.fixture(scope="module")
def large(server: PostgresServer) -> Iterator[tuple[str, str, Opened]]:
    """A store of 120,000 events: 5,000 accounts, 5 regions, 50 kinds, 6 types."""
    url, schema = server.url(), f"large{uuid4().hex[:8]}"
    engine = Opened(url, schema=schema)
    engine.open()
    types = ("Deposited", "Withdrawn", "Opened", "Closed", "Limited", "Named")
    for begin in range(1, EVENTS, 5_000):
        engine.replication.import_events(
            [
                event(types[n % 6], f"account:a-{n % 5000}", f"kind:k-{n % 50}", f"region:r-{n % 5}").at(n, n, 0, 1)
                for n in range(begin, begin + 5_000)
            ]
        )
    sql(url, f"VACUUM ANALYZE {schema}.event", f"VACUUM ANALYZE {schema}.tag")
    yield url, schema, engine
    engine.end()


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield every node of a plan."""
    yield plan
    for inner in plan.get("Plans", []):
        yield from nodes(inner)


def walks_only(plan: dict[str, Any], most: int | None = None) -> None:
    """Check that tables are read by b-tree only, and that at most `most` rows are read."""
    for node in nodes(plan):
        if "Relation Name" in node:
            assert node["Node Type"] in ("Index Scan", "Index Only Scan"), node
            assert node.get("Index Cond"), f"walks a whole index: {node}"
            if node["Relation Name"] == "tag":
                assert node["Node Type"] == "Index Only Scan", node
            if most is not None:
                looked = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
                assert looked <= most, node


@pytest.mark.parametrize("name", QUERIES)
@pytest.mark.parametrize("mode", ["force_generic_plan", "force_custom_plan"])
def test_conditions_are_answered_from_b_trees(large: tuple[str, str, Opened], name: str, mode: str) -> None:
    """The statements inside `append`, as the server ran them, have no table scan, no bitmap, and read few rows."""
    url, schema, engine = large
    with psycopg.connect(url, autocommit=True) as connection:
        plans = explained(connection)
        for _ in range(2):
            for copies in (1, 5, 70):  # few items are judged one by one, many together, and very many in sets
                engine.runner.run(_judge(connection, schema, QUERIES[name], EVENTS - 1_000, mode, copies))
    judged = [plan for plan in plans if any("Relation Name" in node for node in nodes(plan))]
    assert judged
    for plan in judged:
        walks_only(plan, most=3_000)


def explained(connection: psycopg.Connection[Any]) -> list[dict[str, Any]]:
    """Collect the server's plan of every statement of this connection, nested ones too."""
    plans: list[dict[str, Any]] = []
    connection.add_notice_handler(lambda notice: plans.append(_plan(notice.message_primary or "")))
    connection.execute("LOAD 'auto_explain'")
    for setting, value in {
        "auto_explain.log_min_duration": "0",
        "auto_explain.log_analyze": "on",
        "auto_explain.log_nested_statements": "on",
        "auto_explain.log_format": "json",
        "auto_explain.log_level": "notice",
    }.items():
        connection.execute(f"SET {setting} = {value}".encode())
    return plans


def test_a_scan_would_be_noticed(large: tuple[str, str, Opened]) -> None:
    """The check of plans itself finds a query that no index answers."""
    url, schema, _ = large
    with psycopg.connect(url, autocommit=True) as connection:
        plans = explained(connection)
        connection.execute(f"SELECT count(*) FROM {schema}.tag WHERE type = 'Deposited'".encode())
    with pytest.raises(AssertionError):
        for plan in plans:
            walks_only(plan)


async def _judge(
    connection: psycopg.Connection[Any], schema: str, query: Query, after: int, mode: str, copies: int
) -> None:
    """Call the function that judges conditions for `append`, with the planner set as given."""
    items = (query.items or (Item(),)) * copies
    name = f'"{schema}".judge'
    connection.execute(f"ALTER FUNCTION {name} SET plan_cache_mode = {mode}".encode())
    connection.execute(
        f"SELECT {name}(%s, %s::bigint[], %s, %s, 1, 0, {MAX_POSITION})".encode(),
        (
            [1] * len(items),
            [after] * len(items),
            ["\n".join(item.tags) for item in items],
            ["\n".join(item.types) for item in items],
        ),
    )


def _plan(message: str) -> dict[str, Any]:
    return json.loads(message[message.index("{") :])["Plan"] if "{" in message else {}


@pytest.mark.parametrize("name", QUERIES)
@pytest.mark.parametrize("mode", ["force_generic_plan", "force_custom_plan"])
@pytest.mark.parametrize("backwards", [False, True])
def test_pages_are_read_along_b_trees(large: tuple[str, str, Opened], name: str, mode: str, backwards: bool) -> None:
    """Reads use b-trees as well, in both directions, with a generic plan as with a custom one."""
    url, schema, _ = large
    reading = ReadStatements(f'"{schema}"')
    query, span = QUERIES[name], Span(after=EVENTS // 2, limit=100, backwards=backwards)
    statement, values = reading.page(query, span, 101)
    if is_large(query):
        statement, values = reading.range_page(LargeQuery(reading.schema, query), span, 101, MAX_POSITIONS_PER_RANGE)
    with psycopg.connect(url, autocommit=True) as connection:
        ArrayDumpers.register(connection)
        for setting in (f"plan_cache_mode = {mode}", "enable_seqscan = off", "jit = off"):
            connection.execute(f"SET {setting}".encode())
        plans = explained(connection)
        for _ in range(2):
            connection.execute(statement.encode(), values, prepare=True)
    for plan in plans:
        for node in nodes(plan):
            if node.get("Relation Name", "store") != "store":  # that table has one row
                assert node["Node Type"] in ("Index Scan", "Index Only Scan"), node
                assert node["Actual Rows"] * node["Actual Loops"] <= EVENTS // 2, "it grows with what is asked for"
    assert any("Relation Name" in node for plan in plans for node in nodes(plan))


def test_the_sql_of_every_query_selects_what_query_matches_selects(large: tuple[str, str, Opened]) -> None:
    """`Query.matches` is the definition: the SQL selects the same events."""
    _, _, engine = large
    span = Span(after=EVENTS - 6_000, limit=10_000)
    everything = engine.read(Query(), span).events
    for query in QUERIES.values():
        expected = [e.position for e in everything if query.matches(e.type, e.tag_set)]
        assert [e.position for e in engine.read(query, span).events] == expected
        assert engine.count(query, after=span.after) == len(expected)


def test_a_condition_is_quick_among_many_events(large: tuple[str, str, Opened]) -> None:
    """Only rows that the condition asks for are read, whatever else the log has; unknown names cost nothing."""
    _, _, engine = large
    unless = (
        ConditionClause(Query.of(types="Nothing", tags="region:r-1"), EVENTS - 5_000),
        ConditionClause(tagged("not:there"), 0),
    )
    assert isinstance(engine.append_many([AppendRequest((event(),), unless)])[0], Receipt)


def test_the_sql_that_makes_a_store_names_its_schema_everywhere(schema: str) -> None:
    """The SQL does not depend on any search_path."""
    made = store_schema.creation_sql(schema)
    assert f'"{schema}"' in made
    assert "{" not in made.replace("'{", "")
