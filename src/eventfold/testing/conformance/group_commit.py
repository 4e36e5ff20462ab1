"""Many requests are committed together, in order; each is checked separately and has its own outcome."""

# Mistakes are made here on purpose.
# pyright: basic

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import eventfold as ef
from eventfold.core.envelope import Receipt
from eventfold.core.query import ConditionClause, Query
from eventfold.errors import EventIdReused, PositionBeyondHead
from eventfold.ports.messages import AppendRequest
from eventfold.store import Store
from eventfold.testing.conformance.events import Noted, about, amounts, deposit, draft, positions


def request(
    store: Store, *events: Any, unless: Query | None = None, after: int = 0, key: str | None = None
) -> AppendRequest:
    """An append request of these events, as the port receives it."""
    clauses = () if unless is None else (ConditionClause(unless, after),)
    return AppendRequest(tuple(store.registry.encode(event) for event in events), clauses, key)


def test_requests_are_written_in_their_order(store: Store, port: Any) -> None:
    """The requests of one call are written in their order, each with its own receipt and boundaries."""
    outcomes: list[Receipt] = port.append_many([request(store, *[deposit(amount=n)] * n) for n in (1, 2, 3)])
    assert [(o.first, o.last, o.repeated) for o in outcomes] == [(1, 1, False), (2, 3, False), (4, 6, False)]
    assert amounts(store.read()) == [1, 2, 2, 3, 3, 3]
    assert [(r.first, r.last) for r in store.read()] == [(1, 1), (2, 3), (2, 3), (4, 6), (4, 6), (4, 6)]


def test_a_request_sees_those_before_it(store: Store, port: Any) -> None:
    """A condition is checked against the earlier requests of the same call and all committed events."""
    rivals = [request(store, deposit(amount=n), unless=about("a-1")) for n in (1, 2, 3)]
    first, *others = port.append_many(rivals)
    assert isinstance(first, Receipt)
    assert [type(o) for o in others] == [ef.AppendConflict, ef.AppendConflict]
    assert [o.fields["found"] for o in others] == [1, 1]
    assert amounts(store.read()) == [1]


def test_a_refusal_does_not_affect_other_requests(store: Store, port: Any) -> None:
    """A refused request uses no position and leaves no trace; the other requests are written as if it did not exist."""
    store.append(deposit("a-1"))
    outcomes = port.append_many(
        [
            request(store, deposit("a-2", 1)),
            request(store, deposit("a-3", 2), deposit("a-4", 3), unless=about("a-1")),
            request(store, deposit("a-3", 4), unless=about("a-4")),
            request(store, deposit("a-4", 5)),
        ]
    )
    assert [type(o).__name__ for o in outcomes] == ["Receipt", "AppendConflict", "Receipt", "Receipt"]
    assert [(o.first, o.last) for o in outcomes if isinstance(o, Receipt)] == [(2, 2), (3, 3), (4, 4)]
    assert amounts(store.read(about("a-3"))) == [4]
    assert positions(store.read(about("a-4"))) == [4]
    assert [t.tag for t in store.tags()] == ["account:a-1", "account:a-2", "account:a-3", "account:a-4"]


def test_tags_of_a_refused_request_can_be_used_afterwards(store: Store, port: Any) -> None:
    """Tags that were first used in a refused request select the right events when they are used again."""
    store.append(deposit("seen"))
    for turn in range(3):
        port.append_many(
            [
                request(store, deposit(f"lost-{turn}"), deposit("never"), unless=about("seen")),
                request(store, deposit(f"kept-{turn}", turn)),
                request(store, deposit(f"lost-{turn}", 100 + turn)),
            ]
        )
    assert [amounts(store.read(about(f"kept-{turn}"))) for turn in range(3)] == [[0], [1], [2]]
    assert [amounts(store.read(about(f"lost-{turn}"))) for turn in range(3)] == [[100], [101], [102]]
    assert list(store.read(about("never"))) == []


def test_tags_of_a_reused_id_are_not_stored(store: Store, port: Any, open_again: Callable[[], Store]) -> None:
    """An engine that repeats a commit after a known id stores every event under its own tags, for every reader."""
    store.append(draft(deposit("a-1"), 1))
    for turn in range(3):
        refused, written = port.append_many(
            [
                request(store, draft(deposit(f"bad-{turn}", 99), 1), draft(Noted(), 50, tags=(f"worse:{turn}",))),
                request(store, deposit(f"good-{turn}", turn), deposit(f"better-{turn}", turn)),
            ]
        )
        assert (type(refused), type(written)) == (EventIdReused, Receipt)
        store.append(deposit(f"bad-{turn}", 100 + turn))
    for each in (store, open_again()):
        for turn in range(3):
            assert amounts(each.read(about(f"good-{turn}"))) == amounts(each.read(about(f"better-{turn}"))) == [turn]
            assert amounts(each.read(about(f"bad-{turn}"))) == [100 + turn]
        assert {tag.tag for tag in each.tags("worse:")} == set()
        assert len(each.tags("account:")) == 10


def test_a_request_may_be_repeated_within_one_call(store: Store, port: Any) -> None:
    """A request that is twice in one call is written once; the receipts are equal except for `repeated`."""
    once = request(store, draft(deposit(), 1), unless=about("a-1"))
    first, second = port.append_many([once, once])
    assert (first.first, first.repeated) == (1, False)
    assert (second.first, second.repeated, second.digest) == (1, True, first.digest)
    assert store.head() == 1


def test_the_id_of_a_refused_request_may_be_used(store: Store, port: Any) -> None:
    """An id is known only once it is written: after a refusal in the same call, another event may have it."""
    store.append(deposit("a-1"))
    refused, written = port.append_many(
        [
            request(store, draft(deposit("a-2", 1), 1), unless=about("a-1")),
            request(store, draft(deposit("a-2", 2), 1)),
        ]
    )
    assert isinstance(refused, ef.AppendConflict)
    assert written.first == 2


def test_a_repeat_by_id_and_a_repeat_by_key_in_one_call(store: Store, port: Any) -> None:
    """An append with a key, a repeat by its id and a repeat by its key: written once, repeated twice."""
    event = draft(deposit("a-1", 1), 1)
    outcomes = port.append_many(
        [request(store, event, key="k-1"), request(store, event), request(store, deposit("a-2", 2), key="k-1")]
    )
    assert [(o.first, o.repeated) for o in outcomes] == [(1, False), (1, True), (1, True)]
    assert amounts(store.read()) == [1]


def test_every_kind_of_outcome_fits_into_one_call(store: Store, port: Any) -> None:
    """One call may return receipts, conflicts, reused ids, known keys and positions beyond the head."""
    store.append(draft(deposit("a-1"), 1), key="k-1")
    outcomes = port.append_many(
        [
            request(store, deposit("a-2")),
            request(store, deposit("a-2"), unless=about("a-1")),
            request(store, draft(deposit("a-1", 99), 1)),
            request(store, deposit("a-3"), key="k-1"),
            request(store, deposit("a-4"), unless=about("a-4"), after=1_000),
            request(store, draft(deposit("a-1"), 1)),
            request(store, deposit("a-5")),
        ]
    )
    kinds = [type(outcome) for outcome in outcomes]
    assert kinds == [Receipt, ef.AppendConflict, EventIdReused, Receipt, PositionBeyondHead, Receipt, Receipt]
    assert [(o.first, o.repeated) for o in outcomes if isinstance(o, Receipt)] == [
        (2, False),
        (1, True),
        (1, True),
        (3, False),
    ]
    assert store.head() == 3


def test_a_position_written_by_the_same_call_is_not_beyond_the_head(store: Store, port: Any) -> None:
    """A condition may have a position that an earlier request of the same call has just written."""
    one, two = port.append_many(
        [request(store, deposit("a-1")), request(store, deposit("a-1"), unless=about("a-1"), after=1)]
    )
    assert (one.first, two.first) == (1, 2)


@pytest.mark.parametrize("count", [1, 2, 600])
def test_any_number_of_requests_fit_into_one_call(store: Store, port: Any, count: int) -> None:
    """A call may have hundreds of requests; each has its own outcome, in order."""
    outcomes = port.append_many([request(store, deposit(f"a-{n}", n), unless=about(f"a-{n}")) for n in range(count)])
    assert [outcome.first for outcome in outcomes] == list(range(1, count + 1))
    assert amounts(store.read()) == list(range(count))


def test_a_call_without_requests_does_nothing(store: Store, port: Any) -> None:
    """A call without requests returns no outcomes and writes nothing."""
    assert port.append_many([]) == []
    assert store.head() == 0
