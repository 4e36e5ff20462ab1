"""The shop demonstration: two years of a wholesaler of giftware as events, and what only its past can answer.

`run` is the whole demonstration. The classes are for reading the log from the command line: `eventfold.demo.shop:Stock`
and others. Knows: the steps. Does not know: how the command line is parsed.

`source.py` describes the invoices and their traps; `load.py` says which part of the stock a policy makes.
"""

from __future__ import annotations

import sys

import eventfold as ef
from eventfold.demo.shop.app import Bought, Order, Prices, Stock
from eventfold.demo.shop.events import (
    GoodsReturned,
    OrderCancelled,
    OrderLineChanged,
    OrderPlaced,
    PartReleased,
    PartReserved,
    PaymentAuthorised,
    PaymentCaptured,
    PaymentRefunded,
    PaymentRefused,
    PaymentRequested,
    PaymentTimedOut,
    PricesSet,
    StockCorrected,
    StockReceived,
    StockShipped,
)
from eventfold.demo.shop.payment import Payment
from eventfold.demo.shop.tables import Revenue, Sold, Spent
from eventfold.errors import InvalidInput

DATABASE = "shop.db"


def run(db: str | None = None, limit: int | None = None, as_json: bool = False) -> int:
    """Load the invoices into `db` (or continue an earlier load), report what the log says, and check every figure.

    `limit`: only the first lines of the source. `as_json`: print one JSON object in place of the report. Returns 0, or
    1 if any figure differs from the source's. Raises EventfoldErrors: DataMissing with the command that fetches the
    source, DataChanged, MissingExtra, and InvalidInput if the store has other events; it is never overwritten.
    """
    if limit is not None and limit < 1:
        raise InvalidInput(f"The limit is {limit}.", "Give 1 or more lines.", limit=limit)
    import msgspec

    from eventfold.demo.data import source_path
    from eventfold.demo.fields import connect
    from eventfold.demo.fields.run import Measured, facts_of, peak_memory, report_lines, size_of
    from eventfold.demo.shop.check import check
    from eventfold.demo.shop.load import load
    from eventfold.demo.shop.report import counting, explore
    from eventfold.demo.shop.source import SOURCE

    source_path(SOURCE)  # before a store is created, so that missing data or a missing extra leaves no empty store
    connect().close()
    measured, url = Measured(), db or DATABASE
    with ef.Store(url) as store:
        _refuse_others(store, url)
        with measured.step("load"), counting() as progress:
            count = load(store, limit, progress)
        with measured.step("check"):
            checked = check(store, limit)
    measured.memory, measured.size = peak_memory(), size_of(url)
    if as_json:
        sys.stdout.write(msgspec.json.encode(facts_of("shop", count, checked, measured)).decode() + "\n")
    else:
        sys.stdout.write("\n".join([*report_lines("shop", count, checked, measured), *explore(url, checked)]) + "\n")
    return 1 if checked.comparison.mismatches or not count.is_complete else 0


def _refuse_others(store: ef.Store, url: str) -> None:
    """Raise InvalidInput if the store has events that are not the shop's."""
    first = next(iter(store.read(limit=1, raw=True)), None)
    if first is not None and not first.type.startswith("shop."):
        what = f"The store {url} has other events (the first one is {first.type})."
        raise InvalidInput(what, "Name another file with --db; this one was not changed.", type=first.type)


__all__ = [
    "DATABASE",
    "Bought",
    "GoodsReturned",
    "Order",
    "OrderCancelled",
    "OrderLineChanged",
    "OrderPlaced",
    "PartReleased",
    "PartReserved",
    "Payment",
    "PaymentAuthorised",
    "PaymentCaptured",
    "PaymentRefunded",
    "PaymentRefused",
    "PaymentRequested",
    "PaymentTimedOut",
    "Prices",
    "PricesSet",
    "Revenue",
    "Sold",
    "Spent",
    "Stock",
    "StockCorrected",
    "StockReceived",
    "StockShipped",
    "run",
]
