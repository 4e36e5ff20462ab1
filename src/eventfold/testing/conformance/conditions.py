"""A condition is a list of (query, after): refused if, for any of them, a matching event is after its position."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import eventfold as ef
from eventfold.core.query import ConditionClause, Item, Query
from eventfold.errors import InvalidInput, InvalidQuery
from eventfold.ports.messages import AppendRequest
from eventfold.store import Store
from eventfold.testing.conformance.events import (
    Account,
    Deposited,
    Moved,
    Noted,
    Opened,
    Withdrawn,
    about,
    deposit,
    deposits,
)

CASES: list[tuple[str, Query, bool]] = [
    ("everything", Query(), True),
    ("its tag", Query.of(tags="account:a-1"), True),
    ("another tag", Query.of(tags="account:a-2"), False),
    ("a tag that begins like its own", Query.of(tags="account:a-"), False),
    ("a tag that its own begins like", Query.of(tags="account:a-11"), False),
    ("its tag in other letters", Query.of(tags="account:A-1"), False),
    ("a tag that no event has", Query.of(tags="nobody:has-it"), False),
    ("its type", Query.of(types=Opened), True),
    ("another type", Query.of(types=Withdrawn), False),
    ("a type that no event has", Query.of(types="conformance.never"), False),
    ("any of two types, one its own", Query.of(types=[Withdrawn, Opened]), True),
    ("any of two types, neither its own", Query.of(types=[Withdrawn, Noted]), False),
    ("all of its two tags", Query.of(tags=["account:a-1", "owner:ada"]), True),
    ("all of two tags, one not its own", Query.of(tags=["account:a-1", "owner:bob"]), False),
    ("all of two tags, one unknown", Query.of(tags=["account:a-1", "nobody:has-it"]), False),
    ("its type and tag", Query.of(types=Opened, tags="account:a-1"), True),
    ("its type, another's tag", Query.of(types=Opened, tags="account:a-2"), False),
    ("another's type, its tag", Query.of(types=Withdrawn, tags="account:a-1"), False),
    ("either of two, one its own", Query.of(tags="account:a-2") | Query.of(types=Opened), True),
    ("either of two, neither its own", Query.of(tags="account:a-2") | Query.of(types=Noted), False),
    (
        "type of one item, tag of another",
        Query.of(types=Opened, tags="x:1") | Query.of(types=Noted, tags="owner:ada"),
        False,
    ),
    ("twenty alternatives, the last its own", Query(tuple(Item((), (f"account:{n}",)) for n in ("a-9", "a-1"))), True),
]


@pytest.mark.parametrize(("query", "refused"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_a_condition_matches_as_a_query_does(store: Store, query: Query, refused: bool) -> None:
    """Any of a query's items must match: any of its types, and all of its tags, exactly as they are written."""
    store.append(Opened("a-1", "ada"))
    assert query.matches("conformance.opened", ("account:a-1", "owner:ada")) is refused
    if refused:
        with pytest.raises(ef.AppendConflict):
            store.append(deposit(), unless=query)
    else:
        store.append(deposit(), unless=query)
    assert store.head() == (1 if refused else 2)
    assert store.count(query, until=1) == int(refused)


def test_a_condition_that_holds_lets_the_append_through(store: Store) -> None:
    """An append whose condition no event breaks is written."""
    store.append(deposit("a-1"))
    assert store.append(deposit("a-2"), unless=about("a-2")).first == 2


def test_a_conflict_names_what_stood_in_the_way(store: Store) -> None:
    """AppendConflict has the position that was read up to, and the position of the first conflicting event."""
    for account in ("a-1", "a-2", "a-1", "a-1"):
        store.append(deposit(account))
    with pytest.raises(ef.AppendConflict) as refused:
        store.append(deposit(), unless=about("a-1"), after=1)
    assert refused.value.code == "append-conflict"
    assert (refused.value.fields["after"], refused.value.fields["found"]) == (1, 3)
    assert "a-1" in refused.value.fields["query"]


def test_the_position_of_a_condition_is_exclusive(store: Store) -> None:
    """`after` was seen: an event at it is in no one's way, one just after it is."""
    store.append(*deposits(3))
    assert store.append(deposit(), unless=about("a-1"), after=3).first == 4
    with pytest.raises(ef.AppendConflict):
        store.append(deposit(), unless=about("a-1"), after=3)


def test_each_query_of_a_condition_has_its_own_position(store: Store) -> None:
    """Each (query, position) is judged by itself; one of them broken refuses the append."""
    store.append(deposit("a-1"))
    store.append(deposit("a-2"))
    store.append(deposit("a-1"))
    with pytest.raises(ef.AppendConflict) as refused:
        store.append(deposit(), unless=[(about("a-2"), 2), (about("a-1"), 2)])
    assert refused.value.fields["found"] == 3
    assert store.append(deposit(), unless=[(about("a-2"), 2), (about("a-1"), 3)]).first == 4


def test_expected_version_is_a_condition_over_everything(store: Store) -> None:
    """`unless=Query(), after=head` means: nothing at all has been written since."""
    head = store.append(deposit("a-1")).last
    store.append(deposit("a-2"), unless=Query(), after=head)
    with pytest.raises(ef.AppendConflict):
        store.append(deposit("a-3"), unless=Query(), after=head)


def test_a_state_stands_for_its_query(store: Store) -> None:
    """A question, like Account("a-1"), may be given where a query is meant."""
    store.append(Noted("not asked for"), deposit("a-2"))
    store.append(deposit("a-1"), unless=Account("a-1"))
    with pytest.raises(ef.AppendConflict):
        store.append(deposit("a-1"), unless=Account("a-1"))
    assert store.append(deposit("a-1"), unless=[(Account("a-1"), 3)]).first == 4


def test_an_append_does_not_break_its_own_condition(store: Store) -> None:
    """The events of an append are not in its own way, though they match its condition."""
    assert store.append(deposit("a-1"), deposit("a-1"), unless=about("a-1")).last == 2


def test_a_conflict_is_not_remembered(store: Store) -> None:
    """After a conflict the same events can be appended, unchanged, under a condition that holds."""
    store.append(deposit())
    event = ef.Draft(deposit(amount=7))
    with pytest.raises(ef.AppendConflict):
        store.append(event, unless=about("a-1"))
    assert store.append(event, unless=about("a-1"), after=1).first == 2


def test_the_first_of_rivals_wins(store: Store, open_again: Callable[[], Store]) -> None:
    """Of two writers that looked at the same moment, the first writes and the second is refused."""
    other = open_again()
    seen = store.append(deposit()).last
    assert store.head() == other.head() == seen
    other.append(deposit(), unless=about("a-1"), after=seen)
    with pytest.raises(ef.AppendConflict):
        store.append(deposit(), unless=about("a-1"), after=seen)
    assert store.head() == 2


def test_rivals_over_different_things_do_not_meet(store: Store, open_again: Callable[[], Store]) -> None:
    """Writers whose conditions have nothing in common are never in each other's way."""
    other = open_again()
    seen = store.append(Noted()).last
    other.append(deposit("a-1"), unless=about("a-1"), after=seen)
    assert store.append(deposit("a-2"), unless=about("a-2"), after=seen).first == 3


def test_an_event_with_two_tags_of_one_key_is_found_by_each(store: Store) -> None:
    """An event may carry several tags of one key, and conditions on each of them see it."""
    store.append(Moved("a-1", "a-2", deposit().amount))
    for account in ("a-1", "a-2"):
        with pytest.raises(ef.AppendConflict):
            store.append(deposit(), unless=about(account))
    store.append(deposit(), unless=about("a-3"))


def test_a_condition_sees_an_event_far_behind_the_head(store: Store) -> None:
    """A condition is judged over its whole range, however long and however many other events lie in it."""
    store.append(Opened("a-9", "zoe"))
    store.extend(deposits(2_500))
    with pytest.raises(ef.AppendConflict) as refused:
        store.append(deposit(), unless=about("a-9"))
    assert refused.value.fields["found"] == 1
    store.append(deposit(), unless=about("a-9"), after=1)


def test_many_alternatives_are_one_condition(store: Store) -> None:
    """A condition may have a hundred alternatives; any of them broken refuses the append."""
    store.append(deposit("a-99"))
    many = Query.any_of(Item((), (f"account:a-{n}",)) for n in range(100))
    with pytest.raises(ef.AppendConflict) as refused:
        store.append(deposit(), unless=many)
    assert len(str(refused.value)) < 500
    assert store.append(deposit(), unless=many, after=1).first == 2


def test_a_class_stands_for_all_its_names(store: Store) -> None:
    """A condition by class also sees events stored under the class's older names."""

    class Older(ef.Event, type="conformance.older-name"):
        account: ef.Tag

    class Newer(ef.Event, type="conformance.newer-name", aliases=("conformance.older-name",)):
        account: ef.Tag

    store.append(Older("a-1"))
    with pytest.raises(ef.AppendConflict):
        store.append(Newer("a-1"), unless=Query.of(types=Newer))


@pytest.mark.parametrize("after", [4, 1_000_000])
def test_a_condition_in_the_future_is_refused(store: Store, after: int) -> None:
    """A condition with a position beyond the head is a mistake: InvalidQuery."""
    store.append(*deposits(3))
    for unless in (about("a-1"), about("nobody"), [(about("a-1"), 3), (about("x"), after)]):
        with pytest.raises(InvalidQuery):
            given: dict[str, Any] = {} if isinstance(unless, list) else {"after": after}
            store.append(deposit(), unless=unless, **given)
    assert store.head() == 3


def test_a_position_before_the_first_is_refused(store: Store) -> None:
    """Positions are not negative, in a condition as elsewhere: InvalidQuery."""
    for unless, after in ((about("a-1"), -1), ([(about("a-1"), -1)], 0)):
        with pytest.raises(InvalidQuery):
            store.append(deposit(), unless=unless, after=after)
    assert store.head() == 0


def test_a_position_without_a_condition_is_refused(store: Store) -> None:
    """`after` says up to where a condition was looked at; without one it means nothing: InvalidQuery."""
    store.append(deposit())
    with pytest.raises(InvalidQuery):
        store.append(deposit(), after=1)
    with pytest.raises(InvalidQuery):
        store.append(deposit(), unless=[(about("a-1"), 1)], after=1)
    assert store.head() == 1


def test_a_condition_may_be_over_a_moment_kept_as_a_cursor(store: Store) -> None:
    """`after` may be a cursor, which is verified; one of another store is refused before anything is written."""
    store.append(deposit())
    here = store.cursor()
    assert store.append(deposit(), unless=about("a-1"), after=here).first == 2
    with pytest.raises(ef.AppendConflict):
        store.append(deposit(), unless=about("a-1"), after=here)
    with ef.Store("memory:") as other:
        other.append(Deposited("a-1", deposit().amount))
        with pytest.raises(ef.EventfoldError) as refused:
            store.append(deposit(), unless=about("a-1"), after=other.cursor())
    assert refused.value.code == "cursor-mismatch"
    assert store.head() == 2


def test_a_conflict_says_which_clause_it_was(store: Store, port: Any) -> None:
    """Of several clauses the first that forbids the append is named, by number and query, with what was found for it.

    In an append by itself, among others of one commit, and in a decision, where it is the number of the State.
    """
    store.append(deposit("a-1"), deposit("a-2"), deposit("a-3"), deposit("a-2"))
    unless = [(about("a-1"), 1), (about("nobody"), 0), (about("a-2"), 2), (about("a-3"), 0)]
    expected = {"clause": 2, "after": 2, "found": 4, "query": repr(about("a-2"))}
    with pytest.raises(ef.AppendConflict) as refused:
        store.append(deposit(), unless=unless)
    assert refused.value.fields == expected
    clauses = tuple(ConditionClause(query, after) for query, after in unless)
    held = AppendRequest(
        (store.registry.encode(deposit("a-9")),), (ConditionClause(about("a-9"), 0), ConditionClause(about("a-8"), 0))
    )
    rival = AppendRequest((store.registry.encode(deposit("a-8")),))
    broken = AppendRequest((store.registry.encode(deposit("a-9")),), clauses)
    late = AppendRequest(
        (store.registry.encode(deposit("a-7")),), (ConditionClause(about("x"), 4), ConditionClause(about("a-8"), 4))
    )
    _, _, outcome, within = port.append_many([held, rival, broken, late])
    assert outcome.fields == expected
    assert within.fields == {"clause": 1, "after": 4, "found": 6, "query": repr(about("a-8"))}


def deposit_to(account: Account, other: Account) -> list[Deposited]:
    """A decision over two states."""
    return [deposit(account.account)]


def test_a_decision_says_over_which_state_it_met_the_conflict(faults: Any, engine_under_test: Any) -> None:
    """A decision that never gets through names the number of the State that others wrote about."""
    store, planned = faults()
    rival = engine_under_test.rival()
    planned.before(lambda: rival.append(deposit("a-2")))
    with pytest.raises(ef.AppendConflict) as refused:
        store.using(attempts=1).decide(deposit_to, Account("a-1"), Account("a-2"))
    assert (refused.value.fields["clause"], refused.value.fields["found"]) == (1, 1)
    assert refused.value.fields["query"] == repr(Account("a-2").query())


def test_a_condition_of_nothing_is_refused(store: Store) -> None:
    """`unless=[]` forbids nothing, and a query of no items would mean everything: both are InvalidQuery."""
    nothing: list[Any] = [[], (), iter(())]
    for unless in nothing:
        with pytest.raises(InvalidQuery):
            store.append(deposit(), unless=unless)
    with pytest.raises(InvalidQuery):
        Query.any_of([])
    with pytest.raises(InvalidInput), store.lock():
        pass
    assert store.head() == 0


def test_a_condition_of_another_form_is_refused(store: Store) -> None:
    """Queries without positions, one pair alone, a number: InvalidQuery, which says how a condition is written."""
    strange: list[Any] = [[about("a-1")], [(about("a-1"), 0, 0)], (about("a-1"), 0), 5]
    for unless in strange:
        with pytest.raises(InvalidQuery, match="pairs of"):
            store.append(deposit(), unless=unless)
