"""Checks the ledger: figures asked a second time of the source, rules asked of the log, and June 2010 then and now.

`python -m examples.fields.ledger.check` loads and checks; `journal` writes a period's postings as CSV, the format in
which tax authorities ask for them. Knows: the events, SQL. Does not know: how rows became events.
"""

from __future__ import annotations

import csv
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import eventfold as ef
from eventfold.demo.fields import Checked, connect, main
from eventfold.demo.fields.plot import bar_plot
from eventfold.demo.fields.report import bars, numbers, table
from eventfold.demo.shop.source import in_utc
from eventfold.demo.shop.source_sql import connect_lines
from examples.fields.ledger.app import (
    CARRIED,
    ZERO,
    AccountOpened,
    Booked,
    Books,
    Bought,
    Chart,
    Debtor,
    Entry,
    EntryPosted,
    EntryReversed,
    Period,
    PeriodClosed,
    PeriodReopened,
    Refused,
    TrialBalance,
    post,
)
from examples.fields.ledger.load import ACCOUNTS, LATE, Late, load, month_after, month_of

_ENTRIES = """
CREATE TABLE entry AS
WITH priced AS (
    SELECT invoice FROM line GROUP BY invoice HAVING bool_or(price <> 0)
), kinds AS (
    SELECT *, regexp_matches(upper(code), '^(\\d{5}|DCGS|SP1002|PADS)') AS goods,
           credit AND moment::DATE >= $since AND strftime(moment, '%Y-%m') = $month AS late
    FROM line SEMI JOIN priced USING (invoice)
)
SELECT invoice, moment, code, customer, quantity, amount, credit, goods, late, place,
       strftime(moment, '%Y-%m') AS period,
       CASE WHEN late THEN (SELECT min(place) FROM line WHERE moment::DATE >= $booked) - 0.5 ELSE place END AS booked
FROM kinds
WHERE NOT late OR (SELECT max(moment)::DATE FROM line) >= $booked
"""

# What the rule refuses, by a fold in SQL over each customer's pieces of a code, in the order of booking.
_REFUSED = """
CREATE TABLE refused AS
WITH goods AS (
    SELECT customer, upper(code) AS code, invoice, booked, place, quantity FROM entry WHERE goods AND customer <> ''
), moves AS (
    SELECT customer, code, invoice, booked, place, sum(quantity) AS pieces
    FROM goods SEMI JOIN (SELECT customer, code FROM goods WHERE quantity < 0) USING (customer, code) GROUP BY ALL
), lists AS (
    SELECT customer, code,
           list({'left': pieces::BIGINT, 'bad': [invoice]} ORDER BY booked, place) AS moves
    FROM moves GROUP BY ALL HAVING min(pieces) < 0
), folded AS (
    SELECT customer, code, list_reduce(
        list_prepend({'left': 0::BIGINT, 'bad': []::VARCHAR[]}, moves),
        lambda a, b: CASE WHEN b.left < 0 AND a.left + b.left < 0
                     THEN {'left': a.left, 'bad': list_concat(a.bad, b.bad)}
                     ELSE {'left': a.left + b.left, 'bad': a.bad} END
    ).bad AS bad FROM lists
)
SELECT customer, code, unnest(bad) AS invoice FROM folded
"""

_POSTINGS = """
CREATE TABLE posting AS
SELECT e.invoice, e.period, e.customer, e.moment, e.booked, -amount AS amount, quantity,
       CASE WHEN r.invoice IS NOT NULL THEN 'suspense' WHEN goods THEN 'sales'
            WHEN upper(e.code) IN ('POST', 'DOT', 'C2', 'C3') THEN 'carriage'
            WHEN e.code = 'D' THEN 'discounts' WHEN e.code = 'S' THEN 'samples' WHEN e.code = 'CRUK' THEN 'charity'
            WHEN e.code = 'BANK CHARGES' THEN 'bank-charges' WHEN e.code = 'AMAZONFEE' THEN 'amazon-fee'
            WHEN e.code = 'B' THEN 'bad-debt' WHEN e.code LIKE 'ADJUST%' THEN 'adjustments'
            WHEN lower(e.code) LIKE 'gift%' THEN 'vouchers' ELSE 'manual' END AS account
FROM entry AS e LEFT JOIN refused AS r
  ON goods AND r.customer = e.customer AND r.code = upper(e.code) AND r.invoice = e.invoice
UNION ALL
SELECT invoice, period, customer, moment, booked, sum(amount), 0, 'receivables' FROM entry GROUP BY ALL
"""


class Source:
    """The same books, from the lines of the source by SQL."""

    def __init__(self, limit: int | None, late: Late) -> None:
        self.db = connect_lines(limit)
        given = {"since": late.since, "booked": late.booked, "month": month_of(late.since)}
        self.db.execute(_ENTRIES, given)
        self.db.execute(_REFUSED)
        self.db.execute(_POSTINGS)

    def rows(self, sql: str, **given: Any) -> list[tuple[Any, ...]]:
        return self.db.execute(sql, given).fetchall()

    def one(self, sql: str, **given: Any) -> Any:
        return self.rows(sql, **given)[0][0]


def check(store: ef.Store, limit: int | None = None, late: Late = LATE) -> Checked:
    """Compare the ledger with the source, and show statements, suspense list, and the month that was corrected."""
    checked, source = Checked(), Source(limit, late)
    store.project(TrialBalance, Debtor)
    balances = store.rows(TrialBalance)
    _compare(checked, store, source, balances)
    _month_then_and_now(checked, store, source, late)
    _suspense(checked, store, source)
    _export(checked, store, month_of(late.since))
    for breach in breaches(store):
        checked.comparison.finding(breach, "in the log")
    statement = _statement(balances)
    checked.chapters.insert(0, ("Income by calendar year, £", statement))
    sales = {row.period: row.credit - row.debit for row in balances if row.account == "sales"}
    checked.add("Sales of goods by month, £", bars({month: round(sales[month]) for month in sorted(sales)}))
    checked.plot = bar_plot(
        "Sales of goods by month, less credit notes",
        "Sales rise every autumn and are highest in November; December 2011 ends on the ninth.",
        {month[2:]: float(sales[month]) for month in sorted(sales)},
        unit=" £",
        every=2,
    )
    return checked


def _compare(checked: Checked, store: ef.Store, source: Source, balances: list[TrialBalance]) -> None:
    compare = checked.comparison
    compare.figures(
        "debit and credit",
        {(row.period, row.account): (row.debit, row.credit) for row in balances},
        {
            (period, account): (debit, credit)
            for period, account, debit, credit in source.rows(
                "SELECT period, account, sum(greatest(amount, 0)), sum(greatest(-amount, 0)) FROM posting GROUP BY ALL"
            )
        },
    )
    compare.figures(
        "what a customer owes",
        {row.customer: row.owes for row in store.rows(Debtor)},
        dict(
            source.rows(
                "SELECT customer, sum(amount) FROM posting WHERE account = 'receivables' AND customer <> '' GROUP BY 1"
            )
        ),
    )
    months: defaultdict[str, Decimal] = defaultdict(Decimal)
    for row in balances:
        months[row.period] += row.debit - row.credit
    compare.figures("sum of a month's balances", months, dict.fromkeys(months, ZERO))
    last = max(months)
    closed = [month for month in sorted(months) if month < last]
    compare.figures(
        "receivables carried out of a month",
        {month: store.state(Books(month_after(month))).carried.get("receivables", ZERO) for month in closed},
        {
            month: source.one("SELECT sum(amount) FROM posting WHERE account = 'receivables' AND period <= $m", m=month)
            for month in closed
        },
    )
    owed = sum((row.debit - row.credit for row in balances if row.account == "receivables"), ZERO)
    figures = {
        "entries": store.count(ef.Query.of(types=[EntryPosted])),
        "months": len(months),
        "invoiced": source.one("SELECT sum(amount) FROM entry WHERE NOT credit"),
        "credited": source.one("SELECT sum(amount) FROM entry WHERE credit"),
        "receivable": owed,
    }
    compare.figure("receivables", owed, figures["invoiced"] + figures["credited"])
    checked.figures |= figures
    checked.add("The books", numbers(figures))


def _month_then_and_now(checked: Checked, store: ef.Store, source: Source, late: Late) -> None:
    """The month as its books stood when it was closed (`at`), beside what occurred in it as known now."""
    month = month_of(late.since)
    closings = list(store.read(ef.Query.of(types=[PeriodClosed], tags=[f"period:{month}"])))
    if not closings:
        checked.add(f"The month of {month}", ["It was not closed within these rows."])
        return
    closed = closings[0].position
    end = in_utc(datetime.fromisoformat(f"{month_after(month)}-01"))
    then, now = store.state(Books(month), at=closed), store.state(Books(month), occurred_until=end)
    arrived = list(store.read(ef.Query.of(types=[EntryPosted], tags=[f"period:{month}"]), after=closed))
    in_sql = {
        account: (before, after)
        for account, before, after in source.rows(
            "SELECT account, coalesce(sum(amount) FILTER (booked = floor(booked)), 0), sum(amount)"
            " FROM posting WHERE period = $m GROUP BY 1",
            m=month,
        )
    }
    both = {account: (then.balances.get(account, ZERO), now.balances[account]) for account in sorted(now.balances)}
    checked.comparison.figures(f"{month}, as closed and as corrected", both, in_sql)
    checked.comparison.figure(
        f"entries of {month} that were booked after it was closed",
        len(arrived),
        source.one("SELECT count(DISTINCT invoice) FROM entry WHERE late"),
    )
    rows = [(account, before, after, after - before) for account, (before, after) in both.items()]
    lines = table(("account", "as closed", "corrected", "difference"), rows)
    words = f"{len(arrived)} entries that occurred in {month} were recorded after it was closed, and it was reopened:"
    why = [each.event.why for each in store.read(ef.Query.of(types=[PeriodReopened], tags=[f"period:{month}"]))]
    checked.add(f"What the books of {month} said on the day they were closed", [*lines, "", words, *why])
    checked.figures["late_entries"] = len(arrived)


def _suspense(checked: Checked, store: ef.Store, source: Source) -> None:
    """The lines that the rule refused: returns of more pieces than the customer had bought."""
    found: list[tuple[str, str, str, int, Decimal]] = []
    for recorded in store.read(ef.Query.of(types=[EntryPosted], tags=["account:suspense"])):
        event: EntryPosted = recorded.event
        found += [
            (event.entry, event.customer or "", each.code, each.quantity, each.amount)
            for each in event.postings
            if each.account == "suspense"
        ]
    compare, total = checked.comparison, sum((each[4] for each in found), ZERO)
    compare.figure(
        "lines in suspense", len(found), source.one("SELECT count(*) FROM posting WHERE account = 'suspense'")
    )
    returned = source.one("SELECT count(*) FROM entry WHERE credit AND goods AND quantity < 0 AND customer <> ''")
    checked.figures |= {"suspense_lines": len(found), "suspense": total, "returned_lines": returned}
    largest = sorted(found, key=lambda each: -each[4])[:8]
    words = f"{len(found):,} of {returned:,} returned lines, £ {total:,.2f}: more than the customer had bought."
    lines = table(("credit note", "customer", "code", "pieces", "£"), largest)
    checked.add("Suspense: returns that the ledger cannot explain", [words, "", *lines])


def _statement(balances: list[TrialBalance]) -> list[str]:
    """Income less credit notes, by account and calendar year."""
    years = sorted({row.period[:4] for row in balances})
    sums: defaultdict[tuple[str, str], Decimal] = defaultdict(Decimal)
    for row in balances:
        if row.account not in CARRIED:
            sums[row.account, row.period[:4]] += row.credit - row.debit
            sums["together", row.period[:4]] += row.credit - row.debit
    accounts = [*[account for account in ACCOUNTS if account not in CARRIED], "together"]
    return table(("account", *years), [(account, *[sums[account, year] for year in years]) for account in accounts])


def journal(store: ef.Store, period: str, path: Path) -> int:
    """Write the postings of a period as CSV, in the order of booking; return their number."""
    count = 0
    with path.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(
            ("position", "entry", "occurred", "recorded", "customer", "account", "amount", "code", "pieces")
        )
        for recorded in store.read(ef.Query.of(types=[EntryPosted, EntryReversed], tags=[f"period:{period}"])):
            event: Booked = recorded.event
            first = (recorded.position, event.entry, recorded.occurred, recorded.time, event.customer)
            writer.writerows((*first, each.account, each.amount, each.code, each.quantity) for each in event.postings)
            count += len(event.postings)
    return count


def _export(checked: Checked, store: ef.Store, period: str) -> None:
    """Export a period's journal, and read it as an auditor would."""
    with tempfile.TemporaryDirectory(prefix="eventfold-ledger-") as folder:
        path = Path(folder) / f"{period}.csv"
        count = journal(store, period, path)
        read = connect().execute(
            "SELECT account, sum(amount::DECIMAL(18, 3)) FROM read_csv($path) GROUP BY 1", {"path": str(path)}
        )
        balances = dict(read.fetchall()) if count else {}
    checked.comparison.figures(f"exported journal of {period}", store.state(Books(period)).balances, balances)
    checked.add(
        "Export", [f"The journal of {period}: {count:,} postings as CSV, which sum to {sum(balances.values())}."]
    )


def breaches(store: ef.Store) -> Iterator[str]:
    """Decide every entry of the log again, in order: a sentence for each that the ledger would have refused."""
    chart, posted = Chart(ACCOUNTS), set[str]()
    periods: dict[str, Period] = {}
    customers: dict[str, Bought] = {}
    for recorded in store.read():
        match event := recorded.event:
            case AccountOpened():
                chart.evolve(event)
            case PeriodClosed() | PeriodReopened():
                periods.setdefault(event.period, Period(event.period)).evolve(event)
            case EntryPosted() | EntryReversed():
                bought = customers.setdefault(event.customer, Bought(event.customer)) if event.customer else None
                period = periods.setdefault(event.period, Period(event.period))
                entry = Entry(event.entry)
                if isinstance(event, EntryPosted):
                    if event.entry in posted:
                        entry.evolve(event)
                    try:
                        post(chart, period, entry, bought, event)
                    except Refused as refused:
                        yield f"event {recorded.position:,}: {refused}"
                    posted.add(event.entry)
                if bought is not None:
                    bought.evolve(event)
            case _:  # BalanceCarried: nothing is posted
                pass


if __name__ == "__main__":
    sys.exit(main("ledger", load, check))
