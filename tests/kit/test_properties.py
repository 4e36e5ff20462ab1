"""The ready properties hold for the bank under Hypothesis, and each notices the fault it is there for."""

from __future__ import annotations

import random
from datetime import datetime
from decimal import Decimal
from enum import Enum
from uuid import UUID

import hypothesis
import pytest

import eventfold as ef
from eventfold.testing import properties
from eventfold.testing.strategies import event_of, events_of
from tests.kit.bank import Account, Deposited, Withdrawn, transfer

QUICK = hypothesis.settings(max_examples=25, deadline=None)


class Colour(Enum):
    """An enum whose values are what is stored."""

    RED = "red"
    BLUE = "blue"


class Everything(ef.Event, type="kit-everything"):
    """A field of every kind."""

    key: ef.Tag[UUID]
    colour: Colour
    when: datetime
    price: Decimal
    ratio: float
    names: tuple[str, ...]
    seen: frozenset[int]
    by_name: dict[str, list[int]]
    note: str | None = None


@QUICK
@hypothesis.given(events_of(Deposited, Withdrawn, account="a"))
def test_a_sound_fold_is_the_same_however_it_is_reached(events: list[ef.Event]) -> None:
    """Replay equals incremental."""
    properties.replay_equals_incremental(Account("a"), events)


@QUICK
@hypothesis.given(event_of(Everything))
def test_events_of_every_kind_of_field_come_back(event: Everything) -> None:
    """What strategies make, the log keeps exactly."""
    properties.events_come_back([event])


@QUICK
@hypothesis.given(events_of(Deposited, Withdrawn, account="a"))
def test_a_state_survives_being_kept(events: list[ef.Event]) -> None:
    """A snapshot of any state is the state."""
    store = ef.Store("memory:")
    store.extend(events)
    properties.state_survives_storage(store.state(Account("a")))


def test_a_decision_that_draws_lots_is_noticed() -> None:
    """Deciding is deterministic, or the property says so."""
    properties.decision_is_deterministic(transfer, [Deposited("a", Decimal(9))], Account("a"), Account("b"), Decimal(1))

    def lottery(account: Account) -> list[ef.Event]:
        return [Deposited(account.account, Decimal(random.getrandbits(60)))]

    with pytest.raises(AssertionError, match="these differ"):
        properties.decision_is_deterministic(lottery, [], Account("a"))


def test_a_fold_that_keeps_secrets_outside_itself_is_noticed() -> None:
    """A fold with a memory of its own does not replay."""
    counter = iter(range(1_000))

    class Leaky(ef.State):
        account: ef.Tag
        last: int = 0

        def evolve(self, event: Deposited) -> None:
            self.last = next(counter)

    with pytest.raises(AssertionError, match="these differ"):
        properties.replay_equals_incremental(Leaky("a"), [Deposited("a", Decimal(1))])


def test_an_upcaster_is_held_to_its_word() -> None:
    """An old event is read as what is expected, or the difference is shown."""

    class Old(ef.Event, type="kit-priced"):
        item: ef.Tag

    class New(ef.Event, type="kit-priced", version=2):
        item: ef.Tag
        currency: str

    def step(old: Old) -> New:
        return New(old.item, "EUR")

    step.__annotations__ = {"old": Old, "return": New}
    ef.upcast(step)
    properties.upcasts_to(Old("x"), New("x", "EUR"))
    with pytest.raises(AssertionError, match="expected"):
        properties.upcasts_to(Old("x"), New("x", "USD"))
