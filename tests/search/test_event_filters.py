"""The filter language over events: what clauses mean, how they are answered, pages and their cursors, mistakes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import eventfold as ef
from eventfold.concurrency import run
from eventfold.core.envelope import NewEvent
from eventfold.core.query import Cursor
from eventfold.errors import CursorMismatch, EventfoldError, InvalidFilter, InvalidQuery, PositionBeyondHead
from eventfold.search.find import Budget, count_indexed
from eventfold.search.grammar import MAX_CHARACTERS, MAX_CLAUSES, MAX_DEPTH

NO_LIMIT = Budget(events=None, seconds=None)


def written(kind: str, data: object, *tags: str, **more: object) -> NewEvent:
    """An event to append."""
    encoded = data if isinstance(data, bytes) else json.dumps(data).encode()
    return NewEvent.of(kind, encoded, tags=tags, **more)  # pyright: ignore[reportArgumentType]


@pytest.fixture(scope="module")
def store() -> Iterator[ef.Store]:
    """Eight events of orders."""
    with ef.Store("memory:") as store:
        day = datetime(2026, 6, 1, 12, tzinfo=UTC)
        with store.context(actor="ann", correlation_id="r-1"):
            store.append_encoded(
                written(
                    "OrderPlaced",
                    {"total": "120.50", "items": [{"sku": "A", "n": 2}, {"sku": "B", "n": 1}]},
                    "order:1",
                    "customer:42",
                ),
                written(
                    "OrderPaid", {"total": 120.5, "card": "5500", "big": 9007199254740993}, "order:1", "customer:42"
                ),
            )
        with store.context(actor="bob", causation_id="c-1"):
            store.append_encoded(
                written(
                    "OrderPlaced", {"total": "9", "note": 'a "b" c', "items": []}, "order:2", "customer:7", occurred=day
                )
            )
            store.append_encoded(
                written(
                    "OrderCancelled",
                    {"refund": None, "at": "2026-06-02T01:00:00+02:00"},
                    "order:2",
                    "customer:7",
                    "vip",
                    version=2,
                )
            )
        store.append_encoded(
            written("Noted", {"text": "Grüße an Ann", "a.b": 1}, "vip", occurred=day + timedelta(days=1))
        )
        store.append_encoded(
            written("Sealed", b"\x00", "order:3", codec="raw"), written("Sealed", {"total": 5}, "order:3", key="k-1")
        )
        store.append_encoded(
            written("OrderPlaced", {"total": None, "refund": {"n": 1}, "deep": [[1], [2, [3]]]}, "order:4")
        )
        yield store


def positions(store: ef.Store, text: str) -> str:
    """The positions that a filter finds, ascending."""
    return "".join(str(each.position) for each in store.search(text, backwards=False))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "12345678"),
        ("type:OrderPlaced", "138"),
        ("type:OrderPlaced,Noted", "1358"),
        ("type:Order*", "12348"),
        ("type~PLACED", "138"),
        ("type!=OrderPlaced", "24567"),
        ("customer:42", "12"),
        ("customer:42,7", "1234"),
        ("customer:4*", "12"),
        ("customer>10", "12"),
        ("customer!=42", "34"),
        ("-customer:42", "345678"),
        ("tag:vip", "45"),
        ("tag:order:1,order:4", "128"),
        ("order:1..2 type:OrderPlaced", "13"),
        ("pos:2..4", "234"),
        ("pos>6", "78"),
        ("pos:2,5", "25"),
        ("3", "3"),
        ("append:2", "12"),
        ("data.total>100", "12"),
        ("data.total:120.5", "12"),
        ('data.total:"120.50"', "1"),
        ("data.total<10", "3"),
        ("data.total:null", "8"),
        ("data.big:9007199254740993", "2"),
        ("data.big:9007199254740992", ""),
        ("data.items.sku:A", "1"),
        ("data.items[].sku:B data.items[0].n:2", "1"),
        ("data.items[1].sku:A", ""),
        ("data.deep:3", "8"),
        ("data.at:2026-06-01", "4"),
        ("data.at<2026-06-02", "4"),
        ("data.total>a", ""),
        ("has:data.refund", "8"),
        ("has:data.items", "13"),
        ("has:vip", "45"),
        ("has:customer", "1234"),
        ("has:occurred", "35"),
        ("has:actor -has:cause", "12"),
        ("has!=order", "5"),
        ("is:undecodable", "67"),
        ("is:encrypted", "7"),
        ("is:internal", ""),
        ("actor:bob", "34"),
        ("correlation:r-1", "12"),
        ("cause:c*", "34"),
        ("meta.actor:ann,bob", "1234"),
        ("version>1", "4"),
        ("occurred:2026-06-01", "3"),
        ("occurred:2026-06-01..2026-06-02", "35"),
        ("since:1h", "12345678"),
        ("until:1h", ""),
        ("grüSSE", "5"),
        ("SKU", "1"),
        ('"a \\"b"', "3"),
        ("5500", ""),
        ('"5500"', "2"),
        ("(order:1 OR order:2) type:OrderPaid,OrderCancelled", "24"),
        ("order:1 type:OrderPaid OR vip", "2"),
        ("order:1 type:OrderPaid OR tag:vip", "245"),
        ("NOT (order:1 OR order:2)", "5678"),
        ("--order:1", "12"),
        ("type:OrderPlaced type:OrderPaid", ""),
    ],
)
def test_a_clause_means(store: ef.Store, text: str, expected: str) -> None:
    """Each clause finds the events that it describes; payloads that cannot be looked into match no clause of data."""
    assert positions(store, text) == expected
    assert store.search(text).count() == len(expected)


def test_an_event_is_found_by_its_id(store: ef.Store) -> None:
    """A UUID alone is an id, in any case; several are looked up."""
    first, last = (next(iter(store.read(raw=True, limit=1, backwards=back))).id for back in (False, True))
    assert positions(store, str(first).upper()) == "1"
    assert positions(store, f"id:{first},{last}") == "18"
    assert positions(store, "id:00000000-0000-0000-0000-000000000001") == ""
    assert store.search(f"{last}").explain() == "index: pos:8 · 1"


@pytest.mark.parametrize(
    ("text", "answered"),
    [
        ("", "every event · 8"),
        ("customer:42", "index: customer:42 · 2"),
        ("customer:42 data.total>1", "index: customer:42 · 2 → scan: data.total>1"),
        ("data.total>1 -type:Noted", "every event · 8 → scan: data.total>1 -type:Noted"),
        ("type:OrderPlaced,Noted customer:42", "index: type:Noted,OrderPlaced customer:42 · 1"),
        ("type:Order* pos>3", "index: type:OrderCancelled,OrderPaid,OrderPlaced pos>3 · 2"),
        ("customer:42 OR tag:vip", "index: customer:42 OR vip · 4"),
        ("customer:42 OR data.total>1", "every event · 8 → scan: (customer:42 OR data.total>1)"),
        (
            "(customer:42 OR tag:vip) type:Noted word",
            "index: type:Noted customer:42 OR type:Noted vip · 1 → scan: word",
        ),
        ("pos:2 OR pos:5..6", "index: pos:2 OR pos:5..6 · 3"),
        ("type:A type:B", "index: no event can match"),
        ("correlation:x", "every event · 8 → scan: correlation:x (no index has correlation)"),
        ("customer:*", "index: customer:42 OR customer:7 · 4"),
    ],
)
def test_a_search_says_how_it_is_answered(store: ef.Store, text: str, answered: str) -> None:
    """What the index is asked for, how many events that is, and what is tested on each of them."""
    assert store.search(text).explain() == answered


def test_a_page_ends_after_its_hits_and_goes_on_there(store: ef.Store) -> None:
    """Newest first; the cursor goes on behind the last hit, in the same direction; a position does, too."""
    page = store.search("type:OrderPlaced").page(limit=2)
    assert ([each.position for each in page.events], page.looked_at, page.reached) == ([8, 3], 2, 3)
    assert page.next is not None
    rest = store.search("type:OrderPlaced").page(limit=2, after=str(page.next))
    assert ([each.position for each in rest.events], rest.next) == ([1], None)
    assert [each.position for each in store.search("type:OrderPlaced").page(after=3).events] == [1]
    assert [each.position for each in store.search("", backwards=False).page(after=5, limit=2).events] == [6, 7]
    assert store.search("").page(limit=0).events == []


def test_a_page_that_scans_ends_with_its_budget(store: ef.Store) -> None:
    """After a number of events, or a time, a page ends without hits, and its cursor goes on exactly there."""
    search = store.search("data.total:9")
    page = search.page(budget=Budget(events=3))
    assert (page.events, page.looked_at, page.reached, page.undecodable) == ([], 3, 6, 2)
    page = search.page(budget=Budget(events=3), after=page.next)
    assert ([each.position for each in page.events], page.looked_at, page.reached) == ([3], 3, 3)
    assert search.page(budget=Budget(events=3), after=page.next).next is None
    assert search.page(budget=Budget(seconds=0)).next is None  # a first batch is looked at in any case


def test_a_page_ends_when_its_time_is_over() -> None:
    """The clock is asked after each batch and 256 events; what was looked at is where the next page goes on."""
    with ef.Store("memory:") as store:
        store.append_encoded(*[written("A", {"n": number}) for number in range(1_000)])
        seen, after, pages = list[int](), None, 0
        while True:
            page = store.search("data.n>10").page(budget=Budget(seconds=0.0), after=after, limit=5_000)
            seen += [each.position for each in page.events]
            after, pages = page.next, pages + 1
            if after is None:
                break
        assert (seen, pages) == (list(range(1_000, 11, -1)), 4)


def test_a_cursor_of_another_store_is_refused(store: ef.Store) -> None:
    """A cursor is verified; a position beyond the head and a negative limit are refused."""
    with pytest.raises(CursorMismatch):
        store.search("").page(after=Cursor("0" * 32, 1, 1, "00" * 16))
    with pytest.raises(CursorMismatch):
        store.search("").page(after="page 2")
    with pytest.raises(PositionBeyondHead):
        store.search("").page(after=1_000)
    with pytest.raises(InvalidQuery):
        store.search("").page(limit=-1)


def test_counting_stops_when_its_time_is_over(store: ef.Store) -> None:
    """A count for an explanation says that it is not all."""
    plan, ticks = store.search("").plan(), count()
    found = run(count_indexed(store.engine, plan, seconds=0.5, clock=lambda: float(next(ticks))))
    assert (str(found), found.is_all) == ("more than 0", False)


@pytest.mark.parametrize(
    ("text", "why", "at"),
    [
        ("custmer:42", "no key 'custmer', at character 1. Did you mean customer?", 1),
        ("type:A dta.total>5", "Did you mean data.total?", 8),
        ("has:refund", "no key 'refund'", 5),
        ("has:type", "nothing that only some events have", 5),
        ("vip:x", "no key 'vip'", 1),
        ("http://x", "put quotes around a text", 1),
        ("(type:A", "no closing parenthesis at its end", 8),
        ("type:A)", "nothing that can follow here at '\\)'", 7),
        ('type:"A', "a quote that is not closed", 6),
        ('type:A"B"', "a quote within a value", 7),
        ("type:", "no value at its end", 6),
        ("OR type:A", "no comparison after 'OR'", 4),
        ("a,b", "no comparison after 'a'", 2),
        ("type>A", "not compared by >", 1),
        ("type:A*B", "a \\* before its end", 6),
        ("AB*", "omit the \\*", 1),
        ("pos:x", "'x' is no number", 5),
        ("pos:99999999999999999999", "is no number", 5),
        ("pos>1,2", "a list of values", 1),
        ("pos>1..2", "compares with a range", 1),
        ("pos:1..", "has one end only", 5),
        ("version:one", "'one' is no number", 9),
        ("id:7", "no event id", 4),
        ("since:tomorrow", "no moment", 7),
        ("since:1h,2h", "a list of values", 1),
        ("occurred>2026-06-01T12:00", "no moment", 10),
        ("data:5", "needs a field", 1),
        ("data..x:5", "no path of a field", 1),
        ("data.x[a]:5", "no path of a field", 1),
        ("is:sealed", "never 'sealed'", 4),
        ("type:\x07", "control character", 6),
        (f"order:{'x' * 300}", "too long", 7),
        (f"{'x' * 300}:1", "no key", 1),
        ("a\ud800", "no text in UTF-8", 2),
    ],
)
def test_a_mistake_is_named_where_it_is(store: ef.Store, text: str, why: str, at: int) -> None:
    """InvalidFilter has the number of the character, the nearest key, and what to write."""
    with pytest.raises(InvalidFilter, match=why) as caught:
        store.search(text).page()
    assert (caught.value.code, caught.value.fields["at"]) == ("invalid-filter", at)


HOSTILE = [
    "(" * 5_000,
    "-" * 9_000 + "a",
    "NOT " * 2_000 + "a",
    "(" * 49 + "a" + ")" * 49,
    ("(" * 49 + "a" + ")" * 49 + " ") * 100,
    "(a OR b) " * 600,
    "(order:1 OR order:2 OR tag:vip type:X) " * 200,
    "x" * MAX_CHARACTERS,
    "x" * (MAX_CHARACTERS + 1),
    '"' * 9_999,
    '"' + "\\" * 9_998,
    "\\" * 9_999,
    "data.x:" + "9" * 9_000,
    "data.x>1e999999999999",
    "data.x:1e999999 data.x<-1e999999",
    "pos:" + "1," * 4_000 + "1",
    "customer:" + "1*," * 3_000 + "1*",
    "data." + "a." * 4_000 + "a:1",
    "data.x" + "[]" * 4_000 + ":1",
    "data.x[999999999]:1",
    "type:" + "*" * 5_000,
    "data.x~" + "(a+)+" * 100,
    "\x00",
    'order:"\x00"',
    'type:"\x00"',
    "order:\x00*",
    "has:\x00",
    "\x00:1",
    "data.\x00:\x00",
    " " * 10_000,
    "\u202e\u2066:\u202e",
    "since:999999w",
    "since:0001-01-01",
    "until:9999-12-31",
    "since:9999-12-31T23:59:59.999999-23:59",
    "occurred:0001-01-01T00:00:00+23:59",
    "١٢:٣ pos:٣",
    "٣",
    ":" * 100,
    "=".join("a" * 100),
    " OR ".join(f"order:{n} customer:{n}" for n in range(200)),
    " ".join(f"id:00000000-0000-0000-0000-{n:012}" for n in range(200)),
]


@pytest.fixture(scope="module")
def many() -> Iterator[ef.Store]:
    """A store of SQLite in memory's stead: names are bound to statements."""
    with ef.Store("memory:") as store:
        store.append_encoded(
            *[written("X", {"x": [number, "a" * 50]}, f"order:{number}", "customer:1", "vip") for number in range(50)]
        )
        yield store


@pytest.mark.timeout(60)
@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: repr(text[:20]))
def test_hostile_text_is_answered_or_refused(many: ef.Store, text: str) -> None:
    """Deep nesting, long lists, unbalanced quotes, NUL, huge numbers: a page, or InvalidFilter, and nothing else."""
    search = many.search(text)
    try:
        assert search.page().looked_at <= 50
        assert search.explain()
        assert search.completions() is not None
    except InvalidFilter as error:
        assert len(error.what) < 1_000


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text(max_size=60)
    | st.lists(
        st.sampled_from(
            [*'()":=!<>~,-*.[] \\', "..", "OR", "AND", "NOT", "type", "data.x", "order", "has", "1", "é", "\x00"]
        ),
        max_size=20,
    ).map("".join)
)
def test_any_text_is_answered_or_refused(many: ef.Store, text: str) -> None:
    """No text raises another error than InvalidFilter, with two sentences and the number of a character."""
    try:
        many.search(text).page()
        many.search(text).completions()
    except EventfoldError as error:
        assert isinstance(error, InvalidFilter)
        assert error.remedy
        assert 1 <= error.fields["at"] <= len(text) + 1


def test_limits_are_named(store: ef.Store) -> None:
    """Too long, too deep, too many clauses: the error says which limit."""
    for text, why in (
        ("x" * (MAX_CHARACTERS + 1), f"{MAX_CHARACTERS:,} characters"),
        ("(" * (MAX_DEPTH + 2) + "a" + ")" * (MAX_DEPTH + 2), f"deeper than {MAX_DEPTH}"),
        ("a " * (MAX_CLAUSES + 1), f"more than {MAX_CLAUSES} clauses"),
    ):
        with pytest.raises(InvalidFilter, match=why):
            store.search(text).plan()


def test_many_alternatives_become_a_scan(store: ef.Store) -> None:
    """At most 64 alternatives are asked of the index; what is more is tested on the events that the rest returns."""
    text = " ".join(f"(tag:vip type:Noted,X{number} OR tag:n:{number})" for number in range(9))
    plan = store.search(text).plan()
    assert (plan.test is not None, plan.scan.count("OR"), positions(store, text)) == (True, 3, "5")


def test_the_text_of_payloads_matters_to_a_plan(store: ef.Store) -> None:
    """A plan says whether payloads or metadata decide what matches, for callers who may not read them."""
    for text in ("word", "data.x:1", "meta.x:1", "actor:a", "has:data.x", "-(order:1 cause:x)"):
        assert store.search(text).plan().reads_payloads
    for text in ("type:A", "order:1", "since:1h", "pos:1", "occurred>2h", "version:1", "is:encrypted", "has:occurred"):
        assert not store.search(text).plan().reads_payloads


def test_the_last_word_is_completed(store: ef.Store) -> None:
    """Keys, types, tags and states by prefix, in quotes where they need them, behind what stands before."""

    def completed(text: str) -> list[str]:
        return [text[: each.at] + each.text for each in store.search(text).completions()]

    assert completed("c") == ["correlation:", "cause:", "customer:"]
    assert completed("type:X (-ord") == ["type:X (-order:"]
    assert completed("vi") == ["tag:vip"]
    assert completed("type:OrderP") == ["type:OrderPaid", "type:OrderPlaced"]
    assert completed("type:Noted,Se") == ["type:Noted,Sealed"]
    assert completed("customer:") == ["customer:42", "customer:7"]
    assert completed("customer:4") == ["customer:42"]
    assert completed("tag:v") == ["tag:vip"]
    assert completed("is:e") == ["is:encrypted"]
    assert completed("has:cu") == ["has:customer"]
    assert completed("since:2") == ["since:24h"]
    assert completed("data.x:") == completed('"a ') == []
    assert len(completed("")) == 16 + 2 + 1
    with ef.Store("memory:") as other:
        other.append_encoded(written("A", {}, 'k:x "y"', "k:b*"))
        found = [each.text for each in other.search("k:").completions()]
        assert found == ['k:"b*"', 'k:"x \\"y\\""']
        for each in found:
            assert other.search(each).count() == 1
        assert [each.text for each in other.search("k:x").completions()] == ['k:"x \\"y\\""']


def test_a_search_is_awaited(store: ef.Store) -> None:
    """AsyncSearch has the same methods; it is iterated over by `async for`."""

    async def ask() -> None:
        async with ef.AsyncStore(store.engine) as opened:
            search = opened.search("order:1,2 data.total>1")
            assert [each.position async for each in search] == [3, 2, 1]
            assert (await search.page(limit=1)).events[0].position == 3
            assert (await search.count(), (await search.plan()).text) == (3, "order:1,2 data.total>1")
            assert await search.explain() == "index: order:1 OR order:2 · 4 → scan: data.total>1"
            assert (await opened.search("ord").completions())[0].text == "order:"

    asyncio.run(ask())
