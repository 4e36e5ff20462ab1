"""A displayed price is honoured for ten minutes after it changed; no other price ever is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

import eventfold as ef
from eventfold.testing import given
from examples.recipes.dynamic_prices import GRACE, PriceChanged, PriceSet, Product, ProductOrdered, order
from tests.recipes.crowd import RACERS, Crowd, done, refused

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
OLD, NEW = Decimal("4.00"), Decimal("4.80")


def price(product: Product, price: Decimal, at: datetime) -> PriceSet:
    """The shop sets a price."""
    return PriceSet(product.product, price, at)


def test_prices_change_under_the_buyers(crowd: Crowd) -> None:
    """Sixteen buy while 16 set new prices: every order paid a price that held or had held less than ten minutes ago."""
    crowd.store.append(PriceSet("tea", OLD, NOON))
    answers = crowd.race(
        *[
            lambda store, n=n: (
                store.using(attempts=1_000).decide(
                    order, Product("tea"), order=f"o-{n}", shown={"tea": OLD}, now=NOON + timedelta(minutes=n)
                )
                if n % 2
                else store.using(attempts=1_000).decide(
                    price, Product("tea"), Decimal(n + 5), at=NOON + timedelta(minutes=n)
                )
            )
            for n in range(RACERS)
        ]
    )
    refused(answers, PriceChanged)
    assert len(done(answers)) >= RACERS // 2
    prices = Product("tea")
    for recorded in crowd.store.read(ef.Query.of(types=[PriceSet, ProductOrdered])):
        if isinstance(recorded.event, PriceSet):
            prices.evolve(recorded.event)
        else:
            assert prices.honours(recorded.event.price, recorded.event.at)


def test_buyers_do_not_meet(crowd: Crowd) -> None:
    """Thirty-two order the same product at once, each at the first attempt."""
    crowd.store.append(PriceSet("tea", OLD, NOON))
    answers = crowd.race(
        *[
            lambda store, n=n: store.decide(order, Product("tea"), order=f"o-{n}", shown={"tea": OLD}, now=NOON)
            for n in range(RACERS)
        ]
    )
    assert [answer.attempts for answer in done(answers)] == [1] * RACERS


@pytest.mark.parametrize(
    ("shown", "after", "paid"),
    [
        (OLD, timedelta(0), True),
        (OLD, GRACE, True),
        (OLD, GRACE + timedelta(seconds=1), False),
        (NEW, timedelta(days=9), True),
        (Decimal("0.01"), timedelta(0), False),
    ],
)
def test_the_grace_period(shown: Decimal, after: timedelta, paid: bool) -> None:
    """The old price is valid for ten minutes, the new one from then on, an invented one never."""
    past = given(PriceSet("tea", OLD, NOON - timedelta(days=1)), PriceSet("tea", NEW, NOON))
    outcome = past.when(order, Product("tea"), order="o-1", shown={"tea": shown}, now=NOON + after)
    if paid:
        outcome.then(ProductOrdered("o-1", "tea", shown, NOON + after))
    else:
        outcome.raises(PriceChanged)


def test_a_basket_is_ordered_whole_or_not() -> None:
    """If one price of two no longer holds, neither product is ordered."""
    past = given(PriceSet("tea", OLD, NOON), PriceSet("cup", NEW, NOON), PriceSet("cup", OLD, NOON))
    basket = (Product("tea"), Product("cup"))
    late = NOON + GRACE * 2
    past.when(order, *basket, order="o-1", shown={"tea": OLD, "cup": NEW}, now=late).raises(PriceChanged)
    past.when(order, *basket, order="o-1", shown={"tea": OLD, "cup": OLD}, now=late).then(
        ProductOrdered("o-1", "tea", OLD, late), ProductOrdered("o-1", "cup", OLD, late)
    )


def test_a_product_without_a_price_cannot_be_ordered() -> None:
    """A product that the shop has never priced cannot be ordered."""
    given().when(order, Product("air"), order="o-1", shown={"air": OLD}, now=NOON).raises(PriceChanged)
