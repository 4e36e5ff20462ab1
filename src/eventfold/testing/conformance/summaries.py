"""Summaries of the log: its head, the number of matching events, its types, its tags."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

import eventfold as ef
from eventfold.core.envelope import to_micros
from eventfold.core.query import Query
from eventfold.errors import InvalidQuery
from eventfold.ports.messages import TagCount, TypeCount
from eventfold.store import Store
from eventfold.testing.conformance.engine_under_test import EngineUnderTest
from eventfold.testing.conformance.events import Noted, Opened, about, deposit, deposits, draft


def test_the_head_is_the_last_event(store: Store, port: Any) -> None:
    """The head has the position, time and id of the last committed event; 0, 0 and b"" in an empty log."""
    assert (store.head(), port.head().position, port.head().time, port.head().id) == (0, 0, 0, b"")
    store.append(*deposits(3))
    (last,) = store.read(backwards=True, limit=1)
    head = port.head()
    assert (store.head(), head.position, head.time, head.id) == (3, 3, to_micros(last.time), last.stored.id)


def test_a_count_equals_the_number_of_read_events(store: Store) -> None:
    """`count` counts the matching events in (after, until] without reading them."""
    store.extend([deposit(f"a-{n % 3}") for n in range(1_000)])
    for query in (Query(), about("a-1"), about("a-1") | about("a-2"), about("a-9"), Query.of(types=Noted)):
        for after, until in ((0, None), (10, 500), (999, None), (1_000, None), (500, 500)):
            assert store.count(query, after=after, until=until) == len(
                list(store.read(query, after=after, until=until))
            )


def test_types_are_listed_with_their_counts(store: Store) -> None:
    """Every type in the log is listed by name, with its count and its first and last position."""
    store.append(Opened("a-1", "ada"), deposit(), Noted())
    store.append(deposit(), Noted())
    assert store.types() == [
        TypeCount("conformance.deposited", 2, 2, 4),
        TypeCount("conformance.noted", 2, 3, 5),
        TypeCount("conformance.opened", 1, 1, 1),
    ]


def test_type_counts_include_later_events(store: Store, engine_under_test: EngineUnderTest) -> None:
    """A later call counts the whole log, with the events that this and other handles wrote since."""
    assert store.types() == []
    rival = engine_under_test.rival()
    expected: dict[str, int] = {}
    for event in (deposit(), Noted(), deposit(), Opened("a-1", "ada"), Noted(), Noted()):
        for writer in (store, rival):
            position = writer.append(event).first
            name = type(event).__name__
            expected[name] = expected.get(name, 0) + 1
            counts = {each.type.removeprefix("conformance.").capitalize(): each for each in store.types()}
            assert {type: each.count for type, each in counts.items()} == expected
            assert counts[name].last == position
    assert rival.types() == store.types()


def test_tags_are_listed_with_their_counts(store: Store) -> None:
    """Every tag of the log is listed, in code point order: its number of events, the first and the last of them."""
    store.append(Opened("b", "ada"), deposit("b"), deposit("a"), deposit("B"), Noted())
    assert store.tags() == [
        TagCount("account:B", 1, 4, 4),
        TagCount("account:a", 1, 3, 3),
        TagCount("account:b", 2, 1, 2),
        TagCount("owner:ada", 1, 1, 1),
    ]


def test_one_tag_is_looked_up(store: Store) -> None:
    """`tag` returns the same for one tag, with zeros if no event has it; its last position serves a condition."""
    store.append(deposit("a-10"), *deposits(3), deposit("a-2"))
    store.append(deposit("a-1"))
    assert store.tag("account:a-1") == TagCount("account:a-1", 4, 2, 6)
    assert store.tag("account:a-10") == TagCount("account:a-10", 1, 1, 1)
    for never in ("account:a", "account:", "zzz", "$process:none"):
        assert store.tag(never) == TagCount(never, 0, 0, 0)
    after = store.tag("account:a-1").last
    assert store.append(deposit("a-1"), unless=about("a-1"), after=after).first == 7
    with pytest.raises(ef.AppendConflict):
        store.append(deposit("a-1"), unless=about("a-1"), after=after)
    for bad in ("", "two\nlines", 7):
        with pytest.raises(InvalidQuery):
            store.tag(bad)  # pyright: ignore[reportArgumentType]


def test_tags_are_in_code_point_order(store: Store) -> None:
    """Code point order is the same on every engine and machine, whatever its locale."""
    names = ["a", "B", "ä", "z", "é", "ß", "日", "\U0001f600", "\uffee", "A", "0", "-", "~"]
    store.append(ef.Draft(Noted(), tags=tuple(names)))
    assert [each.tag for each in store.tags()] == sorted(names)
    (recorded,) = store.read()
    assert recorded.tags == tuple(sorted(names))


def test_tags_can_be_filtered_by_prefix(store: Store) -> None:
    """A prefix is literal: no letter, percent sign or underscore has a special meaning."""
    names = ("k:1", "k:10", "k:2", "K:1", "k%:1", "k_:1", "kx:1", "k", "l:1", "k:\U0001f600", "k:*", "k:[1]")
    store.append(ef.Draft(Noted(), tags=names))
    for prefix in ("", "k", "k:", "k:1", "K", "k%", "k_", "k:*", "k:[", "k:\U0001f600", "zzz"):
        assert [each.tag for each in store.tags(prefix)] == sorted(n for n in names if n.startswith(prefix))


def test_tags_can_be_listed_in_pages(store: Store) -> None:
    """`limit` and `after` (exclusive) select one page after the other."""
    store.append(*[deposit(f"a-{n:02}") for n in range(25)], Opened("z", "o"))
    found: list[str] = []
    while page := store.tags("account:a", limit=10, after=found[-1] if found else ""):
        found.extend(each.tag for each in page)
        assert len(found) <= 25
    assert found == [f"account:a-{n:02}" for n in range(25)]
    assert store.tags("account:a", after="b") == []
    assert store.tags(limit=0) == []


def test_a_tag_is_counted_once_per_event(store: Store) -> None:
    """A tag that an event has twice, from a field and from its draft, counts once."""
    store.append(ef.Draft(deposit("a-1"), tags=("account:a-1", "account:a-1")))
    assert store.tags() == [TagCount("account:a-1", 1, 1, 1)]
    assert store.count(about("a-1")) == 1


def test_stats_name_the_engine_and_count_events(store: Store) -> None:
    """`stats` has the engine's name and the number of events; the rest depends on the engine."""
    store.append(*deposits(3))
    stats = store.stats()
    assert (stats["engine"], stats["events"]) == (store.engine.name, 3)
    assert all(isinstance(key, str) for key in stats)


def test_many_tags_are_listed_completely(store: Store) -> None:
    """Two thousand tags are listed in two pages of the default size."""
    store.extend([deposit(f"{n:04}") for n in range(2_000)])
    first = store.tags("account:")
    second = store.tags("account:", after=first[-1].tag)
    assert [len(first), len(second)] == [1_000, 1_000]
    assert [each.tag for each in first + second] == [f"account:{n:04}" for n in range(2_000)]


def test_the_keys_of_tags_are_listed(store: Store, lookups: Any) -> None:
    """Each once and in code point order, within a prefix and after a key; a tag without a colon is its own key."""
    tags = ("b:1", "b:2", "b", "b;", "b:x:y", "a:é", "a b", "a", "a:", "é:1", "\U0001f600:1", "zz", "zz:1")
    for number, tag in enumerate(tags, 1):
        store.append(draft(deposit(amount=1), number, tags=(tag,)))
    keys = sorted({*(tag[: tag.find(":") + 1] or tag for tag in tags), "account:"})
    assert store.tag_keys() == lookups.tag_keys() == keys
    for prefix in ("a", "a:", "b:x", "zz", "é", "none", "account:a-"):
        assert store.tag_keys(prefix) == [key for key in keys if any(_has_key(t, key, prefix) for t in store.tags())]
    for index, key in enumerate(keys):
        assert store.tag_keys(after=key) == keys[index + 1 :]
        assert store.tag_keys(after=key, limit=2) == keys[index + 1 : index + 3]
    assert store.tag_keys("b", after="b") == ["b:", "b;"]
    assert store.tag_keys(limit=0) == []


def test_tags_are_listed_without_counts(store: Store, lookups: Any) -> None:
    """`tag_names` lists the tags that `tags` lists, in the same order and pages."""
    assert store.tag_names() == []
    names = ("k:1", "k:10", "k:2", "K:1", "k%:1", "k_:1", "kx:1", "k", "l:1", "k:\U0001f600", "k:*", "\U0001f600")
    for number, tag in enumerate(names):
        store.append(ef.Draft(Noted(), tags=(tag, f"n:{number:02}")))
    for prefix in ("", "k", "k:", "k:1", "K", "k%", "k_", "k:*", "n:", "\U0001f600", "zzz"):
        for limit, after in ((1_000, ""), (3, ""), (1, "k:10"), (0, ""), (1_000, "k"), (2, "zzz"), (5, "n:03")):
            expected = [each.tag for each in store.tags(prefix, limit=limit, after=after)]
            assert store.tag_names(prefix, limit=limit, after=after) == expected
            assert lookups.tag_names(prefix, limit, after) == expected


def test_events_are_counted_in_ranges(store: Store, port: Any, lookups: Any) -> None:
    """`counts` returns for each range what the engine counts in it, also within an append; beyond the head nothing."""
    assert store.counts(Query(), [0, 5]) == store.counts(about("a-1"), [0, 5]) == [0]
    store.extend([deposit(f"a-{n % 3}") for n in range(700)])
    store.append(Opened("a-1", "ada"), Noted(), deposit("a-1"))
    many = Query.any_of(item for n in range(60) for item in about(f"a-{n}").items)
    several = Query.of(tags=["account:a-1", "owner:ada"])
    for query in (
        *(Query(), about("a-1"), about("a-1") | about("a-2") | Query.of(types=Noted), about("a-9"), many, several),
        *(Query.of(types=[Noted, Opened]), Query.of(types=Opened, tags="account:a-1")),
    ):
        for bounds in ([0, 703], [0, 10, 10, 300, 650, 701, 702, 703, 900], [3, 4, 5], [700, 2_000, 3_000], [7], []):
            expected = [port.count(query, min(low, 703), min(high, 703)) for low, high in pairwise(bounds)]
            assert store.counts(query, bounds) == lookups.counts(query, bounds) == expected
    moment = store.event(next(iter(store.read(after=349, limit=1))).id)
    assert moment is not None
    until = store.counts(Query(), [0, moment.time, 703])
    assert (sum(until), until[0] >= 350) == (703, True)


def test_bounds_of_counts_ascend(store: Store) -> None:
    """Bounds that descend, that are negative or no positions are refused."""
    store.append(*deposits(3))
    for bad in ([2, 1], [-1, 2], [0, "3"], [0, 2**63], [0, True]):
        with pytest.raises(InvalidQuery):
            store.counts(Query(), bad)  # pyright: ignore[reportArgumentType]


def _has_key(found: TagCount, key: str, prefix: str) -> bool:
    tag = found.tag
    return tag.startswith(prefix) and (tag.startswith(key) if ":" in key else tag == key)
