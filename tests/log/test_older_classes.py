"""A decision may return events of older classes: everything that folds them gets what a read of the log gives."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import hypothesis
import hypothesis.strategies as st
import psycopg
import pytest

import eventfold as ef
from eventfold import testing
from eventfold.errors import InvalidEvent
from eventfold.processes import decide
from eventfold.testing import properties
from tests.support.servers.postgres import shared

QUICK = hypothesis.settings(
    max_examples=25, deadline=None, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)


class PricedV1(ef.Event, type="older-classes.priced"):
    """A price in euros."""

    item: ef.Tag
    euros: int


class PricedV2(ef.Event, type="older-classes.priced", version=2):
    """A price in cents."""

    item: ef.Tag
    cents: int


class Priced(ef.Event, type="older-classes.priced", version=3):
    """A price with a currency."""

    item: ef.Tag
    cents: int
    currency: str


class Sold(ef.Event, type="older-classes.sold"):
    """Two facts in one."""

    item: ef.Tag
    pieces: list[str]
    euros: int


class Left(ef.Event, type="older-classes.left"):
    """Pieces left the shop."""

    item: ef.Tag
    pieces: list[str]


class Earned(ef.Event, type="older-classes.earned"):
    """Money was earned."""

    item: ef.Tag
    cents: int


class CheckedBefore(ef.Event, type="older-classes.checked-before"):
    """The name before."""

    item: ef.Tag


class Checked(ef.Event, type="older-classes.checked", aliases=("older-classes.checked-before",)):
    """The name now: it has no upcaster, and reads the events of the name before."""

    item: ef.Tag
    by: str = "me"


@ef.upcast
def to_cents(old: PricedV1) -> PricedV2:
    """Convert the unit; a price below 0 cannot be converted."""
    if old.euros < 0:
        raise ValueError("a price below 0")
    return PricedV2(old.item, old.euros * 100)


@ef.upcast
def with_currency(old: PricedV2) -> Priced:
    """Add the currency."""
    return Priced(old.item, old.cents, "EUR")


@ef.upcast
def split(old: Sold) -> tuple[Left, Earned]:
    """Split into two facts."""
    return Left(old.item, old.pieces), Earned(old.item, old.euros * 100)


class Item(ef.State):
    """It reads fields that the older classes do not have."""

    item: ef.Tag
    cents: int = 0
    earned: int = 0
    pieces: list[str] = []
    history: list[str] = []

    def evolve(self, event: Priced | Left | Earned | Checked) -> None:
        """Fold each class by its own fields."""
        self.history.append(repr(event))
        match event:
            case Priced():
                self.cents = event.cents if event.currency == "EUR" else -1
            case Left():
                self.pieces.extend(event.pieces)
            case Earned():
                self.earned += event.cents
            case _:
                assert event.by


class Money(ef.State):
    """It takes one part of a split, and no class that was split."""

    item: ef.Tag
    earned: int = 0

    def evolve(self, event: Earned) -> None:
        """Add."""
        self.earned += event.cents


class Envelopes(ef.State):
    """It is folded with envelopes."""

    item: ef.Tag
    found: list[tuple[str, str, int, int]] = []

    def evolve(self, event: Priced | Left | Earned, recorded: ef.Recorded) -> None:
        """Note the class that is read, and the name, version and position that were written."""
        self.found.append((type(event).__name__, recorded.type, recorded.version, recorded.position))


class Anything(ef.State):
    """It takes every event of an item."""

    item: ef.Tag
    history: list[str] = []

    def query(self) -> ef.Query:
        """Return its own query."""
        return ef.Query.of(tags=[f"item:{self.item}"])

    def evolve(self, event: ef.Event) -> None:
        """Note it."""
        self.history.append(repr(event))


class Shelf(ef.Aggregate):
    """An aggregate that records older events, and reads what they become at once."""

    item: ef.Tag
    cents: int = 0
    earned: int = 0
    pieces: list[str] = []

    def evolve(self, event: Priced | Left | Earned) -> None:
        """Fold each class by its own fields."""
        match event:
            case Priced():
                self.cents = event.cents
            case Left():
                self.pieces.extend(event.pieces)
            case Earned():
                self.earned += event.cents

    def price_once(self, euros: int) -> None:
        """Record a price; a second one is refused."""
        if self.cents:
            raise ValueError("it has a price")
        self.record(PricedV1(self.item, euros))

    def price_and_sell(self, euros: int) -> None:
        """Each step is decided over the one before."""
        self.price_once(euros)
        self.record(Sold(self.item, [f"piece at {self.cents}"], self.cents // 100))
        self.record(Sold(self.item, [f"piece after {self.earned}"], 1))


class EnvelopeShelf(ef.Aggregate):
    """An aggregate that is folded with envelopes."""

    item: ef.Tag
    found: list[tuple[str, int]] = []

    def evolve(self, event: Priced, recorded: ef.Recorded) -> None:
        """Note the currency, and the version that is recorded."""
        self.found.append((event.currency, recorded.version))

    def price(self) -> None:
        """Record, and check what is folded at once."""
        self.record(PricedV1(self.item, 1))
        assert self.found[-1] == ("EUR", 1)


def price_once(item: Item, euros: int) -> list[ef.Event]:
    """Price an item that has no price."""
    return [] if item.cents else [PricedV1(item.item, euros)]


def raise_price(item: Item) -> PricedV1:
    """Price it one euro higher."""
    return PricedV1(item.item, item.cents // 100 + 1)


def price_and_sell(item: Item, euros: int) -> list[ef.Event]:
    """Price and sell it at once."""
    return [PricedV1(item.item, euros), Sold(item.item, ["x"], euros)]


def sell(seen: Envelopes) -> Sold:
    """Sell one piece."""
    return Sold(seen.item, ["x"], 1)


def check(item: Item) -> CheckedBefore:
    """Check it, under the name before."""
    return CheckedBefore(item.item)


def event_of(kind: int, number: int, item: str) -> Any:
    """Return an event of an older or the newest class, some as drafts."""
    made: list[Any] = [
        PricedV1(item, number),
        PricedV2(item, number),
        Priced(item, number, "EUR"),
        Sold(item, [str(number)], number),
        Left(item, [str(number)]),
        Earned(item, number),
        ef.Draft(Sold(item, [str(number)], number), metadata={"number": number}),
    ]
    return made[kind]


STEPS = st.lists(
    st.tuples(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 99)), max_size=8), st.booleans()),
    min_size=1,
    max_size=6,
)


@pytest.fixture
def handles(url: str) -> Iterator[list[ef.Store]]:
    """Return three handles of one store; the last one keeps no state."""
    with ef.Store(url) as store, ef.Store(url) as other, ef.Store(url, cache=0) as fresh:
        yield [store, other, fresh]


@QUICK
@hypothesis.given(STEPS)
def test_after_any_decisions_every_state_is_the_fold_of_the_log(
    handles: list[ef.Store], steps: list[tuple[list[tuple[int, int]], bool]]
) -> None:
    """The state that a decision gets, that in its result and the cached one equal those of a store without a cache."""
    item = uuid4().hex
    questions = (Item(item), Money(item), Envelopes(item), Anything(item))
    store, other, fresh = handles
    for chosen, elsewhere in steps:
        events, before = (
            [event_of(kind, number, item) for kind, number in chosen],
            [fresh.state(each) for each in questions],
        )
        seen: list[list[ef.State]] = []

        def step(*states: ef.State, events: Any = events, seen: Any = seen) -> list[Any]:
            seen.append(list(states))
            return events

        using = other if elsewhere else store
        for count in (2, 4):  # without and with a state that is folded with envelopes
            done = using.decide(step, *questions[:count])
            after = [fresh.state(each) for each in questions]
            assert seen[-1] == before[:count]  # the last attempt: an outdated cached state is refused
            assert [done.state(each) for each in questions[:count]] == after[:count]
            before = after
        assert [using.state(each) for each in questions] == [fresh.state(each) for each in questions]


def test_a_rule_holds_over_an_older_class(url: str) -> None:
    """The second decision is made over the state that a new process would fold."""
    with ef.Store(url) as store:
        assert store.decide(price_once, Item("tea"), 4).state(Item("tea")).cents == 400
        assert store.decide(price_once, Item("tea"), 5).events == ()
        assert store.state(Item("tea")).cents == 400
        (written,) = store.read(raw=True)
        assert (written.version, written.event.json()) == (1, {"item": "tea", "euros": 4})
    with ef.Store(url) as fresh:
        assert fresh.state(Item("tea")).cents == 400


def test_a_class_that_another_one_reads_is_folded_as_that_one(url: str) -> None:
    """It has no upcaster, and the state names a class that has its stored name as an alias."""
    with ef.Store(url) as store:
        done = store.decide(check, Item("tea"))
        assert done.state(Item("tea")).history == [repr(Checked("tea", "me"))]
        assert store.state(Item("tea")) == done.state(Item("tea"))
        with ef.Store(url, cache=0) as fresh:
            assert fresh.state(Item("tea")) == done.state(Item("tea"))


@pytest.mark.asyncio
async def test_decisions_that_wait_for_each_other_fold_it_as_it_is_read(url: str) -> None:
    """Each of many decisions at once starts from the state after the one that is still being written."""
    async with ef.AsyncStore(url) as store:
        await asyncio.gather(*[store.decide(raise_price, Item("tea")) for _ in range(20)])
        assert (await store.state(Item("tea"))).cents == 2_000
    async with ef.AsyncStore(url) as fresh:
        found = await fresh.state(Item("tea"))
        assert found.history == [repr(Priced("tea", 100 * n, "EUR")) for n in range(1, 21)]


def test_an_aggregate_folds_what_it_recorded_as_it_is_read(url: str) -> None:
    """Within one method, in the result, and in the next decision."""
    with ef.Store(url) as store:
        done = store.change(Shelf.price_and_sell, Shelf("tea"), 4)
        expected = Shelf("tea", 400, 500, ["piece at 400", "piece after 400"])
        assert done.state(Shelf("tea")) == store.state(Shelf("tea")) == expected
        with pytest.raises(ValueError, match="it has a price"):
            store.change(Shelf.price_once, Shelf("tea"), 5)
        store.change(EnvelopeShelf.price, EnvelopeShelf("cup"))
        assert store.state(EnvelopeShelf("cup")).found == [("EUR", 1)]


def test_an_older_event_that_cannot_be_upcast_is_refused(store: ef.Store) -> None:
    """It could not be read either: nothing is written, and the error names the upcaster."""

    def below_zero(item: Item) -> PricedV1:
        return PricedV1(item.item, -1)

    with pytest.raises(InvalidEvent, match=r"Item could not read .*it \(older-classes.priced v1\).*to_cents.*below 0"):
        store.decide(below_zero, Item("tea"))
    with pytest.raises(InvalidEvent, match=r"Shelf recorded, older-classes.priced v1, could not be upcast"):
        store.change(Shelf.price_once, Shelf("tea"), -1)
    assert store.head() == 0


class PriceRow(ef.Projection):
    """The price of each item, as a read model."""

    item: str
    cents: int = 0
    earned: int = 0

    def evolve(self, event: Priced | Earned) -> None:
        """Fold."""
        match event:
            case Priced():
                self.cents = event.cents
            case Earned():
                self.earned += event.cents


@pytest.mark.parametrize("url", ["sqlite", "postgres"], indirect=True)
def test_rows_inline_and_snapshots_are_the_fold_of_the_log(url: str) -> None:
    """Inline rows equal those of a rebuild, and a snapshot of a state that began in a decision is right, too."""
    with ef.Store(url, inline=[PriceRow], snapshots=1) as store:
        for euros in (1, 2, 3):
            store.decide(price_and_sell, Item("tea"), euros)
            assert store.rows(PriceRow) == [PriceRow("tea", euros * 100, store.state(Item("tea")).earned)]
        store.append(Checked("tea", "me"))
        assert store.state(Item("tea")).earned == 600
        before = store.rows(PriceRow)
        store.projections.rebuild(PriceRow)
        assert store.rows(PriceRow) == before == [PriceRow("tea", 300, 600)]
    with ef.Store(url, inline=[PriceRow]) as again:
        from_snapshot = again.state(Item("tea"))
    with ef.Store(url, inline=[PriceRow]) as last:
        last_snapshots = last.decide(price_once, Item("tea"), 9)
        assert (last_snapshots.events, last_snapshots.state(Item("tea"))) == ((), from_snapshot)
    assert from_snapshot.history[:3] == list(
        map(repr, (Priced("tea", 100, "EUR"), Left("tea", ["x"]), Earned("tea", 100)))
    )


def test_a_decision_in_a_transaction_sees_the_ones_before_it() -> None:
    """The state in the result, and the next decision of the transaction, are those after the COMMIT."""
    url = shared().url(schema=f"s{uuid4().hex[:12]}")
    with ef.Store(url) as store:
        with psycopg.connect(url.partition("?")[0]) as connection:
            joined = store.in_transaction(connection)
            staged = joined.decide(price_once, Item("tea"), 4).state(Item("tea"))
            assert joined.decide(price_once, Item("tea"), 5).staged is None
            found = joined.decide(sell, Envelopes("tea")).state(Envelopes("tea"))
        assert staged.cents == 400
        assert [each[:3] for each in found.found] == [each[:3] for each in store.state(Envelopes("tea")).found]
        assert store.state(Item("tea")).cents == 400


class Pricing(ef.Process, start="beginning"):
    """It prices whatever is checked, by a decision that returns an older class."""

    item: ef.Tag
    cents: int = 0

    def evolve(self, event: Priced | Checked) -> None:
        """Fold."""
        if isinstance(event, Priced):
            self.cents = event.cents

    def react(self, event: Priced | Checked) -> Any:
        """Price it once; then sell it for what it costs."""
        if isinstance(event, Checked):
            return decide(price_once, Item(self.item), 4)
        return Sold(self.item, ["x"], self.cents // 100)


def test_a_process_and_the_testing_kit_see_the_newest_classes() -> None:
    """Given, when and then, a process that decides over such a state, and the properties of a fold."""
    given = testing.given(Checked("tea", "me"))
    given.run(Pricing).happens(Checked("tea", "me")).nothing()
    assert given.store.state(Item("tea")).earned == 400
    older = testing.given(PricedV1("cup", 0)).when(price_once, Item("cup"), 4)
    older.state(Item("cup")).has(cents=400)
    older.then(Priced("cup", 400, "EUR")).when(price_once, Item("cup"), 5).nothing()
    past = [PricedV1("tea", 1), Sold("tea", ["x"], 2), CheckedBefore("tea")]
    for question in (Item("tea"), Money("tea"), Envelopes("tea")):
        properties.replay_equals_incremental(question, past)
        properties.snapshot_equals_replay(question, past)
