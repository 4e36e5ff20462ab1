"""Today's shop: reads all five years through three upcasters."""

from __future__ import annotations

import msgspec

import eventfold as ef


class Money(msgspec.Struct, frozen=True):
    """An amount in the smallest unit of its currency."""

    cents: int
    currency: str


class OrderV1(ef.Event, type="ShopOrderPlaced", version=1):
    """2021 and 2022: whole euros."""

    order: ef.Tag
    amount: int
    customer: str | None = None


class OrderV2(ef.Event, type="ShopOrderPlaced", version=2):
    """2023: cents."""

    order: ef.Tag
    cents: int
    customer: str | None = None


class ShopOrderAccepted(ef.Event, version=3, aliases=("ShopOrderPlaced",)):
    """2024 and later."""

    order: ef.Tag
    price: Money
    customer: str | None = None


class Moved(ef.Event):
    """2021: one fact for two."""

    order: ef.Tag
    came: str
    went: str


class Left(ef.Event):
    """An order left a place."""

    order: ef.Tag
    place: str


class Arrived(ef.Event):
    """An order arrived at a place."""

    order: ef.Tag
    place: str


@ef.upcast
def euros_to_cents(old: OrderV1) -> OrderV2:
    """2023."""
    return OrderV2(old.order, old.amount * 100, old.customer)


@ef.upcast
def cents_to_money(old: OrderV2) -> ShopOrderAccepted:
    """2024."""
    return ShopOrderAccepted(old.order, Money(old.cents, "EUR"), old.customer)


@ef.upcast
def moved_is_two_facts(old: Moved) -> tuple[Left, Arrived]:
    """2025."""
    return Left(old.order, old.came), Arrived(old.order, old.went)


class Revenue(ef.State):
    """All that was ordered, by currency, in the smallest unit."""

    cents: dict[str, int] = {}

    def evolve(self, event: ShopOrderAccepted) -> None:
        """Knows today's class only."""
        self.cents[event.price.currency] = self.cents.get(event.price.currency, 0) + event.price.cents


class Whereabouts(ef.State):
    """Where an order is."""

    order: ef.Tag
    place: str = ""

    def evolve(self, event: Arrived) -> None:
        """Knows nothing of Moved."""
        self.place = event.place


def accept(revenue: Revenue, order: str, price: Money) -> ShopOrderAccepted:
    """A decision, so that the catalogue has one to show."""
    return ShopOrderAccepted(order, price)
