"""The exchange demonstration: real trades of a future as orders that match, a book rewound to a millisecond.

`run` is the whole demonstration. The classes are for reading the log from the command line:
`eventfold.demo.exchange:Book` and others. Knows: the steps. Does not know: how the command line is parsed.

`ticks.py` describes the trades, which are drawn if the file of real ones is not here; `orders.py` how the orders around
them are drawn.
"""

from __future__ import annotations

import sys

import eventfold as ef
from eventfold.demo.exchange.app import Account, Book, Minute, Trade
from eventfold.demo.exchange.events import (
    LimitSet,
    OrderCancelled,
    OrderRejected,
    OrderSubmitted,
    OrderTraded,
    SessionOpened,
    TradeBusted,
    TradingHalted,
    TradingResumed,
)
from eventfold.errors import InvalidInput

DATABASE = "exchange.db"


def run(db: str | None = None, limit: int | None = None, drawn: bool = False, as_json: bool = False) -> int:
    """Send orders to the exchange, or continue an earlier run, ask the log, and check every trade.

    `limit`: how many orders and cancellations (default: 20,000), in steps of 50. `drawn`: draw the trades, also if the
    file of real ones is here. `as_json`: print one JSON object in place of the report. Returns 0, or 1 if any figure
    differs. Raises EventfoldErrors: MissingExtra, DataChanged, and InvalidInput if the store has other events.
    """
    if limit is not None and limit < 1:
        raise InvalidInput(f"The limit is {limit}.", "Give 1 or more orders.", limit=limit)
    import msgspec

    from eventfold.demo.exchange.check import check
    from eventfold.demo.exchange.load import Flow, load
    from eventfold.demo.exchange.report import explore
    from eventfold.demo.fields import connect
    from eventfold.demo.fields.run import Measured, facts_of, peak_memory, report_lines, size_of

    connect().close()  # before a store is created, so that a missing extra leaves no empty store
    measured, url = Measured(), db or DATABASE
    with measured.step("draw orders"):
        flow = Flow(limit, False if drawn else None)
    with ef.Store(url) as store:
        with measured.step("load"):
            count = load(store, limit, flow)
        with measured.step("check"):
            checked = check(store, limit, flow)
    measured.memory, measured.size = peak_memory(), size_of(url)
    if as_json:
        sys.stdout.write(msgspec.json.encode(facts_of("exchange", count, checked, measured)).decode() + "\n")
    else:
        sys.stdout.write(
            "\n".join([*report_lines("exchange", count, checked, measured), *explore(url, flow.is_real)]) + "\n"
        )
    return 1 if checked.comparison.mismatches or not count.is_complete else 0


__all__ = [
    "DATABASE",
    "Account",
    "Book",
    "LimitSet",
    "Minute",
    "OrderCancelled",
    "OrderRejected",
    "OrderSubmitted",
    "OrderTraded",
    "SessionOpened",
    "Trade",
    "TradeBusted",
    "TradingHalted",
    "TradingResumed",
    "run",
]
