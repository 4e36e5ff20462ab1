"""Checks the shop: figures asked a second time of the source, the stock followed through the log, prices of the past.

Knows: the events, SQL. Does not know: how rows became events, how results are shown.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from datetime import date, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

import eventfold as ef
from eventfold.demo.fields import Checked
from eventfold.demo.fields.plot import bar_plot
from eventfold.demo.fields.report import bars, numbers, table
from eventfold.demo.shop.app import Bought, Prices, Stock
from eventfold.demo.shop.busy_day import Day, oversold, replay
from eventfold.demo.shop.events import (
    GoodsReturned,
    OrderPlaced,
    PricesSet,
    StockCorrected,
    StockReceived,
    StockShipped,
)
from eventfold.demo.shop.load import at
from eventfold.demo.shop.source import is_goods
from eventfold.demo.shop.source_sql import connect_lines
from eventfold.demo.shop.tables import Revenue, Sold, Spent

OMNIBUS = date(2011, 12, 1)  # a day on which a reduction might be announced
PRICED = 20  # products whose prices are asked
SHOWN = 12

_SHOP = """
CREATE TABLE traded AS
WITH priced AS (SELECT invoice FROM line GROUP BY invoice HAVING bool_or(price <> 0))
SELECT invoice, place, moment, strftime(moment, '%Y-%m') AS month, moment::DATE AS day, country, customer, credit,
       CASE WHEN regexp_matches(upper(code), '^(\\d{5}|DCGS|SP1002|PADS)') THEN upper(code) ELSE code END AS product,
       regexp_matches(upper(code), '^(\\d{5}|DCGS|SP1002|PADS)') AS goods, quantity, price, amount
FROM line SEMI JOIN priced USING (invoice)
"""
_UNEXPLAINED = """
WITH goods AS (SELECT * FROM traded WHERE goods AND customer <> ''),
moves AS (
    SELECT customer, product, invoice, place, sum(quantity) AS pieces
    FROM goods SEMI JOIN (SELECT customer, product FROM goods WHERE quantity < 0) USING (customer, product) GROUP BY ALL
), lists AS (
    SELECT list({'left': pieces::BIGINT, 'bad': 0::BIGINT} ORDER BY place) AS moves
    FROM moves GROUP BY customer, product
)
SELECT sum(list_reduce(
    list_prepend({'left': 0::BIGINT, 'bad': 0::BIGINT}, moves),
    lambda a, b: CASE WHEN b.left < 0 AND a.left + b.left < 0 THEN {'left': a.left, 'bad': a.bad + 1}
                 ELSE {'left': a.left + b.left, 'bad': a.bad} END
).bad) FROM lists
"""
_LOWEST = """
WITH days AS (
    SELECT product, day, min(price) AS price FROM traded
    WHERE goods AND NOT credit AND quantity > 0 AND price > 0 AND day < $until GROUP BY ALL
)
SELECT product, least(min(price) FILTER (day >= $until::DATE - 30),
                      arg_max(price, day) FILTER (day < $until::DATE - 30)) AS lowest
FROM days WHERE list_contains($products, product) GROUP BY 1
"""


class Offer(msgspec.Struct):
    """A product on a day: the price it was last sold at before, and the lowest of the thirty days before."""

    product: str
    last: Decimal
    lowest: Decimal
    words: str = ""


class Source:
    """The same shop, from the lines of the source by SQL."""

    def __init__(self, limit: int | None) -> None:
        self.db = connect_lines(limit, words=True)
        self.db.execute(_SHOP)

    def rows(self, sql: str, **given: Any) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        return self.db.execute(sql, given).fetchall()

    def one(self, sql: str, **given: Any) -> Any:
        """The one value of a query."""
        return self.rows(sql, **given)[0][0]

    def words(self, products: list[str]) -> dict[str, str]:
        """The most frequent description of products."""
        sql = "SELECT upper(code), mode(words) FROM line WHERE price > 0 AND list_contains($p, upper(code)) GROUP BY 1"
        return dict(self.rows(sql, p=products))


def check(store: ef.Store, limit: int | None = None) -> Checked:
    """Compare the shop with the source, ask its past, replay its busiest day, and collect what there is to show."""
    checked, source = Checked(), Source(limit)
    store.project(Revenue, Spent)
    revenue, spent = store.rows(Revenue), store.rows(Spent)
    sold = store.view(Sold).rows()
    _totals(checked, store, source, revenue)
    _tables(checked, source, revenue, spent, sold)
    _stock(checked, store, source, limit)
    _prices(checked, store, source, [row for row in sold if is_goods(row.product)])
    _returns(checked, store, source)
    busiest, day = _busy_day(checked, store, source)
    checked.figures |= {"busiest_day": busiest.isoformat(), "replayed": msgspec.to_builtins(day)}
    for breach in breaches(store):
        checked.comparison.finding(breach, "in the log")
    months = _by_month(revenue)
    checked.plot = bar_plot(
        "Orders less credit notes, by month",
        "The shop earns most each November; December 2011 ends on the ninth.",
        {month[2:]: float(amount) for month, amount in months.items()},
        unit=" £",
        every=2,
    )
    return checked


def _by_month(revenue: list[Revenue]) -> dict[str, Decimal]:
    months: Counter[str] = Counter()
    found: dict[str, Decimal] = {}
    for row in revenue:
        found[row.month] = found.get(row.month, Decimal(0)) + row.ordered - row.credited
        months[row.month] += row.orders
    return dict(sorted(found.items()))


def _totals(checked: Checked, store: ef.Store, source: Source, revenue: list[Revenue]) -> None:
    counts = {each.type: each.count for each in store.types()}
    figures = {
        "orders": counts.get("shop.OrderPlaced", 0),
        "credit_notes": counts.get("shop.GoodsReturned", 0),
        "corrections": counts.get("shop.StockCorrected", 0),
        "ordered": sum((row.ordered for row in revenue), Decimal(0)),
        "credited": sum((row.credited for row in revenue), Decimal(0)),
        "countries": len({row.country for row in revenue}),
    }
    sql = "SELECT count(DISTINCT invoice) FROM traded WHERE "
    checked.comparison.figures(
        "of the shop",
        {name: figures[name] for name in ("orders", "credit_notes", "ordered", "credited")},
        {
            "orders": source.one(f"{sql} NOT credit"),  # noqa: S608 (constants)
            "credit_notes": source.one(f"{sql} credit"),  # noqa: S608
            "ordered": source.one("SELECT sum(amount) FROM traded WHERE NOT credit"),
            "credited": -(source.one("SELECT sum(amount) FROM traded WHERE credit") or 0),
        },
    )
    checked.figures |= figures
    checked.add("The shop", numbers({name.replace("_", " "): value for name, value in figures.items()}))
    months = _by_month(revenue)
    checked.add("Orders less credit notes by month, £", bars({month: round(months[month]) for month in months}))


def _tables(checked: Checked, source: Source, revenue: list[Revenue], spent: list[Spent], sold: list[Sold]) -> None:
    compare = checked.comparison
    compare.figures(
        "orders and credit notes of",
        {(row.month, row.country): (row.orders, row.ordered, row.notes, row.credited) for row in revenue},
        {
            (month, country): rest
            for month, country, *rest in (
                (month, country, (orders, ordered, notes, credited))
                for month, country, orders, ordered, notes, credited in source.rows(
                    "SELECT month, country, count(DISTINCT invoice) FILTER (NOT credit),"
                    " coalesce(sum(amount) FILTER (NOT credit), 0), count(DISTINCT invoice) FILTER (credit),"
                    " -coalesce(sum(amount) FILTER (credit), 0) FROM traded GROUP BY ALL"
                )
            )
            for rest in rest
        },
    )
    compare.figures(
        "spent by customer",
        {row.customer: (row.orders, row.spent) for row in spent},
        {
            customer: (orders, amount)
            for customer, orders, amount in source.rows(
                "SELECT customer, count(DISTINCT invoice) FILTER (NOT credit), sum(amount) FROM traded"
                " WHERE customer <> '' GROUP BY 1"
            )
        },
    )
    compare.figures(
        "sold and returned of",
        {row.product: (row.sold, row.earned, row.returned, row.refunded) for row in sold},
        {
            product: tuple(rest)
            for product, *rest in source.rows(
                "SELECT product, coalesce(sum(quantity) FILTER (NOT credit), 0),"
                " coalesce(sum(amount) FILTER (NOT credit), 0), -coalesce(sum(quantity) FILTER (credit), 0),"
                " -coalesce(sum(amount) FILTER (credit), 0) FROM traded GROUP BY 1"
            )
        },
    )
    goods = sorted((row for row in sold if is_goods(row.product)), key=lambda row: row.refunded - row.earned)[:SHOWN]
    words = source.words([row.product for row in goods])
    rows = [
        (row.product, words.get(row.product, ""), row.sold, row.earned - row.refunded, 100 * row.returned / row.sold)
        for row in goods
    ]
    checked.add("The products that earned most", table(("code", "what it is", "pieces", "£", "returned %"), rows))
    best = sorted(spent, key=lambda row: -row.spent)[:5]
    checked.add(
        "The customers who spent most",
        table(("customer", "orders", "£"), [(r.customer, r.orders, r.spent) for r in best]),
    )


def _stock(checked: Checked, store: ef.Store, source: Source, limit: int | None) -> None:
    """Follow the stock through the log, and compare what left it with the source."""
    compare, found = checked.comparison, oversold(store)
    for sentence in found:
        compare.finding(sentence, "never below zero")
    shipped: Counter[str] = Counter()
    received: Counter[str] = Counter()
    excess: list[tuple[str, int, int, str]] = []
    for recorded in store.read(ef.Query.of(types=[StockShipped, StockReceived, StockCorrected])):
        event: StockShipped | StockReceived | StockCorrected = recorded.event
        pieces = dict(zip(event.product, event.pieces, strict=True))
        if isinstance(event, StockShipped):
            shipped.update(pieces)
        elif isinstance(event, StockReceived):
            received[event.why] += sum(pieces.values())
        elif event.stated < event.pieces[0]:
            excess.append((event.product[0], event.stated, event.pieces[0], event.why))
    sql = (
        "SELECT product, sum(quantity) FROM traded WHERE goods AND NOT credit AND quantity > 0"
        " AND ($whole OR day < (SELECT max(day) FROM traded)) GROUP BY 1"
    )
    compare.figures("pieces that left the shop of", shipped, dict(source.rows(sql, whole=limit is None)))
    figures = {
        "pieces_shipped": sum(shipped.values()),
        "delivered": received["delivered"],
        "bought_in": received["bought in"],
        "corrections_beyond_stock": len(excess),
    }
    checked.figures |= figures
    checked.add(
        "The stock, which the policy makes: never below zero",
        [
            *numbers({name.replace("_", " "): value for name, value in figures.items()}),
            "",
            "Corrections that take more than there can be, the largest, in the shop's words:",
            *table(("code", "stated", "taken", "why"), sorted(excess, key=lambda each: each[1])[:5]),
        ],
    )


def lowest_prices(store: ef.Store, products: list[str], until: date) -> list[Offer]:
    """The lowest price of products in the thirty days before a day, as known on that day; without those never sold."""
    found: list[Offer] = []
    for product in products:
        prices = store.state(Prices(product), occurred_until=at(until, time()))
        lowest = prices.lowest(until)
        if lowest is not None:
            found.append(Offer(product, prices.since[-1][1], lowest))
    return found


def _prices(checked: Checked, store: ef.Store, source: Source, sold: list[Sold]) -> None:
    """Ask for the number that a reduction has to be announced with."""
    days = [recorded.event.day for recorded in store.read(ef.Query.of(types=[PricesSet]), backwards=True, limit=1)]
    if not days:
        return
    until = min(OMNIBUS, days[0] + timedelta(days=1))
    products = [row.product for row in sorted(sold, key=lambda row: row.refunded - row.earned)[:PRICED]]
    offers = lowest_prices(store, products, until)
    checked.comparison.figures(
        f"lowest price in the 30 days before {until} of",
        {offer.product: offer.lowest for offer in offers},
        dict(source.rows(_LOWEST, until=until, products=products)),
    )
    words = source.words(products)
    rows = [(offer.product, words.get(offer.product, ""), offer.last, offer.lowest) for offer in offers[:SHOWN]]
    checked.figures |= {"lowest_until": until.isoformat(), "lowest": {offer.product: offer.lowest for offer in offers}}
    checked.add(
        f"The lowest price of the 30 days before {until:%d %b %Y}",
        table(("code", "what it is", "last price", "lowest"), rows),
    )


def _returns(checked: Checked, store: ef.Store, source: Source) -> None:
    notes = store.read(ef.Query.of(types=[GoodsReturned]))
    unexplained = sum(len(recorded.event.unexplained) for recorded in notes)
    checked.comparison.figure("returns of more than was bought", unexplained, source.one(_UNEXPLAINED) or 0)
    checked.figures["unexplained_returns"] = unexplained


def _busy_day(checked: Checked, store: ef.Store, source: Source) -> tuple[date, Day]:
    """Sell the busiest day again, by 32 tasks, from the stock of its morning."""
    busiest: date = source.one(
        "SELECT day FROM traded WHERE NOT credit AND day < (SELECT max(day) FROM traded)"
        " GROUP BY 1 ORDER BY count(*) DESC, day LIMIT 1"
    )
    begin, end = at(busiest, time()), at(busiest + timedelta(days=1), time())
    read = store.read(ef.Query.of(types=[OrderPlaced]), occurred_since=begin, occurred_until=end)
    orders = [recorded.event for recorded in read]
    wanted = sorted({line.product for order in orders for line in order.lines if is_goods(line.product)})
    goods = [goods_only(order) for order in orders]
    with tempfile.TemporaryDirectory(prefix="eventfold-shop-") as folder:
        morning = store.state(Stock(tuple(wanted)), occurred_until=at(busiest, time(6)))
        day = replay(str(Path(folder) / "day.db"), [order for order in goods if order.lines], morning.on_hand)
    for sentence in day.below_zero:
        checked.comparison.finding(f"{busiest}: {sentence}", "never below zero")
    checked.comparison.figure("cancelled orders that hold stock", day.held_by_cancelled, 0)
    checked.comparison.figure(
        "orders of the busiest day",
        len(orders),
        source.one("SELECT count(DISTINCT invoice) FROM traded WHERE NOT credit AND day = $day", day=busiest),
    )
    figures = {
        "orders": day.orders,
        "lines": day.lines,
        "decisions": day.decisions,
        "made again": day.conflicts,
        "sold out": day.sold_out,
        "parts released": day.released,
    }
    checked.add(
        f"The busiest day, {busiest:%d %b %Y}, sold again by 32 tasks at once",
        [
            *numbers(figures),
            "",
            "payments (the provider's answers are generated):",
            *numbers(day.payments),
            "",
            "✓ No piece was sold twice, and no cancelled order holds any." if not day.below_zero else "✗ Oversold.",
        ],
    )
    return busiest, day


def goods_only(order: OrderPlaced) -> OrderPlaced:
    """An order without carriage and other services, which no stock limits."""
    lines = tuple(line for line in order.lines if is_goods(line.product) and line.pieces > 0)
    return OrderPlaced(order.order, order.customer, order.country, lines)


def breaches(store: ef.Store) -> Iterator[str]:
    """Decide orders and credit notes of the log again: a sentence for each that the shop would have refused."""
    placed: set[str] = set()
    customers: dict[str, Bought] = {}
    for recorded in store.read(ef.Query.of(types=[OrderPlaced, GoodsReturned])):
        event: OrderPlaced | GoodsReturned = recorded.event
        if isinstance(event, OrderPlaced):
            if event.order in placed:
                yield f"event {recorded.position:,}: order {event.order} was placed already"
            placed.add(event.order)
        if event.customer is None:
            continue
        bought = customers.setdefault(event.customer, Bought(event.customer))
        if isinstance(event, GoodsReturned):
            excess = {each for each in bought.excess(event) if is_goods(each)} - set(event.unexplained)
            if excess:
                names = ", ".join(sorted(excess))
                yield f"event {recorded.position:,}: {event.note} returns more than was bought of {names}"
        bought.evolve(event)
