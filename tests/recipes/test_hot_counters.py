"""A stock divided over shelves is sold to the last piece and no further."""

from __future__ import annotations

from typing import Any

import pytest

import eventfold as ef
from examples.recipes.hot_counters import SHELVES, Shelf, SoldOut, StockTaken, buy, delivered, places, take
from tests.recipes.crowd import RACERS, Crowd, Threads, done, refused


def shelves(item: str = "concert") -> list[Shelf]:
    """Return all shelves of an item."""
    return [Shelf(item, str(n)) for n in range(SHELVES)]


async def buy_async(store: ef.AsyncStore, item: str, order: str, count: int) -> Any:
    """`buy`, awaited."""
    once = store.using(command_id=f"buy:{order}", attempts=100)
    for some in places(item):
        try:
            return await once.decide(take, *some, order=order, count=count)
        except SoldOut as error:
            refusal = error
    raise refusal


def bought(crowd: Crowd, orders: list[tuple[str, int]]) -> list[Any]:
    """Return the results of these orders, placed at once."""
    one = buy if isinstance(crowd, Threads) else buy_async
    return crowd.race(*[lambda store, o=order, c=count: one(store, "concert", o, c) for order, count in orders])


@pytest.mark.parametrize(("stock", "each"), [(20, 1), (100, 3), (500, 7)])
def test_the_stock_is_sold_to_the_last(crowd: Crowd, stock: int, each: int) -> None:
    """With 32 buyers at once none is refused while there is enough, and no shelf goes below zero."""
    crowd.store.append(*delivered("concert", stock))
    answers = bought(crowd, [(f"o-{n}", each) for n in range(RACERS)])
    sold = min(RACERS, stock // each)
    assert (len(done(answers)), len(refused(answers, SoldOut))) == (sold, RACERS - sold)
    assert sum(crowd.store.state(shelf).left for shelf in shelves()) == stock - sold * each
    for shelf in shelves():
        assert all(step.state.left >= 0 for step in crowd.store.history(shelf))


def test_an_order_sent_twice_is_bought_once(crowd: Crowd) -> None:
    """Eight orders sent by four each, perhaps at different shelves: eight are served, once."""
    crowd.store.append(*delivered("concert", 400))
    answers = bought(crowd, [(f"o-{n % 8}", 5) for n in range(RACERS)])
    assert len(done(answers)) == RACERS
    taken = [recorded.event for recorded in crowd.store.read(ef.Query.of(types=StockTaken))]
    assert sum(each.count for each in taken) == 40


def test_everything_is_delivered() -> None:
    """A delivery is spread over all shelves, and its total is unchanged."""
    for count in (0, 1, SHELVES, 100):
        parts = delivered("concert", count)
        assert sum(each.count for each in parts) == count
        assert max(e.count for e in parts) - min(e.count for e in parts) <= 1
