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
    ("a tag that no event has", Query.of(tags="unused:1"), False),
    ("its type", Query.of(types=Opened), True),
    ("another type", Query.of(types=Withdrawn), False),
    ("a type that no event has", Query.of(types="conformance.never"), False),
    ("any of two types, one its own", Query.of(types=[Withdrawn, Opened]), True),
    ("any of two types, neither its own", Query.of(types=[Withdrawn, Noted]), False),
    ("all of its two tags", Query.of(tags=["account:a-1", "owner:ada"]), True),
    ("all of two tags, one not its own", Query.of(tags=["account:a-1", "owner:bob"]), False),
    ("all of two tags, one unknown", Query.of(tags=["account:a-1", "unused:1"]), False),
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
    """Any of a query's items must match: any of its types, and all of its tags, compared exactly."""
    store.append(Opened("a-1", "ada"))
    assert query.matches("conformance.opened", ("account:a-1", "owner:ada")) is refused
    if refused:
        with pytest.raises(ef.AppendConflict):
            store.append(deposit(), unless=query)
    else:
        store.append(deposit(), unless=query)
    assert store.head() == (1 if refused else 2)
    assert store.count(query, until=1) == int(refused)


def test_an_append_whose_condition_holds_is_written(store: Store) -> None:
    """An append is written if no event matches its condition."""
    store.append(deposit("a-1"))
    assert store.append(deposit("a-2"), unless=about("a-2")).first == 2


def test_a_conflict_names_the_conflicting_event(store: Store) -> None:
    """AppendConflict has the position that was read up to, and the position of the first conflicting event."""
    for account in ("a-1", "a-2", "a-1", "a-1"):
        store.append(deposit(account))
    with pytest.raises(ef.AppendConflict) as refused:
        store.append(deposit(), unless=about("a-1"), after=1)
    assert refused.value.code == "append-conflict"
    assert (refused.value.fields["after"], refused.value.fields["found"]) == (1, 3)
    assert "a-1" in refused.value.fields["query"]


def test_the_position_of_a_condition_is_exclusive(store: Store) -> None:
    """An event at `after` is no conflict, the event after it is."""
    store.append(*deposits(3))
    assert store.append(deposit(), unless=about("a-1"), after=3).first == 4
    with pytest.raises(ef.AppendConflict):
        store.append(deposit(), unless=about("a-1"), after=3)


def test_each_query_of_a_condition_has_its_own_position(store: Store) -> None:
    """Each (query, position) is checked separately; a conflict with one of them refuses the append."""
    store.append(deposit("a-1"))
    store.append(deposit("a-2"))
    store.append(deposit("a-1"))
    with pytest.raises(ef.AppendConflict) as refused:
        store.append(deposit(), unless=[(about("a-2"), 2), (about("a-1"), 2)])
    assert refused.value.fields["found"] == 3
    assert store.append(deposit(), unless=[(about("a-2"), 2), (about("a-1"), 3)]).first == 4


def test_expected_version_is_a_condition_over_everything(store: Store) -> None:
    """`unless=Query(), after=head` means that no event at all was written since."""
    head = store.append(deposit("a-1")).last
    store.append(deposit("a-2"), unless=Query(), after=head)
    with pytest.raises(ef.AppendConflict):
        store.append(deposit("a-3"), unless=Query(), after=head)


def test_a_state_may_be_given_in_place_of_a_query(store: Store) -> None:
    """A state such as Account("a-1") may be given in place of its query."""
    store.append(Noted("not asked for"), deposit("a-2"))
    store.append(deposit("a-1"), unless=Account("a-1"))
    with pytest.raises(ef.AppendConflict):
        store.append(deposit("a-1"), unless=Account("a-1"))
    assert store.append(deposit("a-1"), unless=[(Account("a-1"), 3)]).first == 4


def test_an_append_does_not_break_its_own_condition(store: Store) -> None:
    """The events of an append do not conflict with its own condition, even if they match it."""
    assert store.append(deposit("a-1"), deposit("a-1"), unless=about("a-1")).last == 2


def test_a_conflict_is_not_remembered(store: Store) -> None:
    """After a conflict the identical events can be appended under a condition that holds."""
    store.append(deposit())
    event = ef.Draft(deposit(amount=7))
    with pytest.raises(ef.AppendConflict):
        store.append(event, unless=about("a-1"))
    assert store.append(event, unless=about("a-1"), after=1).first == 2


def test_the_first_of_two_concurrent_writers_wins(store: Store, open_again: Callable[[], Store]) -> None:
    """Of two writers that read the same head, the first one writes and the second one is refused."""
    other = open_again()
    seen = store.append(deposit()).last
    assert store.head() == other.head() == seen
    other.append(deposit(), unless=about("a-1"), after=seen)
    with pytest.raises(ef.AppendConflict):
        store.append(deposit(), unless=about("a-1"), after=seen)
    assert store.head() == 2


def test_writers_with_unrelated_conditions_do_not_conflict(store: Store, open_again: Callable[[], Store]) -> None:
    """Writers whose conditions match none of each other's events do not conflict."""
    other = open_again()
    seen = store.append(Noted()).last
    other.append(deposit("a-1"), unless=about("a-1"), after=seen)
    assert store.append(deposit("a-2"), unless=about("a-2"), after=seen).first == 3


def test_an_event_with_two_tags_of_one_key_is_found_by_each(store: Store) -> None:
    """An event may have several tags of one key, and conditions on each of them match it."""
    store.append(Moved("a-1", "a-2", deposit().amount))
    for account in ("a-1", "a-2"):
        with pytest.raises(ef.AppendConflict):
            store.append(deposit(), unless=about(account))
    store.append(deposit(), unless=about("a-3"))


def test_a_condition_sees_an_event_far_before_the_head(store: Store) -> None:
    """A condition is checked over its whole range, however long it is and however many other events are in it."""
    store.append(Opened("a-9", "zoe"))
    store.extend(deposits(2_500))
    with pytest.raises(ef.AppendConflict) as refused:
        store.append(deposit(), unless=about("a-9"))
    assert refused.value.fields["found"] == 1
    store.append(deposit(), unless=about("a-9"), after=1)


def test_many_alternatives_are_one_condition(store: Store) -> None:
    """A condition may have a hundred alternatives; a conflict with any of them refuses the append."""
    store.append(deposit("a-99"))
    many = Query.any_of(Item((), (f"account:a-{n}",)) for n in range(100))
    with pytest.raises(ef.AppendConflict) as refused:
        store.append(deposit(), unless=many)
    assert len(str(refused.value)) < 500
    assert store.append(deposit(), unless=many, after=1).first == 2


def test_a_class_matches_all_its_names(store: Store) -> None:
    """A condition by class also matches events that are stored under older names of the class."""

    class Older(ef.Event, type="conformance.older-name"):
        account: ef.Tag

    class Newer(ef.Event, type="conformance.newer-name", aliases=("conformance.older-name",)):
        account: ef.Tag

    store.append(Older("a-1"))
    with pytest.raises(ef.AppendConflict):
        store.append(Newer("a-1"), unless=Query.of(types=Newer))


@pytest.mark.parametrize("after", [4, 1_000_000])
def test_a_condition_beyond_the_head_is_refused(store: Store, after: int) -> None:
    """A condition with a position beyond the head is InvalidQuery."""
    store.append(*deposits(3))
    for unless in (about("a-1"), about("unused"), [(about("a-1"), 3), (about("x"), after)]):
        with pytest.raises(InvalidQuery):
            given: dict[str, Any] = {} if isinstance(unless, list) else {"after": after}
            store.append(deposit(), unless=unless, **given)
    assert store.head() == 3


def test_a_position_before_the_first_is_refused(store: Store) -> None:
    """A negative position is InvalidQuery, in a condition as elsewhere."""
    for unless, after in ((about("a-1"), -1), ([(about("a-1"), -1)], 0)):
        with pytest.raises(InvalidQuery):
            store.append(deposit(), unless=unless, after=after)
    assert store.head() == 0


def test_a_position_without_a_condition_is_refused(store: Store) -> None:
    """`after` without a condition is InvalidQuery: it is the position up to which a condition was read."""
    store.append(deposit())
    with pytest.raises(InvalidQuery):
        store.append(deposit(), after=1)
    with pytest.raises(InvalidQuery):
        store.append(deposit(), unless=[(about("a-1"), 1)], after=1)
    assert store.head() == 1


def test_a_condition_may_start_at_a_cursor(store: Store) -> None:
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


def test_a_conflict_names_its_clause(store: Store, port: Any) -> None:
    """The error has the number and query of the first clause with a conflict, and the conflicting event's position.

    So for an append by itself, for one of several in a commit, and for a decision, where it is the number of the State.
    """
    store.append(deposit("a-1"), deposit("a-2"), deposit("a-3"), deposit("a-2"))
    unless = [(about("a-1"), 1), (about("unused"), 0), (about("a-2"), 2), (about("a-3"), 0)]
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


def test_a_conflict_of_a_decision_names_the_state(faults: Any, engine_under_test: Any) -> None:
    """If other writers conflict with every attempt of a decision, the error has the number of the conflicting State."""
    store, planned = faults()
    rival = engine_under_test.rival()
    planned.before(lambda: rival.append(deposit("a-2")))
    with pytest.raises(ef.AppendConflict) as refused:
        store.using(attempts=1).decide(deposit_to, Account("a-1"), Account("a-2"))
    assert (refused.value.fields["clause"], refused.value.fields["found"]) == (1, 1)
    assert refused.value.fields["query"] == repr(Account("a-2").query())


def test_an_empty_condition_is_refused(store: Store) -> None:
    """`unless=[]` and a query of no items are InvalidQuery: they would forbid nothing, or match everything."""
    nothing: list[Any] = [[], (), iter(())]
    for unless in nothing:
        with pytest.raises(InvalidQuery):
            store.append(deposit(), unless=unless)
    with pytest.raises(InvalidQuery):
        Query.any_of([])
    with pytest.raises(InvalidInput), store.lock():
        pass
    assert store.head() == 0


def test_a_malformed_condition_is_refused(store: Store) -> None:
    """Queries without positions, a single pair, a number: InvalidQuery, which explains the form of a condition."""
    strange: list[Any] = [[about("a-1")], [(about("a-1"), 0, 0)], (about("a-1"), 0), 5]
    for unless in strange:
        with pytest.raises(InvalidQuery, match="pairs of"):
            store.append(deposit(), unless=unless)
