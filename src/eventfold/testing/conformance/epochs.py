"""A condition that was read in another epoch of the store is refused: history may have been lost in between."""

from __future__ import annotations

from typing import Any

from eventfold.core.envelope import Receipt
from eventfold.core.query import ConditionClause
from eventfold.errors import AppendConflict
from eventfold.ports.messages import AppendRequest
from eventfold.store import Store
from eventfold.testing.conformance.events import about, deposit


def asked(store: Store, account: str, *, epoch: int | None, key: str | None = None) -> AppendRequest:
    """An append for one account, under the condition that nothing of it was written after position 0."""
    return AppendRequest((store.registry.encode(deposit(account)),), (ConditionClause(about(account)),), key, epoch)


def test_a_condition_is_valid_only_in_the_epoch_it_was_read_in(store: Store, port: Any) -> None:
    """In the store's own epoch a condition is checked; one of another epoch is a conflict, whatever it matches."""
    now = store.engine.epoch
    (written,) = port.append_many([asked(store, "a-1", epoch=now)])
    assert isinstance(written, Receipt)
    for other in (now - 1, now + 1):
        (refused,) = port.append_many([asked(store, "a-2", epoch=other)])
        assert isinstance(refused, AppendConflict)
        assert (refused.fields["read_in"], refused.fields["epoch"]) == (other, now)
    assert store.head() == 1


def test_a_condition_of_another_epoch_refuses_its_own_request_only(store: Store, port: Any) -> None:
    """Other requests of the same commit are written, and their conditions are checked against each other."""
    now = store.engine.epoch
    plain = AppendRequest((store.registry.encode(deposit("a-4")),), (), None, now + 1)
    outcomes: list[Any] = port.append_many(
        [
            asked(store, "a-1", epoch=now),
            asked(store, "a-2", epoch=now + 1),
            asked(store, "a-3", epoch=None),
            plain,
            asked(store, "a-1", epoch=now),
        ]
    )
    kinds: list[Any] = [type(outcome) for outcome in outcomes]
    assert kinds == [Receipt, AppendConflict, Receipt, Receipt, AppendConflict]
    assert [outcomes[0].first, outcomes[2].first, outcomes[3].first] == [1, 2, 3]
    assert all(outcome.epoch == now for outcome in outcomes if isinstance(outcome, Receipt))


def test_a_repeat_is_recognised_in_another_epoch(store: Store, port: Any) -> None:
    """A repeat is recognised by its ids and its key before its condition is checked: it was written."""
    now = store.engine.epoch
    first = asked(store, "a-1", epoch=now)
    keyed = asked(store, "a-2", epoch=now, key="k")
    port.append_many([first, keyed])
    again = AppendRequest(first.events, first.unless, None, now + 1)
    under = asked(store, "a-3", epoch=now + 1, key="k")
    (by_ids,) = port.append_many([again])
    (by_key,) = port.append_many([under])
    assert (by_ids.first, by_ids.repeated, by_key.first, by_key.repeated) == (1, True, 2, True)
    assert store.head() == 2


def test_the_epoch_stays_while_nothing_is_lost(store: Store) -> None:
    """Appending and reading do not change the epoch, and a receipt contains it."""
    now = store.engine.epoch
    receipt = store.append(deposit("a-1"), unless=about("a-1"))
    assert list(store.read())
    assert (receipt.epoch, store.engine.epoch) == (now, now)
