"""A condition may start after an event by its id, whose position is not known while it is being written."""

# Mistakes are made here on purpose.
# pyright: basic

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
import pytest

import eventfold as ef
from eventfold.core.envelope import Receipt, new_id
from eventfold.core.query import ConditionClause, Query
from eventfold.errors import AppendConflict, EventIdReused, InvalidQuery
from eventfold.ports.messages import AppendRequest
from eventfold.store import Store
from eventfold.testing.conformance.events import about, amounts, deposit


def dependent(store: Store, *events: Any, on: AppendRequest | bytes, query: Query, after: int = 0) -> AppendRequest:
    """A request whose condition starts after the last event of another request, or after the event of an id."""
    after_event = on if isinstance(on, bytes) else on.events[-1].id
    return AppendRequest(tuple(map(store.registry.encode, events)), (ConditionClause(query, after, after_event),))


def request(store: Store, *events: Any, unless: Query | None = None) -> AppendRequest:
    """A request, with a condition or without."""
    clauses = () if unless is None else (ConditionClause(unless, 0),)
    return AppendRequest(tuple(map(store.registry.encode, events)), clauses)


def test_a_condition_may_start_after_an_event_of_an_earlier_request(store: Store, port: Any) -> None:
    """Matching events up to the named event of an earlier request do not conflict, in a chain of three requests too."""
    first = request(store, deposit("a-1", 1), deposit("a-1", 2), unless=about("a-1"))
    second = dependent(store, deposit("a-1", 3), on=first, query=about("a-1"))
    third = dependent(store, deposit("a-1", 4), on=second, query=about("a-1"))
    outcomes = port.append_many([request(store, deposit("b-1")), first, request(store, deposit("b-2")), second, third])
    assert [(o.first, o.last) for o in outcomes] == [(1, 1), (2, 3), (4, 4), (5, 5), (6, 6)]
    assert amounts(store.read(about("a-1"))) == [1, 2, 3, 4]


def test_a_matching_event_after_the_named_one_is_a_conflict(store: Store, port: Any) -> None:
    """A matching event after the named one refuses the request, and all requests that depend on it."""
    first = request(store, deposit("a-1", 1), unless=about("a-1"))
    second = dependent(store, deposit("a-1", 3), on=first, query=about("a-1"))
    third = dependent(store, deposit("a-1", 4), on=second, query=about("a-1"))
    outcomes = port.append_many([first, request(store, deposit("a-1", 2)), second, third])
    assert [type(o) for o in outcomes] == [Receipt, Receipt, AppendConflict, AppendConflict]
    assert outcomes[2].fields["found"] == 2
    assert amounts(store.read()) == [1, 2]


def test_a_request_that_depends_on_a_refused_one_is_refused(store: Store, port: Any) -> None:
    """A request after an event of a refused request is refused, even if no matching event was written."""
    store.append(deposit("a-1", 1))
    first = request(store, deposit("b-1", 2), unless=about("a-1"))
    second = dependent(store, deposit("b-1", 3), on=first, query=about("b-1"), after=1)
    other = request(store, deposit("c-1", 4))
    outcomes = port.append_many([first, second, other])
    assert [type(o) for o in outcomes] == [AppendConflict, AppendConflict, Receipt]
    assert "was refused itself" in str(outcomes[1])
    assert outcomes[2].first == 2


def test_a_condition_may_start_after_a_stored_event(store: Store, port: Any) -> None:
    """The named event may have been written by an earlier call or another writer; events up to it do not conflict."""
    receipt = store.append(deposit("a-1", 1), deposit("a-1", 2))
    (after_last,) = port.append_many([dependent(store, deposit("a-1", 3), on=receipt.ids[1], query=about("a-1"))])
    assert after_last.first == 3
    (after_first,) = port.append_many([dependent(store, deposit("a-1", 4), on=receipt.ids[0], query=about("a-1"))])
    assert isinstance(after_first, AppendConflict)
    assert after_first.fields["found"] == 2


def test_dependent_requests_may_be_in_several_calls(store: Store, port: Any) -> None:
    """The named event may have been written by an earlier call, whatever `after` of the condition is."""
    store.append(deposit("a-1", 0))
    chain = [AppendRequest((store.registry.encode(deposit("a-1", 1)),), (ConditionClause(about("a-1"), 1),))]
    for amount in range(2, 9):
        chain.append(dependent(store, deposit("a-1", amount), on=chain[-1], query=about("a-1"), after=1))
    outcomes = [*port.append_many(chain[:3]), *port.append_many(chain[3:4]), *port.append_many(chain[4:])]
    assert [o.first for o in outcomes] == [2, 3, 4, 5, 6, 7, 8, 9]
    assert amounts(store.read(about("a-1"))) == list(range(9))


def test_a_condition_after_an_unknown_event_is_refused(store: Store, port: Any) -> None:
    """If the named event does not exist, nothing is written: AppendConflict."""
    (outcome,) = port.append_many([dependent(store, deposit("a-1"), on=new_id(), query=about("a-1"))])
    assert isinstance(outcome, ef.AppendConflict)
    assert store.head() == 0


def test_a_repeated_dependent_request_gets_its_receipt(store: Store, port: Any) -> None:
    """Repeating the identical request returns the first receipt, as for any other request."""
    first = request(store, deposit("a-1", 1), unless=about("a-1"))
    second = dependent(store, deposit("a-1", 2), on=first, query=about("a-1"))
    once = port.append_many([first, second])
    again = port.append_many([first, second])
    assert [(o.first, o.repeated) for o in (*once, *again)] == [(1, False), (2, False), (1, True), (2, True)]


@pytest.mark.parametrize("seed", range(6))
def test_random_requests_match_the_definition(store: Store, port: Any, seed: int) -> None:
    """For random requests in random calls the outcomes are those of the definition."""
    chance = Random(seed)  # noqa: S311
    log: list[tuple[bytes, str]] = []
    asked: list[AppendRequest] = []
    for _ in range(25):
        call: list[AppendRequest] = []
        for _ in range(chance.randint(1, 5)):
            names = [chance.choice("ab") for _ in range(chance.randint(1, 3))]
            clauses: list[ConditionClause] = []
            for _ in range(chance.randint(0, 2)):
                known = chance.choice(asked[-6:]).events if asked else ()
                after_event = chance.choice(known).id if known and chance.random() < 0.8 else None
                clauses.append(
                    ConditionClause(about(chance.choice("ab")), max(0, len(log) - chance.randint(0, 3)), after_event)
                )
            call.append(AppendRequest(tuple(store.registry.encode(deposit(name)) for name in names), tuple(clauses)))
            asked.append(call[-1])
        found = [outcome.first if isinstance(outcome, Receipt) else None for outcome in port.append_many(call)]
        assert found == [_expected(log, request) for request in call]
    assert store.head() == len(log)


def _expected(log: list[tuple[bytes, str]], request: AppendRequest) -> int | None:
    """The outcome by the definition, over a list of (id, tag); adds the events of an accepted request to the list."""
    for clause in request.unless:
        at = next((n for n, (identity, _) in enumerate(log, 1) if identity == clause.after_event), None)
        if clause.after_event is not None and at is None:
            return None
        tag = clause.query.items[0].tags[0]
        if any(there == tag for _, there in log[max(clause.after, at or 0) :]):
            return None
    log += [(event.id, event.tags[0]) for event in request.events]
    return len(log) - len(request.events) + 1


def _summarize(outcomes: list[Any]) -> list[Any]:
    """Each outcome as (first position, repeated), or the class of the error."""
    return [(o.first, o.repeated) if isinstance(o, Receipt) else type(o) for o in outcomes]


def test_a_condition_may_start_after_a_repeated_event(store: Store, port: Any) -> None:
    """The named event may be repeated by the same call, before or after the dependent request: it is in the log."""
    first = request(store, deposit("a-1", 1))
    port.append_many([first])
    second, third = (dependent(store, deposit("a-1", n), on=first, query=about("b-1")) for n in (2, 3))
    assert _summarize(port.append_many([first, second])) == [(1, True), (2, False)]
    assert _summarize(port.append_many([third, first])) == [(3, False), (1, True)]


def test_a_condition_may_start_after_an_event_written_and_repeated(store: Store, port: Any) -> None:
    """Written, repeated and named by a condition in one call: the outcomes are as if each request were a call."""
    first = request(store, deposit("a-1", 1), unless=about("a-1"))
    second = dependent(store, deposit("a-1", 2), on=first, query=about("a-1"))
    third = dependent(store, deposit("a-1", 3), on=second, query=about("a-1"))
    outcomes = port.append_many([first, first, second, first, third, second])
    assert _summarize(outcomes) == [(1, False), (1, True), (2, False), (1, True), (3, False), (2, True)]


def test_an_id_reused_with_other_content_keeps_its_position(store: Store, port: Any) -> None:
    """A request with a known id and other content is refused; a request after the event of that id is written."""
    first = request(store, deposit("a-1", 1))
    other = AppendRequest((msgspec.structs.replace(first.events[0], data=b'{"amount":"9"}'),))
    second = dependent(store, deposit("a-1", 2), on=first, query=about("a-1"))
    assert _summarize(port.append_many([first, other, second])) == [(1, False), EventIdReused, (2, False)]


def test_a_matching_event_after_a_repeated_one_is_a_conflict(store: Store, port: Any) -> None:
    """A matching event in the log after the repeated one is a conflict, and the error has its position."""
    first = request(store, deposit("a-1", 1))
    port.append_many([first])
    store.append(deposit("b-1", 2))
    store.append(deposit("a-1", 3))
    second = dependent(store, deposit("a-1", 4), on=first, query=about("a-1"))
    third = dependent(store, deposit("b-1", 5), on=second, query=about("c-1"))
    outcomes = port.append_many([first, second, third])
    assert _summarize(outcomes) == [(1, True), AppendConflict, AppendConflict]
    assert (outcomes[1].fields["after"], outcomes[1].fields["found"]) == (0, 3)
    assert store.head() == 3


def test_a_known_key_is_a_repeat_whatever_the_condition(store: Store, port: Any) -> None:
    """A known request key makes a request a repeat, even if its condition names an unknown event."""
    first = request(store, deposit("a-1", 1))
    keyed = AppendRequest(first.events, (), "k-1")
    port.append_many([keyed])
    again = AppendRequest(
        (store.registry.encode(deposit("a-1", 2)),), (ConditionClause(about("a-1"), 0, new_id()),), "k-1"
    )
    second = dependent(store, deposit("a-1", 3), on=first, query=about("a-1"))
    assert _summarize(port.append_many([again, second])) == [(1, True), (2, False)]


def test_a_position_beyond_the_head_is_reported_before_an_unknown_event(store: Store, port: Any) -> None:
    """A condition with a position beyond the head is InvalidQuery, whatever else is wrong with it."""
    (outcome,) = port.append_many([dependent(store, deposit("a-1"), on=new_id(), query=about("a-1"), after=1_000)])
    assert isinstance(outcome, InvalidQuery)


def test_a_dependent_request_may_have_an_old_position(store: Store, port: Any) -> None:
    """A dependent request is decided by its call, however far `after` of its condition is before the head."""
    store.append(deposit("a-1", 0))
    store.extend(deposit("b-1", n) for n in range(1_200))
    first = request(store, deposit("c-1", 1))
    second = dependent(store, deposit("a-1", 2), on=first, query=about("a-1"), after=1)
    refused = request(store, deposit("c-1", 3), unless=about("a-1"))
    third = dependent(store, deposit("a-1", 4), on=refused, query=about("a-1"), after=1)
    assert _summarize(port.append_many([first, second])) == [(1_202, False), (1_203, False)]
    assert _summarize(port.append_many([refused, third])) == [AppendConflict, AppendConflict]
    assert _summarize(port.append_many([third])) == [AppendConflict]
