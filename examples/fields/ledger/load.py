"""The shop's invoices and credit notes as entries of a ledger, in the order in which they were written.

Each invoice is an entry: receivables against sales, carriage, vouchers and the shop's other accounts; a credit note is
its reverse. Payments are not in the source, and none are made up. A month is closed on the third of the next one.

Chosen, to have a month that was closed and corrected: the credit notes of the last days of June 2010 (`Late`) reach the
bookkeeper after June was closed; June is reopened for them on the sixth of July, and closed again.
What the rule refuses (a customer returns more than they bought since the file begins) goes to the suspense account.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple

import eventfold as ef
from eventfold.demo.fields import LoadCount, id_from, write
from eventfold.demo.shop.source import LONDON, Invoice, Line, fold, in_utc, invoices, is_goods
from examples.fields.ledger.app import (
    ZERO,
    AccountOpened,
    BalanceCarried,
    Books,
    Bought,
    Chart,
    Entry,
    EntryPosted,
    Period,
    PeriodClosed,
    Posting,
    Refused,
    close,
    post,
    reopen,
)

ACCOUNTS = (
    *("receivables", "sales", "carriage", "vouchers", "discounts", "samples", "charity", "bank-charges"),
    *("amazon-fee", "bad-debt", "manual", "adjustments", "suspense"),
)
_BY_CODE = {
    "POST": "carriage",
    "DOT": "carriage",
    "C2": "carriage",
    "C3": "carriage",
    "D": "discounts",
    "S": "samples",
    "CRUK": "charity",
    "BANK CHARGES": "bank-charges",
    "AMAZONFEE": "amazon-fee",
    "B": "bad-debt",
    "ADJUST": "adjustments",
    "ADJUST2": "adjustments",
}
FIRST_DAY = datetime(2009, 12, 1)
OVERLAP = (in_utc(datetime(2010, 12, 1)), in_utc(datetime(2010, 12, 10)))  # the days of both sheets
UNPRICED = "of corrections of the stock, without a price"


class Late(NamedTuple):
    """Credit notes from a day on to the end of its month, which arrive after the month was closed."""

    since: date = date(2010, 6, 29)
    booked: date = date(2010, 7, 6)

    def has(self, invoice: Invoice) -> bool:
        """Whether an invoice is one of them."""
        day = invoice.at.astimezone(LONDON).date()
        return invoice.is_credit and self.since <= day and month_of(day) == month_of(self.since)


LATE = Late()


class Ledger:
    """The states of the ledger while history is loaded. Each event is made by the same decisions as a live one."""

    def __init__(self, late: Late, count: LoadCount) -> None:
        self.late, self.count = late, count
        self.waiting: list[Invoice] = []
        self.known: dict[str, ef.Draft[Any]] = {}  # the entries of both sheets, for their second copies
        self.unpriced: set[str] = set()
        self.chart = Chart(ACCOUNTS)
        self.periods: dict[str, Period] = {}
        self.books: dict[str, Books] = {}
        self.customers: dict[str, Bought] = {}

    def drafts(self, given: Iterable[Invoice]) -> Iterator[tuple[ef.Draft[Any], int] | None]:
        """Yield the events of invoices, each with the number of rows that it stands for."""
        for account in ACCOUNTS:
            opened = AccountOpened(account)
            self.chart.evolve(opened)
            yield draft(opened, in_utc(FIRST_DAY), account), 0
        due = third_of_next(FIRST_DAY.date())
        for invoice in given:
            day = day_of(invoice)
            if invoice.number in self.known:
                yield self.known[invoice.number], len(invoice.lines)
                continue
            while day >= due:
                yield from self.close(month_of(due - timedelta(days=3)), due)
                due = third_of_next(due)
            if self.waiting and day >= self.late.booked:
                yield from self.book_late()
            if invoice.number in self.unpriced:
                self.count.repeated += len(invoice.lines)
            elif not invoice.is_priced:
                self.unpriced.add(invoice.number)
                self.count.reject(UNPRICED, len(invoice.lines))
            elif self.late.has(invoice):
                self.waiting.append(invoice)
            else:
                yield self.post(invoice), len(invoice.lines)
        for invoice in self.waiting:  # a limit ended the source before they are booked
            self.count.reject("of credit notes that arrive behind the limit", len(invoice.lines))

    def post(self, invoice: Invoice) -> ef.Draft[Any]:
        """The entry of an invoice; lines that the rule refuses are moved to suspense."""
        entry = entry_of(invoice)
        bought = None
        if entry.customer is not None:
            bought = self.customers.setdefault(entry.customer, Bought(entry.customer))
        period = self.periods.setdefault(entry.period, Period(entry.period))
        try:
            posted = post(self.chart, period, Entry(entry.entry), bought, entry)
        except Refused:
            assert bought is not None, entry
            moved = to_suspense(entry, bought.excess(entry.postings))
            posted = post(self.chart, period, Entry(entry.entry), bought, moved)
        if bought is not None:
            bought.evolve(posted)
        self.book(entry.period).evolve(posted)
        made = draft(posted, invoice.at, invoice.number)
        if OVERLAP[0] <= invoice.at <= OVERLAP[1]:
            self.known[invoice.number] = made
        return made

    def close(self, month: str, day: date) -> Iterator[tuple[ef.Draft[Any], int] | None]:
        """Close a month on a day, and carry its balances forward."""
        period, following = self.periods.setdefault(month, Period(month)), self.book(month_after(month))
        moment = in_utc(datetime(day.year, day.month, day.day))
        for number, event in enumerate(close(period, self.book(month), following)):
            if isinstance(event, PeriodClosed):
                period.evolve(event)
            elif isinstance(event, BalanceCarried):
                following.evolve(event)
            yield draft(event, moment, month, "close", day, number), 0
        yield None  # the append ends here, and with it the moment as of which the books were closed

    def book_late(self) -> Iterator[tuple[ef.Draft[Any], int] | None]:
        """Reopen the month of the late credit notes, book them, and close it again."""
        month, day = month_of(self.late.since), self.late.booked
        reopened = reopen(self.periods[month], f"{len(self.waiting)} credit notes arrived after the month was closed")
        self.periods[month].evolve(reopened)
        yield draft(reopened, in_utc(datetime(day.year, day.month, day.day)), month, "reopen"), 0
        for invoice in self.waiting:
            yield self.post(invoice), len(invoice.lines)
        self.waiting = []
        yield from self.close(month, day)

    def book(self, month: str) -> Books:
        """The books of a month."""
        return self.books.setdefault(month, Books(month))


def load(store: ef.Store, limit: int | None = None, late: Late = LATE) -> LoadCount:
    """Load the entries of the first `limit` lines of the source; what is in the log is not written again."""
    count = LoadCount()
    write(store, Ledger(late, count).drafts(invoices(count, limit)), count)
    return count


def draft(event: Any, occurred: datetime, *parts: object) -> ef.Draft[Any]:
    """An event with an id from the source, and who booked it."""
    identity = id_from(occurred, "ledger", type(event).__name__, *parts)
    return ef.Draft(event, id=identity, occurred=occurred, metadata={"actor": "bookkeeper"})


def entry_of(invoice: Invoice) -> EntryPosted:
    """The entry of an invoice or a credit note: one posting for each line, and the receivable against them."""
    lines = tuple(posting_of(line) for line in invoice.lines)
    receivable = Posting("receivables", -sum((each.amount for each in lines), ZERO))
    postings = (receivable, *lines)
    accounts = tuple(sorted({each.account for each in postings}))
    return EntryPosted(invoice.number, month_of(day_of(invoice)), invoice.customer, accounts, postings)


def posting_of(line: Line) -> Posting:
    """The posting of a line, on the account of its code; with code and pieces if it is one of goods."""
    if is_goods(line.code):
        return Posting("sales", -line.amount, fold(line.code), line.quantity)
    code = line.code.upper()
    return Posting(_BY_CODE.get(code, "vouchers" if code.startswith("GIFT") else "manual"), -line.amount)


def to_suspense(entry: EntryPosted, codes: set[str]) -> EntryPosted:
    """The entry with the postings of these codes on the suspense account."""
    postings = tuple(
        Posting("suspense", each.amount, each.code, each.quantity) if each.code in codes else each
        for each in entry.postings
    )
    accounts = tuple(sorted({each.account for each in postings}))
    return EntryPosted(entry.entry, entry.period, entry.customer, accounts, postings)


def day_of(invoice: Invoice) -> date:
    """The day of an invoice in London."""
    return invoice.at.astimezone(LONDON).date()


def month_of(day: date) -> str:
    """The period of a day."""
    return f"{day:%Y-%m}"


def month_after(month: str) -> str:
    """The period after a period."""
    return month_of(third_of_next(date.fromisoformat(f"{month}-01")))


def third_of_next(day: date) -> date:
    """The third day of the month after that of a day."""
    return date(day.year + day.month // 12, day.month % 12 + 1, 3)
