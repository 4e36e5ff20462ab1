"""The ready properties hold for the bank under Hypothesis, and each notices the fault it is there for."""

from __future__ import annotations

import random
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import hypothesis
import pytest

import eventfold as ef
from eventfold import testing
from eventfold.errors import InvalidEvent
from eventfold.processes import decide
from eventfold.testing import properties
from eventfold.testing.strategies import event_of, events_of
from tests.testing.bank import Account, Deposited, Withdrawn, transfer

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


@QUICK
@hypothesis.given(events_of(Deposited, Withdrawn, account="a"))
def test_a_fold_goes_on_from_any_snapshot(events: list[ef.Event]) -> None:
    """Snapshot equals replay."""
    properties.snapshot_equals_replay(Account("a"), events)


class Forgetful(ef.State):
    """Folds by something that no snapshot holds."""

    account: ef.Tag
    total: Decimal = Decimal(0)

    def evolve(self, event: Deposited) -> None:
        """The steps are numbered outside of the fields."""
        steps[self.account] = 1 if self.total == 0 else steps[self.account] + 1
        self.total += event.amount * steps[self.account]


class Untold(ef.State):
    """Keeps what has no JSON form of its own."""

    account: ef.Tag
    last: Any = None

    def evolve(self, event: Deposited) -> None:
        """A tuple that comes back as a list."""
        self.last = (event.amount,)


steps: dict[str, int] = {}


def test_a_fold_that_a_snapshot_does_not_hold_is_noticed() -> None:
    """By where it was kept, and by what could not be kept."""
    past = [Deposited("a", Decimal(n)) for n in (1, 2, 3)]
    with pytest.raises(AssertionError, match=r"from the snapshot after \d events"):
        properties.snapshot_equals_replay(Forgetful("a"), past)
    with pytest.raises(AssertionError, match="after 1 events this state is not equal"):
        properties.snapshot_equals_replay(Untold("a"), past)
    with pytest.raises(AssertionError, match="after a snapshot"):
        properties.state_survives_storage(Untold("a", ("x",)))


class Loose(ef.Event, type="kit-loose"):
    """Has a field that takes anything."""

    key: ef.Tag
    what: Any = None


def test_an_event_that_does_not_come_back_is_noticed() -> None:
    """It is refused where it is stored."""
    with pytest.raises(InvalidEvent, match="would come back from the log changed: field what"):
        properties.events_come_back([Loose("a", (1,))])


def test_a_process_that_asks_for_something_else_each_time_is_noticed() -> None:
    """Reacting again must ask for the same."""
    more = iter(range(1, 9))

    class Growing(ef.Process, start="beginning", name="kit_growing"):
        account: ef.Tag

        def evolve(self, event: Deposited) -> None: ...

        def react(self, event: Deposited) -> Any:
            return [x for n in range(next(more)) for x in (Loose(self.account, n), decide(idle, Account(self.account)))]

    with pytest.raises(AssertionError, match="reacted twice"):
        properties.process_takes_repeats(Growing, [Deposited("a", Decimal(1))])


def idle(account: Account) -> list[ef.Event]:
    """Decides nothing."""
    return []


class PriceOf(ef.Event, type="kit-price-in-euros"):
    """Of an earlier year."""

    item: ef.Tag
    euros: int


class PriceNow(ef.Event, type="kit-price-in-cents"):
    """Of today."""

    item: ef.Tag
    cents: int
    note: Any = None


@ef.upcast
def euros_are_cents(old: PriceOf) -> PriceNow:
    """With a fault for one kind of item."""
    return PriceNow(old.item, old.euros * 100, note=(1,) if old.item == "odd" else None)


@QUICK
@hypothesis.given(event_of(PriceOf, item="tea"))
def test_an_upcaster_makes_events_that_can_be_stored(old: PriceOf) -> None:
    """Upcaster round trip."""
    properties.upcasts_round_trip([old])


def test_an_upcaster_that_makes_what_cannot_be_stored_is_noticed() -> None:
    """Today's event would come back changed."""
    with pytest.raises(InvalidEvent, match="would come back from the log changed: field note"):
        properties.upcasts_round_trip([PriceOf("odd", 1)])


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


class LastSeen(ef.State):
    """A state that is folded from envelopes."""

    account: ef.Tag
    moments: list[datetime] = []
    positions: list[int] = []

    def evolve(self, event: Deposited, recorded: ef.Recorded) -> None:
        """Keep where and when."""
        self.moments.append(recorded.time)
        self.positions.append(recorded.position)


def test_states_that_ask_for_the_envelope_have_the_properties_too() -> None:
    """Replayed, caught up, from a snapshot, and in a scenario, they see one and the same envelope."""
    past = [Deposited("a-1", Decimal(n)) for n in (1, 2, 3)]
    properties.replay_equals_incremental(LastSeen("a-1"), past)
    properties.snapshot_equals_replay(LastSeen("a-1"), past)
    scenario = testing.given(*past)
    after = scenario.when(lambda seen: [Deposited(seen.account, Decimal(9))], LastSeen("a-1"))
    after.state(LastSeen("a-1")).has(positions=[1, 2, 3, 4], moments=[scenario.clock.now] * 4)
