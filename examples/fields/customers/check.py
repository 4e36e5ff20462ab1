# pyright: basic, reportMissingTypeStubs=false
# The libraries for tables and training have no types.
"""Checks customers and predictions: by SQL in the file, by the table that others computed, and by what came afterwards.

`python -m examples.fields.customers.check` loads and checks; `export` writes what was known on a day as Parquet.
Knows: the events, SQL, Arrow. Does not know: how rows became events.
"""

from __future__ import annotations

import csv
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

import eventfold as ef
from eventfold.demo.data import open_source, unpack
from eventfold.demo.fields import Checked, connect, main
from eventfold.demo.fields.plot import line_plot
from eventfold.demo.fields.report import numbers, table
from examples.fields.customers.app import (
    Customer,
    Known,
    Model,
    ModelPromoted,
    ModelRetired,
    ModelTrained,
    PredictionsScored,
    ProfilingObjected,
    PurchaseMade,
    PurchasesPredicted,
    Refused,
    Value,
    predict,
)
from examples.fields.customers.load import AHEAD_DAYS, END, MODEL, TRAINED, load

_PURCHASES = """
CREATE TABLE purchase AS
SELECT line[2:6] AS customer, strptime(line[8:15], '%Y%m%d')::DATE AS day, line[16:18]::INTEGER AS discs,
       trim(line[19:])::DECIMAL(12, 2) AS value
FROM (SELECT unnest(string_split(content, chr(10))) AS line FROM read_text($path))
WHERE regexp_matches(line, '^ \\d{5} ')
"""
_KNOWN = """
SELECT customer, count(DISTINCT day) - 1 AS frequency, min(day) AS first, max(day) AS last
FROM purchase WHERE day <= $until GROUP BY 1
"""
_AFTER = """
SELECT customer, count(DISTINCT day) FILTER (day > $until) FROM purchase GROUP BY 1
"""


def check(store: ef.Store, limit: int | None = None) -> Checked:
    """Compare customers with the file, features with the published table, and predictions with what came."""
    checked = Checked()
    with tempfile.TemporaryDirectory(prefix="eventfold-customers-") as folder:
        db = connect()
        path = unpack("cdnow", Path(folder), None if limit is None else limit + 1)
        db.execute(_PURCHASES, {"path": str(path)})
        store.project(Value)
        customers = known_customers(store)
        _totals(checked, store, db)
        _features(checked, customers, db, Path(folder))
        _published(checked, customers)
        _predictions(checked, store, customers, db)
    for breach in breaches(store):
        checked.comparison.finding(breach, "in the log")
    return checked


def known_customers(store: ef.Store) -> dict[str, Customer]:
    """The state of every customer, by one pass over the log."""
    found: dict[str, Customer] = {}
    for recorded in store.read(ef.Query.of(types=[PurchaseMade, PurchasesPredicted, ProfilingObjected])):
        name = recorded.event.customer
        found.setdefault(name, Customer(name)).evolve(recorded.event)
    return found


def _totals(checked: Checked, store: ef.Store, db: Any) -> None:
    rows = store.rows(Value)
    checked.comparison.figures(
        "bought by customer",
        {row.customer: (row.purchases, row.discs, row.spent) for row in rows},
        {
            customer: tuple(rest)
            for customer, *rest in db.execute(
                "SELECT customer, count(*), sum(discs), sum(value) FROM purchase GROUP BY 1"
            ).fetchall()
        },
    )
    figures = {
        "purchases": sum(row.purchases for row in rows),
        "customers": len(rows),
        "dollars": sum((row.spent for row in rows), Decimal(0)),
    }
    checked.figures |= figures
    checked.add("Purchases", numbers(figures))


def export(customers: Iterable[Customer], until: date, path: Path) -> int:
    """Write what was known of customers on a day as Parquet: the table that a model is trained on. Return its rows."""
    known = [(each.customer, each.known(until)) for each in customers if each.days and each.days[0] <= until]
    columns = {
        "customer": [name for name, _ in known],
        "frequency": [each.frequency for _, each in known],
        "first": [each.first for _, each in known],
        "last": [each.last for _, each in known],
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return len(known)


def _features(checked: Checked, customers: dict[str, Customer], db: Any, folder: Path) -> None:
    """What was known on the model's day, through Parquet, against the file."""
    path = folder / "features.parquet"
    count = export(customers.values(), TRAINED, path)
    exported = connect().execute("SELECT * FROM read_parquet($path)", {"path": str(path)}).fetchall()
    checked.comparison.figures(
        f"known on {TRAINED} of",
        {row[0]: tuple(row[1:]) for row in exported},
        {row[0]: tuple(row[1:]) for row in db.execute(_KNOWN, {"until": TRAINED}).fetchall()},
    )
    checked.figures["features"] = count


def _published(checked: Checked, customers: dict[str, Customer]) -> None:
    """The table of `lifetimes`, made by others for a tenth of the customers: frequency, recency and age in weeks."""
    with open_source("cdnow-sample") as opened:
        names = {int(number): name for name, number, *_ in (line.decode().split() for line in opened)}
    with open_source("cdnow-summary") as opened:
        rows = list(csv.DictReader(opened.read().decode().splitlines()))
    there = [row for row in rows if names[int(row["ID"])] in customers]
    complete = [row for row in there if names[int(row["ID"])] != max(customers)]  # a limit may cut the last customer
    known = {row["ID"]: customers[names[int(row["ID"])]].known(TRAINED) for row in complete}
    checked.comparison.figures(
        "frequency, recency and age of",
        {name: (each.frequency, f"{each.recency_weeks:.2f}", f"{each.age_weeks:.2f}") for name, each in known.items()},
        {
            row["ID"]: (int(row["frequency"]), f"{float(row['recency']):.2f}", f"{float(row['T']):.2f}")
            for row in complete
        },
    )
    checked.figures["published_rows"] = len(complete)


def _predictions(checked: Checked, store: ef.Store, customers: dict[str, Customer], db: Any) -> None:
    """The predictions beside what came, a naive forecast, and a model that was shown the future."""
    predicted = {
        recorded.event.customer: recorded.event.expected
        for recorded in store.read(ef.Query.of(types=[PurchasesPredicted], tags=[f"model:{MODEL}"]))
    }
    if not predicted:
        return
    came = dict(db.execute(_AFTER, {"until": TRAINED}).fetchall())
    naive = {name: each.known(TRAINED) for name, each in customers.items() if name in predicted}
    leaky = leaky_forecast(naive, customers)
    forecasts = {
        "this model, as of its day": predicted,
        "as often as before": {name: each.frequency * AHEAD_DAYS / max(1, _age(each)) for name, each in naive.items()},
        "shown the future (leakage)": leaky,
    }
    rows = [(name, *_score(forecast, came)) for name, forecast in forecasts.items()]
    checked.figures["scores"] = {name: {"mean_error": error, "top": top} for name, error, _, top in rows}
    lines = table(("forecast", "mean error", "in all", "top tenth buys"), rows)
    total = sum(came[name] for name in predicted)
    words = f"{total:,} days with a purchase of {len(predicted):,} customers came in {AHEAD_DAYS} days after {TRAINED}."
    checked.add("What was predicted, and what came", [words, "", *lines])
    deciles = _deciles(predicted, came)
    checked.add(
        "Calibration: customers by what was expected of them, a tenth at a time",
        table(("tenth", "expected", "came"), [(number + 1, *each) for number, each in enumerate(deciles)]),
    )
    checked.comparison.figure("the score that was recorded", _recorded_score(store), round(rows[0][1], 6))
    checked.plot = line_plot(
        "Purchases in nine months, by tenths of customers",
        "What the model expected of each tenth of customers, and what came: more is expected than came.",
        {
            "expected": [(number, expected) for number, (expected, _) in enumerate(deciles, 1)],
            "came": [(number, mean) for number, (_, mean) in enumerate(deciles, 1)],
        },
        labels={number: str(number) for number in range(1, 11)},
    )


def _age(known: Known) -> int:
    return (known.until - known.first).days


def _recorded_score(store: ef.Store) -> float | None:
    for recorded in store.read(ef.Query.of(types=[PredictionsScored], tags=[f"model:{MODEL}"])):
        return recorded.event.mean_error
    return None


def leaky_forecast(naive: dict[str, Known], customers: dict[str, Customer]) -> dict[str, float]:
    """The mistake: the cells are made with what was known at the end, so the answer is among the features."""
    sums: defaultdict[str, list[int]] = defaultdict(list)
    for name in naive:
        sums[customers[name].known(END).cell].append(sum(day > TRAINED for day in customers[name].days))
    means = {cell: sum(counts) / len(counts) for cell, counts in sums.items()}
    return {name: means[customers[name].known(END).cell] for name in naive}


def _score(forecast: dict[str, float], came: dict[str, int]) -> tuple[float, float, float]:
    """Mean error of a customer, purchases expected in all, and the share of purchases that the top tenth makes."""
    error = sum(abs(came[name] - expected) for name, expected in forecast.items()) / len(forecast)
    top = sorted(forecast, key=lambda name: (-forecast[name], name))[: max(1, len(forecast) // 10)]
    total = sum(came[name] for name in forecast)
    return error, sum(forecast.values()), sum(came[name] for name in top) / max(1, total)


def _deciles(predicted: dict[str, float], came: dict[str, int]) -> list[tuple[float, float]]:
    """For each tenth of customers, from those of whom least is expected: the means of what was expected and came."""
    ordered = sorted(predicted, key=lambda name: (predicted[name], name))
    parts = [ordered[len(ordered) * number // 10 : len(ordered) * (number + 1) // 10] for number in range(10)]
    return [
        (sum(predicted[name] for name in part) / len(part), sum(came[name] for name in part) / len(part))
        for part in parts
        if part
    ]


def breaches(store: ef.Store) -> Iterator[str]:
    """Decide every prediction of the log again, from the purchases before it: a sentence for each that differs."""
    customers: dict[str, Customer] = {}
    models: dict[str, Model] = {}
    for recorded in store.read():
        match event := recorded.event:
            case ModelTrained() | ModelPromoted() | ModelRetired():
                models.setdefault(event.model, Model(event.model)).evolve(event)
            case PurchaseMade() | ProfilingObjected():
                customers.setdefault(event.customer, Customer(event.customer)).evolve(event)
            case PurchasesPredicted():
                model = models.setdefault(event.model, Model(event.model))
                customer = customers.setdefault(event.customer, Customer(event.customer))
                try:
                    if not customer.days:
                        raise Refused(f"customer {event.customer} has bought nothing")
                    if predict(model, customer, customer.known(event.until), event.days) != event:
                        raise Refused(f"model {event.model} expects something else of {event.customer}")
                except Refused as refused:
                    yield f"event {recorded.position:,}: {refused}"
                customer.evolve(event)
            case _:
                continue


if __name__ == "__main__":
    sys.exit(main("customers", load, check))
