"""Repeating an append is safe: the same ids with equal content, or the same key, are written once."""

# Mistakes are made here on purpose.
# pyright: basic

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

import eventfold as ef
from eventfold.core.envelope import NewEvent
from eventfold.errors import EventIdReused
from eventfold.store import Store
from eventfold.testing.conformance.events import Account, Deposited, Noted, Withdrawn, about, amounts, deposit, draft

WHEN = datetime(2020, 2, 29, 12, tzinfo=UTC)


def several() -> list[ef.Draft]:
    """Three events with ids of their own, the same in each call."""
    return [
        draft(deposit("a-1", 1), 1, occurred=WHEN, metadata={"actor": "me"}),
        draft(deposit("a-1", 2), 2, tags=("batch:7",)),
        draft(Noted("three"), 3),
    ]


def test_a_repeated_append_is_written_once(store: Store) -> None:
    """The same ids with equal content again return the first receipt, with `repeated` set, and write nothing."""
    first = store.append(*several())
    store.append(deposit("a-2"))
    again = store.append(*several())
    assert (first.repeated, again.repeated) == (False, True)
    assert (again.first, again.last, again.time, again.ids, again.digest) == (
        first.first,
        first.last,
        first.time,
        first.ids,
        first.digest,
    )
    assert store.head() == 4


def test_a_repeat_is_recognised_after_reopening(store: Store, reopen: Callable[[], Store]) -> None:
    """A repeat is recognised however much later it is made."""
    first = store.append(*several())
    again = reopen().append(*several())
    assert (again.first, again.repeated) == (first.first, True)


def test_a_repeat_is_recognised_before_its_condition_is_judged(store: Store) -> None:
    """A repeat returns the first outcome, even if its own events or later ones conflict with its condition now."""
    assert not store.append(*several(), unless=about("a-1")).repeated
    store.append(deposit("a-1"))
    again = store.append(*several(), unless=about("a-1"))
    assert (again.first, again.repeated) == (1, True)
    assert store.append(*several(), unless=about("a-2"), after=4).repeated


def test_a_repeat_may_have_another_condition(store: Store) -> None:
    """A repeat is recognised by its events, not its condition, even if that has a position beyond the head."""
    store.append(*several())
    assert store.append(*several(), unless=about("anyone"), after=1_000).repeated


CHANGES: dict[str, Callable[[], ef.Draft]] = {
    "data": lambda: draft(Deposited("a-1", Decimal(2)), 1, occurred=WHEN, metadata={"actor": "me"}),
    "the way a number is written": lambda: draft(
        Deposited("a-1", Decimal("1.0")), 1, occurred=WHEN, metadata={"actor": "me"}
    ),
    "type": lambda: draft(Withdrawn("a-1", Decimal(1)), 1, occurred=WHEN, metadata={"actor": "me"}),
    "tags": lambda: draft(deposit(), 1, occurred=WHEN, metadata={"actor": "me"}, tags=("more:1",)),
    "occurred": lambda: draft(deposit(), 1, occurred=WHEN.replace(hour=13), metadata={"actor": "me"}),
    "occurred left out": lambda: draft(deposit(), 1, metadata={"actor": "me"}),
    "metadata": lambda: draft(deposit(), 1, occurred=WHEN, metadata={"actor": "you"}),
    "metadata left out": lambda: draft(deposit(), 1, occurred=WHEN),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_known_id_with_other_content_is_refused(store: Store, change: Callable[[], ef.Draft]) -> None:
    """An id that is in the log with other content is EventIdReused, which has the id and its position."""
    store.append(deposit("a-9"))
    store.append(several()[0])
    with pytest.raises(EventIdReused) as refused:
        store.append(change())
    assert refused.value.fields["position"] == 2
    assert UUID(refused.value.fields["id"]) == several()[0].id
    assert store.head() == 2


def test_a_known_id_in_another_version_is_refused(store: Store, port: Any) -> None:
    """The schema version, codec and key id of an event are part of its content."""
    new: NewEvent = store.registry.encode(several()[0])

    def outcome(**change: Any) -> Any:
        from msgspec.structs import replace

        from eventfold.ports.messages import AppendRequest

        return port.append_many([AppendRequest((replace(new, **change),))])[0]

    assert outcome().first == 1
    for change in ({"version": 2}, {"codec": "cbor"}, {"key": "k-1"}):
        assert isinstance(outcome(**change), EventIdReused)
    assert outcome().repeated
    assert store.head() == 1


SELECTIONS: tuple[list[Any], ...] = (
    [0],
    [0, 1],
    [1],
    [1, 2],
    [2, 1, 0],
    [0, 2, 1],
    [0, 2],
    [0, 1, 2, "new"],
    ["new", 0, 1, 2],
    ["new", 1],
    [0, 1, 2, 0],
)


def test_only_the_whole_append_is_a_repeat(store: Store) -> None:
    """Some of the events, additional events, or another order are EventIdReused, and nothing is written."""
    store.append(*several())
    for selection in SELECTIONS:
        events = [deposit("a-5") if which == "new" else several()[which] for which in selection]
        with pytest.raises(EventIdReused):
            store.append(*events)
        assert store.head() == 3, selection


def test_two_appends_are_not_repeated_as_one(store: Store) -> None:
    """Events that two appends wrote are not a repeat of one append, even if they are adjacent."""
    store.append(*several()[:2])
    store.append(several()[2])
    with pytest.raises(EventIdReused):
        store.append(*several())


def test_parts_of_two_appends_are_not_a_repeat(store: Store) -> None:
    """The end of one append with the beginning of the next, of equal length, are not a repeat."""
    store.append(*several()[:2])
    store.append(several()[2], draft(Noted("four"), 4))
    with pytest.raises(EventIdReused):
        store.append(*several()[1:])
    assert store.head() == 4


def test_an_id_may_be_used_once_in_an_append(store: Store) -> None:
    """Two events of one append may not have the same id, even if they are equal."""
    for second in (deposit(amount=2), deposit(amount=1)):
        with pytest.raises(EventIdReused):
            store.append(draft(deposit(amount=1), 1), draft(second, 1))
    assert store.head() == 0


def test_a_reused_id_is_refused_before_a_conflict(store: Store) -> None:
    """A known id with other content is refused whatever the condition is."""
    store.append(*several())
    with pytest.raises(EventIdReused):
        store.append(draft(deposit("a-1", 99), 1), unless=about("a-1"))


def test_equal_events_without_ids_are_different_events(store: Store) -> None:
    """Appending an equal event twice writes two events: only ids and keys identify a repeat."""
    store.append(deposit())
    store.append(deposit())
    assert store.head() == 2


def test_an_append_with_a_key_is_written_once(store: Store) -> None:
    """A second append with a request key writes nothing and returns the first receipt, whatever its events are."""
    first = store.append(deposit(amount=1), deposit(amount=2), key="order-17")
    again = store.append(deposit("a-2", 99), key="order-17")
    assert (again.first, again.last, again.ids, again.repeated) == (1, 2, first.ids, True)
    assert amounts(store.read()) == [1, 2]


def test_a_known_key_is_found_before_its_condition_is_judged(store: Store) -> None:
    """A known key returns the first outcome, even if the condition conflicts now."""
    store.append(deposit(), key="k", unless=about("a-1"))
    assert store.append(deposit(), key="k", unless=about("a-1")).repeated
    assert store.head() == 1


def test_a_receipt_is_found_by_its_key(store: Store, reopen: Callable[[], Store]) -> None:
    """`receipt(key)` returns the receipt of the append with that key, or None, also after reopening."""
    done = store.append(deposit(), deposit(), key="k-1")
    assert store.receipt("k-1") == done
    assert store.receipt("k-2") is None
    again = reopen()
    assert again.receipt("k-1") == done
    assert again.append(deposit(), key="k-1").repeated


def test_a_refused_append_does_not_claim_its_key(store: Store) -> None:
    """A conflict is not remembered under the key: the next append with the key is written."""
    store.append(deposit())
    with pytest.raises(ef.AppendConflict):
        store.append(deposit(), key="k", unless=about("a-1"))
    assert store.receipt("k") is None
    assert store.append(deposit(), key="k").first == 2


def test_a_repeat_by_its_ids_claims_its_key(store: Store, reopen: Callable[[], Store]) -> None:
    """After events were written without a key and repeated with one, a later append with that key is a repeat too."""
    first = store.append(*several())
    store.append(deposit("a-9"))
    assert store.append(*several(), key="k").repeated
    assert store.receipt("k") == first
    for handle in (lambda: store, reopen):
        again = handle().append(deposit("a-2", 99), key="k")
        assert (again.first, again.last, again.repeated) == (1, 3, True)


def test_a_repeat_claims_its_key_before_its_condition_is_judged(store: Store) -> None:
    """A repeat claims its key even if its condition conflicts; an append may have several keys."""
    first = store.append(*several(), key="k-1")
    assert store.append(*several(), key="k-2", unless=about("a-1")).repeated
    assert (store.receipt("k-1"), store.receipt("k-2")) == (first, first)
    assert store.append(deposit("a-2", 99), key="k-2").repeated


def test_a_known_key_has_precedence_over_known_ids(store: Store) -> None:
    """The ids of one append with the key of another return the key's receipt, and the keys stay assigned."""
    store.append(*several(), key="k-1")
    other = store.append(deposit("a-9"), key="k-2")
    again = store.append(*several(), key="k-2")
    assert (again.first, again.ids, again.repeated) == (4, other.ids, True)
    assert (store.receipt("k-2"), store.head()) == (other, 4)


def test_a_reused_id_claims_no_key(store: Store) -> None:
    """A refused append leaves its key free for the next append."""
    store.append(*several())
    with pytest.raises(EventIdReused):
        store.append(several()[0], key="k")
    assert store.receipt("k") is None
    assert store.append(deposit("a-5"), key="k").first == 4


def test_a_repeat_claims_its_key_within_one_commit(store: Store, port: Any) -> None:
    """In one commit: an append, its repeat with a key, and another append with that key."""
    from eventfold.ports.messages import AppendRequest

    first, other, last = (tuple(store.registry.encode(e) for e in each) for each in (several(), [deposit()], [Noted()]))
    outcomes: list[Any] = port.append_many(
        [AppendRequest(first), AppendRequest(first, (), "k"), AppendRequest(other), AppendRequest(last, (), "k")]
    )
    assert [(each.first, each.repeated) for each in outcomes] == [(1, False), (1, True), (4, False), (1, True)]
    again: list[Any] = port.append_many([AppendRequest(other, (), "k-2"), AppendRequest(last)])
    assert [(each.first, each.repeated) for each in again] == [(4, True), (5, False)]
    assert (store.head(), port.receipt_of("k").first, port.receipt_of("k-2").first) == (5, 1, 4)


def test_a_decision_whose_events_were_written_before_claims_its_command_id(store: Store) -> None:
    """Its events are found by their ids: the result is `repeated`, with the states of then, and the id is claimed."""
    made: list[int] = []

    def decided(account: Account) -> ef.Draft:
        made.append(1)
        return draft(deposit("a-1", 10), 1)

    store.append(draft(deposit("a-1", 10), 1))
    store.append(deposit("a-1", 5))
    command = store.using(command_id="c")
    for _ in range(2):
        done = command.decide(decided, Account("a-1"))
        assert (done.repeated, done.positions, done.state(Account("a-1")).balance) == (True, range(1, 2), 10)
    assert (len(made), store.head(), store.state(Account("a-1")).balance) == (1, 2, 15)


def test_keys_are_compared_exactly(store: Store) -> None:
    """Keys are different if any character differs: letters, spaces, accents."""
    keys = ["key", "Key", "key ", "kéy", "ke\u0301y", "key%", "k_y", "日本"]
    for key in keys:
        assert not store.append(deposit(), key=key).repeated
    assert store.head() == len(keys)
    assert all(store.append(deposit(), key=key).repeated for key in keys)


def test_a_command_id_is_a_key(store: Store) -> None:
    """`using(command_id=…)` appends with that key; a key given to `append` itself overrides it."""
    view = store.using(command_id="c-1")
    assert not view.append(deposit()).repeated
    assert view.append(deposit()).repeated
    assert not view.append(deposit(), key="c-2").repeated
    assert store.receipt("c-1") is not None
    assert store.receipt("c-2") is not None
