"""The properties hold for the bank under Hypothesis, and each rejects the fault that it is for."""

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


class Shade(Enum):
    """An enum, which is stored by its values."""

    SMALL = "small"
    LARGE = "large"


class Everything(ef.Event, type="kit-everything"):
    """An event with a field of every kind."""

    key: ef.Tag[UUID]
    shade: Shade
    when: datetime
    price: Decimal
    ratio: float
    names: tuple[str, ...]
    seen: frozenset[int]
    by_name: dict[str, list[int]]
    note: str | None = None


@QUICK
@hypothesis.given(events_of(Deposited, Withdrawn, account="a"))
def test_a_sound_fold_has_the_property(events: list[ef.Event]) -> None:
    """Replay equals incremental folding."""
    properties.replay_equals_incremental(Account("a"), events)


@QUICK
@hypothesis.given(event_of(Everything))
def test_events_with_every_kind_of_field_are_read_back_equal(event: Everything) -> None:
    """The log stores the values of the strategies exactly."""
    properties.events_come_back([event])


@QUICK
@hypothesis.given(events_of(Deposited, Withdrawn, account="a"))
def test_a_state_survives_storage(events: list[ef.Event]) -> None:
    """A state equals itself after encoding and decoding."""
    store = ef.Store("memory:")
    store.extend(events)
    properties.state_survives_storage(store.state(Account("a")))


@QUICK
@hypothesis.given(events_of(Deposited, Withdrawn, account="a"))
def test_a_fold_continues_from_any_snapshot(events: list[ef.Event]) -> None:
    """A snapshot and the rest equals a replay."""
    properties.snapshot_equals_replay(Account("a"), events)


class Forgetful(ef.State):
    """Folds by a value that is not in a field."""

    account: ef.Tag
    total: Decimal = Decimal(0)

    def evolve(self, event: Deposited) -> None:
        """Count the steps outside of the fields."""
        steps[self.account] = 1 if self.total == 0 else steps[self.account] + 1
        self.total += event.amount * steps[self.account]


class Changing(ef.State):
    """Has a field whose value JSON changes."""

    account: ef.Tag
    last: Any = None

    def evolve(self, event: Deposited) -> None:
        """Set a tuple, which is read back as a list."""
        self.last = (event.amount,)


steps: dict[str, int] = {}


def test_a_fold_that_a_snapshot_cannot_store_is_rejected() -> None:
    """A fold with data outside its fields, and one with a value that JSON changes."""
    past = [Deposited("a", Decimal(n)) for n in (1, 2, 3)]
    with pytest.raises(AssertionError, match=r"from the snapshot after \d events"):
        properties.snapshot_equals_replay(Forgetful("a"), past)
    with pytest.raises(AssertionError, match="after 1 event this state is not equal"):
        properties.snapshot_equals_replay(Changing("a"), past)
    with pytest.raises(AssertionError, match="after a snapshot"):
        properties.state_survives_storage(Changing("a", ("x",)))


class Loose(ef.Event, type="kit-loose"):
    """Has a field of any type."""

    key: ef.Tag
    what: Any = None


def test_an_event_that_is_not_read_back_equal_is_rejected() -> None:
    """It is refused when it is stored."""
    with pytest.raises(InvalidEvent, match="would be read from the log with another value: field what"):
        properties.events_come_back([Loose("a", (1,))])


def test_a_nondeterministic_process_is_rejected() -> None:
    """A second reaction must return the same actions."""
    more = iter(range(1, 9))

    class Growing(ef.Process, start="beginning", name="kit_growing"):
        account: ef.Tag

        def evolve(self, event: Deposited) -> None: ...

        def react(self, event: Deposited) -> Any:
            return [x for n in range(next(more)) for x in (Loose(self.account, n), decide(idle, Account(self.account)))]

    with pytest.raises(AssertionError, match="reacted twice"):
        properties.process_takes_repeats(Growing, [Deposited("a", Decimal(1))])


def idle(account: Account) -> list[ef.Event]:
    """A decision without events."""
    return []


class PriceOf(ef.Event, type="kit-price-in-euros"):
    """An old event class."""

    item: ef.Tag
    euros: int


class PriceNow(ef.Event, type="kit-price-in-cents"):
    """A current event class."""

    item: ef.Tag
    cents: int
    note: Any = None


@ef.upcast
def euros_are_cents(old: PriceOf) -> PriceNow:
    """An upcaster that is wrong for one kind of item."""
    return PriceNow(old.item, old.euros * 100, note=(1,) if old.item == "odd" else None)


@QUICK
@hypothesis.given(event_of(PriceOf, item="tea"))
def test_an_upcaster_makes_events_that_can_be_stored(old: PriceOf) -> None:
    """Its events are read back equal after they are stored."""
    properties.upcasts_round_trip([old])


def test_an_upcaster_whose_events_cannot_be_stored_is_rejected() -> None:
    """The current event would be read back changed."""
    with pytest.raises(InvalidEvent, match="would be read from the log with another value: field note"):
        properties.upcasts_round_trip([PriceOf("odd", 1)])


def test_a_nondeterministic_decision_is_rejected() -> None:
    """Two decisions on the same events must be equal."""
    properties.decision_is_deterministic(transfer, [Deposited("a", Decimal(9))], Account("a"), Account("b"), Decimal(1))

    def lottery(account: Account) -> list[ef.Event]:
        return [Deposited(account.account, Decimal(random.getrandbits(60)))]

    with pytest.raises(AssertionError, match="these differ"):
        properties.decision_is_deterministic(lottery, [], Account("a"))


def test_a_fold_with_state_elsewhere_is_rejected() -> None:
    """A fold that depends on its earlier calls is not equal after a replay."""
    counter = iter(range(1_000))

    class Leaky(ef.State):
        account: ef.Tag
        last: int = 0

        def evolve(self, event: Deposited) -> None:
            self.last = next(counter)

    with pytest.raises(AssertionError, match="these differ"):
        properties.replay_equals_incremental(Leaky("a"), [Deposited("a", Decimal(1))])


def test_an_upcaster_is_compared_with_the_expected_events() -> None:
    """An old event is upcast to the expected events, or the difference is shown."""

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
        """Collect position and time."""
        self.moments.append(recorded.time)
        self.positions.append(recorded.position)


def test_states_with_envelopes_have_the_properties() -> None:
    """Replayed, caught up, from a snapshot, and in a scenario, they get the same envelopes."""
    past = [Deposited("a-1", Decimal(n)) for n in (1, 2, 3)]
    properties.replay_equals_incremental(LastSeen("a-1"), past)
    properties.snapshot_equals_replay(LastSeen("a-1"), past)
    scenario = testing.given(*past)
    after = scenario.when(lambda seen: [Deposited(seen.account, Decimal(9))], LastSeen("a-1"))
    after.state(LastSeen("a-1")).has(positions=[1, 2, 3, 4], moments=[scenario.clock.now] * 4)
