"""Checks the warehouse: every product's account a second time from the source, and every lot by another way.

    python -m examples.fields.warehouse.check [--store URL] [--limit N]

Knows: the source in SQL, the questions of the trade. Does not know: how events were decided. The other way: if the
oldest lot leaves first, the n-th unit that left is the n-th that came. Two running totals and a join give what each
lot has left, and who got units of it, without a shelf.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

import eventfold as ef
from eventfold.demo.data import unpack
from eventfold.demo.fields import Checked, connect, main, report
from eventfold.demo.fields.plot import line_plot
from examples.fields.warehouse.app import LineBackordered, Lot, Stock, StockWrittenOff
from examples.fields.warehouse.load import SECOND_SHEET, SOURCE, load, read_moves
from examples.fields.warehouse.supply import CLOSED, Move, Warehouse, supplier_of

AUDITED = (("85123A-091214", datetime(2010, 2, 15, tzinfo=UTC)), ("OPEN-85123A", datetime(2009, 12, 5, tzinfo=UTC)))

_MOVES = """
CREATE TABLE moves AS
WITH lines AS (
    SELECT *, row_number() OVER () AS number FROM read_csv($file, all_varchar = true, parallel = false)
)
SELECT number, Invoice AS document, upper(StockCode) AS product, Quantity::INTEGER AS units,
       coalesce(split_part("Customer ID", '.', 1), '') AS customer, Price::DECIMAL(12, 3) <> 0 AS is_sale,
       strptime(InvoiceDate, '%m/%d/%Y %H:%M') AT TIME ZONE 'Europe/London' AS moment
FROM lines
WHERE (number <= $second OR Invoice NOT IN (SELECT Invoice FROM lines WHERE number <= $second))
  AND regexp_full_match(upper(StockCode), '[0-9]{5}[A-Z]{0,2}') AND regexp_full_match(Invoice, '[0-9]+')
  AND CASE WHEN Price::DECIMAL(12, 3) = 0 THEN "Customer ID" IS NULL ELSE Quantity::INTEGER > 0 END
"""

_ACCOUNTS = """
SELECT product, coalesce(sum(units) FILTER (is_sale), 0)::BIGINT,
       coalesce(sum(units) FILTER (NOT is_sale AND units > 0), 0)::BIGINT,
       coalesce(-sum(units) FILTER (NOT is_sale AND units < 0), 0)::BIGINT
FROM moves GROUP BY product
"""

# What each lot has left, if `gone` units of its product left and the oldest went first.
_LEFT = """
WITH came AS (
    SELECT *, sum(units) OVER (PARTITION BY product ORDER BY number) AS total FROM read_csv($lots, header = true)
)
SELECT lot, (units - greatest(0, least(units, gone - (total - units))))::BIGINT
FROM came JOIN read_csv($gone, header = true) USING (product)
"""

# Whose lines fall between the first and the last unit of a lot, if all units that left stand in a row.
_WHO = """
WITH gone AS (
    SELECT number, customer, moves.document, moment, is_sale,
           CASE WHEN is_sale THEN moves.units ELSE coalesce(off.units, 0) END AS units
    FROM moves LEFT JOIN read_csv($off, header = true) AS off ON off.document = moves.document
    WHERE product = $product AND (is_sale OR moves.units < 0)
), placed AS (
    SELECT *, sum(units) OVER (ORDER BY moment, number) AS total FROM gone
), parts AS (
    SELECT *, least(total, $last) - greatest(total - units, $first) AS part FROM placed
)
SELECT customer, sum(part)::BIGINT, list(DISTINCT document)
FROM parts WHERE part > 0 AND is_sale AND moment <= $until GROUP BY customer
"""


class Flows(msgspec.Struct):
    """One pass over the log, without any shelf: what each lot received and has left, and what breaks a rule."""

    received: dict[str, tuple[str, int]] = {}
    left: dict[str, int] = {}
    waited: dict[tuple[str, str], int] = {}
    breaches: list[str] = []


class _Fields(msgspec.Struct):
    """The fields of any event of the warehouse that the pass needs."""

    product: str
    units: int = 0
    lot: str = ""


def follow(store: ef.Store) -> Flows:
    """Read all events in order, and keep the balance of each lot."""
    flows, decode, recalled = Flows(), msgspec.json.Decoder(_Fields).decode, set[str]()
    moving = ef.Query.of(
        types=["LotReceived", "StockFound", "LineShipped", "StockWrittenOff", "LotRecalled", "LineBackordered"]
    )
    for recorded in store.read(moving, raw=True):
        event, kind = decode(recorded.event.data), recorded.event.type
        match kind:
            case "LotReceived" | "StockFound":
                flows.received[event.lot] = (event.product, event.units)
                flows.left[event.lot] = flows.left.get(event.lot, 0) + event.units
            case "LotRecalled":
                recalled.add(event.lot)
            case "LineBackordered":
                month = f"{recorded.occurred:%Y-%m}"
                key = (supplier_of(event.product), month)
                flows.waited[key] = flows.waited.get(key, 0) + event.units
            case _:
                flows.left[event.lot] = there = flows.left.get(event.lot, 0) - event.units
                if there < 0:
                    flows.breaches.append(
                        f"{-there:,} units more than lot {event.lot} had left it (event {recorded.position})"
                    )
                if event.lot in recalled and kind == "LineShipped":
                    flows.breaches.append(f"recalled lot {event.lot} was shipped (event {recorded.position})")
    return flows


def check(store: ef.Store, limit: int | None = None) -> Checked:
    """Ask every figure twice, and answer the questions of the trade."""
    store.project(Stock)
    checked, stock, flows = Checked(), {row.product: row for row in store.rows(Stock)}, follow(store)
    with tempfile.TemporaryDirectory(prefix="eventfold-warehouse-") as folder:
        _compare(checked, store, stock, flows, Path(folder), limit)
    for breach in flows.breaches:
        checked.comparison.finding(breach, True)
    _totals(checked, stock, flows)
    _what_if(checked, stock, flows, read_moves(limit))
    return checked


def _compare(
    checked: Checked, store: ef.Store, stock: dict[str, Stock], flows: Flows, folder: Path, limit: int | None
) -> None:
    """Compare accounts, lots, and who has the audited lot, with what SQL finds in the source."""
    db, compare = connect(100), checked.comparison
    db.execute(f"SET temp_directory = '{folder}'")
    file = unpack(SOURCE, folder, None if limit is None else limit + 1)
    db.execute(_MOVES, {"file": str(file), "second": SECOND_SHEET})
    accounts = {product: figures for product, *figures in db.execute(_ACCOUNTS).fetchall()}
    sold = {name: row.shipped + row.backordered - row.released for name, row in stock.items()}
    compare.figures("units shipped or waiting", sold, {name: each[0] for name, each in accounts.items()})
    compare.figures(
        "units found",
        {name: row.found for name, row in stock.items()},
        {name: each[1] for name, each in accounts.items()},
    )
    gone = {name: row.written_off + row.exceeded for name, row in stock.items()}
    compare.figures("units written off", gone, {name: each[2] for name, each in accounts.items()})
    lots = _csv(
        folder / "lots.csv",
        "number,lot,product,units",
        ((number, lot, *what) for number, (lot, what) in enumerate(flows.received.items())),
    )
    out = _csv(
        folder / "gone.csv", "product,gone", ((name, row.shipped + row.written_off) for name, row in stock.items())
    )
    compare.figures("units left of lot", flows.left, dict(db.execute(_LEFT, {"lots": lots, "gone": out}).fetchall()))
    name, until = (
        next((lot, until) for lot, until in AUDITED if store.tag(f"lot:{lot}").count)
        if store.tag(f"lot:{AUDITED[1][0]}").count
        else AUDITED[0]
    )
    _trace(checked, store, db, flows, folder, name, until)
    db.close()


def _trace(checked: Checked, store: ef.Store, db: Any, flows: Flows, folder: Path, name: str, until: datetime) -> None:
    """Who had units of a lot then, and who has them in the end."""
    product, units = flows.received.get(name, ("", 0))
    first = 0
    for lot, (of, there) in flows.received.items():
        if lot == name:
            break
        first += there if of == product else 0
    off: Counter[str] = Counter()
    for recorded in store.read(ef.Query.of(types=[StockWrittenOff], tags=[f"product:{product}"])):
        off[recorded.event.document] += recorded.event.units
    taken = _csv(folder / "off.csv", "document,units", off.items())
    lines: list[tuple[str, int, int, int, int]] = []
    for moment, words in ((until, f"on {until:%d %B %Y}"), (datetime(2012, 1, 1, tzinfo=UTC), "in the end")):
        lot = store.state(Lot(name), occurred_until=moment)
        given = {"off": taken, "product": product, "first": first, "last": first + units, "until": moment}
        rows = db.execute(_WHO, given).fetchall()
        checked.comparison.figures(
            f"units of {name} {words}", lot.customers, {customer: part for customer, part, _ in rows}
        )
        checked.comparison.figure(
            f"orders with {name} {words}", lot.orders, {order for *_, orders in rows for order in orders}
        )
        known = len(lot.customers.keys() - {""})
        total = sum(lot.customers.values())
        lines.append((words, known, len(lot.orders), total, lot.customers.get("", 0)))
        checked.figures[f"{name} {words}"] = lines[-1][1:]
    head = ("", "customers", "orders", "units", "to unknown")
    checked.add(f"Who has lot {name}, of {units:,} units?", report.table(head, lines))


def _csv(path: Path, head: str, rows: Any) -> str:
    """Write rows that DuckDB reads; no value has a comma."""
    with path.open("w") as written:
        written.write(head + "\n")
        written.writelines(",".join(map(str, row)) + "\n" for row in rows)
    return str(path)


def _totals(checked: Checked, stock: dict[str, Stock], flows: Flows) -> None:
    """The account of the whole warehouse."""
    total = {name: sum(getattr(row, name) for row in stock.values()) for name in Stock.__struct_fields__[1:]}
    total["open"] = total["backordered"] - total["released"]
    total["on_hand"] = sum(flows.left.values())
    total["lots"] = sum(not lot.startswith("FOUND-") for lot in flows.received)
    total["least_left"] = min(flows.left.values(), default=0)
    there = total["received"] + total["found"] - total["shipped"] - total["written_off"]
    checked.comparison.figure("received + found - shipped - written off", total["on_hand"], there)
    checked.figures |= total
    checked.add("The account, in units", report.numbers(total))


def _what_if(checked: Checked, stock: dict[str, Stock], flows: Flows, moves: Sequence[Move]) -> None:
    """Which lines waited because a supplier was closed: the history of its products again, without the closure.

    The products of other suppliers do not depend on it, since each order draws from a seed of its own.
    """
    had: Counter[str] = Counter()
    for row in stock.values():
        had[supplier_of(row.product)] += row.backordered
    without, months = Counter[str](), defaultdict[str, int](int)
    concerned = [move for move in moves if supplier_of(move.product) in CLOSED]
    for at, events, _ in Warehouse(concerned, closed={}).history():
        for event in events:
            if isinstance(event, LineBackordered):
                without[supplier_of(event.product)] += event.units
                months[f"{at:%Y-%m}"] += event.units
    late = {name: had[name] - without[name] for name in CLOSED}
    checked.add("Units that had to wait, by supplier", report.bars(dict(sorted(had.items()))))
    rows = [(name, had[name], without[name], units) for name, units in late.items()]
    head = ("closed", "units", "without the closure", "because of it")
    checked.add("What is late because a supplier closed?", report.table(head, rows))
    checked.figures |= {"waited": dict(had), "waited without the closure": dict(without)}
    names = sorted({month for _, month in flows.waited} | months.keys())
    checked.plot = line_plot(
        "Units that had to wait for supplier S5",
        "Two lines over the months: the history, and the history without the closure from 11 March to 10 May 2011.",
        {
            "as it was": [(number, flows.waited.get(("S5", month), 0)) for number, month in enumerate(names)],
            "without the closure": [(number, months.get(month, 0)) for number, month in enumerate(names)],
        },
        labels={number: month for number, month in enumerate(names) if number % 3 == 0},
    )


if __name__ == "__main__":
    sys.exit(main("warehouse", load, check))
