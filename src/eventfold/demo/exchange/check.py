"""Checks the exchange in other ways, asks it about the past, and lets 32 members take the same contracts at once.

    python -m eventfold.demo.exchange.check [--store URL] [--limit N]

Knows: the second matcher, DuckDB, the log. Does not know: how orders are drawn, how results are laid out.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec

import eventfold as ef
from eventfold.demo.data import source_path
from eventfold.demo.exchange import report
from eventfold.demo.exchange.app import Account, Book, Minute, submit
from eventfold.demo.exchange.events import LimitSet, OrderRejected, OrderSubmitted, OrderTraded
from eventfold.demo.exchange.load import Flow, load
from eventfold.demo.exchange.matcher import MatchedTrade, Matcher
from eventfold.demo.exchange.matching import Resting, pro_rata
from eventfold.demo.exchange.orders import LIMITS
from eventfold.demo.exchange.replay import trades_again, trades_in, what_if
from eventfold.demo.exchange.ticks import CHICAGO, FAR, NEAR, START
from eventfold.demo.fields import Checked, Comparison, Contention, connect, contend, main

REWOUND_TO = datetime(2013, 9, 3, 10, 31, 7, 123000, tzinfo=CHICAGO)
OFFERED = 10  # contracts that the 32 members of `rush` want at once

# Volume and value of each minute, straight from the file of the real trades; the value is in ticks of a quarter point.
_RECORDED = """
SELECT strftime(date_trunc('minute', DateTime) AT TIME ZONE 'America/Chicago', '%H:%M'), sum(Volume)::BIGINT,
       sum(Volume * Price * 4)::BIGINT
FROM (SELECT * FROM read_csv($path) WHERE DateTime >= $start LIMIT $trades) GROUP BY ALL
"""
_DRAWN = """
SELECT strftime(date_trunc('minute', moment), '%H:%M'), sum(size)::BIGINT, sum(price * size)::BIGINT
FROM ticks GROUP BY ALL
"""


class OrderStory(msgspec.Struct, frozen=True):
    """An order at a moment: its place in the book, the orders ahead of it, and what became of it afterwards."""

    order: Resting
    ahead: list[Resting]
    events: list[Any]


class Rush(msgspec.Struct, frozen=True):
    """How many contracts were sold, and what the tasks met."""

    sold: int
    contention: Contention


def check(store: ef.Store, limit: int | None = None, flow: Flow | None = None) -> Checked:
    """Compare trades with the second matcher, minutes with the source, and answer the audit questions."""
    flow, result = flow or Flow(limit), Checked()
    store.project(Minute)
    minutes = list(store.rows(Minute))
    compare(store, flow, minutes, result.comparison)
    moment = REWOUND_TO if flow.sent[-1].at > REWOUND_TO else flow.sent[len(flow.sent) // 2].at
    book = store.state(Book(NEAR), occurred_until=moment)
    result.figures = {each.type: each.count for each in store.types() if not each.type.startswith("$")}
    result.add(f"What happened: {flow.source}", report.counted(result.figures, minutes))
    result.add(
        f"The book of {NEAR} at {moment.astimezone(CHICAGO):%H:%M:%S.%f}"[:-3] + " in Chicago", report.ladder(book)
    )
    other = what_if(store, NEAR, pro_rata)
    if book.buy:
        found = story_of(store, book, moment)
        result.add(f"Order {found.order.order}: who was ahead of it, and what became of it", report.story(found, other))
    result.add("The same orders under another rule: pro-rata", report.differences(other))
    rushes = report.rushes(rush(), rush(False), OFFERED)
    result.add(f"{OFFERED} contracts are offered, and 32 members want one each", rushes)
    return result


def compare(store: ef.Store, flow: Flow, minutes: Sequence[Minute], comparison: Comparison) -> None:
    """Compare every trade, rejection and minute; and replay the orders in the log, which must make the same trades."""
    matcher = Matcher(LIMITS)
    expected = [trade for given in flow.sent for trade in matcher.apply(given)]
    query = ef.Query.of(types=[OrderTraded])
    traded: list[OrderTraded] = [recorded.event for recorded in store.read(query)]
    comparison.figures(
        lambda number: f"trade {number + 1}",
        dict(enumerate(MatchedTrade(each.maker, each.taker, each.price, each.size) for each in traded)),
        dict(enumerate(expected)),
    )
    refused = [each.event.order for each in store.read(ef.Query.of(types=[OrderRejected]))]
    comparison.figure("rejected orders", refused, matcher.rejected)
    for instrument in (NEAR, FAR):
        again = trades_again(store, instrument)
        comparison.figure(f"trades of {instrument}, replayed", trades_in(store, instrument) == again, True)
    comparison.figures(
        "volume and value of a minute",
        {(each.instrument, f"{each.minute.astimezone(UTC):%H:%M}"): (each.volume, each.value) for each in minutes},
        source_minutes(flow),
    )


def source_minutes(flow: Flow) -> dict[tuple[str, str], tuple[int, int]]:
    """Volume and value of each minute, asked of the source in SQL: of the file of real trades, or of the drawn ones."""
    found: dict[tuple[str, str], tuple[int, int]] = {}
    with connect() as db:
        for instrument in (NEAR, FAR):
            ticks = [each for each in flow.trades if each.instrument == instrument]
            if instrument == NEAR and flow.is_real:
                start = START.replace(tzinfo=None)
                given = {"path": str(source_path("emini")), "start": start, "trades": len(ticks)}
                rows = db.execute(_RECORDED, given).fetchall()
            else:
                db.execute("CREATE OR REPLACE TEMP TABLE ticks (moment TIMESTAMPTZ, price INTEGER, size INTEGER)")
                if ticks:
                    db.executemany("INSERT INTO ticks VALUES (?, ?, ?)", [(t.at, t.price, t.size) for t in ticks])
                rows = db.execute(_DRAWN).fetchall()
            found |= {(instrument, minute): (volume, value) for minute, volume, value in rows}
    return found


def story_of(store: ef.Store, book: Book, moment: datetime) -> OrderStory:
    """The last order of the longest queue among the best three bids: who is ahead of it, and what came of it."""
    levels = [list(orders) for _, orders in groupby(book.buy, key=lambda each: each.price)][:3]
    *ahead, last = max(levels, key=len)
    events = store.read(ef.Query.of(tags=[f"order:{last.order}"]), occurred_since=moment)
    return OrderStory(last, ahead, [each.event for each in events if not isinstance(each.event, OrderSubmitted)])


def rush(conditional: bool = True) -> Rush:
    """Let 32 members buy one of ten contracts at the same moment; `conditional` False: without decide's condition."""
    with tempfile.TemporaryDirectory(prefix="eventfold-rush-") as folder:
        url = str(Path(folder) / "rush.db")
        with ef.Store(url) as store:
            store.append(*[LimitSet(f"member-{n}", 10) for n in range(33)])
            store.decide(submit, Book("RUSH"), Account("member-0"), "offer", "sell", 100, OFFERED, START)
        orders = [(Book("RUSH"), Account(f"member-{n}"), f"bid-{n}", "buy", 100, 1, START, True) for n in range(1, 33)]
        result = contend(url, submit, orders, (), conditional=conditional)
        with ef.Store(url) as store:
            sold = store.count(ef.Query.of(types=[OrderTraded]))
        return Rush(sold, result)


if __name__ == "__main__":
    sys.exit(main("exchange", load, check))
