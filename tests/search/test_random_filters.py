"""Random filters over random events find on every engine what a direct evaluation finds, page after page."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import eventfold as ef
from eventfold.core.envelope import NewEvent, StoredEvent
from eventfold.search.find import Budget
from eventfold.search.grammar import Clause, Group, Node, Not, Value, Word, parse, print_tree
from tests.search.oracle import Facts, is_match
from tests.support.servers.postgres import shared

TYPES = ("Opened", "Opening", "Paid", "Refunded", "$noted")
KEYS = ("customer", "order", "at")
CUSTOMERS = ("1", "2", "10", "x", "X y")
DATES = ("2026-05-30", "2026-06-01", "2026-06-02", "2026-06-02T12:00Z", "2026-06-03T00:00+02:00")
SCALARS = [1, 2, 10, -3, 2.5, 1e20, True, False, None, "a", "ab", "B", "10", "2.50", "x y", "ü", "2026-06-01", DATES[3]]


def draw_events(seed: int) -> list[list[NewEvent]]:
    """Appends of one to four events."""
    rng = random.Random(seed)
    appends: list[list[NewEvent]] = []
    for number in range(90):
        events: list[NewEvent] = []
        for _ in range(rng.choice((1, 1, 2, 4))):
            tags = {f"customer:{rng.choice(CUSTOMERS)}" for _ in range(rng.randrange(3))}
            tags |= {f"order:{rng.randrange(150)}"} if rng.random() < 0.5 else set()
            tags |= {rng.choice(("vip", "at:2026-06-02T12:00:00+00:00", "at:2026-06-02T14:00:00+02:00"))}
            data = {
                "n": rng.choice(SCALARS),
                "lines": [{"sku": rng.choice(SCALARS), "q": [rng.randrange(4)]} for _ in range(rng.randrange(3))],
                "in": {"n": rng.choice(SCALARS), "esc": 'a"\\b'} if rng.random() < 0.5 else None,
            }
            kind = rng.random()
            metadata = {"actor": rng.choice(("ann", "bob")), "correlation_id": f"r{rng.randrange(4)}"}
            events.append(
                NewEvent.of(
                    rng.choice(TYPES[:4]),
                    b"\xff\x00" if kind < 0.1 else json.dumps(data, ensure_ascii=kind < 0.5).encode(),
                    version=rng.choice((1, 1, 2)),
                    tags=tags,
                    occurred=datetime(2026, 6, 1, tzinfo=UTC) + timedelta(hours=number) if kind > 0.5 else None,
                    metadata=metadata if rng.random() < 0.8 else None,
                    codec="raw" if kind < 0.1 else "json",
                    key="k1" if 0.1 <= kind < 0.15 else None,
                )
            )
        appends.append(events)
    return appends


@pytest.fixture(scope="module", params=["memory", "sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ef.Store]:
    """A store of each engine with the same events."""
    if request.param == "postgres":
        opened = ef.Store(shared().url(), schema=f"t{uuid4().hex}")
    else:
        folder: Path = tmp_path_factory.mktemp("search")
        opened = ef.Store("memory:" if request.param == "memory" else str(folder / "log.db"))
    with opened as store:
        for events in draw_events(5):
            store.append_encoded(*events)
        yield store


class Log:
    """A store and its events as plain values."""

    def __init__(self, store: ef.Store) -> None:
        self.store = store
        self.facts = [Facts.of(each.stored) for each in store.read(raw=True)]

    def __repr__(self) -> str:
        return repr(self.store)

    def matching(self, tree: Node) -> list[StoredEvent]:
        """The events that satisfy a tree."""
        return [event.stored for event in self.facts if is_match(tree, event)]


@pytest.fixture(scope="module")
def log(store: ef.Store) -> Log:
    """The store and its events."""
    return Log(store)


def quoted(text: str) -> Value:
    """A value that is written without quotes if that is possible."""
    return Value(text, quoted=" " in text)


def clauses(
    key: st.SearchStrategy[str], operators: str, values: st.SearchStrategy[Value], most: int = 3
) -> st.SearchStrategy[Clause]:
    """Clauses of a key: with several values where the operator takes them."""

    def built(name: str, operator: str, some: list[Value]) -> Clause:
        is_list = operator in (":", "=", "!=", "~")
        values = some if is_list else [Value(some[0].text.partition("..")[0].rstrip("*") or "1", some[0].quoted)]
        if operator == "~":
            values = [Value(each.text.replace("*", "").replace("..", "") or "1", each.quoted) for each in values]
        return Clause(name, operator, tuple(values))

    return st.builds(built, key, st.sampled_from(operators.split()), st.lists(values, min_size=1, max_size=most))


def one_of(*texts: str) -> st.SearchStrategy[Value]:
    """Values with these texts."""
    return st.sampled_from([quoted(text) for text in texts])


ANY = ": = != ~ > >= < <="
SCALAR_TEXTS = (
    "1",
    "2",
    "10",
    "-3",
    "2.5",
    "2.50",
    "100000000000000000000",
    "true",
    "null",
    "a",
    "a*",
    "ab",
    "B",
    "x y",
    "ü",
    "1..10",
    "a..b",
    *DATES,
    "2026-06-01..2026-06-02",
)
NUMBERS = ("1", "7", "40", "200", "999", "5..60")
CLAUSES = st.one_of(
    clauses(st.just("type"), ": = != ~", one_of(*TYPES, "Open*", "Nothing", "*")),
    clauses(
        st.just("tag"), ": = != ~", one_of("customer:1", "customer:*", "vip", "order:1*", "customer:X y", "none:1")
    ),
    clauses(st.sampled_from(KEYS[:2]), ANY, one_of(*CUSTOMERS, "1*", "*", "1..20", "77")),
    clauses(st.just("at"), ": = !=", one_of("2026-06-02T12:00:00Z", "2026-06-02T10:00:00-02:00", "2026*")),
    clauses(st.just("pos"), ": = != > >= < <=", one_of(*NUMBERS)),
    clauses(st.just("append"), ": =", one_of("1", "7", "40", "999"), 1),
    clauses(st.sampled_from(["since", "until"]), ": =", one_of(*DATES, "2030-01-01"), 1),
    clauses(st.just("occurred"), ": = != > >= < <=", one_of(*DATES, "2026-06-01..2026-06-02")),
    clauses(st.sampled_from(["actor", "correlation", "cause", "meta.actor"]), ANY, one_of("ann", "b*", "r1", "r2")),
    clauses(st.just("version"), ": = != > >= < <=", one_of("1", "2", "1..2")),
    clauses(
        st.sampled_from(
            [
                "data.n",
                "data.lines.sku",
                "data.lines[].sku",
                "data.lines[0].q",
                "data.in.n",
                "data.no",
                "data.lines.q[0]",
            ]
        ),
        ANY,
        one_of(*SCALAR_TEXTS),
    ),
    clauses(
        st.just("has"),
        ": !=",
        one_of("data.in", "data.n", "data.in.n", "data.lines[]", "actor", "occurred", "customer", "vip", "order"),
    ),
    clauses(st.just("is"), ": !=", one_of("undecodable", "encrypted", "internal")),
)
WORDS = st.sampled_from(
    [Word("3"), Word("a"), Word("SKU"), Word("ü"), Word('a"', True), Word("x y", True), Word("2.5")]
)


def unnested(operator: str, parts: list[Node]) -> Node:
    """A group of at least two parts."""
    return Group(operator, tuple(parts))  # pyright: ignore[reportArgumentType]


TREES: st.SearchStrategy[Node] = st.recursive(
    CLAUSES | WORDS,
    lambda nodes: st.one_of(
        st.builds(Not, nodes),
        st.builds(unnested, st.sampled_from(["and", "or"]), st.lists(nodes, min_size=2, max_size=4)),
    ),
    max_leaves=8,
)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(tree=TREES, limit=st.integers(5, 60), backwards=st.booleans(), looked_at=st.integers(40, 300))
def test_a_filter_finds_what_it_says(log: Log, tree: Node, limit: int, backwards: bool, looked_at: int) -> None:
    """Pages that follow each other have each event that satisfies the tree once, in order, whatever ends a page."""
    text = print_tree(tree)
    expected = log.matching(tree)
    search = log.store.search(text, backwards=backwards)
    found: list[StoredEvent] = []
    after = None
    while True:
        page = search.page(limit=limit, after=after, budget=Budget(events=looked_at, seconds=None))
        found += [each.stored for each in page.events]
        assert len(page.events) <= limit
        after = page.next
        if after is None:
            break
        assert page.looked_at > 0
    assert found == (expected[::-1] if backwards else expected), text
    assert search.count() == len(expected)
    matches = search.plan(live=True).matches
    assert [event.stored for event in log.facts if matches(event.stored)] == expected


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(tree=TREES)
def test_a_live_plan_reads_every_event_that_matches(log: Log, tree: Node) -> None:
    """The query of a live plan returns, of all events, at least those that match."""
    query = log.store.search(print_tree(tree)).plan(live=True).query
    read: set[int] = set() if query is None else {each.position for each in log.store.read(query, raw=True)}
    assert read >= {each.position for each in log.matching(tree)}


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(tree=TREES, types=st.lists(st.sampled_from(TYPES), max_size=2), customers=st.sets(st.sampled_from(CUSTOMERS)))
def test_a_search_within_a_query_finds_both(log: Log, tree: Node, types: list[str], customers: set[str]) -> None:
    """`within` leaves out the events that do not match it."""
    items = [ef.Query.of(types=types, tags=f"customer:{customer}") for customer in customers]
    within = ef.Query.of(types=types) if types and not items else ef.Query()
    for number, item in enumerate(items):
        within = item if number == 0 else within | item
    expected = {each.position for each in log.matching(tree) if within.matches(each.type, each.tag_set)}
    assert {each.position for each in log.store.search(print_tree(tree), within=within)} == expected


def without_columns(node: Node) -> Node:
    """The tree without the numbers of characters."""
    match node:
        case Clause():
            return Clause(node.key, node.operator, tuple(Value(each.text, each.quoted) for each in node.values))
        case Word():
            return Word(node.text, node.quoted)
        case Not():
            return Not(without_columns(node.part))
        case Group():
            return Group(node.operator, tuple(map(without_columns, node.parts)))


BARE = st.text(st.characters(exclude_characters=' \t\n"():=!<>~,-', exclude_categories=["Cs", "Z", "C"]), min_size=1)
PRINTABLE: st.SearchStrategy[Node] = st.recursive(
    st.one_of(
        st.builds(
            Clause,
            st.text(st.characters(exclude_categories=["Cs"])),
            st.sampled_from(ANY.split()),
            st.lists(
                st.builds(Value, st.text(st.characters(exclude_categories=["Cs"])), st.just(True))
                | st.builds(Value, BARE),
                min_size=1,
                max_size=3,
            ).map(tuple),
        ),
        st.builds(Word, st.text(st.characters(exclude_categories=["Cs"])), st.just(True)),
        st.builds(Word, BARE.filter(lambda text: text not in ("AND", "OR", "NOT"))),
    ),
    lambda nodes: st.one_of(
        st.builds(Not, nodes),
        st.builds(unnested, st.sampled_from(["and", "or"]), st.lists(nodes, min_size=2, max_size=4)),
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(tree=PRINTABLE)
def test_a_printed_tree_is_parsed_again(tree: Node) -> None:
    """The text of a tree has that tree."""
    assert without_columns(parse(print_tree(tree), words=True)) == tree
