"""What type checkers say of the events that a decision wrote: they are of the types that it returns.

Checked, never imported. An ignored line is a mistake that has to be reported.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, assert_type

import eventfold as ef


class Paid(ef.Event, type="typing.paid"):
    """Derived."""

    order: ef.Tag
    cents: int


class Sent(ef.Event, type="typing.sent"):
    """Another."""

    order: ef.Tag


@ef.event("typing-refunded")
@dataclass(frozen=True)
class Refunded:
    """Decorated."""

    order: ef.Tag


@ef.event("typing-returned")
@dataclass(frozen=True)
class Returned:
    """Another."""

    order: ef.Tag


class Order(ef.State):
    """The state of the decisions below."""

    order: ef.Tag
    cents: int = 0

    def evolve(self, event: Paid | Sent) -> None:
        """Count."""
        if isinstance(event, Paid):
            self.cents += event.cents


class Basket(ef.Aggregate):
    """An aggregate, whose methods record."""

    order: ef.Tag
    cents: int = 0

    def pay(self, cents: int) -> None:
        """Record one."""
        self.record(Paid(self.order, cents))

    def evolve(self, event: Paid) -> None:
        """Count."""
        self.cents += event.cents


def pay(order: Order, cents: int = 1) -> Paid:
    """One."""
    return Paid(order.order, cents)


def either(order: Order) -> Paid | Sent:
    """One of two."""
    return Sent(order.order)


def several(order: Order) -> list[Paid]:
    """A list."""
    return [Paid(order.order, 1)]


def mixed(order: Order) -> list[Paid | Sent]:
    """A list of two types."""
    return [Paid(order.order, 1), Sent(order.order)]


def generated(order: Order) -> Iterator[Paid]:
    """A generator, as it is mostly written."""
    yield Paid(order.order, 1)


def generator(order: Order) -> Generator[Paid, None, None]:
    """A generator, in full."""
    yield Paid(order.order, 1)


def sequence(order: Order) -> Sequence[Paid]:
    """A tuple, say."""
    return (Paid(order.order, 1),)


def iterable(order: Order) -> Iterable[Paid]:
    """Whatever can be gone through."""
    return [Paid(order.order, 1)]


def any_event(order: Order) -> list[ef.Event]:
    """Of the common base."""
    return [Paid(order.order, 1)]


def refund(order: Order) -> Refunded:
    """Of a decorated class."""
    return Refunded(order.order)


def refund_or_return(order: Order) -> Refunded | Returned:
    """Of two decorated classes."""
    return Refunded(order.order)


def refunds(order: Order) -> list[Refunded | Returned]:
    """Several of them."""
    return [Refunded(order.order)]


def drafted(order: Order) -> ef.Draft[Paid]:
    """A draft of one."""
    return ef.Draft(Paid(order.order, 1), tags=("day:1",))


def all_drafted(order: Order) -> list[ef.Draft[Paid]]:
    """Drafts."""
    return [drafted(order)]


def plain(order: Order) -> ef.Draft:
    """A draft of anything."""
    return drafted(order)


def untyped(order: Order) -> Any:
    """Whatever."""
    return Paid(order.order, 1)


def use(store: ef.Store) -> None:
    """What hovering shows."""
    order = Order("o-1")
    done = store.decide(pay, order, cents=2)
    assert_type(done.events[0].event, Paid)
    assert_type(done.events[0].event.cents, int)
    assert_type(done.state(order), Order)
    for recorded in store.decide(either, order).events:
        assert_type(recorded.event, Paid | Sent)
    assert_type(store.decide(several, order).events[0].event, Paid)
    assert_type(store.decide(mixed, order).events[0].event, Paid | Sent)
    assert_type(store.decide(generated, order).events[0].event, Paid)
    assert_type(store.decide(generator, order).events[0].event, Paid)
    assert_type(store.decide(sequence, order).events[0].event, Paid)
    assert_type(store.decide(iterable, order).events[0].event, Paid)
    assert_type(store.decide(any_event, order).events[0].event, ef.Event)
    assert_type(store.decide(refund, order).events[0].event, Refunded)
    assert_type(store.decide(refund_or_return, order).events[0].event, Refunded | Returned)
    assert_type(store.decide(refunds, order).events[0].event, Refunded | Returned)
    assert_type(store.decide(drafted, order).events[0].event, Paid)
    assert_type(store.decide(all_drafted, order).events[0].event, Paid)
    assert_type(store.decide(plain, order).events[0].event, Any)
    assert_type(store.decide(untyped, order).events[0].event, Any)
    assert_type(store.change(Basket.pay, Basket("o-1"), 5).events[0].event, Any)
    for step in store.history(order):
        assert_type(step.state, Order)
        assert_type(step.recorded.position, int)
    assert_type(store.using(attempts=1).decide(pay, order).events[0].event, Paid)


async def use_async(store: ef.AsyncStore) -> None:
    """The twin, awaited."""
    order = Order("o-1")
    assert_type((await store.decide(pay, order)).events[0].event, Paid)
    assert_type((await store.decide(mixed, order)).events[0].event, Paid | Sent)
    async for step in store.history(order):
        assert_type(step.state, Order)
    assert_type((await store.change(Basket.pay, Basket("o-1"), 5)).events[0].event, Any)


def join(store: ef.Store, connection: object) -> None:
    """Within a transaction of one's own."""
    assert_type(store.in_transaction(connection).decide(either, Order("o-1")).events[0].event, Paid | Sent)


async def join_async(store: ef.AsyncStore, connection: object) -> None:
    """The twin, awaited."""
    assert_type((await store.in_transaction(connection).decide(generated, Order("o-1"))).events[0].event, Paid)


def returned(store: ef.Store) -> ef.Decided[Paid]:
    """Its type says what the decision returns, and may be left out."""
    done: ef.Decided = store.decide(several, Order("o-1"))
    assert_type(done.events[0].event, Any)
    return store.decide(pay, Order("o-1"))


def mistakes(store: ef.Store, order: Order) -> None:
    """Each of these lines is wrong, and both checkers say so."""
    print(store.decide(pay, order).events[0].event.order_id)  # type: ignore
    print(store.decide(several, order).events[0].event.order_id)  # type: ignore
    store.decide(pay, order, "2")  # type: ignore
    store.decide(pay)  # type: ignore
    store.change(Basket.pay, Basket("o-1"))  # type: ignore
    wrong: ef.Decided[Sent] = store.decide(pay, order)  # type: ignore
    print(wrong)
