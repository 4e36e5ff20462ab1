"""A condition may start after an event whose position is not known yet, because it is still being written."""

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


def built(store: Store, *events: Any, on: AppendRequest | bytes, asking: Query, after: int = 0) -> AppendRequest:
    """A request whose condition begins behind the last event of another."""
    behind = on if isinstance(on, bytes) else on.events[-1].id
    return AppendRequest(tuple(map(store.registry.encode, events)), (ConditionClause(asking, after, behind),))


def plain(store: Store, *events: Any, unless: Query | None = None) -> AppendRequest:
    """A request, perhaps under a condition."""
    clauses = () if unless is None else (ConditionClause(unless, 0),)
    return AppendRequest(tuple(map(store.registry.encode, events)), clauses)


def test_a_request_may_be_built_on_one_before_it_in_the_call(store: Store, port: Any) -> None:
    """What an earlier request of the call wrote, up to the event named, is no conflict; three deep as one."""
    first = plain(store, deposit("a-1", 1), deposit("a-1", 2), unless=about("a-1"))
    second = built(store, deposit("a-1", 3), on=first, asking=about("a-1"))
    third = built(store, deposit("a-1", 4), on=second, asking=about("a-1"))
    outcomes = port.append_many([plain(store, deposit("b-1")), first, plain(store, deposit("b-2")), second, third])
    assert [(o.first, o.last) for o in outcomes] == [(1, 1), (2, 3), (4, 4), (5, 5), (6, 6)]
    assert amounts(store.read(about("a-1"))) == [1, 2, 3, 4]


def test_what_stands_between_is_a_conflict(store: Store, port: Any) -> None:
    """A matching event after the named one refuses the request, and all requests that depend on it."""
    first = plain(store, deposit("a-1", 1), unless=about("a-1"))
    second = built(store, deposit("a-1", 3), on=first, asking=about("a-1"))
    third = built(store, deposit("a-1", 4), on=second, asking=about("a-1"))
    outcomes = port.append_many([first, plain(store, deposit("a-1", 2)), second, third])
    assert [type(o) for o in outcomes] == [Receipt, Receipt, AppendConflict, AppendConflict]
    assert outcomes[2].fields["found"] == 2
    assert amounts(store.read()) == [1, 2]


def test_nothing_is_built_on_what_was_refused(store: Store, port: Any) -> None:
    """A request built on a refused one is refused, though nothing that matches was written."""
    store.append(deposit("a-1", 1))
    first = plain(store, deposit("b-1", 2), unless=about("a-1"))
    second = built(store, deposit("b-1", 3), on=first, asking=about("b-1"), after=1)
    other = plain(store, deposit("c-1", 4))
    outcomes = port.append_many([first, second, other])
    assert [type(o) for o in outcomes] == [AppendConflict, AppendConflict, Receipt]
    assert "was refused itself" in str(outcomes[1])
    assert outcomes[2].first == 2


def test_an_event_that_stands_in_the_log_already_will_do(store: Store, port: Any) -> None:
    """The named event may have been written by an earlier call or another writer; positions before it do not count."""
    receipt = store.append(deposit("a-1", 1), deposit("a-1", 2))
    (built_on_last,) = port.append_many([built(store, deposit("a-1", 3), on=receipt.ids[1], asking=about("a-1"))])
    assert built_on_last.first == 3
    (built_on_first,) = port.append_many([built(store, deposit("a-1", 4), on=receipt.ids[0], asking=about("a-1"))])
    assert isinstance(built_on_first, AppendConflict)
    assert built_on_first.fields["found"] == 2


def test_a_chain_goes_on_from_call_to_call(store: Store, port: Any) -> None:
    """The start of a chain may have been written by an earlier call, whatever `after` its conditions carry along."""
    store.append(deposit("a-1", 0))
    chain = [AppendRequest((store.registry.encode(deposit("a-1", 1)),), (ConditionClause(about("a-1"), 1),))]
    for amount in range(2, 9):
        chain.append(built(store, deposit("a-1", amount), on=chain[-1], asking=about("a-1"), after=1))
    outcomes = [*port.append_many(chain[:3]), *port.append_many(chain[3:4]), *port.append_many(chain[4:])]
    assert [o.first for o in outcomes] == [2, 3, 4, 5, 6, 7, 8, 9]
    assert amounts(store.read(about("a-1"))) == list(range(9))


def test_an_unknown_event_is_a_refusal(store: Store, port: Any) -> None:
    """Where the event named is nowhere, nothing is written."""
    (outcome,) = port.append_many([built(store, deposit("a-1"), on=new_id(), asking=about("a-1"))])
    assert isinstance(outcome, ef.AppendConflict)
    assert store.head() == 0


def test_a_repeated_request_gets_its_receipt(store: Store, port: Any) -> None:
    """The very same request again reports the first receipt, as any other does."""
    first = plain(store, deposit("a-1", 1), unless=about("a-1"))
    second = built(store, deposit("a-1", 2), on=first, asking=about("a-1"))
    once = port.append_many([first, second])
    again = port.append_many([first, second])
    assert [(o.first, o.repeated) for o in (*once, *again)] == [(1, False), (2, False), (1, True), (2, True)]


@pytest.mark.parametrize("seed", range(6))
def test_it_is_so_in_any_order(store: Store, port: Any, seed: int) -> None:
    """Whatever is built on whatever, in whichever call: the outcome is the one the definition gives."""
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
                behind = chance.choice(known).id if known and chance.random() < 0.8 else None
                clauses.append(
                    ConditionClause(about(chance.choice("ab")), max(0, len(log) - chance.randint(0, 3)), behind)
                )
            call.append(AppendRequest(tuple(store.registry.encode(deposit(name)) for name in names), tuple(clauses)))
            asked.append(call[-1])
        found = [outcome.first if isinstance(outcome, Receipt) else None for outcome in port.append_many(call)]
        assert found == [_expected(log, request) for request in call]
    assert store.head() == len(log)


def _expected(log: list[tuple[bytes, str]], request: AppendRequest) -> int | None:
    """The definition, over a list of ids and tags; writes what holds."""
    for clause in request.unless:
        at = next((n for n, (identity, _) in enumerate(log, 1) if identity == clause.after_event), None)
        if clause.after_event is not None and at is None:
            return None
        tag = clause.query.items[0].tags[0]
        if any(there == tag for _, there in log[max(clause.after, at or 0) :]):
            return None
    log += [(event.id, event.tags[0]) for event in request.events]
    return len(log) - len(request.events) + 1


def _told(outcomes: list[Any]) -> list[Any]:
    """Outcomes for a comparison: where the events stand and whether they were repeated, or the error's class."""
    return [(o.first, o.repeated) if isinstance(o, Receipt) else type(o) for o in outcomes]


def test_an_event_that_is_repeated_in_the_call_is_in_the_log(store: Store, port: Any) -> None:
    """A request may begin behind an event that the same call repeats, before or after it: that event is in the log."""
    first = plain(store, deposit("a-1", 1))
    port.append_many([first])
    second, third = (built(store, deposit("a-1", n), on=first, asking=about("b-1")) for n in (2, 3))
    assert _told(port.append_many([first, second])) == [(1, True), (2, False)]
    assert _told(port.append_many([third, first])) == [(3, False), (1, True)]


def test_an_event_that_the_call_writes_and_repeats_will_do(store: Store, port: Any) -> None:
    """Written, repeated, and built upon in one call: as if each were a call of its own."""
    first = plain(store, deposit("a-1", 1), unless=about("a-1"))
    second = built(store, deposit("a-1", 2), on=first, asking=about("a-1"))
    third = built(store, deposit("a-1", 3), on=second, asking=about("a-1"))
    outcomes = port.append_many([first, first, second, first, third, second])
    assert _told(outcomes) == [(1, False), (1, True), (2, False), (1, True), (3, False), (2, True)]


def test_an_id_reused_with_other_content_keeps_its_position(store: Store, port: Any) -> None:
    """A request with a known id and other content is refused; what begins behind the event of that id is written."""
    first = plain(store, deposit("a-1", 1))
    other = AppendRequest((msgspec.structs.replace(first.events[0], data=b'{"amount":"9"}'),))
    second = built(store, deposit("a-1", 2), on=first, asking=about("a-1"))
    assert _told(port.append_many([first, other, second])) == [(1, False), EventIdReused, (2, False)]


def test_what_stands_behind_a_repeated_event_is_a_conflict(store: Store, port: Any) -> None:
    """A matching event in the log after the repeated one refuses, and the error has its position."""
    first = plain(store, deposit("a-1", 1))
    port.append_many([first])
    store.append(deposit("b-1", 2))
    store.append(deposit("a-1", 3))
    second = built(store, deposit("a-1", 4), on=first, asking=about("a-1"))
    third = built(store, deposit("b-1", 5), on=second, asking=about("c-1"))
    outcomes = port.append_many([first, second, third])
    assert _told(outcomes) == [(1, True), AppendConflict, AppendConflict]
    assert (outcomes[1].fields["after"], outcomes[1].fields["found"]) == (0, 3)
    assert store.head() == 3


def test_a_key_that_is_known_repeats_whatever_it_is_built_on(store: Store, port: Any) -> None:
    """A known request key is a repeat, though what the request would be built on is nowhere."""
    first = plain(store, deposit("a-1", 1))
    keyed = AppendRequest(first.events, (), "k-1")
    port.append_many([keyed])
    again = AppendRequest(
        (store.registry.encode(deposit("a-1", 2)),), (ConditionClause(about("a-1"), 0, new_id()),), "k-1"
    )
    second = built(store, deposit("a-1", 3), on=first, asking=about("a-1"))
    assert _told(port.append_many([again, second])) == [(1, True), (2, False)]


def test_a_position_beyond_the_head_is_told_before_an_event_that_is_nowhere(store: Store, port: Any) -> None:
    """A condition that looked further than the log reaches is a mistake, whatever else does not hold of it."""
    (outcome,) = port.append_many([built(store, deposit("a-1"), on=new_id(), asking=about("a-1"), after=1_000)])
    assert isinstance(outcome, InvalidQuery)


def test_a_chain_may_have_looked_long_ago(store: Store, port: Any) -> None:
    """A request built on one of the same call is judged, however far behind the head its condition begins."""
    store.append(deposit("a-1", 0))
    store.extend(deposit("b-1", n) for n in range(1_200))
    first = plain(store, deposit("c-1", 1))
    second = built(store, deposit("a-1", 2), on=first, asking=about("a-1"), after=1)
    refused = plain(store, deposit("c-1", 3), unless=about("a-1"))
    third = built(store, deposit("a-1", 4), on=refused, asking=about("a-1"), after=1)
    assert _told(port.append_many([first, second])) == [(1_202, False), (1_203, False)]
    assert _told(port.append_many([refused, third])) == [AppendConflict, AppendConflict]
    assert _told(port.append_many([third])) == [AppendConflict]
